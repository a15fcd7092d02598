"""Labels by GFN1-xTB or GFN2-xTB (package tblite): molecules and crystals, of any element, by pip alone."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Literal

from ase import Atoms

from mlplugins.config import Count, Positive
from mlplugins.errors import needed
from mlplugins.labels._contract import CodeResult, LabelSettings, require_periodicity
from mlplugins.labels.calculator import labelled
from mlplugins.structures import state


class Settings(LabelSettings):
    """Extended tight binding.

    Attributes:
        method: GFN2-xTB or GFN1-xTB (faster for crystals).
        accuracy: of the self-consistency, tblite's unit.
        electronic_temperature: of the occupations, K.
        max_iterations: of the self-consistency; more are a failure.
    """

    method: Literal["GFN2-xTB", "GFN1-xTB", "IPEA1-xTB"] = "GFN2-xTB"
    accuracy: Positive = 1.0
    electronic_temperature: Positive = 300.0
    max_iterations: Count = 250

    def require(self) -> None:
        """Refuse if the package is absent."""
        with needed("labels by tblite", "labels"):
            import tblite.ase  # noqa: F401


def compute(settings: Settings, atoms: Atoms, folder: Path) -> CodeResult:
    """Label one structure of the charge and multiplicity that its `info` says."""
    from tblite.ase import TBLite

    if atoms.pbc.any():
        require_periodicity(
            atoms, "tblite", "set pbc to T T T, with the vacuum that you want, or to F F F for a cluster"
        )
    electrons = state.of(atoms.info)
    calculator = TBLite(
        method=settings.method,
        accuracy=settings.accuracy,
        electronic_temperature=settings.electronic_temperature,
        max_iterations=settings.max_iterations,
        verbosity=0,
        charge=electrons.charge,
        multiplicity=round(electrons.spin_multiplicity),
    )
    return labelled(calculator, atoms, f"{settings.method} (tblite {version('tblite')})")
