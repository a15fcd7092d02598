"""Heat flux in ASE: Lennard-Jones in closed form, d/dt Σ r_i E_i of a cluster, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms, units
from ase.neighborlist import neighbor_list

from mlplugins import MLCalculator, committee
from mlplugins.engines.ase.heat_flux import heat_fluxes
from mlplugins.errors import BadInput

from .conftest import CUTOFF, EPSILON, SIGMA, crystal, molecule, write_lennard_jones
from .lammps_tools import velocities, write_nequip


def moving(atoms: Atoms, temperature: float = 300.0) -> Atoms:
    atoms.set_velocities(velocities(atoms, temperature) / units.fs)
    return atoms


def test_lennard_jones_in_closed_form(tmp_path):
    """J = Σ_i (½ m v² + U_i) v_i + ½ Σ_{i<j} r_ij (F_ij · (v_i + v_j)), in a cell below two cutoffs."""
    atoms = moving(crystal(2))
    atoms.rattle(0.1, seed=1)
    assert atoms.cell.lengths().max() < 2 * CUTOFF
    model = write_lennard_jones(tmp_path / "lj.pt", baseline=-7.0, onset=0.9999999)
    i, j, r, d = neighbor_list("ijdD", atoms, CUTOFF)
    x6 = (SIGMA / r) ** 6
    energies = np.bincount(i, 2.0 * EPSILON * (x6**2 - x6), len(atoms))
    forces = -24.0 * EPSILON * ((2.0 * x6**2 - x6) / r**2)[:, None] * d  # on i
    v = atoms.get_velocities()
    pairs = -0.25 * ((forces * (v[i] + v[j])).sum(axis=1)[:, None] * d).sum(axis=0)
    kinetic = 0.5 * atoms.get_masses() * (v**2).sum(axis=1)
    flux = MLCalculator(model).heat_flux(atoms)
    np.testing.assert_allclose(flux.potential, pairs, rtol=0, atol=1e-11 * np.abs(pairs).max())
    np.testing.assert_allclose(flux.convective, (kinetic + energies) @ v, rtol=0, atol=1e-12)
    with_baseline = MLCalculator(model).heat_flux(atoms, baseline=True)
    np.testing.assert_allclose(with_baseline.total - flux.total, -7.0 * v.sum(axis=0), rtol=0, atol=1e-12)


def test_it_moves_the_energy_of_a_cluster(passing_model):
    """J = d/dt Σ r_i E_i along the motion, of two layers."""
    atoms = moving(molecule(), 3000.0)
    calculator = MLCalculator(passing_model, baseline=False)
    v, m = atoms.get_velocities(), atoms.get_masses()
    a = calculator.get_property("forces", atoms) / m[:, None]

    def moment(t: float) -> np.ndarray:
        later = atoms.copy()
        later.positions += t * v + 0.5 * t**2 * a
        kinetic = 0.5 * m * ((v + t * a) ** 2).sum(axis=1)
        return (kinetic + calculator.get_property("energies", later)) @ later.positions

    h = 1e-3
    expected = (moment(h) - moment(-h)) / (2 * h)
    found = calculator.heat_flux(atoms)
    np.testing.assert_allclose(found.total, expected, rtol=0, atol=1e-6 * np.abs(expected).max())
    assert np.abs(found.potential).max() > 0.01 * np.abs(expected).max()


def test_of_a_trajectory_and_of_a_committee(argon_committee):
    frames = [moving(crystal(1), t) for t in (50.0, 90.0)]
    rows = heat_fluxes(frames, MLCalculator(argon_committee))
    members = [heat_fluxes(frames, MLCalculator(model)) for model in argon_committee]
    assert rows.shape == (2, 6)
    np.testing.assert_allclose(rows, np.mean(members, axis=0), rtol=1e-12)
    with pytest.raises(BadInput, match="frame 1: no velocities"):
        heat_fluxes([frames[0], crystal(1)], MLCalculator(argon_committee))
    with pytest.raises(BadInput, match="one frame or more"):
        heat_fluxes([], MLCalculator(argon_committee))


def test_a_file_counts_as_often_as_it_has_members(tmp_path, argon_committee):
    """Flux and Hessian, as energies and forces do."""
    committee(argon_committee[:2], tmp_path / "two.pt")
    separate = MLCalculator(argon_committee)
    mixed = MLCalculator([tmp_path / "two.pt", argon_committee[2]])
    atoms = moving(crystal(1))
    np.testing.assert_allclose(mixed.heat_flux(atoms), separate.heat_flux(atoms), rtol=1e-9)
    np.testing.assert_allclose(mixed.get_hessian(atoms), separate.get_hessian(atoms), rtol=0, atol=1e-12)


def test_what_has_no_flux_is_refused(tmp_path, argon_model):
    atoms = moving(crystal(1))
    portable = MLCalculator(write_nequip(tmp_path / "portable.pt", portable=True))
    with pytest.raises(
        BadInput, match="'portable.pt': this portable file hides its messages: export it again"
    ):
        portable.heat_flux(atoms)
    with pytest.raises(BadInput, match="leaves the composition energies out"):
        MLCalculator(argon_model, baseline=False).heat_flux(atoms, baseline=True)
    artifact = MLCalculator(argon_model).artifacts[0]
    with pytest.raises(BadInput, match=r"expected finite velocities \(4, 3\), got \(4, 2\)"):
        artifact.heat_flux(atoms, np.zeros((4, 2)), atoms.get_masses())
