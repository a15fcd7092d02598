"""Energies, forces and virials of structures from a metatomic module, for all Python engines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from metatensor.torch import Labels, TensorBlock
from metatomic.torch import (
    ModelEvaluationOptions,
    ModelOutput,
    NeighborListOptions,
    System,
    register_autograd_neighbors,
)
from torch import Tensor

from mlplugins.errors import BadInput, RunFailed
from mlplugins.model_file.pairs import NeighborCache, NeighborPairs
from mlplugins.model_file.structure import Array, Prepared, in_vacuum
from mlplugins.quantities import QUANTITIES, Results
from mlplugins.structures.graph import Graph


class Program:
    """The program of a family, which takes one `Graph`, or its fields in files of mlplugins 0.1.0."""

    def __init__(self, potential: Any) -> None:
        self.potential = potential
        self._takes_fields = len(potential.forward.schema.arguments) > 2  # itself and the graph
        self.takes_molecules = bool(getattr(potential, "takes_molecules", False))  # others lack it

    def predict(self, graph: Graph) -> dict[str, Tensor]:
        """Quantities per atom by name, `energy` (n_centers,) among them, in the precision of the model."""
        found: dict[str, Tensor] = self.potential(*graph) if self._takes_fields else self.potential(graph)
        return found

    def deviations(self, graph: Graph, n_systems: int) -> tuple[Tensor, Tensor]:
        """Standard deviations of the energies of all systems (S,) and atoms (N,), eV."""
        arguments = (*graph[:4], graph.n_centers) if self._takes_fields else (graph,)
        residual, psi = self.potential.posterior_features(*arguments)

        def summed(x: Tensor) -> Tensor:
            return x.new_zeros(n_systems, *x.shape[1:]).index_add(0, graph.system, x)

        return _deviation(summed(residual), summed(psi)), _deviation(residual, psi)


class EdgeGradientModel:
    """A model of ours: its energy depends on geometry through the vectors of one full neighbour list only.

    With g_e = ∂E/∂v_e of edge e = (i → j):  F_i = Σ_{e: centre i} g_e − Σ_{e: neighbour i} g_e  and
    ∂E/∂ε = Σ_e v_e ⊗ g_e, so one backward pass gives forces, virial and per-atom virials. The family is
    called with a `Graph`, beneath metatomic's labels, which cost a small molecule more than its energy.
    A model of one molecule in vacuum needs no neighbour list either.
    """

    def __init__(self, module: Any, options: NeighborListOptions, dtype: torch.dtype, device: torch.device):
        self._program = Program(module.potential)
        self._species_of_number = module.species_of_number.cpu()
        self._baseline = module.baseline.cpu()
        self._dtype = dtype
        self._device = device
        self._cutoff = float(options.cutoff)  # asking metatomic costs a small molecule a tenth of its time
        self._composition: tuple[tuple[tuple[int, ...], bytes], tuple[Tensor, Tensor, Tensor]] | None = None

    def evaluate(
        self,
        structures: Sequence[Prepared],
        lists: NeighborCache,
        virials: bool = False,
        uncertainty: bool = False,
    ) -> list[Results]:
        species, baseline, system = self._composed(structures)
        if self._program.takes_molecules and not virials and self._in_vacuum(structures):
            return self._evaluate_molecules(structures, baseline)
        pairs = _joined([lists.pairs(k, s, self._cutoff, True) for k, s in enumerate(structures)], structures)
        vectors = pairs.vectors.to(self._device, self._dtype).detach().requires_grad_()
        i, j, kinds, place = (t.to(self._device) for t in (pairs.centers, pairs.neighbors, species, system))
        graph = Graph(kinds, i, j, vectors, place, len(species))
        found = self._program.predict(graph)
        energy = found["energy"]
        gradient = None
        if energy.requires_grad:
            (gradient,) = torch.autograd.grad(energy.sum(), vectors, allow_unused=True)
        gradient = torch.zeros_like(pairs.vectors) if gradient is None else gradient.cpu()
        sums = torch.ops.mlplugins.forces_and_virials(
            gradient, pairs.vectors, pairs.centers, pairs.neighbors, system, len(structures), virials
        )
        energies = energy.detach().cpu() + baseline  # the sum is in float64
        results = _by_structure(structures, energies, *sums)
        if len(found) > 1:
            results = _with_more(results, found, [len(s.numbers) for s in structures])
        return self._with_uncertainty(structures, graph, results) if uncertainty else results

    def _composed(self, structures: Sequence[Prepared]) -> tuple[Tensor, Tensor, Tensor]:
        """Species, baseline energy and structure of each atom (N,), kept while the atoms stay the same."""
        each = [s.numbers for s in structures]
        numbers, sizes = np.concatenate(each) if len(each) > 1 else each[0], tuple(map(len, each))
        key, kept = (sizes, numbers.tobytes()), self._composition  # read once: threads may share a model
        if kept is None or kept[0] != key:
            species = self._species_of_number[torch.from_numpy(numbers).long()]
            system = torch.repeat_interleave(torch.tensor(sizes))
            if self._program.takes_molecules:
                on_device = torch.tensor(sizes, device=self._device)
                self._program.potential.require_molecules(species.to(self._device), on_device)
            self._composition = kept = key, (species, self._baseline[species], system)
        return kept[1]

    def _in_vacuum(self, structures: Sequence[Prepared]) -> bool:
        n = len(structures[0].numbers)
        return all(len(s.numbers) == n and in_vacuum(s, self._cutoff) for s in structures)

    def _evaluate_molecules(self, structures: Sequence[Prepared], baseline: Tensor) -> list[Results]:
        positions = np.array([s.positions for s in structures])  # (S, n, 3)
        found = self._program.potential.molecules(torch.from_numpy(positions).to(self._device, self._dtype))
        energy, gradient = (t.cpu().numpy() for t in found)
        each = baseline.numpy()[: positions.shape[1]] + energy[:, None] / positions.shape[1]  # (S, n)
        virial = (positions[:, :1] - positions).transpose(0, 2, 1) @ gradient
        virial = 0.5 * (virial + virial.transpose(0, 2, 1))
        arrays = zip(structures, each.sum(axis=1).tolist(), -gradient, virial, each)
        return [_results(s, e, f, w, atoms, None) for s, e, f, w, atoms in arrays]

    def _with_uncertainty(
        self,
        structures: Sequence[Prepared],
        graph: Graph,
        results: list[Results],
    ) -> list[Results]:
        still = graph._replace(vectors=graph.vectors.detach())
        totals, atoms = (t.cpu().double() for t in self._program.deviations(still, len(structures)))
        shares = atoms.split([len(s.numbers) for s in structures])
        return [
            replace(result, uncertainty=total, uncertainties=part.numpy())
            for result, total, part in zip(results, totals.tolist(), shares)
        ]


def _joined(pairs: Sequence[NeighborPairs], structures: Sequence[Prepared]) -> NeighborPairs:
    """The pairs of all structures, their atoms numbered through (samples and rows: of the first)."""
    if len(pairs) == 1:
        return pairs[0]
    starts = np.cumsum([0, *(len(s.numbers) for s in structures)]).tolist()
    return pairs[0]._replace(
        centers=torch.cat([p.centers + start for p, start in zip(pairs, starts)]),
        neighbors=torch.cat([p.neighbors + start for p, start in zip(pairs, starts)]),
        vectors=torch.cat([p.vectors for p in pairs]),
    )


def _by_structure(
    structures: Sequence[Prepared], energies: Tensor, forces: Tensor, virial: Tensor, virials: Tensor
) -> list[Results]:
    sizes = [len(s.numbers) for s in structures]
    per_atom = [v.numpy() for v in virials.split(sizes)] if len(virials) else [None] * len(sizes)
    arrays = zip(structures, energies.split(sizes), forces.split(sizes), virial.numpy(), per_atom)
    return [_results(s, e.sum().item(), f.numpy(), w, e.numpy(), w_i) for s, e, f, w, w_i in arrays]


class GeneralModel:
    """Any metatomic model: gradients to positions and strain; any number of full or half lists."""

    def __init__(self, model: Any, output: str, dtype: torch.dtype, device: torch.device):
        self._model = model
        self._output = output
        self._dtype = dtype
        self._device = device
        self._lists = list(model.requested_neighbor_lists())
        self._per_atom = model.capabilities().outputs[output].sample_kind == "atom"
        self._components, self._properties = _pair_labels(device)
        self._options = ModelEvaluationOptions(
            length_unit="angstrom",
            outputs={output: ModelOutput(unit="eV", sample_kind="atom" if self._per_atom else "system")},
        )

    def evaluate(
        self,
        structures: Sequence[Prepared],
        lists: NeighborCache,
        virials: bool = False,
        uncertainty: bool = False,
    ) -> list[Results]:
        if uncertainty:
            raise BadInput(
                "uncertainty: mlplugins did not write this model, and reads that output of its own only"
            )
        if virials:
            raise BadInput(
                "per-atom virials: mlplugins did not write this model, so its energy cannot be split over "
                "the neighbour vectors; ask for the stress of the whole cell"
            )
        inputs, systems = [], []
        for place, structure in enumerate(structures):
            positions, strain, system = self._system(place, structure, lists)
            inputs.append((positions, strain))
            systems.append(system)
        block = self._model(systems, self._options, check_consistency=False)[self._output].block()
        leaves = [tensor for pair in inputs for tensor in pair]
        gradients: Sequence[Tensor | None] = [None] * len(leaves)
        if block.values.requires_grad:
            gradients = torch.autograd.grad(block.values.sum(), leaves, allow_unused=True)
        values = block.values.detach().cpu().double()[:, 0]
        samples = block.samples.values.cpu().long()
        results = []
        for k, structure in enumerate(structures):
            rows = samples[:, 0] == k
            energies = None
            if self._per_atom:
                energies = torch.zeros(len(structure.numbers), dtype=torch.float64)
                energies.index_add_(0, samples[rows, 1], values[rows])
            forces, virial = (
                np.zeros(leaf.shape) if g is None else -g.cpu().double().numpy()
                for leaf, g in zip(inputs[k], gradients[2 * k : 2 * k + 2])
            )
            virial = 0.5 * (virial + virial.T)
            energy = values[rows].sum().item()
            atoms = None if energies is None else energies.numpy()
            results.append(_results(structure, energy, forces, virial, atoms, None))
        return results

    def _system(self, place: int, structure: Prepared, lists: NeighborCache) -> tuple[Tensor, Tensor, System]:
        kind: dict[str, Any] = {"dtype": self._dtype, "device": self._device}
        positions = torch.from_numpy(structure.positions).to(**kind).clone().requires_grad_()
        strain = torch.eye(3, **kind).requires_grad_()
        system = System(
            torch.from_numpy(structure.numbers).to(self._device),
            positions @ strain,
            torch.from_numpy(structure.cell).to(**kind) @ strain,
            torch.from_numpy(structure.pbc).to(self._device),
        )
        for options in self._lists:
            cutoff = options.engine_cutoff("angstrom")
            pairs = lists.pairs(place, structure, cutoff, options.full_list)
            values = pairs.vectors.to(**kind).unsqueeze(2)
            samples = pairs.labels(self._device)
            block = TensorBlock(values, samples, [self._components], self._properties)
            register_autograd_neighbors(system, block, check_consistency=False)
            system.add_neighbor_list(options, block)
        return positions, strain, system


def _with_more(results: list[Results], found: dict[str, Tensor], sizes: list[int]) -> list[Results]:
    """The results with the other quantities of the table that the family returned."""
    more: list[dict[str, Array]] = [{} for _ in results]
    for name, values in found.items():
        if name != "energy" and name in QUANTITIES:
            whole = QUANTITIES[name].per == "system"
            for each, part in zip(more, values.detach().cpu().double().split(sizes)):
                each[name] = (part.sum(dim=0) if whole else part).numpy()
    return [replace(result, more=each or None) for result, each in zip(results, more)]


def require_finite(structures: Sequence[Prepared], results: Sequence[Results], cutoff: float) -> None:
    """Raise `RunFailed` if any result is NaN or infinite; of energies and forces the text names the closest
    pair."""
    for index, (structure, result) in enumerate(zip(structures, results)):
        # a sum is finite only if its terms are, and summing is cheaper than a test of each
        virial = 0.0 if result.virial is None else result.virial.sum()
        if math.isfinite(result.energy + result.forces.sum() + virial):
            for name, value in (result.more or {}).items():
                if not np.isfinite(value).all():
                    raise RunFailed(f"structure {index}: the model gave a {name} that is not finite")
            continue
        pairs = NeighborCache().pairs(0, structure, cutoff, True)
        closest = "no atom has a neighbour"
        if len(pairs.vectors):
            distances = torch.linalg.vector_norm(pairs.vectors, dim=1)
            edge = int(distances.argmin())
            i, j = int(pairs.centers[edge]), int(pairs.neighbors[edge])
            closest = f"closest pair: atoms {i} and {j} at {distances[edge]:.4f} Å"
        raise RunFailed(
            f"structure {index} ({len(structure.numbers)} atoms): the model gave an energy of "
            f"{result.energy} eV or forces that are not finite; {closest}"
        )


def _deviation(residual: Tensor, psi: Tensor) -> Tensor:
    return torch.sqrt(residual + psi.square().sum(dim=1))


def _pair_labels(device: torch.device) -> tuple[Labels, Labels]:
    xyz = Labels("xyz", torch.arange(3, dtype=torch.int32, device=device).reshape(3, 1))
    return xyz, Labels("distance", torch.zeros(1, 1, dtype=torch.int32, device=device))


def _results(
    structure: Prepared,
    energy: float,
    forces: Array,
    virial: Array,
    energies: Array | None,
    virials: Array | None,
) -> Results:
    stress = None if structure.volume is None else -virial / structure.volume
    return Results(energy, forces, virial, stress, energies, virials)
