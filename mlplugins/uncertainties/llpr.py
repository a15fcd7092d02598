"""Posterior of the last layer from training frames, its scale from frames that were held out.

With errors σ_E √n of energies and σ_F of force components, the posterior precision of the weights w is

    C = Σ_B [ F_B F_Bᵀ / (n_B σ_E²) + J_Bᵀ J_B / σ_F² ] + ς² 1,   F_B = Σ_i f_i,   J_B = ∂F_B/∂r,

and var E_A = α_E² F_Aᵀ C⁻¹ F_A + floor_E² n_A, var F_kα = α_F² |L⁻¹ ∂F_A/∂r_kα|² + floor_F², C = L Lᵀ (Bigi
et al. 2024, whose C has the energies alone: with few frames its null space is all that σ shows). σ_E and σ_F
are the errors of the training frames themselves; α, of which the correlation of rows and what the model
cannot describe take most, and the floors are those of largest likelihood on the held-out frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlplugins.errors import BadInput
from mlplugins.uncertainties.rows import FeatureRows
from mlplugins.uncertainties.scale import Scale, fit

Array = NDArray[np.float64]

LEAST_NOISE = 1e-5
"""Smaller errors of energies (eV per √atom) and forces (eV/Å) no trained model has."""

SYMMETRIC = 1e-8
"""Of a variance relative to the largest: less is none."""


@dataclass(frozen=True)
class WeightPosterior:
    """Covariance of the weights, before calibration.

    Attributes:
        factor: (T, T), its product with its transpose is C⁻¹.
        energy_noise: σ_E, eV per √atom.
        force_noise: σ_F, eV/Å; None without force labels.
        n_rows: energies and force components that entered.
    """

    factor: Tensor
    energy_noise: float | None
    force_noise: float | None
    n_rows: int

    def energy_variances(self, rows: FeatureRows) -> Array:
        """(S,), eV², before calibration."""
        found: Array = (rows.features @ self.factor).square().sum(dim=-1).numpy()
        return found

    def force_variances(self, rows: FeatureRows) -> Array:
        """(S, K) of the slopes, eV²/Å², before calibration."""
        found: Array = (rows.slopes @ self.factor).square().sum(dim=-1).numpy()
        return found


@dataclass(frozen=True)
class Scales:
    """Scales of the energies (None: no labels) and of the force components (None: no labels)."""

    energy: Scale | None
    forces: Scale | None


def posterior(rows: FeatureRows, prior: float = 1.0) -> WeightPosterior:
    """Posterior of the weights from the frames that they were trained on.

    Args:
        rows: of the training frames.
        prior: ς² over the number of features, i.e. the inverse variance of the features' sum beforehand.

    Raises:
        BadInput: neither energies nor forces have labels.
    """
    n_features = rows.features.shape[1]
    precision = prior * n_features * torch.eye(n_features, dtype=torch.float64)
    has_energy = ~torch.isnan(rows.energy_errors)
    has_forces = ~torch.isnan(rows.force_errors).any(dim=1)
    sigma_e = sigma_f = None
    count = 0
    if has_energy.any():
        n = rows.n_atoms[has_energy]
        sigma_e = _rms(rows.energy_errors[has_energy] / n.sqrt())
        x = rows.features[has_energy] / n.sqrt().unsqueeze(1) / sigma_e
        precision, count = precision + x.t() @ x, count + len(n)
    if rows.slopes.shape[1] > 0 and has_forces.any():
        n, errors = rows.n_atoms[has_forces], rows.force_errors[has_forces]
        sigma_f = _rms(errors / (3.0 * n).sqrt().unsqueeze(1))
        x = (rows.slopes[has_forces] / rows.slopes.shape[1] ** 0.5 / sigma_f).flatten(0, 1)
        precision, count = precision + x.t() @ x, count + int(3 * n.sum())
    if count == 0:
        raise BadInput("uncertainty: no frame of the data has energies or forces: give labelled frames")
    if max(sigma_e or 0.0, sigma_f or 0.0) < LEAST_NOISE:
        raise BadInput(
            f"uncertainty: the model's errors on the data are below {LEAST_NOISE:g} eV and eV/Å: these "
            "labels are its own predictions; give frames labelled by what it was trained to reproduce"
        )
    inverse = torch.linalg.inv(torch.linalg.cholesky(precision))  # of the lower factor
    return WeightPosterior(inverse.t().contiguous(), sigma_e, sigma_f, count)


def calibrate(found: WeightPosterior, held: FeatureRows) -> Scales:
    """Scales of largest likelihood on frames that the posterior has not seen.

    Those of energies and of forces are fitted apart, but a ratio far from one is believed only if many
    energies say so (`scale.LOG_WIDTH`): the energies of a few frames know little of their own spread.

    Args:
        found: the posterior.
        held: of the held-out frames, with slopes along single coordinates.
    """
    errors, variances = held.force_errors.numpy(), found.force_variances(held)
    known = is_determined(errors, variances)
    forces = None
    if known.any():
        forces = fit(errors[known], variances[known], np.ones(int(known.sum())))
    e, n = held.energy_errors.numpy(), held.n_atoms.numpy()
    known = ~np.isnan(e)
    energy = None
    if known.any():
        near = None if forces is None else forces.scale
        energy = fit(e[known], found.energy_variances(held)[known], n[known], near)
    return Scales(energy, forces)


def is_determined(errors: Array, variances: Array) -> NDArray[np.bool_]:
    """Which force components have a label, and are not fixed by symmetry, where no weight matters.

    >>> is_determined(np.array([0.1, np.nan, 0.0]), np.array([1.0, 1.0, 1e-20])).tolist()
    [True, False, False]
    """
    return ~np.isnan(errors) & (variances > SYMMETRIC * variances.max(initial=0.0))


def rotated(factor: Tensor, seed: int = 0) -> Tensor:
    """The same covariance L Lᵀ by columns in random directions: L Q, Q orthogonal and uniformly distributed.

    >>> factor = torch.tensor([[2.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    >>> torch.allclose(rotated(factor) @ rotated(factor).t(), factor @ factor.t())
    True
    """
    generator = torch.Generator().manual_seed(seed)
    n = factor.shape[1]
    q, r = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))
    return factor @ (q * torch.sign(torch.diagonal(r)))


def _rms(x: Tensor) -> float:
    return max(float(x.square().mean().sqrt()), 1e-9)
