"""Labels by any calculator of ASE, named by where it is imported from."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.stress import voigt_6_to_full_3x3_stress

from mlplugins.errors import BadInput
from mlplugins.labels._contract import CodeResult, LabelSettings


class Settings(LabelSettings):
    """Any calculator of ASE.

    Attributes:
        calculator: where it is imported from, such as `ase.calculators.lj.LennardJones`.
        arguments: of its constructor.
    """

    calculator: str
    arguments: dict[str, Any] = {}

    def require(self) -> None:
        """Refuse what cannot be imported or made."""
        make(self.calculator, self.arguments)


def make(place: str, arguments: dict[str, Any]) -> Any:
    """A calculator.

    Args:
        place: where it is imported from.
        arguments: of its constructor.

    Raises:
        BadInput: it cannot be imported, or does not take the arguments.

    >>> type(make("ase.calculators.emt.EMT", {})).__name__
    'EMT'
    """
    module, _, name = place.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)(**arguments)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise BadInput(
            f"labels: 'calculator': cannot make '{place}' with {arguments}: {error}; expected the module and "
            "class of an ASE calculator, such as ase.calculators.lj.LennardJones"
        ) from error


def labelled(calculator: Any, atoms: Atoms, code: str) -> CodeResult:
    """What a calculator says of a structure; stress where it has any and the structure is periodic."""
    atoms = atoms.copy()
    atoms.calc = calculator
    energy, forces = _energy(atoms), np.array(atoms.get_forces(), dtype=np.float64)
    stress = None
    if atoms.pbc.all():
        try:
            stress = voigt_6_to_full_3x3_stress(atoms.get_stress())
        except (PropertyNotImplementedError, NotImplementedError):
            stress = None
    return CodeResult(energy, forces, stress, code)


def _energy(atoms: Atoms) -> float:
    """The energy whose derivatives the forces are: of smeared electrons not the one extrapolated to none."""
    plain = float(atoms.get_potential_energy())
    try:
        return float(atoms.get_potential_energy(force_consistent=True))
    except PropertyNotImplementedError:
        return plain


def compute(settings: Settings, atoms: Atoms, folder: Path) -> CodeResult:
    """Label one structure; the calculator is made anew for each."""
    import ase

    calculator = make(settings.calculator, settings.arguments)
    return labelled(calculator, atoms, f"{settings.calculator} (ASE {ase.__version__})")
