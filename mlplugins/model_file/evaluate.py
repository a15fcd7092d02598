"""Energies, forces and virials of structures from a metatomic module, for all Python engines."""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from metatomic.torch import (
    NeighborListOptions,
)
from torch import Tensor

from mlplugins.errors import BadInput, RunFailed
from mlplugins.model_file.heat_flux import potential_flux
from mlplugins.model_file.hessian import hessian
from mlplugins.model_file.pairs import NeighborCache, NeighborPairs
from mlplugins.model_file.structure import Array, Prepared, in_vacuum
from mlplugins.quantities import ENERGY, QUANTITIES, Results
from mlplugins.structures.graph import Graph


class Program:
    """The program of a family, which takes one `Graph`, or its fields in files of mlplugins 0.1.0.

    Args:
        potential: it.
        energy: which of several energies is meant, as the family names it.
    """

    def __init__(self, potential: Any, energy: str = "energy") -> None:
        self.potential = potential
        self.energy = energy
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
        if self.energy != "energy":
            chosen = self.potential.of_heads(*self._of_file(graph), found, [self.energy])
            found = {**found, FIRST: found["energy"], "energy": chosen[self.energy]}
        return found

    def _of_file(self, graph: Graph) -> tuple[Any, ...]:
        """The arguments of the program: the fields of a graph that it knows, one by one or together."""
        fields = graph[: self._n_fields]
        return fields if self._takes_fields else (fields,)

    def of_heads(
        self, graph: Graph, found: dict[str, Tensor], wanted: list[str], gradients: bool = False
    ) -> dict[str, Tensor]:
        """Quantities of heads among `wanted`, per atom, of what `predict` gave; with `gradients` if asked."""
        if not wanted:
            return {}
        still, fixed = graph, found
        if not gradients:
            still = graph._replace(vectors=graph.vectors.detach())
            fixed = {name: values.detach() for name, values in found.items()}
        values: dict[str, Tensor] = self.potential.of_heads(*self._of_file(still), fixed, wanted)
        return values

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

    @property
    def force_floor(self) -> float | None:
        """Floor of the standard deviation of a force component, eV/Å; None: there is no such uncertainty."""
        if not hasattr(self.potential, "force_floor"):  # of earlier versions
            return None
        floor = float(self.potential.force_floor())
        return floor if floor >= 0 else None

    def force_probes(self, graph: Graph, found: dict[str, Tensor], count: int) -> Tensor:
        """(N, K), eV; see `capabilities.PredictsVariance`."""
        probes: Tensor = self.potential.force_probes(*self._of_file(graph), found, count)
        return probes


class Asked(NamedTuple):
    """What is asked of a model beside its energy.

    Attributes:
        more: quantities that it predicts.
        direct: forces and stress are the direct ones, not the derivatives of the energy.
        energies: outputs of a model of ours with several energies → its names of these; the first is
            `energy`.
        energy: that which is evaluated.
    """

    more: Sequence[str]
    direct: bool = False
    energies: Mapping[str, str] = {}
    energy: str = "energy"


FIRST = "first energy"
"""Entry of the results of a program that was asked for another energy."""

