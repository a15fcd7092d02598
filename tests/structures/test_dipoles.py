"""Dipoles: what their size says about their unit, and charged systems."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from mlplugins.structures import dataset, dipoles, labels
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


@pytest.mark.parametrize("wrapped", [False, True])
def test_labels_of_several_branches_are_said(wrapped):
    """Σ q r of a vibrating crystal, as Berry-phase codes print it: modulo e times a cell vector."""
    rng = np.random.default_rng(4)
    cell = np.array([[5.0, 0.4, 0.0], [0.0, 5.5, 0.3], [0.2, 0.0, 6.0]])
    rest = rng.uniform(size=(8, 3)) @ cell
    charges = np.array([1.0, -1.0] * 4)
    found = []
    for _ in range(60):
        atoms = Atoms("LiF" * 4, rest + 0.15 * rng.normal(size=(8, 3)), cell=cell, pbc=True)
        mu = charges @ (atoms.positions - rest) + 0.5 * cell.sum(axis=0)  # at the corner of the branch
        atoms.info["mu"] = (np.linalg.solve(cell.T, mu) % 1.0) @ cell if wrapped else mu
        found.append(dataset.from_atoms(atoms, KEYS["e*A"], "frame"))
    assert dipoles.check(found, KEYS["e*A"]) == []
    for k, s in enumerate(found):
        shifted = np.asarray(s.get("dipole")) - 0.5 * cell.sum(axis=0)
        label = (np.linalg.solve(cell.T, shifted) % 1.0) @ cell if wrapped else shifted
        found[k] = s.labelled({"dipole": label})
    notes = dipoles.check(found, KEYS["e*A"])
    assert len(notes) == wrapped
    assert not wrapped or "jump by such vectors" in notes[0]


def test_polarizabilities_in_another_order_are_said():
    def read_as(order):
        keys = keys_of({"polarizability": f"alpha:A^3:{order}"}, "keys")
        found = []
        for k in range(6):
            atoms = molecule("H2O")
            atoms.info["alpha"] = [1.5 + 0.01 * k, 0.02, -0.03, 1.4, 0.01, 1.45]  # xx xy xz yy yz zz
            found.append(dataset.from_atoms(atoms, keys, "frame"))
        return labels.indefinite(found)

    assert read_as("xx,xy,xz,yy,yz,zz") == []
    [said] = read_as("xx,yy,zz,yz,xz,xy")
    assert "6 of 6 polarizabilities are not positive definite" in said
