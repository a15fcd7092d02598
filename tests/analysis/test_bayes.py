"""The Bayesian regression of kinisi, fed with our MSD: closed form = kinisi's sampler = kinisi's own MSD."""

import numpy as np
import pytest

from mlplugins.analysis.bayes import kinisi_posterior, msd_points, posterior, window_points
from mlplugins.analysis.diffusion import Paths, collective_paths, diffusion
from mlplugins.analysis.msd import mean_squared_displacement
from mlplugins.testing.walks import LatticeWalk

WALK = LatticeWalk(frames=1500, ions=30, rate=0.4)


@pytest.fixture(scope="module")
def paths():
    return Paths([WALK.displacements()], [[(0, WALK.frames)]], 100.0)


@pytest.fixture(scope="module")
def brownian():
    steps = np.random.default_rng(3).normal(size=(1500, 60, 3))
    return Paths([np.cumsum(steps, axis=0)], [[(0, 1500)]], 100.0)


def test_the_points_are_the_msd_with_the_scatter_of_independent_displacements(brownian):
    lags = np.array([20, 50, 90])
    points = msd_points(brownian, lags)
    expected = mean_squared_displacement(brownian.displacements[0])[lags].sum(axis=1)
    assert points.msd == pytest.approx(expected, rel=1e-9)
    # Gaussian displacements: var(r²) = 2/3 ⟨r²⟩²
    expected = 2 / 3 * points.msd**2 / (60 * 1499 / lags)
    assert points.variance == pytest.approx(expected, rel=0.25)
    covariance = points.covariance
    assert np.array_equal(covariance, covariance.T)
    assert covariance[0, 2] == pytest.approx(points.variance[0] * 90 / 20)


def test_posterior_holds_the_truth_and_agrees_with_ours(paths):
    ours = diffusion(paths)
    for path, mine in ((paths, ours.tracer), (collective_paths(paths), ours.collective)):
        bayes = posterior(msd_points(path, window_points(path, ours.window)), 100.0)
        assert bayes.low < WALK.exact_cm2_s < bayes.high
        assert bayes.low < mine.value < bayes.high
        assert 0.3 < np.log(bayes.high / bayes.low) / np.log(mine.high / mine.low) < 1.6


def test_an_msd_that_flattens_has_no_posterior():
    rattle = np.random.default_rng(0).normal(size=(400, 10, 3))
    still = Paths([rattle], [[(0, 400)]], 100.0)
    assert posterior(msd_points(still, np.arange(10, 80, 5)), 100.0) is None


@pytest.mark.slow
def test_closed_form_is_what_kinisi_samples(brownian):
    pytest.importorskip("kinisi")
    points = msd_points(brownian, np.arange(5, 100, 8))
    state = np.random.get_state()[1].copy()
    sampled, closed = kinisi_posterior(points, 100.0), posterior(points, 100.0)
    assert np.array_equal(np.random.get_state()[1], state)  # kinisi seeds the global generator
    width = closed.high - closed.low
    for name in ("value", "low", "high"):
        assert getattr(sampled, name) == pytest.approx(getattr(closed, name), abs=0.08 * width)
