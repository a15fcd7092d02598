"""What models say of frames that have no labels: the expected error of a force, in eV/Å.

Every atom has a deviation D: of a committee the norm of the sample standard deviation of its force, of a
network with a posterior the norm of the predicted one, beside an auxiliary model the difference of the two
total energies (the same for all atoms), else the standard deviation of its energy. On labelled frames that
were not learned from, the scale a is that for which a·D and the errors |ΔF| have the same root mean square;
a·D is the expected error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray
from scipy.stats import spearmanr

from mlplugins.model_file import artifact

Array = NDArray[np.float64]
PROBES = 8
"""Of the uncertainty of forces."""
SMALLEST = 1e-12
"""Deviations below (eV/Å, eV) say nothing."""


@dataclass(frozen=True)
class Opinion:
    """What the models say of one frame.

    Attributes:
        forces: (N, 3), their mean, eV/Å.
        energy: eV, likewise.
        deviations: (N,), D.
    """

    forces: Array
    energy: float
    deviations: Array


class Judge:
    """Loaded models.

    Args:
        paths: their files.
        auxiliary: the second is no member of a committee, but one whose difference to the first counts.
    """

    def __init__(self, paths: Sequence[Path], auxiliary: bool = False) -> None:
        self.models = artifact.load_all(list(paths))
        self._auxiliary = auxiliary

    def of(self, atoms: Atoms) -> Opinion:
        """What they say of a frame."""
        if self._auxiliary:
            main, other = (model.evaluate([atoms])[0] for model in self.models)
            return Opinion(main.forces, main.energy, np.full(len(atoms), abs(main.energy - other.energy)))
        single = len(self.models) == 1
        probes = PROBES if single and self.models[0].has_force_uncertainty else None
        members = [model.evaluate([atoms], uncertainty=single, probes=probes)[0] for model in self.models]
        both = artifact.combine(members)
        if both.mean.forces_uncertainty is not None:
            deviations = np.linalg.norm(both.mean.forces_uncertainty, axis=1)
        elif single and both.mean.uncertainties is not None:
            deviations = np.asarray(both.mean.uncertainties, dtype=np.float64)
        else:
            deviations = np.linalg.norm(both.forces_spread, axis=1)
        return Opinion(both.mean.forces, both.mean.energy, deviations)


@dataclass(frozen=True)
class Surprise:
    """Opinions against labels that the models had not seen.

    Attributes:
        deviations, errors: D and |ΔF| of every atom of all frames.
        worst: for every frame the largest D and the largest |ΔF|.
        energy_errors: of every frame, per atom, eV.
    """

    deviations: Array
    errors: Array
    worst: Array
    energy_errors: Array

    @property
    def force_rmse(self) -> float:
        """Of the components, eV/Å."""
        return float(np.sqrt(np.mean(self.errors**2) / 3.0)) if len(self.errors) else float("nan")

    def record(self, scale: float) -> dict[str, Any]:
        """Measures, with the scale that was in use."""
        ratio = self.errors / np.maximum(scale * self.deviations, SMALLEST)
        ranked = len(self.worst) > 2 and np.ptp(self.worst[:, 0]) > 0
        return {
            "n_frames": len(self.worst),
            "forces_rmse_eV_A": self.force_rmse,
            "worst_rms_eV_A": float(np.sqrt(np.mean(self.worst[:, 1] ** 2))),
            "energy_rmse_eV_atom": float(np.sqrt(np.mean(self.energy_errors**2))),
            "ratio_rms": float(np.sqrt(np.mean(ratio**2))),
            "spearman_of_frames": float(spearmanr(*self.worst.T)[0]) if ranked else None,
        }


def surprise(judge: Judge, labelled: Sequence[Atoms]) -> Surprise:
    """Compare what the models say of labelled frames with the labels."""
    deviations, errors, worst, energies = [], [], [], []
    for atoms in labelled:
        said = judge.of(atoms)
        error = np.linalg.norm(said.forces - atoms.get_forces(), axis=1)
        deviations.append(said.deviations)
        errors.append(error)
        worst.append((said.deviations.max(), error.max()))
        energies.append((said.energy - atoms.get_potential_energy()) / len(atoms))
    return Surprise(np.concatenate(deviations), np.concatenate(errors), np.array(worst), np.array(energies))


def scale_of(found: Surprise) -> float:
    """The scale a: √(Σ|ΔF|² / ΣD²) over all atoms.

    >>> one = Surprise(np.array([1.0, 2.0]), np.array([3.0, 6.0]), np.zeros((0, 2)), np.zeros(0))
    >>> scale_of(one)
    3.0
    """
    return float(np.sqrt(np.sum(found.errors**2) / max(float(np.sum(found.deviations**2)), SMALLEST**2)))


def unusual(found: Surprise) -> float:
    """Median of the largest deviations of the frames and three times their median absolute deviation.

    >>> frames = np.array([[1.0, 0], [2.0, 0], [3.0, 0], [4.0, 0], [100.0, 0]])
    >>> unusual(Surprise(np.zeros(0), np.zeros(0), frames, np.zeros(0)))
    6.0
    """
    largest = found.worst[:, 0]
    middle = np.median(largest)
    return float(middle + 3.0 * np.median(np.abs(largest - middle)))


def as_lists(found: Surprise) -> dict[str, Any]:
    """In the form of a file."""
    return {name: np.asarray(value).tolist() for name, value in vars(found).items()}
