"""Models and structures that the engine tests share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from mlplugins.model_file.card import ModelCard
from mlplugins.model_file.write import save
from mlplugins.models import lennard_jones

from .lammps_tools import write_nequip

collect_ignore = ["more"]  # an engine for test_available.py: its program is run, not imported for doctests
EPSILON, SIGMA, CUTOFF, ONSET = 0.0104, 3.4, 6.5, 0.8


def write_lennard_jones(path: Path, dtype: str = "float64", baseline: float = 0.0, **changes: float) -> Path:
    """A Lennard-Jones model of argon."""
    parameters = {"epsilon": EPSILON, "sigma": SIGMA, "cutoff": CUTOFF, "onset": ONSET, **changes}
    model = lennard_jones.Model(["Ar"], lennard_jones.Hyperparameters(**parameters))
    details = {"hyperparameters": parameters}
    save(model, path, ModelCard("lennard-jones", ["Ar"], [baseline], details=details), dtype)
    return path


@pytest.fixture(scope="session")
def argon_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lennard_jones(tmp_path_factory.mktemp("model") / "argon.pt")


@pytest.fixture(scope="session")
def argon_model32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lennard_jones(tmp_path_factory.mktemp("model32") / "argon32.pt", "float32")


@pytest.fixture(scope="session")
def argon_committee(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three models that differ in ε: energies and forces scale with it."""
    folder = tmp_path_factory.mktemp("committee")
    return [write_lennard_jones(folder / f"{k}.pt", epsilon=EPSILON * (1 + 0.1 * k)) for k in range(3)]


@pytest.fixture(scope="session")
def passing_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers of message passing, float64, elements Ar and Kr."""
    return write_nequip(tmp_path_factory.mktemp("passing") / "passing.pt")


@pytest.fixture(scope="session")
def passing_model32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_nequip(tmp_path_factory.mktemp("passing32") / "passing32.pt", "float32")


def crystal(repeat: int = 2) -> Atoms:
    atoms = bulk("Ar", "fcc", a=5.3, cubic=True) * (repeat, repeat, repeat)
    atoms.rattle(0.15, seed=1)
    return atoms


def triclinic() -> Atoms:
    atoms = crystal()
    shear = np.array([[1.0, 0.0, 0.0], [0.35, 1.1, 0.0], [-0.3, 0.25, 0.9]])
    atoms.set_cell(np.asarray(atoms.cell) @ shear, scale_atoms=True)
    return atoms


def slab() -> Atoms:
    atoms = crystal()
    atoms.pbc = [True, True, False]
    atoms.center(vacuum=4.0, axis=2)
    return atoms


def slab_without_vacuum_vector() -> Atoms:
    atoms = slab()
    atoms.cell[2] = 0.0
    return atoms


def molecule() -> Atoms:
    atoms = Atoms("Ar5", [[0, 0, 0], [3.7, 0, 0], [0, 3.9, 0.2], [0.1, 0.3, 4.0], [3.0, 3.1, 2.5]])
    atoms.rattle(0.1, seed=2)
    return atoms


def one_atom() -> Atoms:
    return Atoms("Ar", [[1.0, 2.0, 3.0]])


def no_neighbors() -> Atoms:
    return Atoms("Ar2", [[0, 0, 0], [0, 0, 12.0]], cell=[20, 20, 30], pbc=True)


def small_cell() -> Atoms:
    """One atom in a skewed primitive cell, shorter than the cutoff in every direction."""
    return Atoms("Ar", [[0.3, 0.1, 0.2]], cell=[[3.6, 0.2, 0.1], [1.7, 3.5, 0.0], [1.5, 1.2, 3.3]], pbc=True)


STRUCTURES: dict[str, Callable[[], Atoms]] = {
    f.__name__: f
    for f in (
        crystal,
        triclinic,
        slab,
        slab_without_vacuum_vector,
        molecule,
        one_atom,
        no_neighbors,
        small_cell,
    )
}


@pytest.fixture(params=list(STRUCTURES))
def structure(request: pytest.FixtureRequest) -> Atoms:
    return STRUCTURES[request.param]()
