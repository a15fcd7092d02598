"""The uncertainty of forces: exact against closed forms, random probes against the exact one, in ASE."""

import copy

import numpy as np
import pytest
import torch
from ase.io import read

import mlplugins
from mlplugins import MLCalculator
from mlplugins.engines.ase.watching import Watcher
from mlplugins.errors import BadInput
from mlplugins.model_file.artifact import load
from mlplugins.model_file.card import ModelCard
from mlplugins.model_file.evaluate import EdgeGradientModel
from mlplugins.model_file.write import save
from mlplugins.models import lennard_jones
from mlplugins.models import sum as sums
from mlplugins.nn.last_layer import LastLayer
from mlplugins.testing.structures import standard_structures
from mlplugins.uncertainties import llpr
from mlplugins.uncertainties.llpr import rotated
from mlplugins.uncertainties.rows import FeatureRows
from tests.llpr.test_llpr import ELEMENTS, frames, network
from tests.llpr.test_uncertainty import folder, made  # noqa: F401  (fixtures)

FLOOR = 0.03


def jacobian(model, graph):
    """−∂F_B/∂r of the features of a frame, (3n, T), column by column."""
    single = graph.graph()
    vectors = single.vectors.clone().requires_grad_()
    summed = model(single._replace(vectors=vectors))["feature"].sum(dim=0)
    columns = []
    for each in summed:
        [g] = torch.autograd.grad(each, vectors, retain_graph=True, allow_unused=True)
        g = torch.zeros_like(vectors) if g is None else g
        zeros = torch.zeros(len(single.species), 3, dtype=torch.float64)
        forces = zeros.index_add(0, single.centers, g).index_add(0, single.neighbors, -g)
        columns.append(forces.ravel())
    return torch.stack(columns, dim=1).detach()


def written(potential, path, family="nequip"):
    save(potential, path, ModelCard(family, ELEMENTS, [0.0, 0.0]), "float64")
    return load(path)


@pytest.mark.parametrize("family", ["nequip", "mace"])
def test_exact_deviations_are_those_of_the_bayesian_linear_model(tmp_path, family):
    """var F = α_F² J C⁻¹ Jᵀ + floor², C of energies and forces by numpy, J by differentiation."""
    model, rng = network(family), np.random.default_rng(0)
    model.energy_scale.fill_(1.3)
    graphs = frames(3.5)
    slopes = [jacobian(model, graph) for graph in graphs]
    features = torch.stack([model(graph.graph())["feature"].sum(dim=0) for graph in graphs]).detach()
    sizes = np.array([len(graph.species) for graph in graphs])
    n_features = features.shape[1]
    e = rng.normal(0.0, 0.2, len(graphs))
    f = [rng.normal(0.0, 0.05, len(j)) for j in slopes]
    # every frame with all of its 3n directions, which are its Jacobian; fewer atoms: rows of zeros
    most = max(len(j) for j in slopes)
    stretch = np.sqrt(most)
    padded = torch.stack([torch.cat([j, torch.zeros(most - len(j), n_features)]) for j in slopes]) * stretch
    errors = np.array([np.concatenate([each, np.zeros(most - len(each))]) for each in f]) * stretch
    rows = FeatureRows(features, padded, *map(torch.from_numpy, (e, errors, sizes.astype(float))))
    posterior = llpr.posterior(rows)
    ratio = 0.7
    model.last_layer.set(2.0 * rotated(posterior.factor), 0.1, ratio, FLOOR)
    design = np.concatenate(
        [
            features.numpy() / posterior.energy_noise / np.sqrt(sizes)[:, None],
            padded.flatten(0, 1).numpy() / stretch / posterior.force_noise,
        ]
    )
    inverse = np.linalg.inv(n_features * np.eye(n_features) + design.T @ design)
    atoms = standard_structures(ELEMENTS)["crystal"]
    [found] = written(model, tmp_path / "m.pt", family).evaluate([atoms], probes=0)
    j = jacobian(model, frames(3.5, ["crystal"])[0]).numpy()
    expected = np.sqrt((2.0 * ratio) ** 2 * np.einsum("it,tu,iu->i", j, inverse, j) + FLOOR**2)
    np.testing.assert_allclose(found.forces_uncertainty.ravel(), expected, rtol=1e-10)


def test_probes_have_the_exact_variance_in_the_mean_and_no_more_than_their_error():
    """Over rotations: the mean of the estimates is the variance, their scatter at most √(2/K)."""
    generator = torch.Generator().manual_seed(3)
    factor = torch.randn(24, 24, generator=generator, dtype=torch.float64)
    slopes = torch.randn(5, 24, generator=generator, dtype=torch.float64)
    exact = (slopes @ factor).square().sum(dim=1)
    k, n = 8, 600
    estimates = []
    for seed in range(n):
        layer = LastLayer()
        layer.set(rotated(factor, seed), 0.0, 1.0, 0.0)
        estimates.append(layer.probes(slopes, k).square().sum(dim=1))
    ratios = torch.stack(estimates) / exact
    scatter = ratios.std(dim=0)
    assert float(((ratios.mean(dim=0) - 1.0).abs() / (scatter / n**0.5)).max()) < 4.0
    assert 0.5 * (2 / k) ** 0.5 < float(scatter.min())
    assert float(scatter.max()) < (2 / k) ** 0.5
    assert layer.probes(slopes, 24).square().sum(dim=1).allclose(exact, rtol=1e-12)


