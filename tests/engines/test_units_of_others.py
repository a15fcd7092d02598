"""A model of somebody else in other units of length and energy: every engine gives Å and eV."""

import ase.units
import numpy as np
import pytest

from mlplugins import MLCalculator, engines
from mlplugins.engines import lammps
from mlplugins.model_file.artifact import load

from . import direct_model
from .conftest import triclinic

UNITS = {
    ("nm", "kcal/mol"): (0.1, ase.units.mol / ase.units.kcal),
    ("bohr", "hartree"): (1 / ase.units.Bohr, 1 / ase.units.Hartree),
}
SAME = {"rtol": 0, "atol": 1e-7}
"""metatomic and ASE carry constants of different years."""


@pytest.fixture(scope="module", params=UNITS, ids="-".join)
def files(request, tmp_path_factory):
    """The model in Å and eV, and in other units."""
    folder = tmp_path_factory.mktemp("units")
    direct_model.write(folder / "ours.pt")
    direct_model.write(folder / "theirs.pt", request.param, UNITS[request.param])
    return folder / "ours.pt", folder / "theirs.pt"


def assert_same(found, expected):
    assert abs(expected.energy) > 0.1
    np.testing.assert_allclose(found.energy, expected.energy, **SAME)
    np.testing.assert_allclose(found.forces, expected.forces, **SAME)
    np.testing.assert_allclose(found.stress, expected.stress, **SAME)


@pytest.mark.parametrize("options", [{}, {"output": "double"}, {"non_conservative": True}], ids=str)
def test_in_python(files, options):
    ours, theirs = (load(path, **options).evaluate([triclinic()])[0] for path in files)
    assert_same(theirs, ours)
    assert load(files[1]).cutoff == pytest.approx(4.0)
    np.testing.assert_allclose(theirs.energies, ours.energies, **SAME)


@pytest.mark.usefixtures("native_build", "warm_start")
@pytest.mark.parametrize("keywords", ["variant double", "non_conservative on"])
def test_in_lammps(files, keywords):
    ours, theirs = (lammps.evaluate_all(path, [triclinic()], 1, keywords)[0] for path in files)
    assert_same(theirs, ours)


@pytest.mark.long
@pytest.mark.usefixtures("warm_start")
def test_in_ipi(files):
    engine, atoms, model = engines.load("ipi"), triclinic(), load(files[1])
    way = engine.ways(model, [atoms], [1])[0]
    (found,) = engine.single_points(model, [atoms], way)
    assert_same(found, load(files[0]).evaluate([atoms])[0])


def test_in_ase(files):
    atoms = triclinic()
    for keywords in ({}, {"variant": "double"}, {"non_conservative": True}):
        values = []
        for path in files:
            atoms.calc = MLCalculator(path, **keywords)
            values.append(
                [
                    atoms.get_potential_energy(),
                    atoms.get_forces(),
                    atoms.get_stress(),
                    atoms.get_potential_energies(),
                ]
            )
        for mine, theirs in zip(*values):
            np.testing.assert_allclose(theirs, mine, **SAME)