DIRECT_FORCES, DIRECT_STRESS = "direct_forces", "direct_stress"
BORN = "born_effective_charges"


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

    def __init__(
        self,
        module: Any,
        options: NeighborListOptions,
        asked: Asked,
        dtype: torch.dtype,
        device: torch.device,
    ):
        self._program = Program(module.potential, asked.energies.get(asked.energy, "energy"))
        self._more, self._direct, self._energies = asked.more, asked.direct, asked.energies
        self._species_of_number = module.species_of_number.cpu()
        rows = [module.baseline.cpu(), *getattr(module, "baselines", torch.zeros(0)).cpu()]
        self._baselines = dict(zip(["energy", *getattr(module, "energies", ["energy"])[1:]], rows))
        self._baseline = self._baselines[self._program.energy]
        self._takes_state = len(getattr(module, "inputs", [])) > 0
        self._dtype = dtype
        self._device = device
        self._cutoff = float(options.cutoff)  # asking metatomic costs a small molecule a tenth of its time
        self._composition: _Composition | None = None

    def of_energy(self, output: str) -> EdgeGradientModel:
        """The same program with another of several energies as the energy."""
        other = copy.copy(self)
        other._program = Program(self._program.potential, self._energies[output])
        other._baseline = self._baselines[other._program.energy]
        other._composition = None
        return other

    def evaluate(
        self,
        structures: Sequence[Prepared],
        lists: NeighborCache,
        virials: bool = False,
        uncertainty: bool = False,
        wanted: Collection[str] | None = None,
        probes: int | None = None,
    ) -> list[Results]:
        atoms = self._composed(structures)
        if self._program.takes_molecules and not virials and self._in_vacuum(structures):
            return self._evaluate_molecules(structures, atoms.baseline)
        pairs = _joined([lists.pairs(k, s, self._cutoff, True) for k, s in enumerate(structures)], structures)
        graph = self._graph(pairs, atoms, structures)
        born = BORN in self._more and (wanted is None or BORN in wanted)
        with torch.set_grad_enabled(born or not self._direct):
            found = self._program.predict(graph)
        moments = self._program.of_heads(graph, found, ["dipole"], True)["dipole"] if born else None
        direct = self._add_heads(found, graph, wanted)
        if moments is not None:
            found[BORN] = self._born(moments, graph, pairs, atoms)
        self._add_energies(found, graph, wanted or ())
        gradient = direct if self._direct else None
        if found["energy"].requires_grad and not self._direct:
            keep = probes is not None
            (gradient,) = torch.autograd.grad(
                found["energy"].sum(), graph.vectors, retain_graph=keep, allow_unused=True
            )
        results = self._derived(structures, pairs, found, gradient, virials)
        if direct is not None:
            other = results if self._direct else self._derived(structures, pairs, found, direct, False)
            results = _with_direct(results, other)
        if probes is not None:
            results = self._with_force_uncertainty(graph, pairs, found, results, probes)
        return self._with_uncertainty(structures, graph, found, results) if uncertainty else results

    def _add_heads(
        self, found: dict[str, Tensor], graph: Graph, wanted: Collection[str] | None
    ) -> Tensor | None:
        """Add what is wanted of heads to what was found; vectors along the edges are returned."""
        names = [n for n in self._more if n not in found and n != BORN and (wanted is None or n in wanted)]
        names += [DIRECT_FORCES] if self._direct and DIRECT_FORCES not in names else []
        found |= self._program.of_heads(graph, found, names)
        return found.pop(DIRECT_FORCES, None)

    def _add_energies(self, found: dict[str, Tensor], graph: Graph, wanted: Collection[str]) -> None:
        """Add those of several energies that are wanted, of the atoms and with their baselines."""
        names = {output: name for output, name in self._energies.items() if output in wanted}
        others = [name for name in names.values() if name != "energy"]
        values = {"energy": found.get(FIRST, found["energy"]), **self._program.of_heads(graph, found, others)}
        for output, name in names.items():
            baseline = self._baselines[name][graph.species.cpu()]
            found[output] = values[name].detach().cpu().double() + baseline

    @property
    def has_force_uncertainty(self) -> bool:
        """Whether the model says how uncertain its forces are."""
        return self._program.force_floor is not None

    def _with_force_uncertainty(
        self,
        graph: Graph,
        pairs: NeighborPairs,
        found: dict[str, Tensor],
        results: list[Results],
        count: int,
    ) -> list[Results]:
        """Standard deviations of force components: one backward pass for each probe."""
        floor = self._program.force_floor or 0.0
        sums = self._program.force_probes(graph, found, count).sum(dim=0)  # (K,)
        edges = pairs.vectors, pairs.centers, pairs.neighbors, graph.system.cpu()
        variance = torch.full((len(graph.species), 3), floor**2, dtype=torch.float64)
        last = len(sums) - 1
        for q, probe in enumerate(sums):
            (gradient,) = torch.autograd.grad(probe, graph.vectors, retain_graph=q < last)
            forces, *_ = torch.ops.mlplugins.forces_and_virials(gradient.cpu(), *edges, len(results), False)
            variance += forces.square()
        sizes = [len(result.forces) for result in results]
        parts = variance.sqrt().split(sizes)
        return [replace(result, forces_uncertainty=part.numpy()) for result, part in zip(results, parts)]

    def _born(self, moments: Tensor, graph: Graph, pairs: NeighborPairs, atoms: _Composition) -> Tensor:
        """Z_iab = ∂μ_a/∂r_ib (N, 3, 3): three backward passes to the vectors, summed as forces are."""
        rows = []
        for a in range(3):
            (gradient,) = torch.autograd.grad(
                moments[:, a].sum(), graph.vectors, retain_graph=True, allow_unused=True
            )
            gradient = torch.zeros_like(pairs.vectors) if gradient is None else gradient.cpu()
            edges = pairs.vectors, pairs.centers, pairs.neighbors, atoms.system
            forces, *_ = torch.ops.mlplugins.forces_and_virials(gradient, *edges, len(atoms.key), False)
            rows.append(-forces)
        return torch.stack(rows, dim=1)

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
        if any(_is_more(name) for name in found):
            results = _with_more(results, found, [len(s.numbers) for s in structures])
        return results

    def heat_flux(
        self, structure: Prepared, velocities: Array, lists: NeighborCache, messages: bool
    ) -> tuple[Array, Array, Array]:
        """Energies of the atoms (N,) as the family gives them, their baseline (N,), and the potential part of
        the heat flux (3,); `velocities` (N, 3) in any unit."""
        if getattr(self._program.potential, "coupled", False):
            raise BadInput("heat flux: coupled energies are of all atoms together: expected those of atoms")
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
        return [results_of(s, e, f, w, atoms, None) for s, e, f, w, atoms in arrays]

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
        results.append(results_of(structure, energy, forces[first:end], w, each, per_atom))
    return results


def _with_more(results: list[Results], found: dict[str, Tensor], sizes: list[int]) -> list[Results]:
    """The results with the other quantities of the table that the family returned."""
    more: list[dict[str, Array]] = [{} for _ in results]
    for name, values in found.items():
        if _is_more(name):
            whole = name not in QUANTITIES or QUANTITIES[name].per == "system"
            for each, part in zip(more, values.detach().cpu().double().split(sizes)):
                each[name] = (part.sum(dim=0) if whole else part).numpy()
    return [replace(result, more=each or None) for result, each in zip(results, more)]


def _is_more(name: str) -> bool:
    """Whether an entry of a family's results is a quantity beside its energy."""
    return name.startswith(ENERGY) or (name != "energy" and name in QUANTITIES)


def _with_direct(results: list[Results], direct: list[Results]) -> list[Results]:
    """The results with forces and stress of others as quantities of their own."""
    found = []
    for result, other in zip(results, direct):
        more = {**(result.more or {}), DIRECT_FORCES: other.forces}
        if other.stress is not None:
            more[DIRECT_STRESS] = other.stress
        found.append(replace(result, more=more))
    return found


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


def results_of(
    structure: Prepared,
    energy: float,
    forces: Array,
    virial: Array,
    energies: Array | None,
    virials: Array | None,
) -> Results:
    """Results of one structure, with its stress if it has one."""
    stress = None if structure.volume is None else -virial / structure.volume
    return Results(energy, forces, virial, stress, energies, virials)
