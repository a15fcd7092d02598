"""Ions on the way between sites tell the time between frames: Langevin dynamics over barriers (Kramers)."""

from dataclasses import replace

import numpy as np
import pytest
from ase import units

from mlplugins.analysis import passage
from mlplugins.analysis.observables.hops import OBSERVABLE
from mlplugins.analysis.sample import AnalysisSettings, Sample
from mlplugins.analysis.sites import Sites, follow
from mlplugins.analysis.trajectory import Trajectory

KELVIN, LATTICE_A, BARRIER_KT, EVERY, STEP_FS = 600.0, 3.0, 5.0, 25, 4.0
MASS = 6.94


@pytest.fixture(scope="module")
def run():
    """60 Li in −(E/2) Σ cos(2πx/a), friction ω: 40 ps, a frame every 100 fs."""
    rng = np.random.default_rng(0)
    kt, mass = units.kB * KELVIN, MASS
    k, energy, dt = 2 * np.pi / LATTICE_A, BARRIER_KT * units.kB * KELVIN, STEP_FS * units.fs
    omega = np.sqrt(energy / 2 * k**2 / mass)
    kept = np.exp(-omega * dt)
    start = LATTICE_A * rng.integers(0, 4, (60, 3)).astype(float)
    x, v = start.copy(), rng.normal(0, np.sqrt(kt / mass), (60, 3))
    frames = []
    for step in range(10_000):
        v -= dt / 2 * energy / 2 * k * np.sin(k * x) / mass
        x = x + dt / 2 * v
        v = kept * v + np.sqrt((1 - kept**2) * kt / mass) * rng.normal(size=v.shape)
        x = x + dt / 2 * v
        v -= dt / 2 * energy / 2 * k * np.sin(k * x) / mass
        if step % EVERY == 0:
            frames.append(x)
    moved = np.array(frames)[20:]
    start = moved[0] % (4 * LATTICE_A)
    moved = moved - moved[0]
    still = np.zeros((len(moved), 3))
    return Trajectory(
        "Li", moved, EVERY * STEP_FS, ((0, len(moved)),), (4 * LATTICE_A) ** 3, 120,
        {"S": np.zeros(len(moved))}, still, start=start, cell=4 * LATTICE_A * np.eye(3),
    )  # fmt: skip


def test_kramers_transmission_coefficient(run):
    grid = np.stack(np.meshgrid(*[np.arange(4) / 4] * 3), axis=-1).reshape(-1, 3)
    sites = Sites(grid, run.cell)
    states = follow(run.displacements + run.start, sites).states
    found = passage.passage(run.displacements, run.start, states, sites)
    kappa = passage.kappa([found], MASS, KELVIN, run.interval_fs)
    assert 150 < found.hops < 450
    assert kappa == pytest.approx(np.sqrt(1.25) - 0.5, rel=0.3)
    fast = passage.kappa([found], MASS, KELVIN, run.interval_fs / 1000)
    assert "0.1 fs, too short (time step" in passage.doubt(fast, "Li", KELVIN, run.interval_fs / 1000)[0]


@pytest.mark.parametrize(("factor", "said"), [(1.0, ""), (1000.0, "too long")])
def test_a_wrong_time_between_frames_is_said(run, factor, said):
    sample = Sample.of([run], KELVIN, AnalysisSettings())
    sample = replace(sample, paths=replace(sample.paths, interval_fs=factor * run.interval_fs))
    notes = OBSERVABLE.doubts(OBSERVABLE.compute(sample, []), sample)
    assert len(notes) == bool(said)
    assert not said or f"fs, {said} (time step in fs" in notes[0]
