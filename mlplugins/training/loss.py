"""The loss of gradient training, and the running error sums that are logged.

L = w_E ⟨(ΔE/N)²⟩ + w_F ⟨ΔF²⟩ + w_σ ⟨(V Δσ/N)²⟩,   ⟨⟩ over structures, force components, stress components,
each term of which is multiplied by the weight of its structure (1 unless replayed).

The stress enters as the virial per atom, so that energy and stress weights compare the same unit (eV/atom);
w_F/w_E is in Å². With `huber` = δ the square of an error x becomes δ (2|x| − δ) beyond |x| = δ.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mlplugins.models.base import Potential, energy_derivatives
from mlplugins.structures.batch import Batch
from mlplugins.structures.metrics import MILLI, VOIGT
from mlplugins.training.config import LossSection

UNITS = {"energy": "meV_per_atom", "forces": "meV_per_A", "stress": "meV_per_A3"}


class Predicted(NamedTuple):
    """Energies (S,) without baseline, forces (N, 3), ∂E/∂ε (S, 3, 3)."""

    energy: Tensor
    forces: Tensor
    virial: Tensor


class EnergyForces(nn.Module):
    """A potential with its derivatives in one forward pass (what is trained, also in data-parallel runs)."""

    def __init__(self, potential: Potential) -> None:
        super().__init__()
        self.potential = potential

    def forward(self, batch: Batch, create_graph: bool) -> Predicted:
        """Energies, forces and virials of a batch; `create_graph` to differentiate them again."""
        graph, n_systems = batch.graph(batch.vectors.detach().requires_grad_()), batch.n_systems
        per_atom = self.potential(graph)["energy"]
        energy = torch.zeros(n_systems, dtype=per_atom.dtype, device=per_atom.device)
        energy = energy.index_add(0, batch.system, per_atom)
        forces, virial = energy_derivatives(energy, graph, n_systems, create_graph)
        if not create_graph:
            return Predicted(energy.detach(), forces.detach(), virial.detach())
        return Predicted(energy, forces, virial)


class Residuals(NamedTuple):
    """Prediction minus label: energy per atom (S,), forces (N', 3) of the atoms that have a label, and, of
    the S' structures that have a stress label, virial per atom and stress (S', 3, 3). `weights`: those of
    their structures, broadcastable, for energy, forces and virial; empty: 1."""

    energy: Tensor
    forces: Tensor
    virial: Tensor
    stress: Tensor
    weights: tuple[Tensor, ...] = ()


def residuals(predicted: Predicted, batch: Batch) -> Residuals:
    """Errors of a prediction, in eV/atom, eV/Å, eV/atom, eV/Å³."""
    labelled = torch.nonzero(batch.volume > 0).squeeze(1)
    atoms = torch.nonzero(~torch.isnan(batch.forces[:, 0])).squeeze(1)
    volume = batch.volume.index_select(0, labelled).reshape(-1, 1, 1)
    n_atoms = batch.n_atoms.index_select(0, labelled).reshape(-1, 1, 1)
    stress = predicted.virial.index_select(0, labelled) / volume - batch.stress.index_select(0, labelled)
    return Residuals(
        (predicted.energy - batch.energy) / batch.n_atoms,
        predicted.forces.index_select(0, atoms) - batch.forces.index_select(0, atoms),
        stress * volume / n_atoms,
        stress,
        (
            batch.weight,
            batch.weight.index_select(0, batch.system.index_select(0, atoms)).unsqueeze(1),
            batch.weight.index_select(0, labelled).reshape(-1, 1, 1),
        ),
    )


def loss(errors: Residuals, weights: LossSection) -> Tensor:
    """Weighted loss (a scalar); terms of weight zero and of absent labels do not enter."""
    total = torch.zeros((), dtype=errors.energy.dtype, device=errors.energy.device)
    terms = (
        (weights.energy, errors.energy),
        (weights.forces, errors.forces),
        (weights.stress, errors.virial),
    )
    for index, (weight, error) in enumerate(terms):
        if weight > 0 and error.numel() > 0:
            penalty = _penalty(error, weights.huber)
            if errors.weights:
                penalty = penalty * errors.weights[index]
            total = total + weight * penalty.mean()
    return total


def _penalty(error: Tensor, huber: float | None) -> Tensor:
    if huber is None:
        return error.square()
    size = error.abs()
    return torch.where(size <= huber, size.square(), huber * (2.0 * size - huber))


class ErrorSums:
    """Running sums of errors; `values` is one float64 tensor, so that ranks can add theirs.

    Columns: for energy, forces and stress: number, Σ|x|, Σx²; then the number of structures S and Σ S·loss.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self.values = torch.zeros(11, dtype=torch.float64, device=device)

    def add(self, errors: Residuals, value: Tensor) -> None:
        """Add the errors of one batch and its loss."""
        i, j = zip(*VOIGT)
        stress = errors.stress[:, list(i), list(j)]
        row = []
        for error in (errors.energy, errors.forces, stress):
            x = error.detach().double()
            count = torch.tensor(float(x.numel()), dtype=torch.float64, device=x.device)
            row += [count, x.abs().sum(), x.square().sum()]
        n = torch.tensor(float(errors.energy.shape[0]), dtype=torch.float64, device=errors.energy.device)
        self.values += torch.stack([*row, n, value.detach().double() * n])

    def summary(self) -> dict[str, float]:
        """Mean loss and MAE/RMSE of each quantity that has labels, e.g. `forces_mae_meV_per_A`."""
        v = self.values.tolist()
        result = {"loss": v[10] / v[9] if v[9] else float("nan")}
        for k, (name, unit) in enumerate(UNITS.items()):
            count, absolute, square = v[3 * k : 3 * k + 3]
            if count:
                result[f"{name}_mae_{unit}"] = MILLI * absolute / count
                result[f"{name}_rmse_{unit}"] = MILLI * (square / count) ** 0.5
        return result
