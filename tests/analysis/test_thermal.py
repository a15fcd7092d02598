"""Motion against the temperature: ions in harmonic wells, whose paths and temperature are known exactly."""

import numpy as np
import pytest

from mlplugins.analysis.blocks import Paths
from mlplugins.analysis.thermal import doubts, flight

KELVIN, MASS = 600.0, 6.94
VELOCITY = np.sqrt(1.380649e-23 * KELVIN / (MASS * 1.66053907e-27)) * 1e-5  # Å/fs, one component


def wells(spacing_fs, told_fs, period_fs=100.0, frames=400, ions=60):
    """x = A cos(ωt + φ) with the amplitudes of kT, frames every `spacing_fs`."""
    rng = np.random.default_rng(5)
    omega = 2 * np.pi / period_fs * rng.uniform(0.5, 1.5, (ions, 3))
    amplitude = VELOCITY / omega * np.sqrt(2 * rng.exponential(1.0, (ions, 3)))
    phase = rng.uniform(0, 2 * np.pi, (ions, 3))
    moved = amplitude * np.cos(omega * spacing_fs * np.arange(frames)[:, None, None] + phase)
    return Paths([moved], [((0, frames),)], told_fs)


@pytest.mark.parametrize("spacing", [1.0, 4.0, 8.0])
def test_the_temperature_of_smooth_paths_is_found(spacing):
    assert flight(wells(spacing, spacing), MASS).kinetic_k == pytest.approx(KELVIN, rel=0.1)
    assert doubts(wells(spacing, spacing), "Li", MASS, KELVIN) == []


@pytest.mark.parametrize("spacing", [20.0, 50.0, 500.0])
def test_free_flight_is_a_lower_bound(spacing):
    found = flight(wells(spacing, spacing), MASS)
    assert found.least_k < KELVIN
    assert found.kinetic_k is None
    assert doubts(wells(spacing, spacing), "Li", MASS, KELVIN) == []


@pytest.mark.parametrize("spacing", [2.0, 20.0])
def test_a_time_step_in_ps_is_said(spacing):
    [note] = doubts(wells(spacing, spacing / 1000), "Li", MASS, KELVIN)
    assert "farther than in free flight" in note


@pytest.mark.parametrize(("told", "kelvin"), [(50.0, KELVIN), (2.0, 3.2 * KELVIN)])
def test_slow_motion_along_smooth_paths_is_said(told, kelvin):
    [note] = doubts(wells(2.0, told), "Li", MASS, kelvin)
    assert "along smooth paths" in note


def test_too_few_frames_say_nothing():
    moved = Paths([np.zeros((2, 4, 3))], [((0, 2),)], 1.0)
    assert flight(moved, MASS) is None
