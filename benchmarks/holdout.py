"""Coverage of the 95 % intervals on models of motion that the estimator was never tuned on.

    python benchmarks/holdout.py --walks 200                  about ten minutes

Disorder on an fcc lattice in continuous time (random site energies and random barriers; D by homogenisation
of the generator), Rouse modes in a cage with rare hops (D of the hops), ions that switch between a slow and a
fast state (D the mean). Two lengths each. The columns are those of `coverage.py`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent))
from coverage import Case, Made, report

Floats = NDArray[np.float64]
FRAME_PS = 0.1
IONS = 16
CELLS = 3
HALF = 2.1  # Å, half of the fcc constant
JUMPS = np.array(
    [[a, b, 0] for a in (1, -1) for b in (1, -1)]
    + [[a, 0, b] for a in (1, -1) for b in (1, -1)]
    + [[0, a, b] for a in (1, -1) for b in (1, -1)]
)


def fcc() -> NDArray[np.intp]:
    """Neighbour of each of the 4 · 3³ sites by each of the twelve jumps."""
    size = 2 * CELLS
    points = np.array([p for p in np.ndindex(size, size, size) if sum(p) % 2 == 0])
    number = {tuple(p): k for k, p in enumerate(points.tolist())}
    return np.array([[number[tuple((p + j) % size)] for j in JUMPS] for p in points])


NEAR = fcc()


def disordered(random: np.random.Generator, sites: float, bonds: float, rate: float) -> tuple[Floats, Floats]:
    """Rates (sites, 12) with detailed balance, and the occupation of the sites."""
    count = len(NEAR)
    depth = np.minimum(random.exponential(sites, count), 5 * sites)
    barrier = np.zeros((count, 12))
    index = {}
    for i in range(count):
        for k, j in enumerate(NEAR[i]):
            # a pair of sites has one barrier, seen from both
            key = (min(i, j), max(i, j), k if i < j else int(np.flatnonzero((-JUMPS[k] == JUMPS).all(1))[0]))
            barrier[i, k] = index.setdefault(key, random.normal() * bonds)
    occupied = np.exp(depth)
    rates = rate * np.exp(-depth[:, None] - barrier)
    return rates, occupied / occupied.sum()


def homogenised(rates: Floats, occupied: Floats) -> float:
    """Exact D of the generator, cm²/s."""
    count = len(rates)
    generator = np.zeros((count, count))
    for k in range(12):
        np.add.at(generator, (np.arange(count), NEAR[:, k]), rates[:, k])
    generator[np.arange(count), np.arange(count)] -= rates.sum(axis=1)
    total = 0.0
    for axis in range(3):
        step = HALF * JUMPS[:, axis]
        corrector = np.linalg.lstsq(generator, -(rates @ step), rcond=None)[0]
        moved = step + corrector[NEAR] - corrector[:, None]
        total += float((occupied[:, None] * rates * moved**2).sum())
    return total / 6 * 1e-4


def traps(frames: int, sites: float, bonds: float, rate: float) -> Callable[[int], Made]:
    """Exponential waiting times; positions are read at the frames."""

    def make(seed: int) -> Made:
        random = np.random.default_rng([seed, 71])
        rates, occupied = disordered(random, sites, bonds, rate)
        leaving = rates.sum(axis=1)
        upper = (rates / leaving[:, None]).cumsum(axis=1)
        site = random.choice(len(NEAR), IONS, p=occupied)
        steps = np.zeros((frames + 1, IONS, 3))
        time, ions = np.zeros(IONS), np.arange(IONS)
        while True:
            time += random.exponential(1 / leaving[site])
            frame = np.minimum((time / FRAME_PS).astype(int) + 1, frames)
            if (frame >= frames).all():
                break
            jump = np.minimum((random.random(IONS)[:, None] > upper[site]).sum(axis=1), 11)
            steps[frame, ions] += HALF * JUMPS[jump]
            site = NEAR[site, jump]
        path = np.cumsum(steps[:frames], axis=0)
        return path + 0.25 * random.normal(size=path.shape), homogenised(rates, occupied)

    return make


def rouse(frames: int, longest_ps: float, size: float, hop: float, rate: float) -> Callable[[int], Made]:
    """Ten modes with times τ/p² and variances ∝ 1/p² (MSD ∝ √t inside the cage), and hops of the cage."""

    def make(seed: int) -> Made:
        random = np.random.default_rng([seed, 72])
        path = np.zeros((frames, IONS, 3))
        share = 1 / np.arange(1, 11) ** 2
        share /= share.sum()
        for mode, part in enumerate(share, 1):
            memory = np.exp(-FRAME_PS * mode**2 / longest_ps)
            noise = random.normal(size=path.shape)
            for frame in range(1, frames):
                noise[frame] = memory * noise[frame - 1] + np.sqrt(1 - memory**2) * noise[frame]
            path += size * np.sqrt(part) * noise
        count = random.poisson(rate * FRAME_PS, (frames, IONS))
        direction = random.normal(size=path.shape)
        direction *= hop / np.linalg.norm(direction, axis=2, keepdims=True)
        path += np.cumsum(direction * np.sqrt(count)[:, :, None], axis=0)
        return path, rate * hop**2 / 6 * 1e-4

    return make


def switching(frames: int, slow: float, fast: float, stay_ps: float) -> Callable[[int], Made]:
    """Brownian ions, a third of the time fast; D in Å²/ps, times `stay_ps` (fast) and twice that (slow)."""

    def make(seed: int) -> Made:
        random = np.random.default_rng([seed, 73])
        # the share of fast frames of the chain in discrete time
        leave, enter = -np.expm1(-FRAME_PS / stay_ps), -np.expm1(-FRAME_PS / stay_ps / 2)
        share = enter / (enter + leave)
        moving = random.random(IONS) < share
        variance = np.empty((frames, IONS))
        for frame, draws in enumerate(random.random((frames, IONS))):
            variance[frame] = np.where(moving, fast, slow)
            moving ^= draws < np.where(moving, leave, enter)
        steps = np.sqrt(2 * variance * FRAME_PS)[:, :, None] * random.normal(size=(frames, IONS, 3))
        path = np.cumsum(steps, axis=0)
        exact = (share * fast + (1 - share) * slow) * 1e-4
        return path + 0.3 * random.normal(size=path.shape), exact

    return make


CASES = tuple(
    Case(f"{name}, {frames * FRAME_PS:.0f} ps", make(frames))
    for name, make in (
        ("fcc traps 1 kT", lambda frames: traps(frames, 1.0, 0.0, 0.1)),
        ("fcc traps+bonds 2 kT", lambda frames: traps(frames, 1.0, 2.0, 0.03)),
        ("Rouse cage 5 ps, hops", lambda frames: rouse(frames, 5.0, 0.8, 2.5, 0.1)),
        ("two states, 10 ps", lambda frames: switching(frames, 0.02, 0.5, 10.0)),
    )
    for frames in (400, 1600)
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--walks", type=int, default=200)
    parser.add_argument("--only", nargs="+", default=[""], metavar="WORD")
    arguments = parser.parse_args()
    report([case for case in CASES if any(word in case.name for word in arguments.only)], arguments.walks)
    return 0


if __name__ == "__main__":
    sys.exit(main())
