"""The module inside a model.pt: any family behind metatomic's systems and labels; TorchScript-able.

The only place that knows metatomic's labels.
"""

# no postponed annotations here: metatomic compares the types of forward()
from typing import Dict, List, Optional, Tuple

import torch
from ase.data import atomic_numbers
from metatensor.torch import Labels, TensorBlock, TensorMap
from metatomic.torch import ModelOutput, NeighborListOptions, System
from torch import Tensor, nn

from mlplugins.model_file import format
from mlplugins.models.base import Potential, edge_sums
from mlplugins.models.capabilities import predicts_variance
from mlplugins.quantities import ENERGY, QUANTITIES
from mlplugins.structures.graph import Graph
from mlplugins.structures.state import UNITS, ElectronicState

DIRECT = ("non_conservative_force", "non_conservative_stress")
"""Outputs that one set of vectors along the edges gives."""


class MetatomicModel(nn.Module):
    """Adapts a family (plain tensors) to metatomic (systems, labels).

    `baselines` are those of all energies, (elements,) or (energies, elements).
    """

    species_of_number: Tensor
    baseline: Tensor
    baselines: Tensor
    precision: Tensor
    inputs: List[str]
    direct_outputs: List[str]

    def __init__(
        self, potential: Potential, elements: List[str], baselines: Tensor, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.potential = potential
        self.cutoff = potential.cutoff
        self.predicts_variance = predicts_variance(potential)
        self.has_feature = potential.feature_width > 0
        self.n_centers_key: str = format.N_CENTERS
        self.inputs = list(potential.inputs)
        self.columns: List[str] = list(ElectronicState._fields)
        self.defaults: List[float] = list(ElectronicState())
        self.units: Dict[str, str] = dict(UNITS)
        self.edge_gradients_key: str = format.EDGE_GRADIENTS
        self.probes_key: str = format.FORCE_PROBES
        self.n_probes_key: str = format.N_PROBES
        self.energies: List[str] = ["energy", *potential.variants]  # in the order of `baselines`
        self.names: List[Tuple[str, str]] = [  # in the family's result and of the output
            (name, QUANTITIES[name].output or name)
            for name in potential.predicts
            if not QUANTITIES[name].along_edges
        ]
        if potential.variants:
            self.names += [("energy", ENERGY + potential.energy_name)]
            self.names += [(name, name) for name in potential.variants]
        edges = any(QUANTITIES[name].along_edges for name in potential.predicts)
        self.direct_outputs = [*DIRECT] if edges else []
        species_of_number = torch.full((len(atomic_numbers) + 1,), -1, dtype=torch.long)
        for index, symbol in enumerate(elements):
            species_of_number[atomic_numbers[symbol]] = index
        self.register_buffer("species_of_number", species_of_number)
        baselines = torch.atleast_2d(baselines.to(torch.float64))
        self.register_buffer("baseline", baselines[0].clone())
        self.register_buffer("baselines", baselines[1:].clone())
        self.register_buffer("precision", torch.zeros(0, dtype=dtype))  # of the potential
        self.options = NeighborListOptions(cutoff=potential.cutoff, full_list=True, strict=True)

    @torch.jit.export  # metatomic's wrappers ask the module of a loaded file, too
    def requested_neighbor_lists(self) -> List[NeighborListOptions]:
        return [self.options]

    @torch.jit.export
    def requested_inputs(self) -> Dict[str, ModelOutput]:
        inputs: Dict[str, ModelOutput] = {}
        for name in self.inputs:
            inputs[name] = ModelOutput(unit=self.units[name], sample_kind="system")
        return inputs

    def forward(
        self,
        systems: List[System],
        outputs: Dict[str, ModelOutput],
        selected_atoms: Optional[Labels] = None,
    ) -> Dict[str, TensorMap]:
        results: Dict[str, TensorMap] = {}
        uncertain = self.predicts_variance and "energy_uncertainty" in outputs
        probed = self.predicts_variance and self.probes_key in outputs
        feature = self.has_feature and "feature" in outputs
        if len(systems) == 0 or len(outputs) == 0:
            return results
        centers, neighbors, vectors = self._edges(systems)
        vectors = vectors.to(self.precision.dtype)
        species, system, atom = self._nodes(systems)
        n_centers = _counted(systems, self.n_centers_key, species.shape[0])
        rows = _rows(systems, selected_atoms, n_centers)
        samples = [system[rows], atom[rows]]
        state = self._state(systems)
        graph = Graph(species, centers, neighbors, vectors, system, n_centers, state)
        dtype = systems[0].positions.dtype  # of the results, as metatomic wants
        found = self._predict(graph, outputs, uncertain or probed or feature)
        if "direct_forces" in found:
            self._add_direct(results, found["direct_forces"], graph, systems, outputs, [rows] + samples)
        for name, output in self.names:
            if output in outputs:
                values = found[name].to(torch.float64)
                if name in self.energies:
                    place = self.energies.index(name)
                    of_elements = self.baseline if place == 0 else self.baselines[place - 1]
                    values = values + of_elements.index_select(0, species[:n_centers])
                per_atom = outputs[output].sample_kind == "atom"
                values = values[rows] if per_atom else _by_system(values[rows], samples[0], len(systems))
                results[output] = _map(values.unsqueeze(-1), samples, per_atom, dtype, output)
        if uncertain:
            # of the energy alone: no gradient is asked for
            still = Graph(species, centers, neighbors, vectors.detach(), system, n_centers, state)
            fixed: Dict[str, Tensor] = {}
            for name, values in found.items():
                fixed[name] = values.detach()
            residual, features = self.potential.posterior_features(still, fixed)
            residual, features = residual[rows], features[rows]
            per_atom = outputs["energy_uncertainty"].sample_kind == "atom"
            if not per_atom:
                residual = _by_system(residual, samples[0], len(systems))
                features = _by_system(features, samples[0], len(systems))
            deviation = torch.sqrt(residual + features.square().sum(dim=1))
            results["energy_uncertainty"] = _map(deviation.unsqueeze(1), samples, per_atom, dtype, "energy")
        if probed:
            probes = self.potential.force_probes(graph, found, _counted(systems, self.n_probes_key, 0))
            results[self.probes_key] = _map(probes[rows], samples, True, dtype, self.probes_key)
        if feature:
            values = found["feature"][rows].to(torch.float64)
            per_atom = outputs["feature"].sample_kind == "atom"
            values = values if per_atom else _by_system(values, samples[0], len(systems))
            results["feature"] = _map(values, samples, per_atom, dtype, "feature")
        return results

    def _predict(self, graph: Graph, outputs: Dict[str, ModelOutput], anyway: bool) -> Dict[str, Tensor]:
        """What the trunk and the heads return, as far as `outputs` need it; the trunk `anyway` if so."""
        names: List[str] = []
        for name, output in self.names:
            if output in outputs:
                names.append(name)
        for output in self.direct_outputs + [self.edge_gradients_key]:
            if output in outputs and "direct_forces" not in names:
                names.append("direct_forces")
        found: Dict[str, Tensor] = {}
        if anyway or len(names) > 0:
            found = self.potential(graph)
        of_heads: List[str] = []
        for name in names:
            if name not in found:
                of_heads.append(name)
        if len(of_heads) > 0:
            found.update(self.potential.of_heads(graph, found, of_heads))
        return found

    def _add_direct(
        self,
        results: Dict[str, TensorMap],
        gradients: Tensor,
        graph: Graph,
        systems: List[System],
        outputs: Dict[str, ModelOutput],
        rows: List[Tensor],
    ) -> None:
        """Forces and stress of vectors along the edges, and these themselves for LAMMPS; `rows`: nodes that
        are asked for, their systems and atoms."""
        samples, dtype = rows[1:], systems[0].positions.dtype
        gradients, vectors = gradients.to(torch.float64), graph.vectors.to(torch.float64)
        asked = torch.zeros_like(graph.system).index_fill(0, rows[0], 1).to(torch.float64)
        own = gradients * asked.index_select(0, graph.centers).unsqueeze(1)  # others are of other domains
        if self.edge_gradients_key in outputs:
            edges = torch.arange(gradients.shape[0], device=gradients.device)
            labels = [torch.zeros_like(edges), edges]
            results[self.edge_gradients_key] = _map(own.unsqueeze(-1), labels, True, dtype, "edge")
        exact = Graph(graph.species, graph.centers, graph.neighbors, vectors, graph.system, graph.n_centers)
        forces, _ = edge_sums(gradients, exact, len(systems))
        _, virial = edge_sums(own, exact, len(systems))
        for output in self.direct_outputs:
            if output in outputs and output.endswith("force"):
                results[output] = _map(forces[rows[0]].unsqueeze(-1), samples, True, dtype, output)
            elif output in outputs:
                volumes: List[Tensor] = []
                for system in systems:
                    volumes.append(torch.linalg.det(system.cell).abs())
                stress = virial / torch.stack(volumes).to(torch.float64).reshape(-1, 1, 1)
                results[output] = _map(stress.unsqueeze(-1), samples, False, dtype, output)

    def _state(self, systems: List[System]) -> Optional[Tensor]:
        """Charge and spin multiplicity of each system, (S, 2); None for models that take neither."""
        if len(self.inputs) == 0:
            return None
        state = torch.tensor(self.defaults, dtype=torch.float64, device=systems[0].device)
        state = state.repeat(len(systems), 1)
        for index, system in enumerate(systems):
            for column, name in enumerate(self.columns):
                if name in self.inputs:
                    state[index, column] = system.get_data(name).block(0).values[0, 0]
        return state

    def _edges(self, systems: List[System]) -> List[Tensor]:
        """Edges of all systems, sorted by centre: centers (E,), neighbors (E,), vectors (E, 3)."""
        centers: List[Tensor] = []
        neighbors: List[Tensor] = []
        vectors: List[Tensor] = []
        offset = 0
        for system in systems:
            pairs = system.get_neighbor_list(self.options)
            samples = pairs.samples.values
            centers.append(samples[:, 0].to(torch.long) + offset)
            neighbors.append(samples[:, 1].to(torch.long) + offset)
            vectors.append(pairs.values.reshape(-1, 3))
            offset += len(system)
        i, j, v = torch.cat(centers), torch.cat(neighbors), torch.cat(vectors)
        if bool((i[1:] < i[:-1]).any()):
            order = torch.argsort(i, stable=True)
            i, j, v = i[order], j[order], v[order]
        return [i, j, v]

    def _nodes(self, systems: List[System]) -> List[Tensor]:
        """Species index, system index and atom index of every node, each (N,)."""
        types: List[Tensor] = []
        system_index: List[Tensor] = []
        atom_index: List[Tensor] = []
        for index, system in enumerate(systems):
            n = len(system)
            types.append(system.types.to(torch.long))
            system_index.append(torch.full((n,), index, dtype=torch.long, device=system.device))
            atom_index.append(torch.arange(n, device=system.device))
        species = self.species_of_number.index_select(0, torch.cat(types))
        return [species, torch.cat(system_index), torch.cat(atom_index)]


def _counted(systems: List[System], key: str, otherwise: int) -> int:
    """A number in the data of the only system, such as that of the nodes that are not ghosts."""
    if len(systems) == 1 and key in systems[0].known_data():
        return int(systems[0].get_data(key).block(0).values[0, 0].item())
    return otherwise


def _rows(systems: List[System], selected_atoms: Optional[Labels], n_centers: int) -> Tensor:
    """Nodes that are asked for: the selected ones, or all that are not ghosts."""
    device = systems[0].device
    if selected_atoms is None:
        return torch.arange(n_centers, device=device)
    first: List[int] = []
    total = 0
    for system in systems:
        first.append(total)
        total += len(system)
    chosen = selected_atoms.values.to(torch.long)
    return torch.tensor(first, dtype=torch.long, device=device).index_select(0, chosen[:, 0]) + chosen[:, 1]


def _by_system(values: Tensor, system: Tensor, n_systems: int) -> Tensor:
    shape = [n_systems] + list(values.shape[1:])
    return torch.zeros(shape, dtype=values.dtype, device=values.device).index_add(0, system, values)


def _map(values: Tensor, atoms: List[Tensor], per_atom: bool, dtype: torch.dtype, output: str) -> TensorMap:
    """Values (rows, …, properties) of atoms, whose systems and indices are `atoms`, or of all systems."""
    device = values.device
    xyz = torch.arange(3, device=device, dtype=torch.int32).reshape(3, 1)
    components = torch.jit.annotate(List[Labels], [])
    for k in range(1, values.dim() - 1):
        components.append(Labels("xyz" if values.dim() == 3 else "xyz_" + str(k), xyz))
    name = output.split("::")[-1].split("/")[0]
    if per_atom:
        samples = Labels(["system", "atom"], torch.stack(atoms, dim=1).to(torch.int32))
    else:
        index = torch.arange(values.shape[0], device=device, dtype=torch.int32)
        samples = Labels(["system"], index.reshape(-1, 1))
    block = TensorBlock(
        values=values.to(dtype),
        samples=samples,
        components=components,
        properties=Labels(
            name, torch.arange(values.shape[-1], device=device, dtype=torch.int32).reshape(-1, 1)
        ),
    )
    return TensorMap(Labels("_", torch.zeros(1, 1, dtype=torch.int32, device=device)), [block])
