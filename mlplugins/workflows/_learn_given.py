"""Labels that the frames of a loop come with: taken as they are, once they are known to be of its code."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

import numpy as np
from ase import Atoms

from mlplugins import files
from mlplugins.errors import BadInput
from mlplugins.labels import LabelStore, label, settings_of
from mlplugins.structures import dataset
from mlplugins.workflows._learn_config import RECORD
from mlplugins.workflows._learn_round import Loop, Waiting

CHECKED = "_checked.json"
SAME_ENERGY, SAME_FORCES = 0.01, 0.1
"""Differences (eV per atom, RMS in eV/Å) of labels of one level of theory, with other cutoffs and grids."""


def given_labels(loop: Loop, start: Sequence[Atoms], test: Sequence[Atoms]) -> None:
    """Take the labels of the frames that are said to have them, once they are known to be of the code.

    Raises:
        BadInput, Waiting: see `_require_same_level`.
    """
    section = loop.config.test_section
    given = {"start": start} if loop.config.start.labelled else {}
    given |= {"test": test} if section and section.labelled else {}
    for name, frames in given.items():
        _require_same_level(loop, frames, name)
    for name, frames in given.items():
        _import_labels(loop, frames, name)


def _import_labels(loop: Loop, frames: Sequence[Atoms], section: str) -> None:
    """Put the labels that frames have into the store."""
    store = LabelStore(loop.folder / "labels")
    store.open(settings_of(loop.config.labels, "labels"))
    for number, atoms in enumerate(frames):
        name = store.add(atoms)
        if not store.is_done(name):
            labelled = _labels_of(atoms, number, section).to_atoms()
            labelled.info |= {"label_hash": name, "label_code": f"{section}.frames", "label_cpu_s": 0.0}
            store.put(name, labelled)


def _labels_of(atoms: Atoms, number: int, section: str) -> dataset.Structure:
    structure = dataset.from_atoms(atoms, origin=f"{section} frame {number}")
    if structure.energy is None or structure.forces is None:
        raise BadInput(f"{structure.origin}: '{section}.labelled' is true, but it has no energy or no forces")
    return structure


def _require_same_level(loop: Loop, frames: Sequence[Atoms], section: str) -> None:
    """Label one of the frames again: all labels of a loop are of one level of theory.

    Raises:
        BadInput: the labels of the frame differ from those of the code; nothing of them is kept then.
        Waiting: a job is to do it.
    """
    done = loop.folder / f"{section}{CHECKED}"
    if done.exists():
        return
    # single atoms are often computed with other settings
    number = min(range(len(frames)), key=lambda k: (len(frames[k]) == 1, len(frames[k])))
    frame, given = frames[number], _labels_of(frames[number], number, section)
    found = label([frame], loop.config.labels, store=loop.folder / "labels_checked")
    if found.waiting and found.script:
        raise Waiting(found)
    if not found.frames:
        loop.observer.note(
            f"'{section}.labelled': that the labels are of the code of 'labels' could not be checked"
        )
        return
    again = dataset.from_atoms(found.frames[0], origin=f"{section} frame")
    apart = abs(float(given.energy) - float(again.energy)) / len(frame)  # type: ignore[arg-type]
    off = float(np.sqrt(np.mean(np.subtract(given.forces, again.forces) ** 2)))  # type: ignore[arg-type]
    if apart > SAME_ENERGY or off > SAME_FORCES:
        shutil.rmtree(found.store)
        for path in (loop.folder / RECORD, *loop.folder.glob(f"*{CHECKED}")):
            path.unlink(missing_ok=True)  # free for other settings
        raise BadInput(
            f"'{section}.labelled': of the frame with {len(frame)} atoms the labels and those of "
            f"'labels: {{kind: {loop.config.labels['kind']}}}' differ by {apart:.3g} eV/atom and "
            f"{off:.3g} eV/Å (RMS): expected one level of theory (within {SAME_ENERGY:g} and "
            f"{SAME_FORCES:g}); give the settings with which these were labelled, or leave 'labelled' out"
        )
    files.write_json(done, {"eV_per_atom": apart, "eV_per_A": off})
