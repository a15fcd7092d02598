"""CHGNet (chgnet 0.4.2) as a metatomic file, which ASE, LAMMPS and i-PI run through mlplugins.

    python 09_chgnet.py chgnet.pt

Needs chgnet and metatomic-torch in one environment; the file then needs neither chgnet nor pymatgen. CHGNet's
layers are used as they are, with its weights. They take no graph that TorchScript can build, so that the
bonds and the angles between them are found here, from a full neighbour list, and the layers are traced.
"""

import sys
from typing import Dict, List, Optional

import chgnet.model.functions
import chgnet.model.layers
import torch
from chgnet.model import CHGNet
from metatensor.torch import Labels, TensorBlock, TensorMap
from metatomic.torch import (
    AtomisticModel,
    ModelCapabilities,
    ModelMetadata,
    ModelOutput,
    NeighborListOptions,
    System,
)

CUTOFF = 6.0  # Å, of bonds
ELEMENTS = 94


def summed(data, owners, *, average=True, num_owner=None):
    """chgnet's `aggregate` without numbers of rows that a trace would keep for ever."""
    assert not average
    return data.new_zeros([num_owner, data.shape[1]]).index_add(0, owners, data)


class Layers(torch.nn.Module):
    """The energy of each atom: `CHGNet._compute` on plain tensors."""

    def __init__(self, model: CHGNet) -> None:
        super().__init__()
        self.model = model

    def forward(self, numbers, vectors, ends, undirected, first, angles):
        m = self.model
        lengths = torch.linalg.vector_norm(vectors, dim=1)
        radial = m.bond_basis_expansion.rbf_expansion_ag(lengths[first])
        near = m.bond_basis_expansion.rbf_expansion_bg(lengths[first])
        directions = vectors / lengths[:, None]
        turn = torch.acos((directions[angles[:, 1]] * directions[angles[:, 2]]).sum(1) * (1 - 1e-6))
        angle = m.angle_embedding(self.fourier(turn))
        atom, bond = m.atom_embedding(numbers - 1), m.bond_embedding(radial)
        of_bonds, of_angles = m.bond_weights_ag(radial), m.bond_weights_bg(near)
        graph = torch.stack([angles[:, 0], undirected[angles[:, 1]], undirected[angles[:, 2]]], dim=1)
        for convolve, bonds, update in zip(m.atom_conv_layers, m.bond_conv_layers, m.angle_layers):
            atom = convolve(atom, bond, of_bonds, ends, undirected)
            bond = bonds(atom, bond, of_angles, angle, graph)
            angle = update(atom, bond, angle, graph)
        atom = m.atom_conv_layers[-1](atom, bond, of_bonds, ends, undirected)
        composition = m.composition_model.fc.weight[0][numbers - 1]
        return m.mlp(m.readout_norm(atom)).squeeze(1) + composition

    def fourier(self, x):
        """chgnet's `Fourier`, which writes into an array whose size a trace would keep."""
        waves = torch.outer(x, self.model.angle_basis_expansion.fourier_expansion.frequencies)
        constant = torch.full_like(x, 0.5**0.5)[:, None]
        return torch.cat([constant, torch.sin(waves), torch.cos(waves)], dim=1) / torch.pi**0.5


