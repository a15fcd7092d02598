import math

import pytest
import torch
from ase import Atoms

from mlplugins.elements import covalent_radius
from mlplugins.errors import BadInput
from mlplugins.models import zbl
from mlplugins.structures.batch import graph_of
from mlplugins.testing.families import FamilySuite


class TestZBL(FamilySuite):
    """Reaching the neighbours of the standard structures, on both sides of `inner`."""

    def make_model(self):
        return zbl.Model(self.elements, zbl.Hyperparameters(inner=2.4, outer=4.0))


def test_ends_by_the_covalent_radii_of_each_pair_unless_told_otherwise():
    """C≡O and N≡N, the shortest bonds of their pairs, are left alone; closer atoms are not."""
    model = zbl.Model(["C", "N", "O"], zbl.Hyperparameters())
    assert model.cutoff == pytest.approx(0.7 * 2 * covalent_radius("C"))
    for symbols, bond in (("CO", 1.128), ("N2", 1.098)):
        for stretch, repelled in ((1.0, False), (0.92, False), (0.85, True)):
            atoms = Atoms(symbols, positions=[[0, 0, 0], [0, 0, stretch * bond]])
            energy = float(model(graph_of(atoms, ["C", "N", "O"], 2.0))["energy"].detach().sum())
            assert (energy > 1e-3) == repelled, (symbols, stretch)
            assert repelled or energy == 0.0


def test_core_of_the_default_is_the_bare_repulsion_but_for_a_constant():
    """Below `inner` only the constant of LAMMPS' switching function is added."""
    model = zbl.Model(["C"], zbl.Hyperparameters()).repulsion
    none, r = torch.zeros(2, dtype=torch.long), torch.tensor([0.1, 0.4], dtype=torch.float64)
    shift = model.pair_energy(none, none, r) - model.screened(none, r)
    torch.testing.assert_close(shift[0], shift[1], rtol=0, atol=1e-10)


@pytest.mark.parametrize("ends", [(1.0, None), (None, 2.0), (2.0, 1.0), (0.0, 1.0), (1.0, math.inf)])
def test_ends_in_the_wrong_order_are_refused(ends):
    with pytest.raises(BadInput, match="zbl: expected 0 < inner < outer"):
        zbl.Model(["C"], zbl.Hyperparameters(*ends))
