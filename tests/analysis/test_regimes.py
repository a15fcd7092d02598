"""Two regimes and VFT: found where they are, not found where one line is enough, intervals that hold."""

import numpy as np
import pytest

from mlplugins.analysis.regimes import two_regimes, vft
from mlplugins.units import BOLTZMANN_EV_K

TEMPERATURES = np.array([350.0, 400.0, 500.0, 600.0, 700.0, 850.0, 1000.0])
X = 1 / (BOLTZMANN_EV_K * TEMPERATURES)
ERRORS = np.full(7, 0.08)


def noisy(log_d, seed):
    return np.exp(log_d + 0.08 * np.random.default_rng(seed).normal(size=len(log_d)))


def test_a_broken_line_is_found_with_its_energies():
    """0.35 eV below 550 K, 0.20 eV above, as reported for halides and argyrodites."""
    at = 1 / (BOLTZMANN_EV_K * 550)
    log_d = -8 - 0.2 * X - 0.15 * np.maximum(X - at, 0)
    truth = np.exp(-8 - 0.2 / (BOLTZMANN_EV_K * 300) - 0.15 * (1 / (BOLTZMANN_EV_K * 300) - at))
    held, seen = np.zeros(3), 0
    for seed in range(40):
        found = two_regimes(TEMPERATURES, noisy(log_d, seed), ERRORS)
        seen += found.significant
        held += [
            found.cold_ev.low < 0.35 < found.cold_ev.high,
            found.hot_ev.low < 0.20 < found.hot_ev.high,
            found.room.low < truth < found.room.high,
        ]
        assert 420 < found.break_k < 720
    assert seen >= 30, seen
    assert (held >= 34).all(), held


@pytest.mark.long
def test_one_line_is_left_alone():
    flags = [
        (two_regimes(TEMPERATURES, values, ERRORS).significant, vft(TEMPERATURES, values, ERRORS).significant)
        for values in (noisy(-8 - 0.3 * X, seed) for seed in range(200))
    ]
    assert np.mean(flags, axis=0).max() < 0.03


@pytest.mark.long
@pytest.mark.parametrize("points", [6, 7])
def test_one_line_is_left_alone_where_points_scatter_more_than_their_errors(points):
    """Three times: with few points the scatter itself is hardly known, χ² would find a break too often."""
    flags = []
    for seed in range(150):
        log_d = -8 - 0.3 * X[:points] + 0.24 * np.random.default_rng(seed).normal(size=points)
        data = TEMPERATURES[:points], np.exp(log_d), ERRORS[:points]
        broken, bent = two_regimes(*data), vft(*data)
        flags.append([broken.significant, bent is not None and bent.significant])
    shares = np.mean(flags, axis=0)
    assert shares.max() <= 0.06, shares  # χ² alone: 0.09 to 0.11


def test_vft_is_found_and_extrapolates():
    log_d = -7 - 0.08 / (BOLTZMANN_EV_K * (TEMPERATURES - 180))
    truth = np.exp(-7 - 0.08 / (BOLTZMANN_EV_K * 120))
    exact = vft(TEMPERATURES, np.exp(log_d), ERRORS)
    assert exact.t0_k == pytest.approx(180, abs=0.1)
    assert exact.b_ev == pytest.approx(0.08, rel=1e-3)
    assert exact.at(300.0).value == pytest.approx(truth, rel=1e-3)
    assert exact.significant
    found = [vft(TEMPERATURES, noisy(log_d, seed), ERRORS) for seed in range(60)]
    held = np.mean([law.at(300.0).low < truth < law.at(300.0).high for law in found])
    assert 0.85 <= held <= 1.0
    assert exact.at(150.0).high != exact.at(150.0).high  # NaN below T0: nothing is known


def test_few_temperatures_say_nothing():
    assert two_regimes(TEMPERATURES[:5], np.ones(5), ERRORS[:5]) is None
    assert vft(TEMPERATURES[:4], np.ones(4), ERRORS[:4]) is None
