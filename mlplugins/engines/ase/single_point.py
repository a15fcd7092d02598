"""Structures evaluated by ASE's calculator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ase import Atoms

from mlplugins.engines.base import Way
from mlplugins.errors import MlpluginsError
from mlplugins.quantities import QUANTITIES, Results

if TYPE_CHECKING:  # torch: `mlplugins doctor` works without
    from mlplugins.model_file.artifact import Artifact


def ways(model: Artifact, structures: Sequence[Atoms], ranks: Sequence[int]) -> list[Way]:
    """One way, on one rank."""
    return [Way(tuple(range(len(structures))))]


def single_points(model: Artifact, structures: Sequence[Atoms], way: Way) -> list[Results | MlpluginsError]:
    """Through `MLCalculator`."""
    from mlplugins.engines.ase.calculator import MLCalculator

    calculator = MLCalculator(model.path, device=model.device, variant=model.energy_output)
    outcomes: list[Results | MlpluginsError] = []
    for structure in structures:
        atoms = structure.copy()
        atoms.calc = calculator
        try:
            stress = atoms.get_stress(voigt=False) if atoms.pbc.all() else None
            energies = atoms.get_potential_energies() if model.per_atom else None
            energy, forces = atoms.get_potential_energy(), atoms.get_forces()
            names = {name: QUANTITIES[name].ase or name for name in model.more}
            names |= {name: name for name in model.energies}
            more = {name: calculator.get_property(key, atoms) for name, key in names.items()}
            found = {"energy": energy, "forces": forces, "stress": stress, "energies": energies}
            outcomes.append(Results.of({**found, **more}))
        except MlpluginsError as error:
            outcomes.append(error)
    return outcomes
