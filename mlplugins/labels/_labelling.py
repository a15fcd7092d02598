"""Labelling frames: `label` is the whole command."""

from __future__ import annotations

import hashlib
import io
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms

from mlplugins import files
from mlplugins.config import read
from mlplugins.errors import BadInput
from mlplugins.labels._contract import LabelSettings, settings_of
from mlplugins.labels._fanout import WORKER, compute
from mlplugins.labels._store import LabelStore
from mlplugins.observer import SILENT, Observer
from mlplugins.structures import dataset, state

EXPECTED = "keys such as kind, timeout and parallel"
SCRIPT = "submit.sh"
KEPT = ("config_type",)
"""Entries of the input's `info` that the output has, too; others may be labels of another code."""
BY_HAND = "files"
DENSE_A3 = 60.0
"""Volume per atom above which a cell is no solid's."""
FEWEST = 5
"""Labels of one composition whose median is compared with."""


@dataclass(frozen=True)
class Labelled:
    """What labelling gave.

    Attributes:
        frames: labelled structures, in the order of the input, each once; `info["label_hash"]` is the name
            of the folder of the label, `label_code` the code, `label_cpu_s` the processor time.
        failed: structures without a label: `hash`, `reason` of the last attempt, `attempts`, `folder`.
        waiting: how many the jobs of `script`, or somebody else, have still to label.
        store: folder of the labels.
        script: job script to submit, None if labels are computed here.
    """

    frames: list[Atoms]
    failed: list[dict[str, Any]]
    waiting: int
    store: Path
    script: Path | None = None

    def write(self, path: Path | str) -> None:
        """Write the labelled structures as extended XYZ."""
        stream = io.StringIO()
        ase.io.write(stream, self.frames, format="extxyz")
        files.write_text(Path(path), stream.getvalue())

    def record(self) -> dict[str, Any]:
        """What `mlplugins label --json` writes."""
        codes = Counter(str(atoms.info.get("label_code")) for atoms in self.frames)
        cpu = sum(float(atoms.info.get("label_cpu_s", 0.0)) for atoms in self.frames)
        result = {"store": str(self.store), "n_labelled": len(self.frames), "waiting": self.waiting}
        return {**result, "codes": dict(codes), "cpu_s": cpu, "failed": self.failed}


def label(
    frames: Path | str | Sequence[Path | str] | Sequence[Atoms],
    config: Path | str | Mapping[str, Any],
    output: Path | str | None = None,
    store: Path | str | None = None,
    observer: Observer = SILENT,
) -> Labelled:
    """Label structures with energy, forces and stress, by the code that `config` names.

    Every label has a folder of its own in the store; structures that have one there are not computed again,
    whoever asks. The same call continues after a kill at any moment.

    Args:
        frames: files that ASE reads, or frames; labels that they have are left out.
        config: a YAML file (paths in it are relative to it), or its content: `kind` and the keys of the
            kind.
        output: extended XYZ file to write, as soon as no label is waited for.
        store: folder of the labels; None = `store` of the configuration, or the output with `.labels`.
        observer: told of the progress.

    Raises:
        BadInput: a wrong configuration, no such file, a store of other labels.
        RunFailed: a process that labels did not start.

    >>> import tempfile
    >>> from ase.build import bulk
    >>> found = label([bulk("Cu", a=3.7)], {"kind": "emt"}, store=tempfile.mkdtemp())
    >>> len(found.frames), found.frames[0].info["label_code"][:3], found.failed
    (1, 'EMT', [])
    """
    if output is not None:
        files.require_writable(Path(output), "output", inputs=[frames, config])
    settings, base = _settings(config)
    structures = _frames(frames)
    place = LabelStore(_place(settings, store, output, base))
    place.open(settings)
    added = [place.add(atoms) for atoms in structures]
    names = list(dict.fromkeys(added))
    if len(names) < len(structures):
        observer.note(f"{len(structures) - len(names)} structures are there twice and are labelled once")
    attempts = 1 + len(settings.retries)
    pending = place.pending(names, attempts)
    awaited = [n for n in pending if settings.is_awaited(place.path / n, place.structure(n))]
    pending = [name for name in pending if name not in set(awaited)]
    script = None
    if awaited and settings.job():
        script = _write_script(place, awaited, settings)
    if pending and settings.jobs and settings.job() is None and settings.kind != BY_HAND:
        script = _write_script(place, pending, settings)
    elif pending:
        compute(place, names, pending, settings, observer)
    found = _collected(place, names, settings, script)
    given = dict(zip(reversed(added), reversed(structures)))
    for atoms in found.frames:
        info = given[atoms.info["label_hash"]].info
        atoms.info |= {key: info[key] for key in KEPT if key in info}
    if output is not None and not found.waiting:
        found.write(output)
    return found


def _settings(config: Path | str | Mapping[str, Any]) -> tuple[LabelSettings, Path]:
    """The settings with absolute paths, and the folder that these were relative to."""
    content, where = read(config, EXPECTED, "labels")
    base = Path(config).absolute().parent if isinstance(config, str | Path) else Path.cwd()
    settings = settings_of(content, where).located(base)
    settings.require()
    return settings, base


