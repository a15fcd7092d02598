"""The posterior of a last layer: against Bayesian linear regression, autograd, and known errors."""

import numpy as np
import pytest
import torch

from mlplugins.models import mace, nequip
from mlplugins.structures import batch
from mlplugins.testing.structures import standard_structures
from mlplugins.uncertainties import llpr
from mlplugins.uncertainties.quality import conformal, quality
from mlplugins.uncertainties.rows import FeatureRows, rows
from mlplugins.uncertainties.scale import fit
from tests.training.test_soap_gap import _structure

ELEMENTS = ["Li", "S"]


def frames(cutoff, names=("crystal", "molecule", "small_cell")):
    chosen = [_structure(standard_structures(ELEMENTS)[name]) for name in names]
    return [batch.single(s, ELEMENTS, cutoff, 0.0, torch.float64) for s in chosen]


def network(family):
    with torch.random.fork_rng():
        torch.manual_seed(2)
        if family == "nequip":
            h = nequip.Hyperparameters(cutoff=3.5, num_layers=2, num_features=4, radial_mlp=[4])
            return nequip.Model(ELEMENTS, h)
        h = mace.Hyperparameters(cutoff=3.5, num_channels=2, l_max=1, correlation=2, radial_mlp=[4])
        return mace.Model(ELEMENTS, h)


@pytest.mark.parametrize("family", ["nequip", "mace"])
def test_energies_are_linear_in_the_features(family):
    """f_i · w with the last matrices of the readouts is the energy, up to shifts of the elements."""
    model = network(family)
    model.energy_scale.fill_(1.7)
    with torch.no_grad():
        model.shift.copy_(torch.tensor([0.3, -0.4]))
    [graph] = frames(3.5, ["crystal"])
    found = model(graph.graph())
    assert found["feature"].shape == (len(graph.species), model.feature_width)
    first, energies = 0, 1.7 * model.shift[graph.species]
    for readout in model.readouts():
        matrices = readout.matrices()
        width = sum(len(m) for m in matrices)
        last = found["feature"][:, first + width - len(matrices[-1]) : first + width]
        energies = energies + (last @ matrices[-1])[:, 0]
        first += width
    torch.testing.assert_close(found["energy"], energies, rtol=0, atol=1e-12)


def exact_slopes(model, together, u):
    """∂F_B/∂r · u of all frames by differentiation."""
    tangent = torch.autograd.functional.jvp(
        lambda v: model(together.graph(v))["feature"],
        together.vectors,
        u[together.neighbors] - u[together.centers],
    )[1]
    zeros = torch.zeros(together.n_systems, tangent.shape[1], dtype=torch.float64)
    return zeros.index_add(0, together.system, tangent)


def test_slopes_are_those_of_autograd():
    model, graphs = network("nequip"), frames(3.5)
    together = batch.concatenate(graphs)
    sizes = [len(g.species) for g in graphs]
    found = rows(model, graphs, 1)
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(sum(sizes), 3, generator=generator, dtype=torch.float64)
    exact = exact_slopes(model, together, u)
    torch.testing.assert_close(found.slopes[:, 0], exact, rtol=0, atol=1e-5 * float(exact.abs().max()))


def test_a_single_slope_is_that_of_one_coordinate():
    """Every frame moves along one coordinate of one of its atoms: some 3n columns explain all slopes."""
    model, graphs = network("nequip"), frames(3.5, ["molecule", "small_cell"])
    found = rows(model, graphs, 3, single=True)
    together = batch.concatenate(graphs)
    n = len(together.species)
    columns = torch.stack(
        [exact_slopes(model, together, u) for u in torch.eye(3 * n).double().reshape(-1, n, 3)]
    )
    for k in range(3):
        for s in range(2):
            distance = (columns[:, s] - found.slopes[s, k]).abs().max(dim=1).values
            assert float(distance.min()) < 1e-5 * float(columns.abs().max())


def test_posterior_of_a_linear_model_is_the_bayesian_one():
    """All 3n directions of a frame, √(3n) long, have exactly the outer products of its force rows."""
    rng = np.random.default_rng(0)
    n_frames, n_atoms, n_features = 5, 4, 6
    f = rng.normal(size=(n_frames, n_features))
    j = rng.normal(size=(n_frames, 3 * n_atoms, n_features))
    e_errors = rng.normal(0.0, 0.2, n_frames)
    f_errors = rng.normal(0.0, 0.05, (n_frames, 3 * n_atoms))
    stretch = np.sqrt(3.0 * n_atoms)
    given = (f, stretch * j, e_errors, stretch * f_errors, np.full(n_frames, float(n_atoms)))
    found = llpr.posterior(FeatureRows(*(torch.from_numpy(np.asarray(x)) for x in given)))
    noise_e, noise_f = np.sqrt(np.mean(e_errors**2 / n_atoms)), np.sqrt(np.mean(f_errors**2))
    design = np.concatenate([f / noise_e / np.sqrt(n_atoms), j.reshape(-1, n_features) / noise_f])
    covariance = np.linalg.inv(n_features * np.eye(n_features) + design.T @ design)
    np.testing.assert_allclose((found.factor @ found.factor.t()).numpy(), covariance, rtol=1e-10)
    np.testing.assert_allclose(found.energy_noise, noise_e, rtol=1e-12)
    np.testing.assert_allclose(found.force_noise, noise_f, rtol=1e-12)
    assert found.n_rows == n_frames * (1 + 3 * n_atoms)


