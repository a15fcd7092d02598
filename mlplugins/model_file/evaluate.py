"""Energies, forces and virials of structures from a metatomic module, for all Python engines."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from metatensor.torch import Labels, TensorBlock, TensorMap
from metatomic.torch import (
    ModelEvaluationOptions,
    ModelOutput,
    NeighborListOptions,
    System,
    register_autograd_neighbors,
    unit_conversion_factor,
)
from torch import Tensor

from mlplugins.errors import BadInput, RunFailed
from mlplugins.model_file.heat_flux import potential_flux
from mlplugins.model_file.hessian import hessian
from mlplugins.model_file.pairs import NeighborCache, NeighborPairs
from mlplugins.model_file.structure import Array, Prepared, in_vacuum
from mlplugins.quantities import QUANTITIES, Results
from mlplugins.structures.graph import Graph
from mlplugins.structures.state import UNITS


class Program:
    """The program of a family, which takes one `Graph`, or its fields in files of mlplugins 0.1.0."""

    def __init__(self, potential: Any) -> None:
        self.potential = potential
        arguments = potential.forward.schema.arguments
        self._takes_fields = len(arguments) > 2  # itself and the graph
        # six until models took the charge and spin of a structure
        self._n_fields = 6 if self._takes_fields else len(arguments[1].type.elements())
        self.takes_molecules = bool(getattr(potential, "takes_molecules", False))  # others lack it
        # of the graph alone in files of earlier versions
        self._variance_of_found = len(potential.posterior_features.schema.arguments) == 3

    @property
    def n_members(self) -> int:
        """Members of a committee; 1 of other models."""
        return int(getattr(self.potential, "n_members", 1))

    def predict(self, graph: Graph) -> dict[str, Tensor]:
        """Quantities per atom by name, `energy` (n_centers,) among them, in the precision of the model."""
        found: dict[str, Tensor] = self.potential(*self._of_file(graph))
        return found

    def _of_file(self, graph: Graph) -> tuple[Any, ...]:
        """The arguments of the program: the fields of a graph that it knows, one by one or together."""
        fields = graph[: self._n_fields]
        return fields if self._takes_fields else (fields,)

    def deviations(self, graph: Graph, n_systems: int, found: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Standard deviations of the energies of all systems (S,) and atoms (N,), eV, of which `predict`
        gave `found`."""
        still = graph._replace(vectors=graph.vectors.detach())
        arguments: tuple[Any, ...] = self._of_file(still)
        if self._takes_fields:
            arguments = (*still[:4], still.n_centers)
        elif self._variance_of_found:
            arguments = (*arguments, {name: values.detach() for name, values in found.items()})
        residual, psi = self.potential.posterior_features(*arguments)

        def summed(x: Tensor) -> Tensor:
            return x.new_zeros(n_systems, *x.shape[1:]).index_add(0, graph.system, x)

        return _deviation(summed(residual), summed(psi)), _deviation(residual, psi)


