"""Kernel families through the whole of `mlplugins train`: files, accuracy, permutations, refusals."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from mlplugins import MLCalculator
from mlplugins.checkpoints import native
from mlplugins.cli.main import main
from mlplugins.errors import RunFailed
from mlplugins.model_file import artifact
from mlplugins.model_file.card import ModelCard
from mlplugins.model_file.write import save
from mlplugins.training import config, data, folds, solve, train
from mlplugins.training.search import Trial
from mlplugins.training.solvers import molecular_kernel

from . import argon, molecules
from .solving import FIXED, Silent, content, refused, run

PRESETS = {"kreg": 1, "pkreg": 2, "krr-cm": 1, "sgdml": 2}  # and their number of permutations


@pytest.fixture(scope="module", params=PRESETS)
def preset(request, folder, tmp_path_factory):
    directory = tmp_path_factory.mktemp(request.param)
    observer = Silent()
    trained = train(content(folder, request.param), directory, observer)
    return request.param, directory, trained, observer


def test_the_files_are_those_of_every_training(preset):
    _, directory, trained, _ = preset
    assert {p.name for p in directory.iterdir()} == {
        "model.pt",
        "checkpoint.ckpt",
        "metrics.json",
        "parity.png",
        "parity.pdf",
    }
    metrics = json.loads((directory / "metrics.json").read_text())
    assert [metrics[p]["n_structures"] for p in ("train", "validation", "test")] == [32, 8, 12]
    assert metrics["solver"]["final_fit"].startswith("24 training and 8 validation frames together")
    assert metrics["solver"]["condition"] > 1.0
    assert metrics["n_parameters"] == metrics["solver"]["unknowns"] == trained.metrics["n_parameters"]


def test_it_learns(preset):
    family, directory, trained, _ = preset
    assert trained.metrics["solver"]["permutations"] == PRESETS[family]
    spread = 1000 * np.std([a.get_potential_energy() / 3 for a in molecules.water(12, 3)])
    for part in ("validation", "test"):
        limit = 0.1 if family == "krr-cm" else 0.02  # the former learns no forces
        assert trained.metrics[part]["energy"]["rmse_meV_per_atom"] < limit * spread


def test_unknowns_are_the_independent_labels(preset):
    family, _, trained, _ = preset
    expected = {"kreg": 32 * 4, "pkreg": 32 * 4, "krr-cm": 32, "sgdml": 32 * 3}  # 9 − 6 force components
    assert trained.metrics["solver"]["unknowns"] == expected[family]


def test_forces_are_finite_differences(preset):
    _, directory, _, _ = preset
    model = artifact.load(directory / "model.pt")
    atoms = molecules.water(1, 9)[0]
    step = 5e-4
    forces = model.evaluate([atoms])[0].forces
    for place in range(9):
        slope = 0.0
        for k, weight in ((-2, 1 / 12), (-1, -2 / 3), (1, 2 / 3), (2, -1 / 12)):
            moved = atoms.copy()
            moved.positions.flat[place] += k * step
            slope += weight * model.evaluate([moved])[0].energy / step
        assert -slope == pytest.approx(forces.flat[place], abs=1e-6 * np.abs(forces).max())


def test_equivalent_atoms_may_be_swapped_if_their_permutation_is_known(preset):
    family, directory, _, _ = preset
    model = artifact.load(directory / "model.pt")
    atoms = molecules.water(1, 10)[0]
    one, other = model.evaluate([atoms, atoms[[0, 2, 1]]])
    difference = abs(one.energy - other.energy)
    if PRESETS[family] == 2:
        assert difference < 1e-10
    else:
        assert difference > 1e-7
    with pytest.raises(RunFailed, match="in the order of the training frames"):
        model.evaluate([atoms[[1, 0, 2]]])


def test_a_checkpoint_gives_the_same_model(preset, tmp_path):
    _, directory, trained, _ = preset
    read = native.read(directory / "checkpoint.ckpt")
    for name, value in trained.potential.state_dict().items():
        assert torch.equal(read.potential.state_dict()[name], value), name
    save(
        read.potential,
        tmp_path / "again.pt",
        ModelCard(read.family, read.elements, read.baseline),
        "float64",
    )
    atoms = molecules.water(1, 11)[0]
    energies = [
        artifact.load(p).evaluate([atoms])[0].energy for p in (directory / "model.pt", tmp_path / "again.pt")
    ]
    assert energies[0] == energies[1]


def test_ase_runs_it(preset):
    family, directory, _, _ = preset
    atoms = molecules.water(1, 12)[0]
    truth = atoms.get_forces()
    atoms.calc = MLCalculator(directory / "model.pt")
    limit = 0.5 if family == "krr-cm" else 0.05
    assert np.abs(atoms.get_forces() - truth).max() < limit * np.abs(truth).max()


@pytest.mark.slow
@pytest.mark.usefixtures("native_build", "warm_start")
def test_check_passes_in_every_engine(folder, tmp_path):
    run(folder, tmp_path, "pkreg", {"regularisation": 1e-7}, sigma=2.0)  # below, round-off passes the limits
    write(tmp_path / "one.extxyz", molecules.water(1, 14, spread=0.01))
    command = ["check", str(tmp_path / "model.pt"), str(tmp_path / "one.extxyz")]
    assert main([*command, "--json", str(tmp_path / "check.json")]) == 0
    rows = json.loads((tmp_path / "check.json").read_text())["checks"]
    assert {row["ranks"] for row in rows if row["engine"] == "lammps"} == {1}
    names = {row["name"] for row in rows}
    assert {"forces = -dE/dr", "permutation: energy", "forces = ASE (socket)"} <= names
    assert not any("isolated" in name or "cutoff" in name for name in names)


@pytest.mark.parametrize("permutations", [[[0, 2, 1]], "detect"])
def test_given_and_detected_permutations_are_one_model(folder, tmp_path, permutations):
    trained, _ = run(folder, tmp_path, "kreg", permutations=permutations)
    assert trained.metrics["solver"]["permutations"] == 2
    assert trained.card.details["hyperparameters"]["permutations"] == [[0, 1, 2], [0, 2, 1]]


@pytest.mark.parametrize("method", ["grid", "nelder-mead", "bfgs", "tpe"])
def test_search_finds_parameters_as_good_as_chosen_ones(folder, tmp_path, method):
    training = {"search": {"method": method, "trials": 12}}
    trained, observer = run(folder, tmp_path, "pkreg", training)
    fixed, _ = run(folder, tmp_path / "fixed", "pkreg")
    assert len(trained.metrics["solver"]["search"]) > 5
    assert trained.metrics["solver"]["search_frames"] == [{"fitted": 24, "held_out": 8}]
    assert "optimistic" in trained.metrics["solver"]["final_fit"]
    assert (
        trained.metrics["test"]["forces"]["rmse_meV_per_A"]
        < 1.6 * fixed.metrics["test"]["forces"]["rmse_meV_per_A"]
    )
    assert trained.metrics["solver"]["difference_error"] < 2.5e-7
    assert any(
        "fitted to 24 of 32 frames" in note and "have the lowest error" in note for note in observer.notes
    )
    assert any("training and 8 validation frames together" in note for note in observer.notes)
    assert any("kernel matrix of 32 frames: 128 unknowns" in note for note in observer.notes)


def test_a_matern_kernel_is_not_taken_for_a_flat_one(folder, tmp_path):
    """Its fifth derivative jumps at the training points."""
    trained, _ = run(folder, tmp_path, "kreg", kernel="matern52")
    assert trained.metrics["solver"]["difference_error"] < molecular_kernel.LARGEST_DIFFERENCE_ERROR


def test_equal_likelihoods_are_those_within_one_nat(monkeypatch):
    """Scores are −log likelihoods per unknown: 0.05 of them are 5 nats here."""
    trials = [Trial({"sigma": 1.0, "regularisation": 10.0**k}, score) for k, score in ((-9, -5), (-6, -4.95))]
    monkeypatch.setattr(molecular_kernel, "search", lambda *a: trials)
    section = molecular_kernel.SearchSection(objective="likelihood", sigma=[0.1, 10.0])
    settings = molecular_kernel.Settings(search=section)
    setup = SimpleNamespace(settings=settings, task=SimpleNamespace(seed=0), unknowns=lambda n: 4 * n)
    best, _ = molecular_kernel._search(setup, None, [(np.arange(25), np.arange(5))], 25)
    assert best["regularisation"] == 1e-9


@pytest.mark.parametrize(("fitted", "expected"), [(100, 1e-6), (10, 1e-9)])
def test_equal_errors_are_fewer_if_the_search_fits_to_fewer_frames(monkeypatch, fitted, expected):
    """A regularisation that costs 1 % with ten frames would cost far more with a hundred."""
    trials = [Trial({"sigma": 1.0, "regularisation": 10.0**k}, score) for k, score in ((-9, 1), (-6, 1.01))]
    monkeypatch.setattr(molecular_kernel, "search", lambda *a: trials)
    settings = molecular_kernel.Settings(search=molecular_kernel.SearchSection(sigma=[0.1, 10.0]))
    setup = SimpleNamespace(settings=settings, task=SimpleNamespace(seed=0))
    best, _ = molecular_kernel._search(setup, None, [(np.arange(fitted), np.arange(5))], 100)
    assert best["regularisation"] == expected


def test_a_search_survives_trials_that_do_not_converge(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(molecular_kernel, "SEARCH_ITERATIONS", 30)
    search = {"trials": 4, "regularisation": [1e-14, 1e-4]}
    trained, _ = run(folder, tmp_path, "kreg", {"method": "cg", "landmarks": 4, "search": search}, sigma=2.0)
    scores = [t["score"] for t in trained.metrics["solver"]["search"]]
    assert None in scores
    assert trained.metrics["solver"]["method"] == "cg"


@pytest.mark.long
def test_likelihood_and_nested_cross_validation(folder, tmp_path):
    training = {"search": {"objective": "likelihood", "trials": 8, "nested": 2, "folds": 2}}
    trained, _ = run(folder, tmp_path, "kreg", training)
    nested = trained.metrics["solver"]["nested_cross_validation"]
    assert nested["folds"] == 2
    # outer folds learn from half of the frames: worse than the final fit, of the same order
    assert 0 < nested["forces_rmse_meV_per_A"] < 1000
    assert nested["forces_rmse_meV_per_A"] > 0.3 * trained.metrics["test"]["forces"]["rmse_meV_per_A"]


@pytest.mark.long
def test_outer_folds_are_seen_by_neither_search_nor_fit(folder, tmp_path, monkeypatch):
    search, system, divide = molecular_kernel._search, molecular_kernel.Setup.system, folds.folds
    groups, seen = [], []

    def dividing(energies, count, seed, stratified):
        found = divide(energies, count, seed, stratified)
        if count == 3:
            groups.extend(found)
        return found

    def searching(setup, sigma, parts, final):
        seen.append([np.concatenate(pair) for pair in parts])
        return search(setup, sigma, parts, final)

    def assembling(self, index, *rest):
        seen[-1].append(index)
        return system(self, index, *rest)

    monkeypatch.setattr(folds, "folds", dividing)
    monkeypatch.setattr(molecular_kernel, "_search", searching)
    monkeypatch.setattr(molecular_kernel.Setup, "system", assembling)
    run(folder, tmp_path, "krr-cm", {"search": {"trials": 4, "nested": 3, "folds": 2}})
    assert len(groups) == 3
    for group, indices in zip(groups, seen):
        assert not set(group) & set(np.concatenate(indices))
        assert sorted([*group, *indices[-1]]) == list(range(32))


def test_labels_that_are_all_equal(folder, tmp_path):
    frames = molecules.water(6, 1)
    for atoms in frames:
        atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=np.zeros((3, 3)))
    write(tmp_path / "flat.extxyz", frames)
    files = {"train": str(tmp_path / "flat.extxyz"), "validation": 0.0, "test": None}
    trained, _ = run(folder, tmp_path / "out", "kreg", data=files)
    assert trained.metrics["train"]["energy"]["rmse_meV_per_atom"] < 1e-9
    assert np.isfinite(trained.metrics["solver"]["log_marginal_likelihood"])


def test_a_prior_without_stress_is_said(tmp_path):
    frames = argon.argon(5, seed=1)
    for atoms in frames:
        atoms.info["cheap"] = 0.0
    write(tmp_path / "train.extxyz", frames)
    section = {"train": str(tmp_path / "train.extxyz"), "validation": 0.2, "prior": {"energy": "cheap"}}
    model = {"family": "soap-gap"}
    whole = {"data": section, "model": model, "training": {"targets": "energies"}}
    sets = data.load(config.parse(whole, "c.yaml"))
    assert any("stress is not learned from" in text for text in sets.warnings)


@pytest.mark.long
def test_learning_curve_falls(folder, tmp_path, drawn):
    trained, _ = run(folder, tmp_path, "kreg", {**FIXED, "learning_curve": [6, 12, 24]})
    law = trained.metrics["solver"]["learning_curve"]["forces_rmse_meV_per_A"]
    assert 0.3 < law["c"] <= 3.0
    rows = trained.metrics["learning_curve"]
    assert [row["n_train"] for row in rows] == [6, 12, 24]
    assert rows[0]["forces_rmse_meV_per_A"] > 1.5 * rows[2]["forces_rmse_meV_per_A"]
    assert (tmp_path / "learning.png").stat().st_size > 5000


def test_flat_kernels_are_not_chosen(folder, tmp_path):
    with pytest.raises(RunFailed, match="refused by the conditioning guard"):
        run(folder, tmp_path, "kreg", {"search": {"sigma": [10.0, 100.0], "regularisation": [1e-14, 2e-14]}})


@pytest.mark.long
def test_cg_equals_cholesky(folder, tmp_path):
    training = {"regularisation": 1e-6}
    direct, _ = run(folder, tmp_path / "a", "pkreg", training, sigma=2.0)
    iterative, observer = run(
        folder, tmp_path / "b", "pkreg", {**training, "method": "cg", "tolerance": 1e-12}, sigma=2.0
    )
    assert iterative.metrics["solver"]["method"] == "cg"
    atoms = molecules.water(4, 13)
    a, b = (artifact.load(tmp_path / k / "model.pt").evaluate(atoms) for k in "ab")
    for one, other in zip(a, b):
        assert one.energy == pytest.approx(other.energy, abs=1e-7)
        np.testing.assert_allclose(one.forces, other.forces, atol=1e-6)


def test_mixed_compositions_with_sorted_matrices(tmp_path):
    rng = np.random.default_rng(0)
    frames = molecules.water(20, 4)
    for atoms in molecules.water(20, 5):
        positions = np.vstack([atoms.positions, atoms.positions[0] + [0, 0, 1.3 + 0.1 * rng.normal()]])
        frames.append(molecules.label(Atoms("OH3", positions)))
    order = rng.permutation(40)
    larger = np.vstack([frames[-1].positions, frames[-1].positions[0] - [0, 0, 9.0]])  # the largest
    frames.append(molecules.label(Atoms("OH4", larger)))
    write(tmp_path / "mixed.extxyz", [frames[k] for k in [*order, 40]])
    parsed = config.parse(
        {
            "data": {
                "train": f"{tmp_path}/mixed.extxyz@:32",
                "test": f"{tmp_path}/mixed.extxyz@32:",
                "validation": 0.2,
            },
            "model": {
                "family": "krr-cm",
                "descriptor": "sorted-coulomb-matrix",
                "kernel": "laplacian",
                "sigma": 20.0,
            },
            "training": {"regularisation": 1e-8},
        },
        "c.yaml",
    )
    trained = solve.train(parsed, tmp_path / "out", Silent())
    assert trained.metrics["train"]["energy"]["rmse_meV_per_atom"] < 1e-2
    assert trained.metrics["solver"]["difference_error"] is None  # kinks: no forces to compare with
    assert trained.metrics["validation"]["n_structures"] == 6
    assert trained.metrics["test"]["n_structures"] == 9
    model = artifact.load(tmp_path / "out" / "model.pt")
    swapped = frames[0][[2, 0, 1]]
    assert model.evaluate([swapped])[0].energy == pytest.approx(
        model.evaluate([frames[0]])[0].energy, abs=1e-9
    )


def test_delta_learning_adds_up(folder, tmp_path):
    """Labels of a cheaper method, 0.9 of the true ones: the model is the rest, with a tenth of the error."""
    for name, n, seed in (("train", 24, 1), ("validation", 8, 2), ("test", 12, 3)):
        frames = molecules.water(n, seed)
        for atoms in frames:
            atoms.info["cheap"] = 0.9 * atoms.get_potential_energy()
            atoms.arrays["cheap_forces"] = 0.9 * atoms.get_forces()
        write(tmp_path / f"{name}.extxyz", frames)
    files = {name: str(tmp_path / f"{name}.extxyz") for name in ("train", "validation", "test")}
    prior = {"prior": {"energy": "cheap", "forces": "cheap_forces"}}
    trained, _ = run(folder, tmp_path / "out", "kreg", data={**files, **prior})
    direct, _ = run(folder, tmp_path / "direct", "kreg")
    errors = [t.metrics["test"]["forces"]["rmse_meV_per_A"] for t in (trained, direct)]
    assert errors[0] == pytest.approx(0.1 * errors[1], rel=0.2)
    atoms = molecules.water(1, 15)[0]
    rest = artifact.load(tmp_path / "out" / "model.pt").evaluate([atoms])[0]
    assert rest.energy + 0.9 * atoms.get_potential_energy() == pytest.approx(
        atoms.get_potential_energy(), abs=2e-3
    )
    frame = data.load(config.parse(content(folder, "kreg", data={**files, **prior}), "c.yaml")).train[3]
    truth = molecules.water(24, 1)[3]
    assert frame.energy == pytest.approx(0.1 * truth.get_potential_energy(), abs=1e-7)
    np.testing.assert_allclose(frame.forces, 0.1 * truth.get_forces(), atol=1e-7)
    text = refused(folder, tmp_path, "kreg", data={**files, "prior": {"energy": "cheep"}})
    assert "no energy (looked for key 'cheep')" in text
    assert "data.prior: {energy: NAME}" in text
    assert "--keys" not in text


# --- bad input ----------------------------------------------------------------------------------------------


def test_the_command_prints_what_it_did(folder, tmp_path, capsys):
    import yaml

    (tmp_path / "c.yaml").write_text(yaml.safe_dump(content(folder, "sgdml")))
    assert main(["train", str(tmp_path / "c.yaml"), "-o", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "solved in closed form, 96 parameters" in printed
    assert "kernel matrix of 32 frames: 96 unknowns" in printed
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["finite_differences"]["max_error_meV_per_A"] < 1e-2
