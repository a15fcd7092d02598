"""Covariance of an MSD against simulation, and the weights against exact lines."""

import numpy as np
import pytest

from mlplugins.analysis.linefit import brownian_covariance, line_weights
from mlplugins.analysis.msd import block_msd

LAGS = np.array([2, 5, 11])


def test_covariance_against_simulated_brownian_walks():
    random = np.random.default_rng(5)
    walkers, frames, step, noise = 40_000, 40, 0.7, 0.9
    paths = np.cumsum(np.sqrt(step) * random.normal(size=(frames, walkers, 3)), axis=0)
    paths += np.sqrt(noise) * random.normal(size=paths.shape)
    msd = block_msd(paths, (0, frames), LAGS, 1)[:, 0].sum(axis=2)
    expected = brownian_covariance(LAGS, frames, step, noise)
    # the sampling error of a covariance of 40000 walkers is about one per cent
    np.testing.assert_allclose(np.cov(msd), expected, rtol=0.05)


@pytest.mark.parametrize("estimator", ["gls", "ols"])
@pytest.mark.parametrize("noise", [0.0, 3.0])
def test_a_straight_line_is_returned_exactly(estimator, noise):
    lags = np.array([3, 4, 6, 9, 13, 19, 28])
    fit = line_weights(lags, 200, 1.0, noise, estimator)
    line = 4.0 + 0.25 * lags
    assert fit.weights @ line == pytest.approx(0.25, rel=1e-8)
    assert fit.intercept @ line == pytest.approx(4.0, rel=1e-8)


def test_gls_has_the_smaller_variance():
    lags = np.arange(5, 50, 3)
    variance = {name: line_weights(lags, 500, 1.0, 0.5, name).variance for name in ("gls", "ols")}
    assert variance["gls"] < 0.5 * variance["ols"]
