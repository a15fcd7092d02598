"""SOAP-GAP: its design matrix, its solver and its uncertainty, on Lennard-Jones argon."""

import json
import math

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator

from mlplugins import MLCalculator
from mlplugins.checkpoints import native
from mlplugins.cli.main import main
from mlplugins.model_file import artifact
from mlplugins.model_file.card import ModelCard
from mlplugins.model_file.write import save
from mlplugins.models import soap_gap
from mlplugins.models.base import energy_derivatives
from mlplugins.structures import batch
from mlplugins.structures.dataset import Structure
from mlplugins.structures.metrics import z_statistics
from mlplugins.testing.structures import standard_structures
from mlplugins.training.solvers import _calibration
from mlplugins.training.solvers._rkhs_qr import Grams, Triangle, leave_out, solve
from mlplugins.training.solvers._soap_rows import VOIGT, Features, Rows, repulsion, whiten
from mlplugins.training.solvers.soap_gap import _environments
from tests import pictures
from tests.training import argon

ELEMENTS = ["Li", "S"]


def _structure(atoms: Atoms) -> Structure:
    stress = np.zeros((3, 3)) if atoms.pbc.all() else None
    return Structure(
        atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, 0.0, np.zeros((len(atoms), 3)), stress
    )


def test_rows_are_the_derivatives_of_the_model():
    """Rows · w = energy, forces and virial of the model with these weights, by another way (autograd)."""
    parameters = soap_gap.Hyperparameters(cutoff=4.5, n_max=3, l_max=3, zeta=3, two_body=5)
    model = soap_gap.Model(ELEMENTS, parameters)
    chosen = [standard_structures(ELEMENTS)[name] for name in ("molecule", "small_cell", "triclinic")]
    b = batch.concatenate([batch.single(_structure(a), ELEMENTS, 4.5, 0.0, torch.float64) for a in chosen])
    n = len(b.species)
    p = model.features(b.graph()).detach()
    points = [p[b.species == k][:8] for k in range(2)]
    width = torch.eye(5, dtype=torch.float64)
    features = Features(points, [whiten(model.kernel(x, x), 0.7) for x in points], 2.0 * width)
    rows = Rows(model, features)
    w = torch.randn(rows.width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    model.set_sparse(points)
    with torch.no_grad():
        parts = [m @ w[i:j] for m, (i, j) in zip(features.whitening, features.columns)]
        model.weights.copy_(torch.cat(parts))
        model.pair_weights.copy_(2.0 * w[rows.n_many :].reshape(3, 5))
    graph = b.graph(b.vectors.clone().requires_grad_())
    energy = model(graph)["energy"]
    forces, virial = energy_derivatives(energy, graph, b.n_systems)
    force_rows, virial_rows = rows.forces(b)
    close = {"rtol": 1e-10, "atol": 1e-10}
    torch.testing.assert_close(rows.atoms(b) @ w, energy.detach(), **close)
    torch.testing.assert_close((force_rows @ w).reshape(n, 3), forces, **close)
    got = (virial_rows @ w).reshape(-1, 6)
    for k, (i, j) in enumerate(VOIGT):
        torch.testing.assert_close(got[1:, k], virial[1:, i, j], **close)


def test_targets_without_the_repulsion_are_constants():
    """Forces and virials: of zinc blende LiS at 1.5 Å, where the fixed repulsion is all there is."""
    parameters = soap_gap.Hyperparameters(cutoff=4.5, n_max=2, l_max=1, zbl=True)
    model = soap_gap.Model(ELEMENTS, parameters)
    atoms = bulk("LiS", "zincblende", a=1.5 * 4 / 3**0.5, cubic=True)
    b = batch.single(_structure(atoms), ELEMENTS, 4.5, 0.0, torch.float64)
    energy, forces, virial = repulsion(model, b)
    assert float(energy) > 10.0
    assert (virial[:, :3] < -10.0).all()
    assert not any(target.requires_grad for target in (energy, forces, virial))


def test_triangles_solve_the_same_problem_as_the_normal_equations():
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(90, 7, dtype=torch.float64, generator=generator)
    y = torch.randn(90, dtype=torch.float64, generator=generator)
    triangle = Triangle(7)
    for rows in torch.arange(90).split(13):
        triangle.add(a[rows], y[rows])
    found = solve({"forces": [triangle]}, {"forces": 0.3})
    precision = a.T @ a / 0.09 + torch.eye(7, dtype=torch.float64)
    torch.testing.assert_close(
        found.mean, torch.linalg.solve(precision, a.T @ y / 0.09), rtol=1e-11, atol=1e-13
    )
    torch.testing.assert_close(found.factor.T @ found.factor, precision, rtol=1e-11, atol=1e-11)
    # log N(y; 0, A Aᵀ + σ² 1)
    covariance = a @ a.T + 0.09 * torch.eye(90, dtype=torch.float64)
    normal = torch.distributions.MultivariateNormal(torch.zeros(90, dtype=torch.float64), covariance)
    assert found.log_evidence == pytest.approx(float(normal.log_prob(y)), rel=1e-10)
    other = Triangle(7)
    other.add(2.0 * a[:20], y[:20])
    both = solve({"forces": [triangle, other]}, {"forces": 0.3})
    mean, factor = leave_out(both, {"forces": other}, {"forces": 0.3})
    torch.testing.assert_close(mean, found.mean, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(factor.T @ factor, precision, rtol=1e-10, atol=1e-10)
    quick = Grams([{"forces": triangle}]).solve({"forces": 0.3})
    assert quick.n == 90
    assert quick.log_evidence == pytest.approx(found.log_evidence, rel=1e-9)
    torch.testing.assert_close(quick.mean, found.mean, rtol=1e-9, atol=1e-11)
    assert triangle.rmse(found.mean) == pytest.approx(float((a @ found.mean - y).square().mean().sqrt()))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Argon, 24 training frames with energies, forces and stress."""
    folder = tmp_path_factory.mktemp("gap")
    ase.io.write(folder / "train.extxyz", argon.argon(30, seed=1))
    ase.io.write(folder / "test.extxyz", argon.argon(12, seed=2))
    config = folder / "config.yaml"
    config.write_text(
        "data: {train: train.extxyz, validation: 0.2, test: test.extxyz}\n"
        "model: {family: soap-gap, cutoff: 6.0, n_max: 4, l_max: 2, atom_sigma: 0.6}\n"
        "training: {n_sparse: 40, learning_curve: [4, 8, 16]}\n"
    )
    with pictures.drawn():
        assert main(["train", str(config), "-o", str(folder / "run")]) == 0
    return folder


def test_a_model_without_a_fit_has_no_uncertainty(tmp_path):
    model = soap_gap.Model(["Ar"], soap_gap.Hyperparameters(cutoff=4.0, n_max=2, l_max=1))
    save(model, tmp_path / "model.pt", ModelCard("soap-gap", ["Ar"], [0.0]), "float64")
    assert not artifact.load(tmp_path / "model.pt").has_uncertainty


def test_argon_is_learnt(trained):
    metrics = json.loads((trained / "run" / "metrics.json").read_text())
    assert metrics["test"]["energy"]["rmse_meV_per_atom"] < 0.5
    forces = np.concatenate([atoms.get_forces().ravel() for atoms in argon.argon(12, seed=2)])
    assert metrics["test"]["forces"]["rmse_meV_per_A"] < 0.03 * 1000 * np.sqrt(np.mean(forces**2))
    assert metrics["solver"]["final_fit_used"] == "training and validation frames"
    assert metrics["validation"]["n_structures"] == 6


def test_z_scores_of_the_test_frames_say_how_good_the_calibration_is(trained):
    report = json.loads((trained / "run" / "metrics.json").read_text())["solver"]
    assert len(report["cross_validation_z_scores"]) == 6  # many atoms are sparse points: validation frames
    assert report["z_after_calibration"]["rms"] == pytest.approx(1.0, abs=0.1)
    assert (trained / "run" / "uncertainty.png").stat().st_size > 5000
    frames = argon.argon(12, seed=2)
    calculator = MLCalculator(trained / "run" / "model.pt")
    expected = []
    for atoms in frames:
        truth = atoms.get_potential_energy()
        atoms.calc = calculator
        error = atoms.get_potential_energy() - truth
        expected.append(error / calculator.get_property("energy_uncertainty", atoms))
    np.testing.assert_allclose(report["test_z_scores"], expected, rtol=1e-3, atol=1e-3)


def test_learning_curve_falls_by_a_power(trained):
    metrics = json.loads((trained / "run" / "metrics.json").read_text())
    curve, name = metrics["learning_curve"], "forces_rmse_meV_per_A"
    assert [row["n_train"] for row in curve] == [4, 8, 16]
    assert curve[2][name] < 0.7 * curve[0][name]
    law = metrics["solver"]["learning_curve"][name]
    assert law["a"] + law["b"] / 8 ** law["c"] == pytest.approx(curve[1][name], rel=0.2)
    assert 0.2 < law["c"] <= 3.0
    assert (trained / "run" / "learning.png").stat().st_size > 5000


def test_calibration_finds_scale_and_floor():
    """Errors drawn from 1.5² V + 0.01² n, V over four decades."""
    rng = np.random.default_rng(0)
    n = rng.integers(2, 100, 4000).astype(float)
    v = 10 ** rng.uniform(-4, 0, 4000)
    errors = rng.normal(0.0, np.sqrt(1.5**2 * v + 0.01**2 * n))
    found = _calibration.fit(_calibration.Scores(errors, v, n))
    assert found.scale == pytest.approx(1.5, rel=0.05)
    assert found.floor == pytest.approx(0.01, rel=0.05)
    statistics = z_statistics(found.after)
    assert statistics["rms"] == pytest.approx(1.0, abs=0.05)
    assert statistics["within_2"] == pytest.approx(0.954, abs=0.02)


def test_equal_labels_are_learnt(tmp_path):
    """All errors are zero: no logarithm of them, no scale of the uncertainty."""
    frames = argon.argon(8, seed=1)
    for atoms in frames:
        atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=np.zeros((len(atoms), 3)))
    ase.io.write(tmp_path / "train.extxyz", frames)
    config = tmp_path / "config.yaml"
    config.write_text(
        "data: {train: train.extxyz, validation: 0.25}\n"
        "model: {family: soap-gap, cutoff: 4.0, n_max: 2, l_max: 1}\n"
        "training: {n_sparse: 4, targets: energies}\n"
    )
    assert main(["train", str(config), "-o", str(tmp_path / "run")]) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["train"]["energy"]["rmse_meV_per_atom"] < 1e-6
    assert metrics["solver"]["uncertainty_scale"] == 1.0


def test_environments_of_some_atoms_are_those_of_the_whole():
    model = soap_gap.Model(ELEMENTS, soap_gap.Hyperparameters(cutoff=4.5, n_max=3, l_max=2))
    chosen = [standard_structures(ELEMENTS)[name] for name in ("molecule", "small_cell")]
    b = batch.concatenate([batch.single(_structure(a), ELEMENTS, 4.5, 0.0, torch.float64) for a in chosen])
    whole = model.features(b.graph())
    atoms = torch.arange(1, len(b.species), 2)
    torch.testing.assert_close(_environments(model, b, atoms), whole[atoms])


def test_chunks_of_atoms_change_nothing(trained):
    model = native.read(trained / "run" / "checkpoint.ckpt").potential.double()
    b = batch.single(_structure(argon.argon(1, seed=3)[0]), ["Ar"], 6.0, 0.0, torch.float64)
    whole = model.posterior_features(b.graph(), {})
    model.chunk = 3
    assert len(b.species) % 3
    residual, features = model.posterior_features(b.graph(), {})
    prior = float(model.delta) ** 2  # the residual is what is left of it
    torch.testing.assert_close(residual, whole[0], rtol=0.0, atol=1e-13 * prior)
    # a product with the inverse of an ill-conditioned factor
    torch.testing.assert_close(features, whole[1], rtol=0.0, atol=1e-8 * float(whole[1].abs().max()))


def test_uncertainty_grows_with_distance_from_the_data(trained):
    calculator = MLCalculator(trained / "run" / "model.pt")
    near = argon.argon(1, seed=3)[0]
    far = near.copy()
    far.set_cell(far.cell * 0.9, scale_atoms=True)
    values = []
    for atoms in (near, far):
        atoms.calc = calculator
        energies = atoms.get_potential_energies()
        total = calculator.get_property("energy_uncertainty", atoms)
        each = calculator.get_property("energies_uncertainty", atoms)
        assert each.shape == energies.shape
        assert each.max() < total < each.sum() * (1 + 1e-12)  # correlated errors add up, at most linearly
        values.append(total)
    assert values[1] > 3 * values[0]


def test_variance_is_that_of_the_full_posterior():
    """Against the textbook formula with explicit inverses, all training points being sparse points."""
    model = soap_gap.Model(["Cu"], soap_gap.Hyperparameters(cutoff=4.0, n_max=3, l_max=2, two_body=0))
    generator = torch.Generator().manual_seed(0)
    atoms = Atoms("Cu6", positions=3 * torch.rand(6, 3, generator=generator).numpy())
    b = batch.single(_structure(atoms), ["Cu"], 4.0, 0.0, torch.float64)
    p = model.features(b.graph()).detach()
    k = model.kernel(p, p)
    train, noise = k[:5, :5], 0.1
    rows = Rows(model, Features([p[:5]], [whiten(train, 1.0)], torch.zeros(0, 0)))
    phi = rows.atoms(b)
    triangle = Triangle(rows.width)
    triangle.add(phi[:5], torch.zeros(5, dtype=torch.float64))
    found = solve({"energy": [triangle]}, {"energy": noise})
    psi = torch.linalg.solve_triangular(found.factor.T, phi.T, upper=False)
    variance = 1.0 - phi.square().sum(1) + psi.square().sum(0)
    inverse = torch.linalg.inv(train + noise**2 * torch.eye(5, dtype=torch.float64))
    expected = (k - k[:, :5] @ inverse @ k[:5]).diagonal()
    torch.testing.assert_close(variance, expected, rtol=1e-6, atol=1e-9)
    assert math.isfinite(found.log_evidence)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("training: {targets: forces}", "forces alone leave the energies"),
        ("training: {n_sparse: 0}", "training.n_sparse"),
        ("training: {learning_curve: [2, 60]}", "training.learning_curve: expected up to"),
        ("training: {sparse_method: fsp}", "training.sparse_method"),
        ("training: {regularisation: {force: 1}}", "unknown key"),
    ],
)
def test_wrong_settings_are_refused(tmp_path, capsys, line, text):
    ase.io.write(tmp_path / "train.extxyz", argon.argon(6, seed=1))
    config = tmp_path / "config.yaml"
    config.write_text(f"data: {{train: train.extxyz}}\nmodel: {{family: soap-gap, cutoff: 5.0}}\n{line}\n")
    assert main(["train", str(config), "-o", str(tmp_path / "run")]) == 2
    assert text in capsys.readouterr().err


def test_more_memory_than_there_is_is_refused(tmp_path, capsys, monkeypatch):
    ase.io.write(tmp_path / "train.extxyz", argon.argon(6, seed=1))
    config = tmp_path / "config.yaml"
    config.write_text("data: {train: train.extxyz}\nmodel: {family: soap-gap, cutoff: 5.0}\n")
    monkeypatch.setattr("mlplugins.training.solvers._linear.available_bytes", lambda: 1000)
    assert main(["train", str(config), "-o", str(tmp_path / "run")]) == 2
    assert "environments to choose from need" in capsys.readouterr().err


def test_an_element_only_in_validation_frames_is_named(tmp_path, capsys):
    frames = argon.argon(6, seed=1)
    ase.io.write(tmp_path / "train.extxyz", frames[:5])
    frames[5].numbers[0] = 36
    ase.io.write(tmp_path / "validation.extxyz", frames[5:])
    config = tmp_path / "config.yaml"
    config.write_text(
        "data: {train: train.extxyz, validation: validation.extxyz, elements: [Ar, Kr],\n"
        "  baseline: {Ar: 0.0, Kr: 0.0}}\n"
        "model: {family: soap-gap, cutoff: 5.0}\n"
    )
    assert main(["train", str(config), "-o", str(tmp_path / "run")]) == 2
    assert "no training frame holds Kr: if validation frames do" in " ".join(capsys.readouterr().err.split())


def test_checkpoint_exports_to_the_same_model(trained):
    again = trained / "again.pt"
    checkpoint = trained / "run" / "checkpoint.ckpt"
    assert main(["export", str(checkpoint), "-o", str(again), "--dtype", "float64"]) == 0
    atoms = argon.argon(1, seed=3)[0]
    for name in ("energy", "energy_uncertainty"):
        one, two = (MLCalculator(p).get_property(name, atoms) for p in (trained / "run" / "model.pt", again))
        assert one == pytest.approx(two, rel=1e-12)
