"""A metatomic model that is not ours: two neighbour lists, one of them half, other units, shuffled atoms."""

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

EPSILON, SIGMA = 0.0104, 3.4
SHORT, LONG = 5.0, 6.5


class TwoLists(torch.nn.Module):
    """E = ½ Σ_{full} s(r, LONG) 4ε(σ/r)¹² − Σ_{half} s(r, SHORT) 4ε(σ/r)⁶,  s(r, c) = (1 − r²/c²)³."""

    def __init__(self, per_atom: bool, length: float, energy: float) -> None:
        super().__init__()
        self.full = NeighborListOptions(cutoff=LONG * length, full_list=True, strict=True)
        self.half = NeighborListOptions(cutoff=SHORT * length, full_list=False, strict=True)
        self.per_atom = per_atom
        self.epsilon = EPSILON * energy
        self.sigma = SIGMA * length
        self.long = LONG * length
        self.short = SHORT * length

    def requested_neighbor_lists(self) -> List[NeighborListOptions]:
        return [self.full, self.half]

    def forward(
        self,
        systems: List[System],
        outputs: Dict[str, ModelOutput],
        selected_atoms: Optional[Labels] = None,
    ) -> Dict[str, TensorMap]:
        values: List[torch.Tensor] = []
        rows: List[torch.Tensor] = []
        per_atom = outputs["energy"].sample_kind == "atom"
        for index, system in enumerate(systems):
            energy = torch.zeros(len(system), dtype=system.positions.dtype, device=system.device)
            pairs = system.get_neighbor_list(self.full)
            r = torch.linalg.vector_norm(pairs.values.reshape(-1, 3), dim=1)
            e = 0.5 * (1 - (r / self.long) ** 2) ** 3 * 4 * self.epsilon * (self.sigma / r) ** 12
            energy = energy.index_add(0, pairs.samples.column("first_atom").to(torch.long), e)
            pairs = system.get_neighbor_list(self.half)
            r = torch.linalg.vector_norm(pairs.values.reshape(-1, 3), dim=1)
            e = -0.5 * (1 - (r / self.short) ** 2) ** 3 * 4 * self.epsilon * (self.sigma / r) ** 6
            energy = energy.index_add(0, pairs.samples.column("first_atom").to(torch.long), e)
            energy = energy.index_add(0, pairs.samples.column("second_atom").to(torch.long), e)
            if per_atom:
                order = torch.arange(len(system) - 1, -1, -1, device=system.device)
                values.append(energy[order])
                rows.append(torch.stack([torch.full_like(order, index), order], dim=1))
            else:
                values.append(energy.sum().reshape(1))
                rows.append(torch.tensor([[index]], device=system.device))
        names = ["system", "atom"] if per_atom else ["system"]
        block = TensorBlock(
            torch.cat(values).reshape(-1, 1),
            Labels(names, torch.cat(rows).to(torch.int32)),
            torch.jit.annotate(List[Labels], []),
            Labels("energy", torch.zeros(1, 1, dtype=torch.int32, device=systems[0].device)),
        )
        keys = Labels("_", torch.zeros(1, 1, dtype=torch.int32, device=systems[0].device))
        return {"energy": TensorMap(keys, [block])}


def write(path, per_atom: bool, bohr_and_hartree: bool) -> None:
    """Write the model in Å and eV, or in bohr and hartree."""
    from ase.units import Bohr, Hartree

    length, energy = (1 / Bohr, 1 / Hartree) if bohr_and_hartree else (1.0, 1.0)
    capabilities = ModelCapabilities(
        outputs={
            "energy": ModelOutput(
                unit="hartree" if bohr_and_hartree else "eV", sample_kind="atom" if per_atom else "system"
            )
        },
        atomic_types=[18],
        interaction_range=LONG * length,
        length_unit="bohr" if bohr_and_hartree else "angstrom",
        supported_devices=["cpu", "cuda"],
        dtype="float64",
    )
    model = TwoLists(per_atom, length, energy).eval()
    AtomisticModel(model, ModelMetadata(name="two lists"), capabilities).save(str(path))
