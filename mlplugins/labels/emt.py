"""Labels by ASE's effective medium theory: Al, Cu, Ag, Au, Ni, Pd, Pt; for tests and exercises."""

from __future__ import annotations

from pathlib import Path

import ase
from ase import Atoms
from ase.calculators.emt import EMT

from mlplugins.labels._contract import CodeResult, LabelSettings
from mlplugins.labels.calculator import labelled


class Settings(LabelSettings):
    """Effective medium theory has no settings."""


def compute(settings: Settings, atoms: Atoms, folder: Path) -> CodeResult:
    """Label one structure."""
    return labelled(EMT(), atoms, f"EMT (ASE {ase.__version__})")