def _frames(frames: Any) -> list[Atoms]:
    sources: list[Any] = [frames] if isinstance(frames, Path | str | Atoms) else list(frames)
    if not sources or not all(isinstance(item, Atoms) for item in sources):
        sources = [atoms for atoms, _ in dataset.frames(sources)]
    for number, atoms in enumerate(sources):
        if len(atoms) == 0 or not (
            np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()
        ):
            raise BadInput(f"frame {number}: no atoms, or positions or a cell that are not finite")
        if atoms.pbc.any() and not atoms.cell[atoms.pbc].any(axis=1).all():
            raise BadInput(f"frame {number}: periodic along a direction without a cell vector")
        if said := state.unsaid(atoms, (state.CHARGE,)):
            raise BadInput(f"frame {number}: {said}")
        _require_flags(atoms, number)
    return sources


def _require_flags(atoms: Atoms, number: int) -> None:
    """Refuse a solid without its periodic flags (it would be labelled as a cluster), and fractions for Å."""
    dense = 0.0 < atoms.cell.volume < DENSE_A3 * len(atoms)
    crowded = len(atoms) > 3 and atoms.positions.min() >= 0.0 and atoms.positions.max() <= 1.0
    if (dense and not atoms.pbc.all()) or crowded:
        from mlplugins.structures import labels  # it imports torch, which labels rarely need

        plain = dataset.from_atoms(
            atoms, dataset.Keys(energy=None, forces=None, stress=None), f"frame {number}"
        )
        labels.check_flags([plain])


def _place(settings: LabelSettings, store: Path | str | None, output: Path | str | None, base: Path) -> Path:
    if store is not None:
        return Path(store)
    if settings.store is not None:
        return base / settings.store
    if output is None:
        raise BadInput("labels: name the folder of the labels ('store'), or an output beside which it may be")
    return Path(output).with_suffix(".labels")


def _write_script(store: LabelStore, pending: Sequence[str], settings: LabelSettings) -> Path:
    """A job array; each job labels its part."""
    text = "\n".join(pending) + "\n"
    listed = f"pending_{hashlib.sha256(text.encode()).hexdigest()[:8]}.txt"  # jobs in the queue keep theirs
    files.write_text(store.path / listed, text)
    of = min(settings.jobs or 1, len(pending))
    command = settings.job()
    if command is None:
        work = f'exec {shlex.join([*WORKER, str(store.path), listed])} "$part" {of}\n'
    else:
        each = shlex.join(["sh", "-c", command])
        work = f"cd {shlex.quote(str(store.path))} || exit 1\n"
        each = f'(cd "$name" && {each}) < /dev/null'  # srun and mpirun would read the list to its end
        work += f'sed -n "$((part + 1))~{of}p" {listed} | while read -r name; do {each}; done\n'
    head = f"#!/bin/sh\n#SBATCH --array=0-{of - 1}\n# add partition, account and time limit\n"
    files.write_text(store.path / SCRIPT, f"{head}part=${{SLURM_ARRAY_TASK_ID:-${{1:-0}}}}\n{work}")
    return store.path / SCRIPT


def _collected(
    store: LabelStore, names: Sequence[str], settings: LabelSettings, script: Path | None
) -> Labelled:
    """Labels, failures and what is waited for, as the folders have them."""
    attempts = 1 + len(settings.retries)
    frames, failed, waiting = [], [], 0
    for name in names:
        labelled = store.label(name)
        if labelled is not None:
            frames.append(labelled)
        elif store.is_over(name, attempts):
            outcomes = store.outcomes(name)
            failed.append(_failure(store, name, outcomes[-1]["reason"], len(outcomes)))
        else:
            waiting += 1
    far = _far(frames, settings.energy_window)
    failed += [_failure(store, frames[k].info["label_hash"], reason, 1) for k, reason in far.items()]
    kept = [atoms for k, atoms in enumerate(frames) if k not in far]
    return Labelled(kept, failed, waiting, store.path, script)


def _failure(store: LabelStore, name: str, reason: str, attempts: int) -> dict[str, Any]:
    return {"hash": name, "reason": reason, "attempts": attempts, "folder": str(store.path / name)}


def _far(frames: Sequence[Atoms], window: float) -> dict[int, str]:
    """Labels whose energies are far from the median of their composition: another state, or no minimum of the
    electrons."""
    found = {}
    groups: dict[str, list[int]] = {}
    for k, atoms in enumerate(frames):
        groups.setdefault(atoms.symbols.get_chemical_formula(empirical=True), []).append(k)
    for formula, members in groups.items():
        energies = np.array([frames[k].get_potential_energy() / len(frames[k]) for k in members])
        if len(members) < FEWEST:
            continue
        middle = float(np.median(energies))
        for k, energy in zip(members, energies):
            if abs(energy - middle) > window:
                found[k] = (
                    f"{energy:.6g} eV per atom; the median of {formula} is {middle:.6g}, and 'energy_window' "
                    f"{window:g} eV per atom"
                )
    return found
