"""Round-off of kernel models: measured right, and weighed against the error of the fit."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.units import Hartree

from mlplugins.training import config, solve
from mlplugins.training.solvers import _molecules, _regression

from .solving import Silent, run

WELL_EV, WIDTH, BOND_A = 4.75, 1.94, 0.7414  # a Morse curve much like that of H2


def morse(r):
    """eV, from far apart."""
    return WELL_EV * ((1 - np.exp(-WIDTH * (r - BOND_A))) ** 2 - 1)


def curve(path, distances, energies):
    """The file of a dissociation curve, energies only."""
    frames = []
    for r, energy in zip(distances, energies):
        atoms = Atoms("H2", [[0, 0, 0], [0, 0, r]])
        atoms.calc = SinglePointCalculator(atoms, energy=energy)
        frames.append(atoms)
    write(path, frames)


def defaults(directory, **more):
    """kreg on energies, nothing else said."""
    sets = {"train": str(directory / "train.extxyz"), "keys": {"forces": None}, **more}
    content = {"data": sets, "model": {"family": "kreg"}, "training": {"targets": "energies"}}
    observer = Silent()
    return solve.train(config.parse(content, "c.yaml"), directory / "fit", observer), observer


@pytest.mark.parametrize("sigma", [0.3, 3.0])
@pytest.mark.parametrize("weight", [1.0, 1e6])
def test_measured_round_off_is_that_of_the_sum(folder, tmp_path, sigma, weight):
    """Against the same sum in extended precision, at 300 points about the frames."""
    trained, _ = run(folder, tmp_path, "kreg", sigma=sigma)
    model = trained.potential
    rng = np.random.default_rng(3)
    model.values = weight * torch.from_numpy(rng.standard_normal(len(model.points)))
    model.slopes = model.slopes[:0]
    model.prepare()
    n, p = model.points.shape
    jacobian = torch.eye(p, dtype=torch.float64).expand(n, p, p)
    points = _molecules.Points(model.points, jacobian, jacobian)
    found = _regression.round_off(model, points)
    x = (model.points[rng.integers(0, n, 300)].numpy() + 1e-3 * rng.standard_normal((300, p))).astype(
        np.longdouble
    )
    squares = ((x[:, None] - model.points.numpy().astype(np.longdouble)) ** 2).sum(-1)
    exact = np.expm1(squares * (-0.5 / np.longdouble(sigma) ** 2)) @ model.values.numpy().astype(
        np.longdouble
    )
    with torch.no_grad():
        error = model.predict(torch.from_numpy(x.astype(np.float64))).numpy() - exact
    assert float(np.sqrt((error**2).mean())) == pytest.approx(found.energy, rel=0.7)


def test_defaults_fit_a_dissociation_curve(tmp_path):
    """Short length scales are no flat kernels: the guard refused them, and σ = 1 remained (43 meV)."""
    distances = np.linspace(0.5, 5.0, 226)
    curve(tmp_path / "train.extxyz", distances[::2], morse(distances[::2]))
    curve(tmp_path / "test.extxyz", distances[1::2], morse(distances[1::2]))
    trained, observer = defaults(tmp_path, test=str(tmp_path / "test.extxyz"))
    solver = trained.metrics["solver"]
    assert 2 * trained.metrics["test"]["energy"]["rmse_meV_per_atom"] < 1.0
    assert solver["difference_error"] < 5e-8
    assert 0 < solver["energy_round_off_eV"] < 1e-8
    assert not any("too flat" in note or "away from the rest" in note for note in observer.notes)


@pytest.mark.long
@pytest.mark.reference
def test_defaults_reach_1e_5_hartree_on_the_curve_of_h2(reference_data, tmp_path):
    """451 points of full configuration interaction; published parameters give 4.9e-7 hartree."""
    lengths, energies = (
        np.loadtxt(reference_data / "h2_fci" / name).ravel() for name in ("R_451.dat", "E_FCI_451.dat")
    )
    curve(tmp_path / "train.extxyz", lengths, energies * Hartree)
    trained, _ = defaults(tmp_path)
    rmse = 2e-3 * trained.metrics["train"]["energy"]["rmse_meV_per_atom"] / Hartree
    assert rmse < 1e-6
