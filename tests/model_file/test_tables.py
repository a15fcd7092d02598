"""Radial tables: their error is what they say, and the engines run them."""

import numpy as np
import pytest
import torch
from ase.build import bulk

from mlplugins import MLCalculator
from mlplugins.errors import BadInput
from mlplugins.model_file.card import ModelCard
from mlplugins.model_file.tables import samples, tabulated
from mlplugins.model_file.write import save
from mlplugins.models import lennard_jones, nequip

ELEMENTS = ["Li", "S"]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return nequip.Model(ELEMENTS, nequip.Hyperparameters(num_layers=2, num_features=4, l_max=1)).double()


def test_error_falls_with_the_fourth_power_of_the_knots(model):
    _, coarse = tabulated(model, ELEMENTS, 65)
    _, fine = tabulated(model, ELEMENTS, 257)
    assert 0 < fine.force_eV_A < coarse.force_eV_A / 20  # forces are of third order: 4³ = 64
    assert fine.relative_force < 1e-3


@pytest.mark.long
def test_printed_error_holds_in_an_engine(model, tmp_path):
    table, error = tabulated(model, ELEMENTS, 65)
    description = ModelCard("nequip", ELEMENTS, [0.0, 0.0])
    save(model, tmp_path / "exact.pt", description, "float64")
    save(table, tmp_path / "table.pt", description, "float64")
    save(table, tmp_path / "portable.pt", description, "float64", portable=True)
    worst = 0.0
    for atoms in samples(ELEMENTS):
        forces = {}
        for name in ("exact", "table", "portable"):
            atoms.calc = MLCalculator(tmp_path / f"{name}.pt")
            forces[name] = atoms.get_forces()
        np.testing.assert_allclose(forces["portable"], forces["table"], rtol=0, atol=1e-10)
        worst = max(worst, float(np.abs(forces["table"] - forces["exact"]).max()))
    assert worst == pytest.approx(error.force_eV_A, rel=1e-3)


def test_table_forces_are_the_gradient_of_the_table_energy(model, tmp_path):
    table, _ = tabulated(model, ELEMENTS, 65)
    save(table, tmp_path / "table.pt", ModelCard("nequip", ELEMENTS, [0.0, 0.0]), "float64")
    atoms = bulk("Li", "bcc", a=3.3, cubic=True) * (2, 2, 2)
    atoms.rattle(0.2, seed=1)
    atoms.calc = MLCalculator(tmp_path / "table.pt")
    forces, step = atoms.get_forces(), 1e-4
    direction = np.random.default_rng(2).normal(size=forces.shape)
    energies = []
    for sign in (1, -1):
        moved = atoms.copy()
        moved.positions += sign * step * direction
        moved.calc = atoms.calc
        energies.append(moved.get_potential_energy())
    slope = (energies[0] - energies[1]) / (2 * step)
    assert slope == pytest.approx(-np.sum(forces * direction), rel=1e-5)


def test_refusals(model):
    with pytest.raises(BadInput, match="16 knots or more, got 3"):
        tabulated(model, ELEMENTS, 3)
    with pytest.raises(BadInput, match="no radial network"):
        tabulated(lennard_jones.Model(["Ar"], lennard_jones.Hyperparameters()), ["Ar"], 65)
