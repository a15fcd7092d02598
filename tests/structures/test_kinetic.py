"""The kinetic part of molecular dynamics in stress labels: −Σ p⊗p/(mV), put there by the tests."""

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

from mlplugins.structures import kinetic
from mlplugins.structures.dataset import Keys, from_atoms
from mlplugins.units import BOLTZMANN_EV_K

KELVIN = 300.0


def argon(seed, stretch=1.0):
    atoms = bulk("Ar", "fcc", a=5.4, cubic=True) * (2, 1, 1)
    atoms.rattle(0.2, seed=seed)
    atoms.set_cell(atoms.cell * stretch, scale_atoms=True)
    atoms.calc = LennardJones(epsilon=0.0104, sigma=3.4, rc=6.0, smooth=True)
    return atoms


def labelled(atoms, part):
    """With `part` of the kinetic stress of their momenta, or of an ideal gas if they have none."""
    stress = atoms.get_stress(voigt=False)
    if atoms.has("momenta"):
        momenta = atoms.get_momenta()
        gas = momenta.T @ (momenta / atoms.get_masses()[:, None])
    else:
        gas = len(atoms) * BOLTZMANN_EV_K * KELVIN * np.eye(3)
    plain = atoms.copy()
    plain.info["energy"] = atoms.get_potential_energy()
    plain.arrays["forces"] = atoms.get_forces()
    plain.info["stress"] = stress - part * gas / atoms.get_volume()
    return from_atoms(plain)


@pytest.fixture(scope="module")
def moving():
    frames = [argon(seed) for seed in range(30)]
    for seed, atoms in enumerate(frames):
        widths = np.sqrt(atoms.get_masses()[:, None] * BOLTZMANN_EV_K * KELVIN)
        atoms.set_momenta(widths * np.random.default_rng(seed).normal(size=(len(atoms), 3)))
    return frames


def test_labels_that_follow_the_momenta_are_told(moving):
    assert kinetic.check([labelled(atoms, 0) for atoms in moving], Keys()) == []
    [said] = kinetic.check([labelled(atoms, 1) for atoms in moving], Keys())
    assert said.startswith("stress (key 'stress'): the labels follow the momenta in the frames (slope 1.0")
    assert "they hold the kinetic part" in said
    kelvin = np.mean([atoms.get_temperature() for atoms in moving])
    assert f"30 frames of {kelvin:.0f} K" in said


def test_without_momenta_energies_of_strained_frames_tell():
    frames = [argon(seed, stretch) for seed in range(3) for stretch in (0.994, 0.998, 1.002, 1.006)]
    assert kinetic.check([labelled(atoms, 0) for atoms in frames], Keys()) == []
    [said] = kinetic.check([labelled(atoms, 1) for atoms in frames], Keys())
    kelvin = float(said.partition("ideal gas of ")[2].partition(" K")[0])
    assert kelvin == pytest.approx(KELVIN, rel=0.1)
    assert kinetic.check([labelled(atoms, -1) for atoms in frames], Keys()) == []


def test_scans_of_the_volume_say_nothing():
    """Labels that are exact: the rest of the work is the third order of elasticity, 300 K by a line."""
    frames = []
    for stretch in np.linspace(0.85, 0.99, 15):
        atoms = bulk("Cu", cubic=True)
        atoms.set_cell(atoms.cell * stretch, scale_atoms=True)
        atoms.calc = EMT()
        frames.append(atoms)
    assert kinetic.check([labelled(atoms, 0) for atoms in frames], Keys()) == []


def test_molecules_and_few_frames_say_nothing(moving):
    few = [labelled(atoms, 1) for atoms in moving[:10]]
    assert kinetic.check(few, Keys()) == []
    assert kinetic.check([], Keys()) == []
