"""Selecting a few structures from many: farthest points, CUR, or where a model is most uncertain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray

from mlplugins import files
from mlplugins.errors import BadInput, nearest
from mlplugins.model_file import artifact
from mlplugins.model_file.artifact import Artifact
from mlplugins.model_file.committee import copies
from mlplugins.models import soap_gap
from mlplugins.observer import SILENT, Observer
from mlplugins.structures import dataset, labels, selection
from mlplugins.structures.batch import graph_of

UNREAD = dataset.Keys(energy=None, forces=None, stress=None)
"""No labels are looked at."""


@dataclass(frozen=True)
class Selection:
    """Structures that were chosen.

    Attributes:
        frames: they, with all their labels, in the order in which they were chosen.
        chosen: their numbers among all.
        method: how they were chosen.
        n_structures: how many there were.
        scores: (n_structures,) largest uncertainty of an atom, of every structure; None: another method.
        unit: of `scores`.
    """

    frames: list[Atoms]
    chosen: list[int]
    method: str
    n_structures: int
    scores: NDArray[np.float64] | None = None
    unit: str | None = None

    def write(self, path: Path | str) -> None:
        """Write the structures as extended XYZ."""
        with files.replacing(Path(path)) as temporary:
            ase.io.write(temporary, self.frames, format="extxyz")

    def record(self) -> dict[str, Any]:
        """What `mlplugins select --json` writes."""
        scores = None if self.scores is None else [float(self.scores[k]) for k in self.chosen]
        result = {"method": self.method, "n_structures": self.n_structures, "chosen": self.chosen}
        return {**result, "uncertainty": scores, "unit": self.unit}


def select(
    data: Path | str | Sequence[Path | str] | Sequence[Atoms],
    n: int,
    method: str = "fps",
    models: Sequence[Path | str | Artifact] = (),
    cutoff: float = 5.0,
    seed: int = 0,
    observer: Observer = SILENT,
) -> Selection:
    """Choose `n` structures, which keep all labels and train any family.

    Args:
        data: files that ASE reads (`file@::10` takes every tenth frame), or frames.
        n: how many to choose.
        method: `fps` (farthest points) or `cur`, which compare the mean SOAP vectors of the structures;
            `uncertainty` takes those of the largest uncertainty, `random` any.
        models: for `uncertainty`: one that predicts its own, or a committee, whose forces spread.
        cutoff: of the SOAP vectors, Å.
        seed: of the first point.
        observer: told of the progress.

    Raises:
        BadInput: no such file or method, fewer structures than wanted, a model that predicts no uncertainty.

    >>> crowd = [Atoms("Ar2", [[0, 0, 0], [0, 0, z]]) for z in (3.0, 3.01, 3.02, 4.5)]
    >>> sorted(select(crowd, 2).chosen)[-1]
    3
    """
    if n < 1:
        raise BadInput(f"n: expected 1 or more structures, got {n}")
    known = (*selection.METHODS, "uncertainty")
    if method not in known:
        raise BadInput(f"method '{method}': {nearest(method, known)}")
    if (method == "uncertainty") != bool(models):
        raise BadInput("method uncertainty and models go together: give both, or neither")
    frames = _frames(data)
    if n > len(frames):
        raise BadInput(f"n {n}: there are only {len(frames)} structures")
    if method != "uncertainty":
        chosen = selection.choose(mean_soap(frames, cutoff, observer), n, method, seed)
        return Selection([frames[k] for k in chosen], chosen, method, len(frames))
    scores, unit = _uncertainties(frames, models, observer)
    chosen = [int(k) for k in np.argsort(-scores, kind="stable")[:n]]
    unit = f"{unit}, largest of an atom"
    return Selection([frames[k] for k in chosen], chosen, method, len(frames), scores, unit)


def _frames(data: Any) -> list[Atoms]:
    sources = [data] if isinstance(data, Path | str | Atoms) else list(data)
    if sources and all(isinstance(item, Atoms) for item in sources):
        found = [(atoms, f"frame {k}") for k, atoms in enumerate(sources)]
    else:
        found = dataset.frames(sources)
    labels.check_flags([dataset.from_atoms(atoms, UNREAD, origin) for atoms, origin in found])
    return [atoms for atoms, _ in found]


def _uncertainties(
    frames: Sequence[Atoms], models: Sequence[Path | str | Artifact], observer: Observer
) -> tuple[NDArray[np.float64], str]:
    """(F,) largest uncertainty of an atom, and its unit: of its energy (one model, eV) or force (a committee,
    eV/Å)."""
    loaded = [model if isinstance(model, Artifact) else artifact.load(model) for model in models]
    single = sum(model.n_members for model in loaded) == 1
    found: list[float] = []
    observer.start(0, len(frames))
    for atoms in frames:
        if single:
            values = np.asarray(loaded[0].evaluate([atoms], uncertainty=True)[0].uncertainties)
        else:
            (together,) = artifact.evaluate_together(loaded, [atoms])
            if not found and (said := copies(artifact.sources(loaded), together.members)):
                raise BadInput(said)
            values = np.linalg.norm(together.forces_spread, axis=1)
        found.append(float(np.max(values)))
        observer.step(len(found), len(frames))
    return np.array(found), "eV" if single else "eV/Å"


@torch.no_grad()
def mean_soap(frames: Sequence[Atoms], cutoff: float, observer: Observer = SILENT) -> NDArray[np.float64]:
    """(F, S · D): SOAP vectors averaged over the atoms of every element, times its fraction."""
    if not cutoff > 0:
        raise BadInput(f"cutoff: expected a length in Å, got {cutoff}")
    elements = sorted({symbol for atoms in frames for symbol in atoms.symbols})
    parameters = soap_gap.Hyperparameters(
        cutoff=cutoff, cutoff_transition_width=min(1.0, cutoff), n_max=6, l_max=4, atom_sigma=0.5
    )
    model = soap_gap.Model(elements, parameters)
    rows = []
    observer.start(0, len(frames))
    for atoms in frames:
        graph = graph_of(atoms, elements, cutoff)
        mean = torch.zeros(len(elements), model.spectrum.n_features, dtype=torch.float64)
        p = model.features(graph) / len(atoms)
        mean = mean.index_add(0, graph.species, p)
        rows.append(mean.reshape(-1).numpy())
        observer.step(len(rows), len(frames))
    return np.stack(rows)
