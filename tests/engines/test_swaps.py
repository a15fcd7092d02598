"""Atom swaps in i-PI (`<atomswap>`) and in ASE: energies of each state, and how often each is met."""

from __future__ import annotations

import copy as copying
import pickle

import numpy as np
import pytest
from ase import Atoms, units
from scipy.linalg import expm

from mlplugins import MLCalculator
from mlplugins.engines.ipi.program import driver_file
from mlplugins.engines.ipi.xyz import write_xyz
from mlplugins.errors import BadInput

from .general_model import write as write_general
from .ipi_tools import Processes
from .test_lammps_ensembles import (
    E0,
    FIXED,
    LEVEL_T,
    SIGMAS,
    SITES,
    assert_boltzmann,
    mixture,  # noqa: F401
    standard_error,
    two_levels,
)

ALL_E0 = E0["Ar"] + 2 * E0["Kr"]


def sites() -> Atoms:
    return Atoms("KrArKr", [FIXED, *SITES], cell=[20.0] * 3, pbc=True)


INPUT = """<simulation verbosity='low'>
<output prefix='out'>
<properties stride='1' filename='energy'> [ step, potential{{electronvolt}} ] </properties></output>
<total_steps>{steps}</total_steps><prng><seed>4711</seed></prng>
<ffdirect name='f' pbc='False'><pes>custom</pes><pes_path>{driver}</pes_path>
<parameters>{{model:{model},template:init.xyz,baseline:off}}</parameters></ffdirect>
<system><initialize nbeads='1'><file mode='xyz' units='angstrom'> init.xyz </file>
<velocities mode='thermal' units='kelvin'> 100 </velocities></initialize>
<forces><force forcefield='f'/></forces>
<motion mode='atomswap'><atomswap><nxc>1</nxc><names>[Ar, Kr]</names></atomswap></motion>
<ensemble><temperature units='kelvin'> {temperature} </temperature></ensemble></system></simulation>
"""


@pytest.mark.slow
@pytest.mark.usefixtures("native_build", "warm_start")
def test_atomswap_of_ipi(tmp_path, mixture):  # noqa: F811
    """Three sites, since i-PI swaps any two: the argon atom is in the middle or at an end."""
    atoms = Atoms("KrArKr", [[2.0, 2.0, 2.0], [5.6, 2.0, 2.0], [9.2, 2.0, 2.0]], cell=[20.0] * 3, pbc=True)
    write_xyz(tmp_path / "init.xyz", atoms)
    steps = 1200
    text = INPUT.format(driver=driver_file(), model=mixture, steps=steps, temperature=LEVEL_T)
    (tmp_path / "input.xml").write_text(text)
    run = Processes(tmp_path)
    try:
        output, _ = run.ipi().communicate(timeout=240)
    finally:
        run.stop()
    energies = np.loadtxt(tmp_path / "out.energy")[1:, 1]
    argon, krypton = two_levels()  # of a pair Ar–Kr and a pair Kr–Kr
    middle, end = 2 * argon, argon + krypton
    is_middle = np.abs(energies - middle) < 1e-8
    assert (is_middle | (np.abs(energies - end) < 1e-8)).all(), output
    up = np.exp(-(end - middle) / (units.kB * LEVEL_T))
    assert 0.2 < up < 0.5
    # middle, left, right; argon is exchanged with either krypton atom, so often per step as Poisson(1) says
    move = np.array([[1 - up, up / 2, up / 2], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]])
    mean, error = standard_error(expm(move - np.eye(3)), np.array([1.0, 0.0, 0.0]), steps)
    assert mean == pytest.approx(1.0 / (1.0 + 2.0 * up), rel=1e-12)
    assert is_middle.mean() == pytest.approx(mean, abs=SIGMAS * error)
    assert SIGMAS * error < 0.15


def test_swaps_in_ase(mixture):  # noqa: F811
    """A Metropolis walk over the symbols of two sites, with one calculator throughout."""
    atoms = sites()
    atoms.calc = MLCalculator(mixture, baseline=False)
    random = np.random.default_rng(11)
    argon, krypton = two_levels()
    energy, lower = atoms.get_potential_energy(), []
    for _ in range(1000):
        symbols = atoms.symbols[[1, 2]]
        atoms.symbols[[1, 2]] = symbols[::-1]
        new = atoms.get_potential_energy()
        if random.random() < np.exp(min(0.0, (energy - new) / (units.kB * LEVEL_T))):
            energy = new
        else:
            atoms.symbols[[1, 2]] = symbols
        expected = argon if atoms.symbols[1] == "Ar" else krypton
        assert energy == pytest.approx(expected, abs=1e-10)
        lower.append(energy == pytest.approx(min(argon, krypton), abs=1e-10))
    assert_boltzmann(np.array(lower), abs(argon - krypton))


def test_energies_without_the_composition_energies(tmp_path, mixture):  # noqa: F811
    atoms = sites()
    energies, per_atom, forces = [], [], []
    for baseline in (True, False):
        atoms.calc = MLCalculator(mixture, baseline=baseline)
        energies.append(atoms.get_potential_energy())
        per_atom.append(atoms.get_potential_energies())
        forces.append(atoms.get_forces())
        for copy in (copying.deepcopy(atoms.calc), pickle.loads(pickle.dumps(atoms.calc))):
            copy.reset()
            atoms.calc = copy
            assert atoms.get_potential_energy() == energies[-1]
    assert energies[0] - energies[1] == pytest.approx(ALL_E0, abs=1e-12)
    np.testing.assert_allclose(per_atom[0] - per_atom[1], [E0["Kr"], E0["Ar"], E0["Kr"]], atol=1e-12)
    np.testing.assert_array_equal(*forces)
    assert "without composition energies" in repr(MLCalculator(mixture, baseline=False))
    committee = MLCalculator([mixture, mixture], baseline=False)
    with pytest.warns(UserWarning, match="copies of one model"):
        assert committee.get_potential_energy(sites()) == pytest.approx(energies[1], abs=1e-12)


def test_a_switch_that_means_nothing_is_refused(tmp_path, mixture):  # noqa: F811
    with pytest.raises(BadInput, match="expected True or False, got 'off'"):
        MLCalculator(mixture, baseline="off")
    write_general(tmp_path / "foreign.pt", per_atom=True, bohr_and_hartree=False)
    with pytest.raises(BadInput, match="does not say its composition energies"):
        MLCalculator(tmp_path / "foreign.pt", baseline=False)
