"""Energies, forces and virials of structures from a metatomic module, for all Python engines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

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
from numpy.typing import NDArray
from torch import Tensor
from vesin import NeighborList

from mlplugins.errors import BadInput, RunFailed
from mlplugins.model_file.structure import Array, Prepared, in_vacuum
from mlplugins.quantities import QUANTITIES, Results
from mlplugins.structures.graph import Graph
from mlplugins.structures.neighbors import require_extent

PAIR_NAMES = ["first_atom", "second_atom", "cell_shift_a", "cell_shift_b", "cell_shift_c"]


class NeighborPairs(NamedTuple):
    """Neighbours of one structure.

    Attributes:
        atoms: (2, E) int64, first and second atom of each pair.
        shifts: (E, 3) int32, cell shifts of the second atom; None unless asked for.
        vectors: (E, 3) float64, from the first to the second, Å.
    """

    atoms: Tensor
    shifts: NDArray[np.int32] | None
    vectors: Tensor

    def labels(self, device: torch.device) -> Labels:
        """As metatomic names them; they need the shifts."""
        if self.shifts is None:
            raise ValueError("pairs without cell shifts have no labels")
        values = np.concatenate([self.atoms.numpy().T, self.shifts], axis=1, dtype=np.int32)
        return Labels(PAIR_NAMES, torch.from_numpy(values).to(device), assume_unique=True)


class NeighborCache:
    """Neighbour lists that are reused between calls until an atom has moved by half the `skin` (Å).

    A list is kept for each place in the batch. While the cell changes (NPT) lists are built anew.
    """

    def __init__(self, skin: float = 0.0) -> None:
        if not math.isfinite(skin) or skin < 0:
            raise BadInput(f"skin: expected a length in Å, zero or more, got {skin}")
        self.skin = float(skin)
        self._finders: dict[tuple[int, float, bool, bool, bool], NeighborList] = {}
        self._cells: dict[int, bytes] = {}

    def pairs(
        self, place: int, structure: Prepared, cutoff: float, full: bool, shifts: bool = False
    ) -> NeighborPairs:
        """Pairs closer than `cutoff`, sorted by the first atom; in both directions if `full`."""
        require_extent(structure.positions, structure.cell, structure.pbc, cutoff)
        cell = structure.cell.tobytes()
        reuse = self.skin > 0 and self._cells.get(place) == cell
        if self.skin > 0:
            self._cells[place] = cell
        key = (place if reuse else -1, cutoff, full, reuse, shifts)
        finder = self._finders.get(key)
        if finder is None:
            finder = NeighborList(
                cutoff=cutoff,
                full_list=full,
                sorted=True,
                skin=self.skin if reuse else 0.0,
                n_threads=torch.get_num_threads(),
            )
            self._finders[key] = finder
        ij, vectors, *cells = finder.compute(
            points=structure.positions,
            box=structure.cell,
            periodic=structure.pbc,
            quantities="PDS" if shifts else "PD",
            copy=False,  # the views are copied below, before the finder is used again
        )
        atoms = np.ascontiguousarray(ij.T).view(np.int64)
        cell_shifts = cells[0].copy() if shifts else None
        return NeighborPairs(torch.from_numpy(atoms), cell_shifts, torch.from_numpy(vectors.copy()))


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
        self._composition = (0, b""), torch.zeros(0, dtype=torch.long), self._baseline

    def evaluate(
        self,
        structures: Sequence[Prepared],
        lists: NeighborCache,
        virials: bool = False,
        uncertainty: bool = False,
    ) -> list[Results]:
        species, baseline = self._species(structures)
        if self._program.takes_molecules and not virials and self._in_vacuum(structures):
            return self._evaluate_molecules(structures, baseline)
        pairs = [lists.pairs(k, structure, self._cutoff, True) for k, structure in enumerate(structures)]
        edges, exact = pairs[0].atoms, pairs[0].vectors
        system = torch.zeros(len(species), dtype=torch.long)
        if len(pairs) > 1:
            counts = torch.tensor([len(s.numbers) for s in structures])
            first = (counts.cumsum(0) - counts).tolist()
            edges = torch.cat([p.atoms + start for p, start in zip(pairs, first)], dim=1)
            exact = torch.cat([p.vectors for p in pairs])
            system = torch.repeat_interleave(counts)
        vectors = exact.to(self._device, self._dtype).detach().requires_grad_()
        i, j, kinds, place = (t.to(self._device) for t in (edges[0], edges[1], species, system))
        graph = Graph(kinds, i, j, vectors, place, len(species))
        found = self._program.predict(graph)
        energy = found["energy"]
        gradient = None
        if energy.requires_grad:
            (gradient,) = torch.autograd.grad(energy.sum(), vectors, allow_unused=True)
        gradient = torch.zeros_like(exact) if gradient is None else gradient.detach().cpu().double()
        energies = energy.detach().cpu().double() + baseline
        results = self._collect(
            structures, (edges, exact, gradient), [p.vectors for p in pairs], energies, virials
        )
        if len(found) > 1:
            results = _with_more(results, found, [len(s.numbers) for s in structures])
        return self._with_uncertainty(structures, graph, results) if uncertainty else results

    def _species(self, structures: Sequence[Prepared]) -> tuple[Tensor, Tensor]:
        """Species indices and baseline energies (N,), kept while the atoms stay the same."""
        each = [s.numbers for s in structures]
        numbers = np.concatenate(each) if len(each) > 1 else each[0]
        key, kept = (len(each), numbers.tobytes()), self._composition  # read once: threads may share a model
        if key != kept[0]:
            species = self._species_of_number[torch.from_numpy(numbers).long()]
            if self._program.takes_molecules:
                sizes = torch.tensor([len(some) for some in each], device=self._device)
                self._program.potential.require_molecules(species.to(self._device), sizes)
            self._composition = kept = key, species, self._baseline[species]
        return kept[1:]

    def _in_vacuum(self, structures: Sequence[Prepared]) -> bool:
        n = len(structures[0].numbers)
        return all(len(s.numbers) == n and in_vacuum(s, self._cutoff) for s in structures)

    def _evaluate_molecules(self, structures: Sequence[Prepared], baseline: Tensor) -> list[Results]:
        positions = np.array([s.positions for s in structures])  # (S, n, 3)
        found = self._program.potential.molecules(torch.from_numpy(positions).to(self._device, self._dtype))
        energy, gradient = (t.cpu().numpy() for t in found)
        each = baseline.numpy()[: positions.shape[1]] + energy[:, None] / positions.shape[1]  # (S, n)
        virial = (positions[:, :1] - positions).transpose(0, 2, 1) @ gradient
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

    @staticmethod
    def _collect(
        structures: Sequence[Prepared],
        gradients: tuple[Tensor, Tensor, Tensor],
        vectors: Sequence[Tensor],
        energies: Tensor,
        virials: bool,
    ) -> list[Results]:
        (i, j), v, g = gradients
        sizes, n = [len(s.numbers) for s in structures], len(energies)
        forces = _sum_over(i, g, n) - _sum_over(j, g, n)
        per_atom: list[Array | None] = [None] * len(sizes)
        if virials:
            edge = (-0.5 * v.unsqueeze(2) * g.unsqueeze(1)).reshape(-1, 9)
            halves = _sum_over(i, edge, n) + _sum_over(j, edge, n)
            per_atom = [part.numpy() for part in halves.reshape(-1, 3, 3).split(sizes)]
        virial = [(-a.T @ b).numpy() for a, b in zip(vectors, g.split([len(a) for a in vectors]))]
        arrays = zip(structures, energies.split(sizes), forces.split(sizes), virial, per_atom)
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
            pairs = lists.pairs(place, structure, cutoff, options.full_list, shifts=True)
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
            i, j = pairs.atoms[:, edge].tolist()
            closest = f"closest pair: atoms {i} and {j} at {distances[edge]:.4f} Å"
        raise RunFailed(
            f"structure {index} ({len(structure.numbers)} atoms): the model gave an energy of "
            f"{result.energy} eV or forces that are not finite; {closest}"
        )


def _sum_over(index: Tensor, rows: Tensor, n: int) -> Tensor:
    # five times faster than index_add_ for narrow rows
    columns = rows.shape[1]
    total = torch.zeros(n, columns, dtype=rows.dtype)
    return total.scatter_add_(0, index.unsqueeze(1).expand(-1, columns), rows)


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
    virial = 0.5 * (virial + virial.T)
    stress = None if structure.volume is None else -virial / structure.volume
    if virials is not None:
        virials = 0.5 * (virials + virials.transpose(0, 2, 1))
    return Results(energy, forces, virial, stress, energies, virials)