class Chgnet(torch.nn.Module):
    """What metatomic asks of a model: a neighbour list, and energies per atom."""

    def __init__(self, layers: torch.nn.Module, angle_cutoff: float) -> None:
        super().__init__()
        self.layers = layers
        self.angle_cutoff = angle_cutoff
        self.full = NeighborListOptions(cutoff=CUTOFF, full_list=True, strict=True)

    def requested_neighbor_lists(self) -> List[NeighborListOptions]:
        return [self.full]

    def angles(self, centers: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """(A, 3): an atom and two different directed bonds of it, both short."""
        near = torch.nonzero(lengths < self.angle_cutoff).reshape(-1)
        near = near[torch.argsort(centers[near])]
        counts = torch.bincount(centers[near], minlength=1)
        start = torch.cumsum(counts, 0) - counts
        partners = counts[centers[near]]
        one = torch.repeat_interleave(torch.arange(len(near), device=near.device), partners)
        before = torch.repeat_interleave(torch.cumsum(partners, 0) - partners, partners)
        other = start[centers[near[one]]] + torch.arange(len(one), device=near.device) - before
        one, other = one[one != other], other[one != other]
        return torch.stack([centers[near[one]], near[one], near[other]], dim=1)

    def energies(self, system: System) -> torch.Tensor:
        pairs = system.get_neighbor_list(self.full)
        samples = pairs.samples.values.to(torch.long)  # first atom, second atom, cell shift
        vectors = pairs.values.reshape(-1, 3)
        i, j, shift = samples[:, 0], samples[:, 1], samples[:, 2:5]
        # a bond and its reverse are one: written down from the smaller index (or positive shift) on
        leading = shift[:, 0] * 10000 + shift[:, 1] * 100 + shift[:, 2]
        backward = (i > j) | ((i == j) & (leading < 0))
        sign = torch.where(backward, -1, 1).reshape(-1, 1)
        key = torch.cat([torch.minimum(i, j)[:, None], torch.maximum(i, j)[:, None], sign * shift], dim=1)
        _, undirected, counts = torch.unique(key, dim=0, return_inverse=True, return_counts=True)
        first = torch.argsort(undirected)[torch.cumsum(counts, 0) - counts]
        angles = self.angles(i, torch.linalg.vector_norm(vectors.detach(), dim=1))
        ends = torch.stack([i, j], dim=1)
        return self.layers(system.types.to(torch.long), vectors, ends, undirected, first, angles)

    def forward(
        self,
        systems: List[System],
        outputs: Dict[str, ModelOutput],
        selected_atoms: Optional[Labels] = None,
    ) -> Dict[str, TensorMap]:
        device = systems[0].device
        result: Dict[str, TensorMap] = {}
        if "energy" not in outputs:
            return result
        values: List[torch.Tensor] = []
        rows: List[torch.Tensor] = []
        for index, system in enumerate(systems):
            atoms = torch.arange(len(system), device=device)
            values.append(self.energies(system))
            rows.append(torch.stack([torch.full_like(atoms, index), atoms], dim=1))
        one = torch.zeros(1, 1, dtype=torch.int32, device=device)
        block = TensorBlock(
            torch.cat(values).reshape(-1, 1),
            Labels(["system", "atom"], torch.cat(rows).to(torch.int32)),
            torch.jit.annotate(List[Labels], []),
            Labels("energy", one),
        )
        energy = TensorMap(Labels("_", one), [block])
        if selected_atoms is not None:
            energy = energy_of(energy, selected_atoms)
        if outputs["energy"].sample_kind == "system":
            energy = total(energy, len(systems))
        result["energy"] = energy
        return result


def energy_of(energy: TensorMap, selected: Labels) -> TensorMap:
    """The rows of some atoms: of those that a rank owns."""
    block = energy.block()
    kept = block.samples.select(selected)
    new = TensorBlock(
        block.values[kept],
        Labels(block.samples.names, block.samples.values[kept]),
        torch.jit.annotate(List[Labels], []),
        block.properties,
    )
    return TensorMap(energy.keys, [new])


def total(energy: TensorMap, n_systems: int) -> TensorMap:
    block = energy.block()
    rows = torch.arange(n_systems, device=block.values.device)
    sums = torch.zeros(n_systems, 1, dtype=block.values.dtype, device=block.values.device)
    new = TensorBlock(
        sums.index_add(0, block.samples.column("system").to(torch.long), block.values),
        Labels(["system"], rows.reshape(-1, 1).to(torch.int32)),
        torch.jit.annotate(List[Labels], []),
        block.properties,
    )
    return TensorMap(energy.keys, [new])


def traced(model: CHGNet) -> torch.jit.ScriptModule:
    """The layers, of four atoms in a row; numbers of atoms, bonds and angles stay free."""
    chgnet.model.layers.aggregate = summed
    chgnet.model.layers.len = lambda tensor: tensor.shape[0]  # a trace keeps what `len` gives
    ends = torch.tensor([[0, 1], [1, 0], [1, 2], [2, 1], [2, 3], [3, 2]])
    vectors = torch.tensor([[1.0, 0.5, 2.0], [-1.0, -0.5, -2.0], [2.0, 0.0, 1.0], [-2.0, 0.0, -1.0]])
    vectors = torch.cat([vectors, vectors[:2] * 0.9])
    undirected, first = torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([0, 2, 4])
    angles = torch.tensor([[1, 1, 2], [1, 2, 1], [2, 3, 4], [2, 4, 3]])
    example = (torch.tensor([3, 16, 8, 1]), vectors, ends, undirected, first, angles)
    with torch.no_grad():
        return torch.jit.trace(Layers(model.eval()), example, check_trace=False)


def main(path: str) -> None:
    model = CHGNet.load(use_device="cpu", verbose=False)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    n_layers = len(model.atom_conv_layers)
    capabilities = ModelCapabilities(
        outputs={"energy": ModelOutput(unit="eV", sample_kind="atom")},
        atomic_types=list(range(1, ELEMENTS + 1)),
        interaction_range=CUTOFF * n_layers,
        length_unit="angstrom",
        supported_devices=["cpu"],
        dtype="float32",
    )
    metadata = ModelMetadata(name="CHGNet 0.3.0", references={"model": ["10.1038/s42256-023-00716-3"]})
    wrapped = Chgnet(traced(model), float(model.model_args["bond_graph_cutoff"])).eval()
    AtomisticModel(wrapped, metadata, capabilities).save(path)


if __name__ == "__main__":
    main(sys.argv[1])
