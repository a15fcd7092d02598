"""Motion from frame to frame against the temperature: wrong time steps, intervals and temperatures.

In equilibrium ⟨|r(t) − r(0)|²⟩ ≤ 3 kT t²/m for any t and any forces, since no velocity autocorrelation
exceeds ⟨v²⟩: the temperature T₁ of free flight is a lower bound of T. Where frames are so close that each
step goes on in the direction of the one before, velocities can be told: with the correlation
c = ⟨Δ·Δ′⟩/⟨Δ²⟩ of neighbouring steps and cos ωt = c, T = T₁ (ωt)²/(2 − 2c), exact for one frequency.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from ase.data import atomic_masses, atomic_numbers

from mlplugins.analysis.blocks import Paths
from mlplugins.units import ASE_TIME_PER_FS, BOLTZMANN_EV_K

OFF = 3.0
"""A temperature that is so many times another is not its fluctuation, nor a matter of isotopes."""
SMOOTH = 0.6
"""Correlation of neighbouring steps above which velocities can be told from frames."""
FRAMES, FEWEST = 2000, 20


class Flight(NamedTuple):
    """How the ions move from one frame to the next.

    Attributes:
        step_a: root mean square of a step, Å.
        correlation: of neighbouring steps.
        least_k: temperature of free flight, a lower bound of that of the run, K.
        kinetic_k: temperature of the velocities, K; None where the frames are too far apart to tell.
    """

    step_a: float
    correlation: float
    least_k: float
    kinetic_k: float | None


def flight(paths: Paths, species: str) -> Flight | None:
    """The motion in the first frames of each run; None of fewer than 20 steps.

    >>> walk = np.cumsum(np.ones((99, 8, 3)), axis=0) * 0.01
    >>> found = flight(Paths([walk], [((0, 99),)], 1.0), "Li")
    >>> round(found.least_k), found.correlation
    (835, 1.0)
    """
    squares = products = 0.0
    n_steps = n_pairs = 0
    for moved, segments in zip(paths.displacements, paths.segments):
        for start, stop in segments:
            steps = np.diff(moved[start : min(stop, start + FRAMES)], axis=0)
            squares += float(np.einsum("fia,fia->", steps, steps))
            products += float(np.einsum("fia,fia->", steps[1:], steps[:-1]))
            n_steps += steps.shape[0] * steps.shape[1]
            n_pairs += max(len(steps) - 1, 0) * steps.shape[1]
    if n_pairs < FEWEST or squares == 0.0:
        return None
    mean = squares / n_steps
    correlation = min(products / n_pairs / mean, 1.0)
    time = paths.interval_fs * ASE_TIME_PER_FS
    least = float(atomic_masses[atomic_numbers[species]]) * mean / 3 / time**2 / BOLTZMANN_EV_K
    curved = 1.0 if correlation == 1.0 else np.arccos(correlation) ** 2 / (2 - 2 * correlation)
    return Flight(float(np.sqrt(mean)), correlation, least, least * curved if correlation > SMOOTH else None)


def doubts(paths: Paths, species: str, temperature_k: float) -> list[str]:
    """A warning about ions that move too fast, or too slowly, for the temperature."""
    found = flight(paths, species)
    if found is None:
        return []
    remedy = "the time between frames (time step in fs × MD steps between frames) or the temperature is wrong"
    moved = f"{species} moves by {found.step_a:.2g} Å (rms) in {paths.interval_fs:.4g} fs"
    if found.least_k > OFF * temperature_k:
        return [
            f"{moved}, farther than in free flight: that takes {found.least_k:.3g} K or more, not "
            f"{temperature_k:g} K: {remedy}"
        ]
    if found.kinetic_k is not None and found.kinetic_k * OFF < temperature_k:
        return [
            f"{moved}, along smooth paths: velocities of {found.kinetic_k:.3g} K, not "
            f"{temperature_k:g} K: {remedy}"
        ]
    return []
