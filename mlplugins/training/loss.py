"""The loss of gradient training, and the running error sums that are logged.

L = Σ_q w_q ⟨x_q²⟩ over the quantities q of the table, ⟨⟩ over structures or atoms and components, each term
of which is multiplied by the weight of its structure (1 unless replayed). What heads predict counts in units
of the root mean square of its labels; of a tensor each irrep in its own. For energy, forces and stress

L = w_E ⟨(ΔE/N)²⟩ + w_F ⟨ΔF²⟩ + w_σ ⟨(V Δσ/N)²⟩.

Of several energies with labels in the same frames, `gap` adds w ⟨(Δ(E_k − E_{k−1}))²⟩ over adjacent ones, not
per atom: what a gap is off does not become less in a larger molecule.

The stress enters as the virial per atom, so that energy and stress weights compare the same unit (eV/atom);
w_F/w_E is in Å². With `huber` = δ the square of an error x becomes δ (2|x| − δ) beyond |x| = δ.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mlplugins.heads import LabelSizes
from mlplugins.models.base import Potential, edge_sums, energy_derivatives
from mlplugins.quantities import QUANTITIES, VOIGT, Quantity
from mlplugins.structures.batch import Batch
from mlplugins.structures.graph import Graph
from mlplugins.training.gradient_config import LossSection

Predicted = dict[str, Tensor]
"""Of a batch, by name of the quantity: (S, …) or (N, …); without baseline, those per volume times the volume
(the stress as ∂E/∂ε), which exists without a cell, too. A dictionary of tensors, as families return it:
`Results` hold one structure, in numpy."""


class Predictor(nn.Module):
    """A potential with its derivatives in one forward pass (what is trained, also in data-parallel runs).

    Args:
        potential: the model.
        learned: quantities that a step learns from; None: all.
    """

    def __init__(self, potential: Potential, learned: Collection[str] | None = None) -> None:
        super().__init__()
        self.potential = potential
        self.learned = [*QUANTITIES] if learned is None else learned

    def forward(self, batch: Batch, create_graph: bool) -> Predicted:
        """All predictions for a batch; `create_graph` to differentiate forces and stress again. Then only
        what is learned from is computed: forces and stress if a structure has a label of them."""
        of_energy = [name for name in ("forces", "stress") if name in self.learned]
        derivatives = not create_graph or any(bool(batch.has(name).any()) for name in of_energy)
        vectors, n_systems = batch.vectors.detach().requires_grad_(derivatives), batch.n_systems
        graph = batch.graph(vectors)
        found = self.potential(graph)
        wanted = self._learning() if create_graph else list(self.potential.predicts)
        found |= self.potential.of_heads(graph, found, wanted)
        predicted, derived = {}, {}
        if bool(batch.has("gap").any()) and ("gap" in self.learned or not create_graph):
            predicted["gap"] = self._gaps(found, graph, batch)
        found["energy"] = self._chosen(found, graph, batch)
        if derivatives:
            forces, virial = energy_derivatives(found["energy"], graph, n_systems, create_graph)
            derived = {("energy", "positions"): forces, ("energy", "strain"): virial}
        for name, quantity in QUANTITIES.items():
            if quantity.derivative is not None and quantity.derivative in derived:
                predicted[name] = derived[quantity.derivative]
            elif name in found and quantity.along_edges:
                predicted[name], virial = edge_sums(found[name], graph, n_systems)
                derived[name, "strain"] = virial
            elif name in found:
                whole = quantity.per == "system"
                predicted[name] = _by_system(found[name], batch.system, n_systems) if whole else found[name]
        if not create_graph:
            return {name: value.detach() for name, value in predicted.items()}
        return predicted

    def _learning(self) -> list[str]:
        """What is learned from, and of what a derivative is."""
        sources = (QUANTITIES[name].derivative for name in self.learned)
        return [*self.learned, *(source.of for source in sources if source is not None)]

    def _gaps(self, found: Predicted, graph: Graph, batch: Batch) -> Tensor:
        """Of each structure the energy that its labels are of less the one before; (S,), zero of the first.
        With its sign: energies in the wrong order are wrong by more than the gap."""
        others = self.potential.of_heads(graph, found, list(self.potential.variants))
        energies = torch.stack([found["energy"], *(others[n] for n in self.potential.variants)], dim=1)
        place = batch.head.index_select(0, batch.system).unsqueeze(1)
        gaps = energies.gather(1, place) - energies.gather(1, (place - 1).clamp(min=0))
        return _by_system(gaps.squeeze(1), batch.system, batch.n_systems)

    def _chosen(self, found: Predicted, graph: Graph, batch: Batch) -> Tensor:
        """Energies of the atoms: of each structure that which its labels are of."""
        energy = found["energy"]
        wanted = [name for k, name in enumerate(self.potential.variants) if bool((batch.head == k + 1).any())]
        if not wanted:
            return energy
        head = batch.head.index_select(0, batch.system)
        for name, values in self.potential.of_heads(graph, found, wanted).items():
            energy = torch.where(head == self.potential.variants.index(name) + 1, values, energy)
        return energy


def _by_system(values: Tensor, system: Tensor, n_systems: int) -> Tensor:
    shape = (n_systems, *values.shape[1:])
    return torch.zeros(shape, dtype=values.dtype, device=values.device).index_add(0, system, values)


class Residual(NamedTuple):
    """Prediction minus label of one quantity, rows without a label left out.

    Attributes:
        error: per atom of what is extensive; unit of `Quantity.compared_unit`.
        learned: as the loss takes it: of a quantity per volume, V/N times the error; else the error.
        weight: of the structures, broadcastable to both.
        species: of the atoms, of quantities of atoms.
    """

    error: Tensor
    learned: Tensor
    weight: Tensor
    species: Tensor | None = None


Residuals = dict[str, Residual]


def residuals(predicted: Predicted, batch: Batch) -> Residuals:
    """Errors of a prediction, by quantity: energy eV/atom, forces eV/Å, stress eV/Å³ (learned: eV/atom), …"""
    return {name: _residual(QUANTITIES[name], value, batch) for name, value in predicted.items()}


def _residual(quantity: Quantity, predicted: Tensor, batch: Batch) -> Residual:
    rows = torch.nonzero(batch.has(quantity.name)).squeeze(1)
    systems = rows if quantity.per == "system" else batch.system.index_select(0, rows)
    columns = [-1, *(1 for _ in quantity.shape)]

    def of_systems(values: Tensor) -> Tensor:
        return values.index_select(0, systems).reshape(columns)

    value = predicted.index_select(0, rows)
    if quantity.per_volume:
        value = value / of_systems(batch.volume)
    error = value - batch.labels[quantity.name].index_select(0, rows)
    if quantity.extensive:
        error = error / of_systems(batch.n_atoms)
    learned = error
    if quantity.per_volume:
        learned = error * of_systems(batch.volume) / of_systems(batch.n_atoms)
    species = batch.species.index_select(0, rows) if quantity.per == "atom" else None
    return Residual(error, learned, of_systems(batch.weight), species)


def loss(
    errors: Residuals, weights: LossSection, sizes: Mapping[str, LabelSizes] = MappingProxyType({})
) -> Tensor:
    """Weighted loss (a scalar); terms of weight zero and of absent labels do not enter.

    Args:
        errors: of a prediction.
        weights: of the quantities.
        sizes: of the labels of heads.
    """
    energy = errors["energy"].error
    total = torch.zeros((), dtype=energy.dtype, device=energy.device)
    for name, found in errors.items():
        weight = weights.weight(name)
        if weight > 0 and found.learned.numel() > 0:
            for learned in _in_units(QUANTITIES[name], found, sizes.get(name)):
                penalty = _penalty(learned, weights.huber) * found.weight
                total = total + weight * penalty.mean()
    return total


def _in_units(quantity: Quantity, found: Residual, sizes: LabelSizes | None) -> list[Tensor]:
    """Errors over the size of the labels: of a tensor those of each part, unless its labels are all zero."""
    if sizes is None:
        return [found.learned]
    error = found.learned
    parts = [error]
    if quantity.parts:
        projectors = [torch.as_tensor(part.projector).to(error) for part in quantity.parts]
        parts = [(error.flatten(1) @ projector).view_as(error) for projector in projectors]
    result = []
    for k, (part, rms) in enumerate(zip(parts, sizes.rms)):
        if sizes.by_element and found.species is not None:
            of_atoms = torch.tensor(sizes.by_element[k]).to(error).index_select(0, found.species)
            part = part / of_atoms.reshape([-1, *(1 for _ in quantity.shape)])
        else:
            part = part / rms
        if rms > 0.0:
            result.append(part)
    return result


def _penalty(error: Tensor, huber: float | None) -> Tensor:
    if huber is None:
        return error.square()
    size = error.abs()
    return torch.where(size <= huber, size.square(), huber * (2.0 * size - huber))


class ErrorSums:
    """Running sums of errors; `values` is one float64 tensor, so that ranks can add theirs.

    Columns: for every quantity of the table: number, Σ|x|, Σx²; then the number of structures S and Σ S·loss.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self.values = torch.zeros(3 * len(QUANTITIES) + 2, dtype=torch.float64, device=device)

    def add(self, errors: Residuals, value: Tensor, n_systems: int) -> None:
        """Add the errors of one batch of `n_systems` structures and its loss."""
        row = [torch.zeros((), dtype=torch.float64, device=value.device)] * 3 * len(QUANTITIES)
        for k, (name, quantity) in enumerate(QUANTITIES.items()):
            if name in errors:
                x = errors[name].error
                if quantity.symmetric:
                    i, j = zip(*VOIGT)
                    x = x[:, list(i), list(j)]
                x = x.detach().double()
                count = torch.tensor(float(x.numel()), dtype=torch.float64, device=x.device)
                row[3 * k : 3 * k + 3] = [count, x.abs().sum(), x.square().sum()]
        n = torch.tensor(float(n_systems), dtype=torch.float64, device=value.device)
        self.values += torch.stack([*row, n, value.detach().double() * n])

    def restore(self, values: Tensor) -> None:
        """Continue with the `values` of a checkpoint, of a time when the table may have been shorter."""
        known = len(values) - 2
        self.values[:known], self.values[-2:] = values[:known], values[known:]

    def summary(self) -> dict[str, float]:
        """Mean loss and MAE/RMSE of each quantity that has labels, e.g. `forces_mae_meV_per_A`."""
        v = self.values.tolist()
        result = {"loss": v[-1] / v[-2] if v[-2] else float("nan")}
        for k, quantity in enumerate(QUANTITIES.values()):
            count, absolute, square = v[3 * k : 3 * k + 3]
            if count:
                result[quantity.column("mae")] = quantity.error_scale * absolute / count
                result[quantity.column("rmse")] = quantity.error_scale * (square / count) ** 0.5
        return result
