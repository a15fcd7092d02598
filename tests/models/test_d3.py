import copy
import math
import sys
from math import exp, sqrt

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from mlplugins.errors import BadInput, MissingDependency
from mlplugins.models import d3
from mlplugins.models.base import energy_derivatives
from mlplugins.structures.batch import graph_of
from mlplugins.testing.families import FamilySuite
from mlplugins.testing.structures import standard_structures
from mlplugins.units import A_PER_BOHR, EV_PER_HARTREE

from .d3_tables import PBE, filled

STORED = {"C6H6": -0.0109570926, "CH3CH2OH": -0.0042583133, "SiH4": -0.0017939977, "NaCl": -0.0007355754}
"""Ha, of PBE-D3(BJ) without three-body term by dftd3 1.7.0 at the geometries of `ase.build.molecule`."""


class TestBeckeJohnson(FamilySuite):
    def make_model(self):
        return filled(self.elements, cutoff=5.0, cn_cutoff=4.0)


class TestZeroDamping(FamilySuite):
    def make_model(self):
        return filled(self.elements, "zero", cutoff=5.0, cn_cutoff=5.0)


def evaluated(model, atoms):
    """Energy, forces and ∂E/∂ε, in eV and Å."""
    graph = graph_of(atoms, model.elements, model.cutoff)
    graph.vectors.requires_grad_()
    energy = model(graph)["energy"]
    forces, virial = energy_derivatives(energy, graph, 1)
    return float(energy.detach().sum()), forces.detach().numpy(), virial[0].detach().numpy()


@pytest.mark.parametrize("damping", ["bj", "zero"])
def test_dimer_is_the_formula_of_the_papers(damping):
    """Two atoms with two reference systems each, by hand in atomic units."""
    model = d3.Model(["Ar"], d3.Hyperparameters(**PBE[damping], cutoff=20.0, cn_cutoff=20.0))
    model.covalent_radius.fill_(2.4)
    model.reference_cn.fill_(-1.0)[0, :2] = torch.tensor([0.0, 1.0])
    model.reference_c6.fill_(0.0)[0, 0, :2, :2] = torch.tensor([[70.0, 55.0], [55.0, 40.0]])
    model.charge_radius.fill_(3.1)
    model.pair_radius.fill_(6.5)
    r = 4.5
    cn = 1.0 / (1.0 + exp(-16.0 * (2 * 2.4 / r - 1.0)))
    w = np.array([exp(-4.0 * cn**2), exp(-4.0 * (cn - 1.0) ** 2)])
    w /= w.sum()
    c6 = w @ np.array([[70.0, 55.0], [55.0, 40.0]]) @ w
    c8 = 3 * 3.1 * 3.1 * c6
    if damping == "bj":
        f = 0.4289 * sqrt(c8 / c6) + 4.4407
        expected = -c6 / (r**6 + f**6) - 0.7875 * c8 / (r**8 + f**8)
    else:
        expected = -c6 / r**6 / (1 + 6 * (r / (1.217 * 6.5)) ** -14)
        expected -= 0.722 * c8 / r**8 / (1 + 6 * (r / 6.5) ** -16)
    dimer = Atoms("Ar2", positions=[[0, 0, 0], [0, 0, r * A_PER_BOHR]])
    assert evaluated(model, dimer)[0] == pytest.approx(expected * EV_PER_HARTREE, rel=1e-12)


@pytest.mark.parametrize("name", STORED)
def test_energies_of_the_reference_program(name):
    """To what single precision of metatomic's tables and the digits here allow."""
    atoms = molecule(name)
    model = filled(sorted(set(atoms.symbols)), cutoff=30.0, cn_cutoff=20.0)
    assert evaluated(model, atoms)[0] / EV_PER_HARTREE == pytest.approx(STORED[name], abs=1e-8)


def test_columns_without_reference_systems_are_folded_away():
    model = filled(["H", "O"], cutoff=5.0, cn_cutoff=4.0)
    folded = copy.deepcopy(model)
    folded.optimise_for_inference()
    assert folded.reference_cn.shape == (2, 3)
    atoms = standard_structures(["H", "O"])["crystal"]
    for one, other in zip(evaluated(model, atoms), evaluated(folded, atoms)):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)


def test_extreme_coordination_is_that_of_the_nearest_reference():
    """A hundred neighbours: weights that underflow do not become 0/0."""
    model = filled(["C"], cutoff=9.0)
    w = model.weights(torch.tensor([100.0], dtype=torch.float64), torch.tensor([0]))
    torch.testing.assert_close(w[0, 4], torch.tensor(1.0, dtype=torch.float64))


