"""The constants are CODATA's, as scipy has them, and what is made of them agrees with ASE."""

import ase.units
import pytest
from scipy import constants

from mlplugins import units


def test_constants_are_those_of_scipy():
    """To the last digit, with the release that the constraints name (CODATA 2022)."""
    value = constants.value
    assert constants.k == units.BOLTZMANN_J_K
    assert constants.e == units.ELEMENTARY_CHARGE_C
    assert units.AVOGADRO_PER_MOL == constants.N_A
    assert constants.epsilon_0 == units.VACUUM_PERMITTIVITY_F_M
    assert constants.atomic_mass == units.ATOMIC_MASS_KG
    assert value("Bohr radius") == units.BOHR_RADIUS_M
    assert value("atomic unit of time") == units.ATOMIC_TIME_S
    assert value("Hartree energy in eV") == units.EV_PER_HARTREE
    assert constants.calorie * 1000 / constants.N_A / constants.e == units.EV_PER_KCAL_MOL
    assert constants.e / constants.angstrom**3 / constants.giga == units.GPA_PER_EV_A3
    assert constants.e / constants.angstrom**3 / constants.bar == units.BAR_PER_EV_A3


def test_factors_agree_with_those_of_ase():
    """Whose constants are of 2014."""
    for ours, of_ase in [
        (units.BOLTZMANN_EV_K, ase.units.kB),
        (units.EV_PER_HARTREE, ase.units.Hartree),
        (units.A_PER_BOHR, ase.units.Bohr),
        (units.EV_PER_KCAL_MOL, ase.units.kcal / ase.units.mol),
        (units.GPA_PER_EV_A3, 1 / ase.units.GPa),
        (units.BAR_PER_EV_A3, 1 / ase.units.bar),
        (units.ASE_TIME_PER_FS, ase.units.fs),
        (units.COULOMB_EV_A, ase.units.Hartree * ase.units.Bohr),
    ]:
        assert ours == pytest.approx(of_ase, rel=1e-6)
