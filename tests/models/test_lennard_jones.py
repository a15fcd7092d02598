import pytest
import torch
from ase import Atoms

from mlplugins.errors import BadInput
from mlplugins.models import lennard_jones
from mlplugins.structures.batch import graph_of
from mlplugins.testing.families import FamilySuite


class TestLennardJones(FamilySuite):
    def make_model(self):
        hyperparameters = lennard_jones.Hyperparameters(epsilon=[0.1, 0.05], sigma=[2.2, 2.6], cutoff=5.0)
        return lennard_jones.Model(self.elements, hyperparameters)


def test_dimer_energy_is_the_textbook_formula():
    model = lennard_jones.Model(["Ar"], lennard_jones.Hyperparameters(epsilon=0.0104, sigma=3.4, cutoff=10.0))
    for r in (3.2, 3.4, 4.1, 7.9):
        atoms = Atoms("Ar2", positions=[[0, 0, 0], [0, 0, r]])
        energy = float(model(graph_of(atoms, ["Ar"], 10.0))["energy"].detach().sum())
        assert energy == pytest.approx(4 * 0.0104 * ((3.4 / r) ** 12 - (3.4 / r) ** 6), rel=1e-12)


def test_mixing_is_lorentz_berthelot():
    hyperparameters = lennard_jones.Hyperparameters(epsilon=[0.01, 0.04], sigma=[3.0, 4.0])
    model = lennard_jones.Model(["Ar", "Kr"], hyperparameters)
    torch.testing.assert_close(model.epsilon[0, 1], torch.tensor(0.02, dtype=torch.float64))
    torch.testing.assert_close(model.sigma[0, 1], torch.tensor(3.5, dtype=torch.float64))


def test_wrong_number_of_values_is_refused():
    with pytest.raises(BadInput, match=r"'epsilon': expected one value or 1 \(one per element\), got 2"):
        lennard_jones.Model(["Ar"], lennard_jones.Hyperparameters(epsilon=[0.1, 0.2]))