def test_incomplete_parameters_are_refused():
    with pytest.raises(BadInput, match="d3: damping 'zero' needs rs6, rs8"):
        d3.Model(["C"], d3.Hyperparameters(damping="zero", alp=14.0))
    with pytest.raises(BadInput, match="expected 0 < cn_cutoff ≤ cutoff"):
        d3.Model(["C"], d3.Hyperparameters(**PBE["bj"], cutoff=5.0, cn_cutoff=6.0))


def test_without_the_package_of_the_reference_data(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("tad_dftd3.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tad_dftd3", None)
    with pytest.raises(
        MissingDependency, match=r"D3 needs the package 'tad_dftd3.*pip install 'mlplugins\[d3\]'"
    ):
        d3.parameters("pbe-bj")


@pytest.fixture
def reference():
    """The package of the reference data; without it these tests skip."""
    return pytest.importorskip("tad_dftd3", reason="pip install 'mlplugins[d3]'")


@pytest.mark.usefixtures("reference")
class TestNames:
    def test_parameters_are_those_of_the_papers(self):
        assert d3.parameters("PBE-bj") | PBE["bj"] == d3.parameters("pbe-bj")
        assert d3.parameters("pbe-zero") | PBE["zero"] == d3.parameters("pbe-zero")
        assert d3.parameters("revPBE-bj", 15.0)["cutoff"] == 15.0
        assert d3.parameters("pbe0-bj") == d3.parameters("pbeh-bj")  # an alias

    @pytest.mark.parametrize("cutoff", [1.2, 95.0, math.nan])
    def test_a_cutoff_that_nobody_takes_is_refused(self, cutoff):
        with pytest.raises(BadInput, match="expected a cutoff of the pairs from 4 to 60 Å"):
            d3.parameters("pbe-bj", cutoff)

    def test_wrong_names_are_named_with_the_nearest(self):
        with pytest.raises(BadInput, match="'pbee-bj': unknown functional; did you mean 'pbe'"):
            d3.parameters("pbee-bj")
        with pytest.raises(
            BadInput, match="'r2scan-zero': no parameters of this damping.*there are: r2scan-bj"
        ):
            d3.parameters("r2scan-zero")
        with pytest.raises(BadInput, match="'pbe': expected a functional and its damping"):
            d3.parameters("pbe")

    def test_elements_without_reference_data_are_named(self):
        model = d3.Model(["H", "Rf"], d3.Hyperparameters(**d3.parameters("pbe-bj")))
        with pytest.raises(BadInput, match="d3: no reference data for Rf"):
            model.initialise(None)


@pytest.mark.usefixtures("reference")
@pytest.mark.parametrize("name", ["pbe-bj", "r2scan-bj", "revpbe-zero"])
@pytest.mark.parametrize("kind", ["C6H6", "SiH4", "P2", "NaCl", "crystal"])
def test_equal_to_the_reference_program(name, kind):
    """dftd3 at the same cutoffs, cut as it cuts; s9 = 0. Their constants are of CODATA 2018, ours of 2022."""
    interface = pytest.importorskip("dftd3.interface", reason="pip install dftd3")
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True) if kind == "crystal" else molecule(kind)
    atoms.rattle(0.05, seed=1)
    reach = (40.0, 20.0)  # bohr
    cutoffs = {"cutoff": reach[0] * A_PER_BOHR, "cn_cutoff": reach[1] * A_PER_BOHR}
    model = d3.Model(sorted(set(atoms.symbols)), d3.Hyperparameters(**(d3.parameters(name) | cutoffs)))
    model.initialise(None)
    model.counts.constants[2] = model.pairs.constants[2] = 1 - 1e-12
    energy, forces, virial = evaluated(model, atoms)
    functional, _, damping = name.partition("-")
    kinds = {"bj": interface.RationalDampingParam, "zero": interface.ZeroDampingParam}
    lattice = {"lattice": atoms.cell.array / A_PER_BOHR, "periodic": atoms.pbc} if atoms.pbc.any() else {}
    program = interface.DispersionModel(atoms.numbers, atoms.positions / A_PER_BOHR, **lattice)
    program.set_realspace_cutoff(reach[0], reach[0], reach[1])
    expected = program.get_dispersion(kinds[damping](method=functional, atm=False), grad=True)
    assert energy / EV_PER_HARTREE == pytest.approx(expected["energy"], abs=1e-10 * len(atoms))
    gradient = expected["gradient"] * EV_PER_HARTREE / A_PER_BOHR
    np.testing.assert_allclose(forces, -gradient, rtol=0, atol=2e-8)
    if atoms.pbc.any():
        np.testing.assert_allclose(virial, expected["virial"] * EV_PER_HARTREE, rtol=0, atol=1e-7)