class _Composition(NamedTuple):
    """What the elements of the structures determine.

    Attributes:
        key: atomic numbers of each structure.
        species: (N,) of all atoms, on the device.
        baseline: (N,) energies, eV.
        system: (N,) the structure of each atom.
        system_on_device: the same.
        starts: first atom of each structure, and the number of all.
    """

    key: tuple[bytes, ...]
    species: Tensor
    baseline: Array
    system: Tensor
    system_on_device: Tensor
    starts: list[int]


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
        self._takes_state = len(getattr(module, "inputs", [])) > 0
        self._dtype = dtype
        self._device = device
        self._cutoff = float(options.cutoff)  # asking metatomic costs a small molecule a tenth of its time
        self._composition: _Composition | None = None

    def evaluate(
        self,
        structures: Sequence[Prepared],
        lists: NeighborCache,
        virials: bool = False,
        uncertainty: bool = False,
    ) -> list[Results]:
        atoms = self._composed(structures)
        if self._program.takes_molecules and not virials and self._in_vacuum(structures):
            return self._evaluate_molecules(structures, atoms.baseline)
        pairs = _joined([lists.pairs(k, s, self._cutoff, True) for k, s in enumerate(structures)], structures)
        graph = self._graph(pairs, atoms, structures)
        found = self._program.predict(graph)
        gradient = None
        if found["energy"].requires_grad:
            (gradient,) = torch.autograd.grad(found["energy"].sum(), graph.vectors, allow_unused=True)
        results = self._derived(structures, pairs, found, gradient, virials)
        return self._with_uncertainty(structures, graph, found, results) if uncertainty else results

    @property
    def n_members(self) -> int:
        """Members of a committee; 1 of other models."""
        return self._program.n_members

    def members(
        self, structures: Sequence[Prepared], lists: NeighborCache, virials: bool = False
    ) -> list[list[Results]]:
        """Results of each member of a committee, from one backward pass: each has its own vectors."""
        atoms = self._composed(structures)
        pairs = _joined([lists.pairs(k, s, self._cutoff, True) for k, s in enumerate(structures)], structures)
        shared = pairs.vectors.to(self._device, self._dtype).detach()
        vectors = shared.repeat(self.n_members, 1, 1).requires_grad_()  # (M, E, 3)
        i, j = pairs.centers.to(self._device), pairs.neighbors.to(self._device)
        state = self._state(structures)
        graph = Graph(atoms.species, i, j, shared, atoms.system_on_device, atoms.starts[-1], state)
        each = self._program.potential.members(graph, vectors)
        total = torch.stack([found["energy"] for found in each]).sum()
        gradients = [None] * len(each)
        if total.requires_grad:
            (whole,) = torch.autograd.grad(total, vectors, allow_unused=True)
            gradients = gradients if whole is None else list(whole)
        pieces = zip(each, gradients)
        return [self._derived(structures, pairs, found, gradient, virials) for found, gradient in pieces]

    def _derived(
        self,
        structures: Sequence[Prepared],
        pairs: NeighborPairs,
        found: dict[str, Tensor],
        gradient: Tensor | None,
        virials: bool,
    ) -> list[Results]:
        """What a model found, and the gradient of its energy with respect to the vectors."""
        atoms = self._composed(structures)
        gradient = torch.zeros_like(pairs.vectors) if gradient is None else gradient.cpu()
        sums = torch.ops.mlplugins.forces_and_virials(
            gradient, pairs.vectors, pairs.centers, pairs.neighbors, atoms.system, len(structures), virials
        )
        energies = found["energy"].detach().cpu().numpy() + atoms.baseline  # the sum is in float64
        results = _by_structure(structures, atoms.starts, energies, *(t.numpy() for t in sums))
        if any(name in QUANTITIES for name in found if name != "energy"):
            results = _with_more(results, found, [len(s.numbers) for s in structures])
        return results

    def heat_flux(
        self, structure: Prepared, velocities: Array, lists: NeighborCache, messages: bool
    ) -> tuple[Array, Array, Array]:
        """Energies of the atoms (N,) as the family gives them, their baseline (N,), and the potential part of
        the heat flux (3,); `velocities` (N, 3) in any unit."""
        atoms = self._composed([structure])
        pairs = lists.pairs(0, structure, self._cutoff, True)
        graph = self._graph(pairs, atoms, [structure])
        moving = torch.from_numpy(velocities).to(self._device)
        u, flux = potential_flux(lambda g: self._program.predict(g)["energy"], graph, moving, messages)
        return u.cpu().double().numpy(), atoms.baseline, flux.cpu().numpy()

    def hessian(self, structure: Prepared, lists: NeighborCache) -> Array:
        """∂²E/∂r∂r of one structure, (3N, 3N), eV/Å²."""
        atoms = self._composed([structure])
        graph = self._graph(lists.pairs(0, structure, self._cutoff, True), atoms, [structure])
        return hessian(lambda g: self._program.predict(g)["energy"], graph).cpu().numpy()

    def _graph(self, pairs: NeighborPairs, atoms: _Composition, structures: Sequence[Prepared]) -> Graph:
        vectors = pairs.vectors.to(self._device, self._dtype).detach().requires_grad_()
        i, j = pairs.centers.to(self._device), pairs.neighbors.to(self._device)
        state = self._state(structures)
        return Graph(atoms.species, i, j, vectors, atoms.system_on_device, atoms.starts[-1], state)

    def _state(self, structures: Sequence[Prepared]) -> Tensor | None:
        if not self._takes_state:
            return None
        rows = [list(structure.state) for structure in structures]
        return torch.tensor(rows, dtype=torch.float64, device=self._device)

    def _composed(self, structures: Sequence[Prepared]) -> _Composition:
        """What depends on the elements only, kept while they stay the same."""
        key = tuple(s.numbers.tobytes() for s in structures)
        kept = self._composition  # read once: threads may share a model
        if kept is None or kept.key != key:
            sizes = torch.tensor([len(s.numbers) for s in structures])
            numbers = torch.from_numpy(np.concatenate([s.numbers for s in structures])).long()
            species = self._species_of_number[numbers]
            on_device, system = species.to(self._device), torch.repeat_interleave(sizes)
            if self._program.takes_molecules:
                self._program.potential.require_molecules(on_device, sizes.to(self._device))
            baseline, starts = self._baseline[species].numpy(), [0, *sizes.cumsum(0).tolist()]
            kept = _Composition(key, on_device, baseline, system, system.to(self._device), starts)
            self._composition = kept
        return kept

    def _in_vacuum(self, structures: Sequence[Prepared]) -> bool:
        n = len(structures[0].numbers)
        return all(len(s.numbers) == n and in_vacuum(s, self._cutoff) for s in structures)

    def _evaluate_molecules(self, structures: Sequence[Prepared], baseline: Array) -> list[Results]:
        positions = np.array([s.positions for s in structures])  # (S, n, 3)
        found = self._program.potential.molecules(torch.from_numpy(positions).to(self._device, self._dtype))
        energy, gradient = (t.cpu().numpy() for t in found)
        each = baseline[: positions.shape[1]] + energy[:, None] / positions.shape[1]  # (S, n)
        virial = (positions[:, :1] - positions).transpose(0, 2, 1) @ gradient
        virial = 0.5 * (virial + virial.transpose(0, 2, 1))
        arrays = zip(structures, each.sum(axis=1).tolist(), -gradient, virial, each)
        return [_results(s, e, f, w, atoms, None) for s, e, f, w, atoms in arrays]

    def _with_uncertainty(
        self,
        structures: Sequence[Prepared],
        graph: Graph,
        found: dict[str, Tensor],
        results: list[Results],
    ) -> list[Results]:
        deviations = self._program.deviations(graph, len(structures), found)
        totals, atoms = (t.cpu().double() for t in deviations)
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
    structures: Sequence[Prepared],
    starts: Sequence[int],
    energies: Array,
    forces: Array,
    virial: Array,
    virials: Array,
) -> list[Results]:
    results = []
    for structure, first, end, w in zip(structures, starts, starts[1:], virial):
        each, per_atom = energies[first:end], virials[first:end] if len(virials) else None
        energy = float(np.add.reduce(each))
        results.append(_results(structure, energy, forces[first:end], w, each, per_atom))
    return results


