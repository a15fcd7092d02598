"""Motion from frame to frame against the temperature: wrong time steps, intervals and temperatures.

In equilibrium ⟨|r(t) − r(0)|²⟩ ≤ 3 kT t²/m for any t and any forces, since no velocity autocorrelation
exceeds ⟨v²⟩: the temperature T₁ of free flight is a lower bound of T. Where frames are so close that each
step goes on in the direction of the one before, velocities can be told: with the correlation
c = ⟨Δ·Δ′⟩/⟨Δ²⟩ of neighbouring steps and cos ωt = c, T = T₁ (ωt)²/(2 − 2c), exact for one frequency.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from mlplugins.analysis.blocks import Floats, Paths
from mlplugins.units import ASE_TIME_PER_FS, BOLTZMANN_EV_K

FAST, SLOW, SURE = 1.25, 1.4, 4.0
"""Factors from the temperature, beside so many standard errors, from which on velocities are another's:
nothing is faster than free flight; constraints and masses of other isotopes slow down."""
SLOW_H = 3.0
"""Of hydrogen, which may be deuterium, heavier by choice, or bound rigidly."""
SMOOTH = 0.6
"""Correlation of neighbouring steps above which velocities can be told from frames."""
FRAMES, FEWEST, BLOCKS = 2000, 20, 8
RENEWED_FS = 100.0
"""Time in which kinetic energies of atoms change."""


class Flight(NamedTuple):
    """How the ions move from one frame to the next.

    Attributes:
        step_a: root mean square of a step, Å.
        correlation: of neighbouring steps.
        least_k: temperature of free flight, a lower bound of that of the run, K.
        kinetic_k: temperature of the velocities, K; None where the frames are too far apart to tell.
        error: relative standard error of both.
    """

    step_a: float
    correlation: float
    least_k: float
    kinetic_k: float | None
    error: float


def flight(paths: Paths, mass_u: float) -> Flight | None:
    """The motion in frames of each run, evenly spaced; None of fewer than 20 steps.

    >>> walk = np.cumsum(np.ones((99, 8, 3)), axis=0) * 0.01
    >>> found = flight(Paths([walk], [((0, 99),)], 1.0), 6.94)
    >>> round(found.least_k), found.correlation
    (835, 1.0)
    """
    sums = np.array([(*_sums(moved), moved.shape[1]) for moved in _blocks(paths)]).reshape(-1, 5)
    squares, steps, products, pairs, ions = sums.T
    if pairs.sum() < FEWEST or not squares.any():
        return None
    mean = float(squares.sum() / steps.sum())
    correlation = min(float(products.sum() / pairs.sum()) / mean, 1.0)
    time = paths.interval_fs * ASE_TIME_PER_FS
    least = mass_u * mean / 3 / time**2 / BOLTZMANN_EV_K
    curved = 1.0 if correlation == 1.0 else np.arccos(correlation) ** 2 / (2 - 2 * correlation)
    scatter = float(np.var(squares / steps)) / max(len(sums) - 1, 1) / mean**2
    # an instant has √(2/3n) of n ions
    instants = np.maximum(steps / ions * paths.interval_fs / RENEWED_FS, 1.0)
    error = float(np.sqrt(scatter + 2 / (3 * (ions * instants).sum())))
    kinetic = least * float(curved) if correlation > SMOOTH else None
    return Flight(float(np.sqrt(mean)), correlation, least, kinetic, error)


def _blocks(paths: Paths) -> Iterator[Floats]:
    """Frames of each stretch in up to 8 parts."""
    for moved, segments in zip(paths.displacements, paths.segments):
        for start, stop in segments:
            parts = max(1, min(BLOCKS, (stop - start) // FEWEST))
            size = min((stop - start) // parts, FRAMES // BLOCKS)
            for k in range(parts):
                first = start + k * (stop - start - size) // max(parts - 1, 1)
                if size > 1:
                    yield moved[first : first + size]


def _sums(moved: Floats) -> tuple[float, int, float, int]:
    """Σ|Δ|² and Σ Δ·Δ′ with their numbers."""
    steps = np.diff(moved, axis=0)
    squares = float(np.einsum("fia,fia->", steps, steps))
    products = float(np.einsum("fia,fia->", steps[1:], steps[:-1]))
    ions = steps.shape[1]
    return squares, len(steps) * ions, products, (len(steps) - 1) * ions


def doubts(paths: Paths, species: str, mass_u: float, temperature_k: float) -> list[str]:
    """A warning about ions that move too fast, or too slowly, for the temperature."""
    found = flight(paths, mass_u)
    if found is None:
        return []
    remedy = "the time between frames (time step in fs × MD steps between frames) or the temperature is wrong"
    moved = f"{species} moves by {found.step_a:.2g} Å (rms) in {paths.interval_fs:.4g} fs"
    sure = 1 + SURE * found.error
    if found.least_k > FAST * sure * temperature_k:
        return [
            f"{moved}, farther than in free flight: that takes {found.least_k:.3g} K or more, not "
            f"{temperature_k:g} K: {remedy}"
        ]
    if found.kinetic_k is None:
        return []
    if found.kinetic_k > FAST * sure * temperature_k or (
        found.kinetic_k * (SLOW_H if species == "H" else SLOW) * sure < temperature_k
    ):
        return [
            f"{moved}, along smooth paths: velocities of {found.kinetic_k:.3g} K, not "
            f"{temperature_k:g} K: {remedy}"
        ]
    return []