@pytest.mark.long
def test_random_directions_have_the_force_rows_in_the_mean():
    model, graphs = network("nequip"), frames(3.5, ["molecule"])
    k = 400
    found = rows(model, graphs, k)
    n = len(graphs[0].species)
    j = torch.stack(
        [exact_slopes(model, graphs[0], u)[0] for u in torch.eye(3 * n).double().reshape(-1, n, 3)]
    )
    exact = j.t() @ j
    mean = found.slopes[0].t() @ found.slopes[0] / k
    error = torch.outer(exact.diagonal(), exact.diagonal()) + exact**2  # variance of u uᵀ, u normal
    assert float(((mean - exact).abs() / (error / k).sqrt()).max()) < 5.0


def test_a_posterior_covers_the_errors_of_a_linear_truth():
    """Weights drawn from the prior, noisy labels: the scale is one, and intervals hold what they promise."""
    rng = np.random.default_rng(1)
    n_features, sizes = 8, np.full(400, 3.0)

    def drawn(n, w, weights):
        f = rng.normal(size=(n, n_features))
        noise = 0.05 * np.sqrt(sizes[:n]) * rng.normal(size=n)
        nothing = torch.zeros(n, 0, dtype=torch.float64)
        values = f @ weights - (f @ w + noise)
        return FeatureRows(
            torch.from_numpy(f),
            nothing[:, :, None].expand(n, 0, n_features),
            torch.from_numpy(values),
            nothing,
            torch.from_numpy(sizes[:n]),
        )

    w = rng.normal(0.0, 1.0, n_features) / np.sqrt(n_features)
    train = drawn(12, w, w)  # errors of the training labels: the noise
    f, labels = train.features.numpy(), train.features.numpy() @ w - train.energy_errors.numpy()
    noise = 0.05 * np.sqrt(3.0)
    mean = np.linalg.solve(f.T @ f / noise**2 + n_features * np.eye(n_features), f.T @ labels / noise**2)
    held = drawn(400, w, mean)
    found = llpr.posterior(train)
    scales = llpr.calibrate(found, held)
    assert scales.forces is None
    assert 0.4 < scales.energy.scale < 2.5
    assert scales.energy.floor == pytest.approx(0.05, rel=0.3)
    deviations = scales.energy.deviations(found.energy_variances(held), held.n_atoms.numpy())
    report = quality(held.energy_errors.numpy(), deviations)
    assert 0.9 < report["coverage_95"] < 0.99
    assert 0.9 < report["z_rms"] < 1.1


def test_few_energies_do_not_overrule_the_forces():
    rng = np.random.default_rng(2)
    v = np.exp(rng.uniform(-2, 2, 2000))
    many = fit(rng.normal(0.0, 3.0 * np.sqrt(v)), v, np.ones(2000), near=30.0)
    assert many.scale == pytest.approx(3.0, rel=0.1)
    few = fit(np.array([0.1, -0.1, 0.1]), np.ones(3), np.ones(3), near=30.0)
    assert few.scale > 1.0  # alone they would say 0.1
    assert fit(np.zeros(3), np.ones(3), np.ones(3)).scale < 1e-6


def test_quality_of_standard_deviations():
    rng = np.random.default_rng(3)
    s = np.exp(rng.uniform(-2, 2, 4000))
    errors = rng.normal(0.0, s)
    right, constant, shuffled = (
        quality(errors, x) for x in (s, np.full(4000, errors.std()), rng.permutation(s))
    )
    assert right["rll_percent"] > 40
    assert right["rll_percent"] == pytest.approx(right["rll_exact_percent"], abs=1.5)
    of_one = rng.normal(0.0, 0.3, 4000)
    assert quality(of_one, np.exp(rng.normal(size=4000)))["rll_exact_percent"] < 4
    assert abs(constant["rll_percent"]) < 0.1
    assert shuffled["rll_percent"] < 0
    assert right["spearman"] > 0.5
    assert constant["spearman"] is None
    assert abs(shuffled["spearman"]) < 0.05
    assert right["ause"] < 0.3 < shuffled["ause"]
    assert quality(errors, 2 * s)["z_rms"] == pytest.approx(0.5, abs=0.02)
    assert quality(errors, np.abs(errors))["ause"] == pytest.approx(0.0, abs=1e-12)


def test_conformal_factor_is_an_order_statistic():
    errors, ones = np.arange(1.0, 20.0), np.ones(19)
    assert conformal(errors, ones, 0.95) == 19.0  # ⌈20 · 0.95⌉ = 19
    assert conformal(errors, ones, 0.5) == 10.0
    assert conformal(errors[:18], ones[:18], 0.95) is None
