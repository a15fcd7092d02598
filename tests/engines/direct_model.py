"""A metatomic model with every output that `pair_style metatomic` may ask for, each with a known value."""

from typing import Dict, List, Optional

import torch
from metatensor.torch import Labels, TensorBlock, TensorMap
from metatomic.torch import (
    AtomisticModel,
    ModelCapabilities,
    ModelMetadata,
    ModelOutput,
    NeighborListOptions,
    System,
)

SPRING = 0.05  # eV/Å²
FORCE = [0.1, -0.2, 0.3]  # eV/Å, times x in Å: not zero on average
STRESS = [[0.01, 0.002, 0.003], [0.002, 0.02, 0.004], [0.003, 0.004, 0.03]]  # eV/Å³
UNCERTAINTY = 0.25  # eV per atom


class Direct(torch.nn.Module):
    """E_i = ½ SPRING Σ_j (r_ij − 4)² within 4 Å; the variant `double` is twice that.

    Args:
        length, energy: how many of the model's units an Å and an eV are.
    """

    def __init__(self, length: float, energy: float) -> None:
        super().__init__()
        self.options = NeighborListOptions(cutoff=4.0 * length, full_list=True, strict=True)
        self.length = length
        self.energy = energy
        self.register_buffer("force", torch.tensor(FORCE, dtype=torch.float64) * energy / length**2)
        self.register_buffer("stress", torch.tensor(STRESS, dtype=torch.float64) * energy / length**3)

    def requested_neighbor_lists(self) -> List[NeighborListOptions]:
        return [self.options]

    def forward(
        self,
        systems: List[System],
        outputs: Dict[str, ModelOutput],
        selected_atoms: Optional[Labels] = None,
    ) -> Dict[str, TensorMap]:
        system = systems[0]
        pairs = system.get_neighbor_list(self.options)
        r = torch.linalg.vector_norm(pairs.values.reshape(-1, 3), dim=1) / self.length
        energy = torch.zeros(len(system), dtype=r.dtype)
        energy = energy.index_add(
            0, pairs.samples.column("first_atom").to(torch.long), 0.025 * self.energy * (r - 4.0) ** 2
        )
        atoms = torch.arange(len(system))
        if selected_atoms is not None:
            atoms = selected_atoms.column("atom").to(torch.long)
        per_atom = Labels(
            ["system", "atom"], torch.stack([torch.zeros_like(atoms), atoms], 1).to(torch.int32)
        )
        key = Labels("_", torch.zeros(1, 1, dtype=torch.int32))
        none = torch.jit.annotate(List[Labels], [])
        xyz = torch.arange(3, dtype=torch.int32).reshape(3, 1)
        result: Dict[str, TensorMap] = {}
        for name in outputs:
            label = Labels(name.split("/")[0], torch.zeros(1, 1, dtype=torch.int32))
            if name == "energy" or name == "energy/double":
                values = energy[atoms].reshape(-1, 1) * (2.0 if name == "energy/double" else 1.0)
                block = TensorBlock(values, per_atom, none, label)
            elif name == "energy_uncertainty":
                block = TensorBlock(
                    torch.full((len(atoms), 1), 0.25 * self.energy, dtype=r.dtype), per_atom, none, label
                )
            elif name == "non_conservative_force":
                x = system.positions[atoms, :1]
                values = (x * self.force).reshape(-1, 3, 1)
                block = TensorBlock(values, per_atom, [Labels("xyz", xyz)], label)
            else:
                values = self.stress.reshape(1, 3, 3, 1)
                rows = Labels("system", torch.zeros(1, 1, dtype=torch.int32))
                block = TensorBlock(values, rows, [Labels("xyz_1", xyz), Labels("xyz_2", xyz)], label)
            result[name] = TensorMap(key, [block])
        return result


def write(path, units=("angstrom", "eV"), sizes=(1.0, 1.0)) -> None:
    """Write the model, float64, argon only; in other units of length and energy: `sizes` of them are an Å and
    an eV."""
    length, energy = units
    outputs = {
        "energy": ModelOutput(unit=energy, sample_kind="atom"),
        "energy/double": ModelOutput(unit=energy, sample_kind="atom", description="twice the energy"),
        "energy_uncertainty": ModelOutput(unit=energy, sample_kind="atom"),
        "non_conservative_force": ModelOutput(unit=f"{energy}/{length}", sample_kind="atom"),
        "non_conservative_stress": ModelOutput(unit=f"{energy}/{length}^3", sample_kind="system"),
    }
    capabilities = ModelCapabilities(
        outputs=outputs,
        atomic_types=[18],
        interaction_range=4.0 * sizes[0],
        length_unit=length,
        supported_devices=["cpu"],
        dtype="float64",
    )
    references = {"model": ["A paper about springs"]}
    metadata = ModelMetadata(name="springs", references=references)
    AtomisticModel(Direct(*sizes).eval(), metadata, capabilities).save(str(path))