class GeneralModel:
    """Any metatomic model: gradients to positions and strain; any number of full or half lists.

    Beside the energy it is asked for the quantities `more`, which it must have `declared`.
    """

    def __init__(
        self, model: Any, output: str, more: Sequence[str], dtype: torch.dtype, device: torch.device
    ):
        self._model = model
        self._output = output
        self._more = {name: key for name in more if (key := QUANTITIES[name].output)}
        self._dtype = dtype
        self._device = device
        self._lists = list(model.requested_neighbor_lists())
        self._inputs = list(model.requested_inputs(use_new_names=True))
        self._components, self._properties = _pair_labels(device)
        kinds = {key: value.sample_kind for key, value in model.capabilities().outputs.items()}
        units = {output: "eV"} | {key: QUANTITIES[name].unit for name, key in self._more.items()}
        outputs = {key: ModelOutput(unit=unit, sample_kind=kinds[key]) for key, unit in units.items()}
        self._options = ModelEvaluationOptions(length_unit="angstrom", outputs=outputs)

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
        found = self._model(systems, self._options, check_consistency=False)
        energy = found[self._output].block().values
        leaves = [tensor for pair in inputs for tensor in pair]
        gradients: Sequence[Tensor | None] = [None] * len(leaves)
        if energy.requires_grad:
            gradients = torch.autograd.grad(energy.sum(), leaves, allow_unused=True)
        sizes = [len(s.numbers) for s in structures]
        totals, atoms = _of_structures(found[self._output], self._output, (), sizes)
        results = []
        for k, structure in enumerate(structures):
            forces, virial = (
                np.zeros(leaf.shape) if g is None else -g.cpu().double().numpy()
                for leaf, g in zip(inputs[k], gradients[2 * k : 2 * k + 2])
            )
            virial = 0.5 * (virial + virial.T)
            each = None if atoms is None else atoms[k]
            results.append(_results(structure, float(totals[k]), forces, virial, each, None))
        more: list[dict[str, Array]] = [{} for _ in structures]
        for name, key in self._more.items():
            quantity = QUANTITIES[name]
            totals, atoms = _of_structures(found[key], key, quantity.shape, sizes)
            for values, value in zip(more, totals if quantity.per == "system" else atoms or ()):
                values[name] = value
        return [replace(result, more=values or None) for result, values in zip(results, more)]

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
        for name in self._inputs:
            system.add_data(name, _of_system(name, getattr(structure.state, name), kind))
        for options in self._lists:
            cutoff = options.engine_cutoff("angstrom")
            pairs = lists.pairs(place, structure, cutoff, options.full_list)
            values = pairs.vectors.to(**kind).unsqueeze(2)
            samples = pairs.labels(self._device)
            block = TensorBlock(values, samples, [self._components], self._properties)
            register_autograd_neighbors(system, block, check_consistency=False)
            system.add_neighbor_list(options, block)
        return positions, strain, system


