"""Harmonic traps: amplitude √(kT/k) and frequency √(k/m)/2π, from frames that resolve it and that do not."""

from dataclasses import replace

import numpy as np
import pytest
from ase import units
from ase.data import atomic_masses, atomic_numbers
from scipy.linalg import expm

from mlplugins.analysis.observables.vibrations import OBSERVABLE
from mlplugins.analysis.sample import AnalysisSettings, Sample
from mlplugins.analysis.trajectory import Trajectory

KELVIN, THZ, EDGE_A = 600.0, 6.0, 3.0
MASS = atomic_masses[atomic_numbers["Li"]]
AMPLITUDE_A = np.sqrt(units.kB * KELVIN / MASS) * units.fs * 1000 / (2 * np.pi * THZ)


def traps(interval_fs, frames, friction_thz=0.5, seed=0):
    """Li in 64 traps of a cubic lattice, exact steps of Langevin dynamics."""
    random = np.random.default_rng(seed)
    omega, time = 2 * np.pi * THZ, interval_fs / 1000
    drift = expm(time * np.array([[0.0, 1.0], [-(omega**2), -friction_thz]]))
    even = np.diag([AMPLITUDE_A**2, (AMPLITUDE_A * omega) ** 2])
    noise = np.linalg.cholesky(even - drift @ even @ drift.T + 1e-18 * np.eye(2))
    state = np.linalg.cholesky(even) @ random.normal(size=(2, 64 * 3))
    moved = np.empty((frames, 64, 3))
    for frame in range(frames):
        moved[frame] = state[0].reshape(64, 3)
        state = drift @ state + noise @ random.normal(size=state.shape)
    lattice = np.stack(np.meshgrid(*[np.arange(4) + 0.5] * 3), axis=-1).reshape(-1, 3) * EDGE_A
    still = np.zeros((frames, 3))
    return Trajectory(
        "Li", moved - moved[0], interval_fs, ((0, frames),), (4 * EDGE_A) ** 3, 128,
        {"S": np.zeros(frames)}, still, start=lattice + moved[0], cell=4 * EDGE_A * np.eye(3),
    )  # fmt: skip


def found(run):
    return OBSERVABLE.compute(Sample.of([run], KELVIN, AnalysisSettings()), [])


def holds(value, truth):
    return value.low < truth < value.high and value.value == pytest.approx(truth, rel=0.03)


def test_frames_that_resolve_the_vibration():
    """Friction widens the peak, and its tail raises the mean by 1 %."""
    each = found(traps(20.0, 3000))
    assert holds(each.amplitude_a, AMPLITUDE_A)
    assert each.source == "spectrum"
    assert each.kinetic_share == pytest.approx(1.0, abs=0.05)
    assert each.attempt_thz.value == pytest.approx(THZ, rel=0.03)
    assert holds(each.from_amplitude_thz, THZ)
    width = each.frequency_thz[1]
    assert each.density.sum() * width == pytest.approx(1.0)
    assert each.frequency_thz[each.density.argmax()] == pytest.approx(THZ, abs=0.5)


def test_frames_that_do_not_resolve_it():
    """At 100 fs the highest frequency is 5 THz: what the frames hold is not the spectrum."""
    each = found(traps(100.0, 600))
    assert each.from_spectrum_thz is None
    assert each.kinetic_share < 0.5
    assert each.source == "amplitude"
    assert holds(each.attempt_thz, THZ)
    entries = OBSERVABLE.as_json(each)
    assert entries["attempt_frequency_from"] == "amplitude"
    assert entries["frequency_from_spectrum_THz"] is None
    assert entries["vibration_amplitude_A"]["value"] == pytest.approx(AMPLITUDE_A, rel=0.03)


def test_a_heavier_isotope_of_the_same_motion():
    """ν = √(kT/m)/2πu: twice the mass at the same amplitude vibrates √2 more slowly."""
    run = traps(100.0, 600)
    light, heavy = (found(replace(run, mass_u=mass)).from_amplitude_thz.value for mass in (None, 2 * 6.94))
    assert light / heavy == pytest.approx(2**0.5, rel=1e-6)


def test_without_sites_and_spectrum_there_is_nothing():
    run = traps(100.0, 30)
    bare = Trajectory("Li", run.displacements, 100.0, run.segments, 1.0, 64, {}, run.drift)
    assert found(bare) is None
