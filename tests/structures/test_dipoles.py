"""Dipoles: what their size says about their unit, and charged systems."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from mlplugins.structures import dataset, dipoles
from mlplugins.structures.labelled import keys_of
from mlplugins.units import A_PER_BOHR, E_A_PER_DEBYE

MEASURED = {
    "H2O": 1.85, "NH3": 1.47, "CH3OH": 1.70, "H2CO": 2.33, "HCN": 2.98, "CH3CN": 3.92, "CH3Cl": 1.89,
    "CH3CHO": 2.75, "CH3CH2OH": 1.69, "HCOOH": 1.41, "CH3NO2": 3.46,
}  # fmt: skip
"""Debye, CRC Handbook."""
PER = {"e*A": 1.0, "Debye": 1 / E_A_PER_DEBYE, "e*Bohr": 1 / A_PER_BOHR}
KEYS = {unit: keys_of({"dipole": f"mu:{unit}"}, "keys") for unit in PER}


def frames(unit, names=MEASURED):
    """Molecules with their measured dipole along the sum of bond moments, in `unit`."""
    found = []
    for name in names:
        atoms = molecule(name)
        plain = dataset.from_atoms(atoms, dataset.Keys(), name)
        along = dipoles.moment(plain)
        size = MEASURED[name] * E_A_PER_DEBYE * PER[unit]
        atoms.info["mu"] = size * along / np.linalg.norm(along)
        found.append(atoms)
    return found


@pytest.mark.parametrize("unit", PER)
@pytest.mark.parametrize("declared", PER)
def test_a_wrong_unit_is_said(unit, declared):
    structures = [dataset.from_atoms(atoms, KEYS[declared], "frame") for atoms in frames(unit)]
    notes = dipoles.check(structures, KEYS[declared])
    assert len(notes) == (unit != declared)
    assert unit == declared or f"are they in {unit}?" in notes[0]


def test_one_molecule_tells_debye_from_e_angstrom():
    structures = [dataset.from_atoms(atoms, KEYS["e*A"], "frame") for atoms in frames("e*A", ["H2CO"] * 6)]
    assert dipoles.check(structures, KEYS["e*A"]) == []
    structures = [dataset.from_atoms(atoms, KEYS["e*A"], "frame") for atoms in frames("Debye", ["H2CO"] * 6)]
    assert "are they in Debye?" in dipoles.check(structures, KEYS["e*A"])[0]


def test_dipoles_from_plus_to_minus_are_said():
    turned = frames("e*A")
    for atoms in turned:
        atoms.info["mu"] = -atoms.info["mu"]
    structures = [dataset.from_atoms(atoms, KEYS["e*A"], "frame") for atoms in turned]
    assert "expected dipoles from − to +" in dipoles.check(structures, KEYS["e*A"])[0]


def test_real_sets(reference_data):
    """QM7-X as it is; H2CO, whose file holds atomic units times 0.2082."""
    mu = reference_data / "cookbook_demo/qm7x_reduced_100_CHNO_mu_alpha.xyz"
    structures = dataset.read(mu, KEYS["e*A"])
    assert dipoles.check(structures, KEYS["e*A"]) == []
    with np.load(reference_data / "h2co/h2co_B3LYP_cc-pVDZ_4001.npz") as file:
        rows = list(zip(file["R"][:50], file["D"][:50]))
    atoms = [Atoms("COH2", x, info={"mu": d}) for x, d in rows]
    structures = [dataset.from_atoms(each, KEYS["e*A"], "frame") for each in atoms]
    assert "0.3 times the moments" in dipoles.check(structures, KEYS["e*A"])[0]