def _of_structures(
    found: Any, name: str, shape: tuple[int, ...], sizes: Sequence[int]
) -> tuple[list[Array], list[Array] | None]:
    """Values of the structures, each of `shape`, of a model's output; and of their atoms, if it has them."""
    n_values = [block.values[:1].numel() for block in found.blocks()]
    if n_values != [math.prod(shape)]:
        raise RunFailed(
            f"the model's output '{name}' has {len(n_values)} block(s) with {n_values} components per "
            f"sample; expected one with {math.prod(shape)}"
        )
    block = found.block()
    values = block.values.detach().cpu().double().reshape(-1, *shape)
    samples, per_atom = block.samples.values.cpu().long(), "atom" in block.samples.names
    rows = samples[:, 0]
    if per_atom:
        rows = torch.tensor([0, *sizes]).cumsum(0)[rows] + samples[:, 1]
    whole = values.new_zeros(sum(sizes) if per_atom else len(sizes), *shape).index_add_(0, rows, values)
    if not per_atom:
        return list(whole.numpy()), None
    atoms = [part.numpy() for part in whole.split(list(sizes))]
    return [part.sum(axis=0) for part in atoms], atoms


def declared(outputs: Mapping[str, ModelOutput]) -> tuple[str, ...]:
    """Quantities of the table, beside the energy, that a model with these outputs predicts: in a unit that
    can be converted to ours, and of every atom where the quantity is one of atoms."""
    names = []
    for name, quantity in QUANTITIES.items():
        output = None if quantity.output is None else outputs.get(quantity.output)
        if name == "energy" or output is None or (quantity.per == "atom" and output.sample_kind != "atom"):
            continue
        if bool(quantity.unit) == bool(output.unit) and _convertible(output.unit, quantity.unit):
            names.append(name)
    return tuple(names)


def _convertible(unit: str, other: str) -> bool:
    try:
        return unit_conversion_factor(unit, other) > 0
    except ValueError:
        return False


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
        virial = 0.0 if result.virial is None else np.add.reduce(result.virial, axis=None)
        if math.isfinite(result.energy + np.add.reduce(result.forces, axis=None) + virial):
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


def _of_system(name: str, value: float, kind: Mapping[str, Any]) -> TensorMap:
    """A number of the structure as metatomic passes it."""
    zero = torch.zeros(1, 1, dtype=torch.int32, device=kind["device"])
    values = torch.full((1, 1), value, **kind)
    block = TensorBlock(values, Labels(["system"], zero), [], Labels([name], zero))
    found = TensorMap(Labels(["_"], zero), [block])
    found.set_info("unit", UNITS[name])
    return found


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
