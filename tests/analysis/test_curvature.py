"""Weights of the slope of curves that are known: no walk is simulated."""

import numpy as np
import pytest
from scipy import stats

from mlplugins.analysis.curvature import curve_fit, process_covariance
from mlplugins.analysis.value import interval, skewness

SLOPE = 0.25


@pytest.mark.long
def test_points_that_are_low_by_chance_do_not_weigh_more():
    """Weights of noisy points less those of the exact line: with the covariance of the points 3.2 % low.

    Noise and its mirror image, 12 walkers; the mean of 60 pairs has an error of 0.3 %.
    """
    frames, walkers = 400, 12
    lags = np.unique(np.geomspace(5, frames // 2, 24).astype(int))
    line = 0.7 + SLOPE * lags
    root = np.linalg.cholesky(process_covariance(lags, line, frames) / walkers)
    exact = curve_fit(lags, line, frames, walkers).line.weights
    random = np.random.default_rng(3)
    away = []
    for _ in range(60):
        noise = root @ random.normal(size=len(lags))
        for msd in (line + noise, line - noise):
            weights = curve_fit(lags, np.maximum(msd, 0.01), frames, walkers).line.weights
            away.append(float((weights - exact) @ msd) / SLOPE)
    assert abs(np.mean(away)) < 0.02


@pytest.mark.parametrize("relaxation", [10.0, 30.0, 40.0])
def test_inertia_does_not_bias_the_slope(relaxation):
    """Langevin motion without noise, 6 D (t − τ + τ exp(−t/τ)): 4 % high if slow decays may follow it."""
    lags = np.unique(np.geomspace(5, 600, 32).round().astype(int))
    msd = SLOPE * (lags - relaxation * (1 - np.exp(-lags / relaxation)))
    slope = float(curve_fit(lags, msd, 1200, 12).line.weights @ msd)
    assert slope == pytest.approx(SLOPE, rel=0.035)


@pytest.mark.parametrize("relaxation", [150.0, 200.0, 300.0])
def test_beside_a_slow_decay_the_slopes_lie_on_both_sides_of_the_truth(relaxation):
    """The lags of a run cannot tell how slow a decay is, only that there is one."""
    lags = np.unique(np.geomspace(5, 510, 36).round().astype(int))
    msd = SLOPE * (1 + lags + 0.8 * relaxation * (1 - np.exp(-lags / relaxation)))
    found = curve_fit(lags, msd, 600, 100)
    slopes = [float(fit.line.weights @ msd) / SLOPE for fit in (found, *found.slow)]
    assert len(slopes) == 4
    assert slopes[0] > 1.3
    assert slopes[3] < 0.9


def test_of_a_line_no_slow_decay_is_seen():
    lags = np.unique(np.geomspace(5, 300, 32).round().astype(int))
    found = curve_fit(lags, SLOPE * (1.0 + lags), 600, 100)
    assert found.slow == ()
    assert found.line.weights @ (SLOPE * (1.0 + lags)) == pytest.approx(SLOPE, rel=1e-6)


@pytest.mark.parametrize("value", [-0.3, -0.02, 0.05])
def test_the_interval_of_what_must_be_positive_is_that_of_a_truncated_normal(value):
    found = interval(value, 0.1**2, 0.0, 1e9, positive=True)
    law = stats.truncnorm(-value / 0.1, np.inf, loc=value, scale=0.1)
    assert (found.low, found.high) == pytest.approx((law.ppf(0.025), law.ppf(0.975)), rel=1e-4)
    assert found.value == max(value, 0.0)
    # well above zero it is symmetric in the logarithm, as any other
    known = interval(0.5, 0.1**2, 0.0, 1e9, positive=True)
    assert known == interval(0.5, 0.1**2, 0.0, 1e9)
    assert known.high == pytest.approx(0.5 * np.exp(1.96 * 0.2), rel=1e-4)


def test_the_value_of_one_walker_is_the_median_of_its_interval():
    """The mean of k squares: as often too low as too high, and 95 % in the interval."""
    for k in (4.0, 12.0, 100.0):
        found = interval(0.5, 0.0, 0.5**2 * 2 / k, 1e9, single=1.0)
        law = stats.invgamma(k / 2, scale=0.5 * k / 2)  # of the truth, given the slope
        assert found.value == pytest.approx(law.median(), rel=1e-6)
        assert (found.low, found.high) == pytest.approx((law.ppf(0.025), law.ppf(0.975)), rel=1e-6)
        # of a slope that is a median already nothing is left to do
        ready = interval(0.5, 0.0, 0.5**2 * 2 / k, 1e9, single=skewness(2 / k))
        assert ready.value == pytest.approx(0.5, rel=1e-9)


def test_far_below_zero_no_end_is_lost():
    """Forty standard errors below: the tail is exponential, with a length of error²/|value|."""
    found = interval(-30.0, 1.0, 0.0, 1e9, positive=True)
    assert found.high == pytest.approx(-np.log(0.025) / 30, rel=0.02)
    assert interval(-50.0, 1.0, 0.0, 1e9, positive=True).low >= 0
