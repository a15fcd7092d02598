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
DIPOLE = "mlplugins::dipole"
SHORT, LONG = 5.0, 6.5


class TwoLists(torch.nn.Module):
    """E = ½ Σ_{full} s(r, LONG) 4ε(σ/r)¹² − Σ_{half} s(r, SHORT) 4ε(σ/r)⁶,  s(r, c) = (1 − r²/c²)³.

    And, where asked for, a vector that is none of anything, of atom i: i Σ_{j, full} s(r, LONG) r_ij.
    """

    def __init__(self, per_atom: bool, length: float, energy: float) -> None:
        super().__init__()
        self.full = NeighborListOptions(cutoff=LONG * length, full_list=True, strict=True)
        self.half = NeighborListOptions(cutoff=SHORT * length, full_list=False, strict=True)
        self.per_atom = per_atom
        self.dipole = DIPOLE
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
        dipoles: List[torch.Tensor] = []
        rows: List[torch.Tensor] = []
        per_atom = outputs["energy"].sample_kind == "atom"
        for index, system in enumerate(systems):
            energy = torch.zeros(len(system), dtype=system.positions.dtype, device=system.device)
            pairs = system.get_neighbor_list(self.full)
            r = torch.linalg.vector_norm(pairs.values.reshape(-1, 3), dim=1)
            e = 0.5 * (1 - (r / self.long) ** 2) ** 3 * 4 * self.epsilon * (self.sigma / r) ** 12
            energy = energy.index_add(0, pairs.samples.column("first_atom").to(torch.long), e)
            moments = (1 - (r / self.long) ** 2).unsqueeze(1) ** 3 * pairs.values.reshape(-1, 3)
            dipole = torch.zeros(len(system), 3, dtype=energy.dtype, device=system.device)
            first = pairs.samples.column("first_atom").to(torch.long)
            dipole = dipole.index_add(0, first, moments * first.unsqueeze(1))
            pairs = system.get_neighbor_list(self.half)
            r = torch.linalg.vector_norm(pairs.values.reshape(-1, 3), dim=1)
            e = -0.5 * (1 - (r / self.short) ** 2) ** 3 * 4 * self.epsilon * (self.sigma / r) ** 6
            energy = energy.index_add(0, pairs.samples.column("first_atom").to(torch.long), e)
            energy = energy.index_add(0, pairs.samples.column("second_atom").to(torch.long), e)
            if per_atom:
                order = torch.arange(len(system) - 1, -1, -1, device=system.device)
                values.append(energy[order])
                dipoles.append(dipole[order])
                rows.append(torch.stack([torch.full_like(order, index), order], dim=1))
            else:
                values.append(energy.sum().reshape(1))
                dipoles.append(dipole.sum(dim=0).reshape(1, 3))
                rows.append(torch.tensor([[index]], device=system.device))
        names = ["system", "atom"] if per_atom else ["system"]
        device = systems[0].device
        none = torch.jit.annotate(List[Labels], [])
        samples = Labels(names, torch.cat(rows).to(torch.int32))
        one = torch.zeros(1, 1, dtype=torch.int32, device=device)
        block = TensorBlock(torch.cat(values).reshape(-1, 1), samples, none, Labels("energy", one))
        result = {"energy": TensorMap(Labels("_", one), [block])}
        if self.dipole in outputs:
            xyz = Labels("xyz", torch.arange(3, dtype=torch.int32, device=device).reshape(3, 1))
            block = TensorBlock(torch.cat(dipoles).unsqueeze(2), samples, [xyz], Labels("dipole", one))
            result[self.dipole] = TensorMap(Labels("_", one), [block])
        return result


def write(path, per_atom: bool, bohr_and_hartree: bool, dipole_unit: Optional[str] = None) -> None:
    """Write the model in Å and eV, or in bohr and hartree; with a dipole if that has a unit."""
    from ase.units import Bohr, Hartree

    length, energy = (1 / Bohr, 1 / Hartree) if bohr_and_hartree else (1.0, 1.0)
    kind = "atom" if per_atom else "system"
    outputs = {"energy": ModelOutput(unit="hartree" if bohr_and_hartree else "eV", sample_kind=kind)}
    if dipole_unit is not None:
        outputs[DIPOLE] = ModelOutput(unit=dipole_unit, sample_kind=kind)
    capabilities = ModelCapabilities(
        outputs=outputs,
        atomic_types=[18],
        interaction_range=LONG * length,
        length_unit="bohr" if bohr_and_hartree else "angstrom",
        supported_devices=["cpu", "cuda"],
        dtype="float64",
    )
    model = TwoLists(per_atom, length, energy).eval()
    AtomisticModel(model, ModelMetadata(name="two lists"), capabilities).save(str(path))