def test_the_terms_of_a_sum_without_uncertainty_add_none(tmp_path):
    alone = network("nequip")
    generator = torch.Generator().manual_seed(1)
    factor = torch.randn(alone.feature_width, 6, generator=generator, dtype=torch.float64)
    alone.last_layer.set(factor, 0.1, 0.5, FLOOR)
    pairs = lennard_jones.Model(ELEMENTS, lennard_jones.Hyperparameters(epsilon=0.01, cutoff=3.0))
    atoms = [standard_structures(ELEMENTS)[name] for name in ("crystal", "molecule")]
    of_one = written(alone, tmp_path / "a.pt").evaluate(atoms, probes=4)
    of_sum = written(sums.Model.of([pairs, alone]), tmp_path / "b.pt", "sum").evaluate(atoms, probes=4)
    for one, other in zip(of_one, of_sum):
        assert one.forces_uncertainty.min() > FLOOR
        np.testing.assert_allclose(one.forces_uncertainty, other.forces_uncertainty, rtol=1e-12)


def test_the_command_calibrates_forces_and_evaluate_finds_it_so(folder, made):  # noqa: F811
    """rms z of the force components is one on the frames that calibrated, in the file that was written."""
    model = load(folder / "u.pt")
    assert model.has_force_uncertainty
    found = mlplugins.evaluate(folder / "u.pt", folder / "held.extxyz")["uncertainty"]["forces"]
    assert found["n"] == 12 * 12
    assert found["z_rms"] == pytest.approx(made["quality"]["forces"]["z_rms"], rel=0.15)
    # the file's own record: α_F² v + floor², v by differences
    held = read(folder / "held.extxyz", ":")
    [exact] = model.evaluate(held[:1], probes=0)
    assert exact.forces_uncertainty.min() >= made["calibration"]["forces"]["floor"]
    mlplugins.convert(folder / "u.pt", folder / "ar64.pt", elements=["Ar"], dtype="float64")
    [kept] = load(folder / "ar64.pt").evaluate(held[:1], probes=0)
    np.testing.assert_allclose(kept.forces_uncertainty, exact.forces_uncertainty, rtol=1e-10)


def test_ase_gives_it_when_asked(folder, made):  # noqa: F811
    atoms = read(folder / "held.extxyz")
    calc = MLCalculator(folder / "u.pt")
    calc.probes = 2
    estimated = calc.get_property("forces_uncertainty", atoms)
    calc.probes = 0  # what was estimated is forgotten
    assert np.abs(calc.get_property("forces_uncertainty", atoms) / estimated - 1).max() > 1e-3
    copied = copy.copy(calc)
    copied.along.add("force_uncertainty")
    with pytest.raises(BadInput, match="along: it has no 'force_uncertainty', expected some of"):
        copied.get_property("forces", atoms[:3])
    assert not {"force_uncertainty"} & calc.along
    found = calc.get_property("forces_uncertainty", atoms)
    assert found.shape == (4, 3)
    [exact] = load(folder / "u.pt").evaluate([atoms], probes=0)
    np.testing.assert_allclose(found, exact.forces_uncertainty, rtol=1e-12)
    assert set(calc.results) >= {"energy", "forces", "energy_uncertainty"}


def test_models_without_it_are_named(folder, made, tmp_path):  # noqa: F811
    [atoms] = read(folder / "held.extxyz", ":1")
    with pytest.raises(BadInput, match="predicts no uncertainty of its forces: add one with"):
        load(folder / "model.pt").evaluate([atoms], probes=8)
    with pytest.raises(BadInput, match="or 0 for the exact uncertainty, got -1"):
        load(folder / "u.pt").evaluate([atoms], probes=-1)
    frames_ = read(folder / "train.extxyz", ":"), read(folder / "held.extxyz", ":")
    for part in frames_:
        for each in part:
            del each.calc.results["forces"]
    mlplugins.uncertainty(folder / "model.pt", frames_[0], tmp_path / "e.pt", frames_[1])
    with pytest.raises(BadInput, match="its file has none for forces: run `mlplugins uncertainty` again"):
        load(tmp_path / "e.pt").evaluate([atoms], probes=8)


def test_states_of_earlier_files_are_read():
    """Their last layer had no scale of forces: it has no uncertainty of them then."""
    layer, new = LastLayer(), LastLayer()
    layer.set(torch.eye(3, dtype=torch.float64), 0.2, 0.5, 0.1)
    state = {k: v for k, v in layer.state_dict().items() if not k.startswith("force")}
    new.load_state_dict(state)
    assert float(new.force_floor) < 0
    assert new.factor.equal(layer.factor)
    new.load_state_dict(layer.state_dict())
    assert (float(new.force_ratio), float(new.force_floor)) == (0.5, 0.1)


def test_a_structure_is_evaluated_once(folder, made, tmp_path, monkeypatch):  # noqa: F811
    """Energies' uncertainty comes with the forces once it was asked for, that of forces where a watched run
    looks next: two evaluations of the structure at which it was asked first, one of all others."""
    evaluations = []
    evaluate = EdgeGradientModel.evaluate

    def counted(self, structures, *arguments):
        evaluations.append(arguments[-1])
        return evaluate(self, structures, *arguments)

    monkeypatch.setattr(EdgeGradientModel, "evaluate", counted)
    monkeypatch.chdir(tmp_path)
    atoms = read(folder / "held.extxyz")
    atoms.calc = MLCalculator(folder / "u.pt")
    for _ in range(4):
        atoms.rattle(0.01, seed=len(evaluations))
        forces = atoms.get_forces()
        assert atoms.calc.get_property("energy_uncertainty", atoms) > 0
        np.testing.assert_array_equal(forces, atoms.calc.results["forces"])
    assert evaluations == [None] * 5
    evaluations.clear()
    watcher = Watcher(atoms, "force_uncertainty", 3, keep_above=1e3)
    for step in range(9):
        atoms.rattle(0.01, seed=step)
        atoms.get_forces()
        watcher.look(step)
    assert evaluations == [None, 8, None, None, 8, None, None, 8, None, None]
