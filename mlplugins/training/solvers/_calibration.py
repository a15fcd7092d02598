"""Calibration of a predictive variance by the errors of frames that the fit did not see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlplugins.structures.batch import Batch, pack
from mlplugins.structures.metrics import z_statistics
from mlplugins.training.solvers._rkhs_qr import Posterior, Triangle, leave_out, solve
from mlplugins.training.solvers._soap_rows import Rows, repulsion
from mlplugins.uncertainties import scale

Array = NDArray[np.float64]

EDGES_AT_ONCE = 4096


@dataclass(frozen=True)
class Scores:
    """Energies of frames: errors, eV; variances of the Gaussian process, eV²; numbers of atoms; each (S,)."""

    errors: Array
    variances: Array
    n_atoms: Array


@dataclass(frozen=True)
class Calibration:
    """Variance of a total energy: scale² · (Gaussian process) + floor² · (number of atoms).

    Attributes:
        scale: of standard deviations.
        floor: standard deviation of every atom that no data take away (noise of the labels, what the
            descriptor does not see), independent from atom to atom, eV.
        before, after: z-scores of the frames that were left out, with scale 1 and floor 0, and calibrated.
    """

    scale: float
    floor: float
    before: Array
    after: Array

    def z(self, found: Scores) -> Array:
        """Errors over standard deviations."""
        return found.errors / np.sqrt(self.scale**2 * found.variances + self.floor**2 * found.n_atoms)

    def report(self) -> dict[str, Any]:
        """For metrics.json."""
        return {
            "uncertainty_scale": self.scale,
            "uncertainty_floor_eV_per_atom": self.floor,
            "uncertainty_calibrated_on": f"{len(self.after)} frames left out in turn",
            "z_before_calibration": z_statistics(self.before),
            "z_after_calibration": z_statistics(self.after),
            "cross_validation_z_scores": self.after.tolist(),
        }


def fit(found: Scores) -> Calibration:
    """Scale and floor of largest likelihood, errors being normal.

    >>> rng = np.random.default_rng(0)
    >>> v = np.full(4000, 0.25)
    >>> c = fit(Scores(rng.normal(0.0, 1.0, 4000), v, np.ones(4000)))
    >>> round(c.scale**2 * 0.25 + c.floor**2, 1)
    1.0
    """
    before = found.errors / np.sqrt(found.variances)
    if not found.errors.any():  # labels that are all equal
        return Calibration(1.0, 0.0, before, before)
    best = scale.fit(found.errors, found.variances, found.n_atoms)
    made = Calibration(best.scale, best.floor, before, before)
    return replace(made, after=made.z(found))


def calibrate(
    rows: Rows,
    held: Sequence[tuple[Sequence[Batch], Mapping[str, Triangle]]],
    fitted: Sequence[Mapping[str, Triangle]],
    found: Posterior,
    noise: Mapping[str, float],
) -> Calibration:
    """Cross-validation: every group of frames is predicted by the fit without it.

    Args:
        rows: of the fit.
        held: groups of frames and their triangles.
        fitted: triangles that the fit has seen; groups that are not among them are predicted by the fit.
        found: the fit.
        noise: its regularisation.
    """
    several = []
    for group, triangles in held:
        mean, factor = found.mean, found.factor
        others = [t for t in fitted if t is not triangles]
        if len(others) < len(fitted):
            rest = leave_out(found, triangles, noise)
            if rest is None:
                again = solve({kind: [t[kind] for t in others or fitted] for kind in triangles}, noise)
                rest = again.mean, again.factor
            mean, factor = rest
        several.append(scores(rows, group, mean, factor))
    return fit(
        Scores(
            np.concatenate([s.errors for s in several]),
            np.concatenate([s.variances for s in several]),
            np.concatenate([s.n_atoms for s in several]),
        )
    )


@torch.no_grad()
def scores(rows: Rows, graphs: Sequence[Batch], mean: Tensor, factor: Tensor) -> Scores:
    """Errors and predicted variances of the energies of frames; mean and factor of the weights."""
    errors, variances, n_atoms = [], [], []
    for batch in pack(graphs, EDGES_AT_ONCE):
        phi = rows.atoms(batch)
        many = phi[:, : rows.n_many]
        residual = (rows.model.delta**2 - many.square().sum(dim=1)).clamp_min(0.0)
        total = _by_frame(residual.unsqueeze(1), batch)[:, 0]
        summed = _by_frame(phi, batch)
        psi = torch.linalg.solve_triangular(factor.t(), summed.t(), upper=False)
        fixed, _, _ = repulsion(rows.model, batch)
        errors.append((summed @ mean - (batch.labels["energy"] - fixed)).numpy())
        variances.append((total + psi.square().sum(dim=0)).numpy())
        n_atoms.append(batch.n_atoms.double().numpy())
    return Scores(np.concatenate(errors), np.concatenate(variances), np.concatenate(n_atoms))


def _by_frame(x: Tensor, batch: Batch) -> Tensor:
    return torch.zeros(batch.n_systems, x.shape[1], dtype=x.dtype).index_add(0, batch.system, x)
