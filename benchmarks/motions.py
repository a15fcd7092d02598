"""Kinds of motion with known D, many walks at a time: what `coverage.py` measures intervals on.

A `Kind` makes walks of ions, frames every 0.1 ps, and the exact D of each: (walks, frames, ions, 3) in Å, and
(walks,) in cm²/s. Walks are independent; where there is disorder, each has its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from mlplugins.testing.walks import NetworkWalk, cages, random_barriers

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Integers = NDArray[np.intp]
Random = np.random.Generator
Made = tuple[Singles, Floats]
Maker = Callable[[Random, int, int, int], Made]
"""From a generator, walks, frames and ions (groups of them)."""
FRAME_PS = 0.1
HALF = 2.1
"""Å, half of the fcc constant."""
CELLS = 3
JUMPS = np.array(
    [[a, b, c] for a in (-1, 0, 1) for b in (-1, 0, 1) for c in (-1, 0, 1) if abs(a) + abs(b) + abs(c) == 2]
)


@dataclass(frozen=True)
class Kind:
    """Motion of `ions`, `together` of which hop as one, in runs of `frames`."""

    name: str
    frames: int
    ions: int
    make: Maker
    together: int = 1

    def walks(self, random: Random, count: int) -> Made:
        """So many walks."""
        moved, truth = self.make(random, count, self.frames, self.ions // self.together)
        if self.together == 1:
            return moved, truth
        noise = np.float32(0.25) * normal(random, (count, self.frames, self.ions, 3))
        return np.repeat(moved, self.together, axis=2) + noise, truth


def normal(random: Random, shape: tuple[int, ...]) -> Singles:
    return random.standard_normal(shape, dtype=np.float32)


def relaxing(random: Random, shape: tuple[int, ...], memory: float) -> Singles:
    """Ornstein–Uhlenbeck processes of variance 1 along the second axis; `memory` of a step."""
    noise = normal(random, shape)
    share = np.float32(np.sqrt(1 - memory**2))
    noise[:, 1:] *= share
    return np.asarray(signal.lfilter([1.0], [1.0, -memory], noise, axis=1), dtype=np.float32)


def hops(rate: float, hop: float = 2.5, rattle: float = 0.3) -> Maker:
    """Independent hops along an axis at a total `rate`, 1/ps, and rattling."""

    def make(random: Random, count: int, frames: int, ions: int) -> Made:
        shape = (count, frames, ions, 3)
        path = np.zeros(shape, dtype=np.float32)
        for sign in (1, -1):
            path += sign * random.poisson(rate * FRAME_PS / 6, shape).astype(np.int8)
        np.cumsum(path, axis=1, out=path)
        path *= np.float32(hop)
        path += np.float32(rattle) * normal(random, shape)
        return path, np.full(count, rate * hop**2 / 6 * 1e-4)

    return make


def caged(
    relaxation_ps: float, amplitude: float, rate: float = 0.4, hop: float = 2.5, rattle: float = 0.1
) -> Maker:
    """Overdamped vibration in harmonic cages that hop."""

    def make(random: Random, count: int, frames: int, ions: int) -> Made:
        path, truth = hops(rate, hop, rattle)(random, count, frames, ions)
        path += np.float32(amplitude) * relaxing(random, path.shape, np.exp(-FRAME_PS / relaxation_ps))
        return path, truth

    return make


def thrown(relaxation_ps: float, rate: float = 0.4, hop: float = 2.5) -> Maker:
    """Langevin motion with the D of hops: the MSD starts with t²."""

    def make(random: Random, count: int, frames: int, ions: int) -> Made:
        steps, exact = 4, rate * hop**2 / 6
        time = FRAME_PS / steps
        velocity = relaxing(random, (count, steps * frames, ions, 3), np.exp(-time / relaxation_ps))
        velocity[:, 1:] += velocity[:, :-1].copy()
        velocity[:, 0] = 0
        path = np.cumsum(velocity, axis=1)[:, ::steps]
        # the trapezoidal sum of such velocities has a D of its own
        own = time / relaxation_ps / 2 / np.tanh(time / relaxation_ps / 2)
        path *= np.float32(time / 2 * np.sqrt(exact / relaxation_ps / own))
        return path, np.full(count, exact * 1e-4)

    return make


def drifting(random: Random, count: int, frames: int, ions: int) -> Made:
    """What is left when the drift of 28 rattling atoms is removed from ions that drift with them."""
    path, truth = hops(0.3)(random, count, frames, ions)
    return path - np.float32(0.2 / np.sqrt(28)) * normal(random, (count, frames, 1, 3)), truth


def network(rates: Callable[[int], Floats], rattle: float) -> Maker:
    """`NetworkWalk`s, all at once."""

    def make(random: Random, count: int, frames: int, ions: int) -> Made:
        seeds = random.integers(0, 2**31, count)
        walks = [NetworkWalk(rates(int(seed)), frames, ions) for seed in seeds]
        chances, ends = zip(*(walk.network() for walk in walks))
        upper = np.concatenate(chances).cumsum(axis=1).T.astype(np.float32).copy()
        sites = len(ends[0])
        near = np.concatenate([each + number * sites for number, each in enumerate(ends)])
        near = np.column_stack([near, np.arange(len(near))]).ravel()
        step = np.zeros((7, 3), dtype=np.float32)
        for axis in range(3):
            step[2 * axis, axis], step[2 * axis + 1, axis] = walks[0].hop, -walks[0].hop
        site = random.integers(0, sites, (count, ions)) + sites * np.arange(count)[:, None]
        site = site.ravel()
        path = np.zeros((frames, count * ions, 3), dtype=np.float32)
        for frame in range(1, frames):
            path[frame] = path[frame - 1]
            for draws in random.random((walks[0].substeps, len(site)), dtype=np.float32):
                # few hop in a step: only those are looked at closely
                some = np.flatnonzero(draws < upper[5, site])
                places = site[some]
                jump = (draws[some] > upper[:, places]).sum(axis=0)
                path[frame, some] += step[jump]
                site[some] = near[7 * places + jump]
        path += np.float32(rattle) * normal(random, path.shape)
        moved = path.reshape(frames, count, ions, 3).transpose(1, 0, 2, 3)
        return moved, np.array([walk.exact_cm2_s for walk in walks])

    return make


def barriers(rate: float, width: float, rattle: float = 0.25) -> Maker:
    return network(lambda seed: random_barriers(rate, width, seed), rattle)


def cage(fast: float, slow: float) -> Maker:
    return network(lambda seed: cages(fast, slow), 0.25)


def fcc() -> Integers:
    """Neighbour of each of the 4 · 3³ sites by each of the twelve jumps."""
    size = 2 * CELLS
    points = np.array([p for p in np.ndindex(size, size, size) if sum(p) % 2 == 0])
    number = {tuple(p): k for k, p in enumerate(points.tolist())}
    return np.array([[number[tuple(((p + j) % size).tolist())] for j in JUMPS] for p in points])


NEAR = fcc()


def disordered(random: Random, count: int, bonds: float, rate: float) -> tuple[Floats, Floats]:
    """Rates (walks, sites, 12) with detailed balance, and the occupation of the sites: depths are
    exponential with a mean of 1 kT, up to 5 kT, barriers normal with a width of `bonds` kT."""
    sites = len(NEAR)
    depth = np.minimum(random.exponential(1.0, (count, sites)), 5.0)
    barrier = np.zeros((count, sites, 12))
    for k, jump in enumerate(JUMPS):
        if tuple(jump) > (0, 0, 0):
            back = int(np.flatnonzero((-jump == JUMPS).all(axis=1))[0])
            barrier[:, :, k] = bonds * random.standard_normal((count, sites))
            barrier[:, NEAR[:, k], back] = barrier[:, :, k]
    rates = rate * np.exp(-depth[:, :, None] - barrier)
    occupied = np.exp(depth)
    return rates, occupied / occupied.sum(axis=1, keepdims=True)


def homogenised(rates: Floats, occupied: Floats) -> Floats:
    """Exact D of each generator, cm²/s."""
    count, sites, _ = rates.shape
    generator = np.zeros((count, sites, sites))
    for k in range(12):
        generator[:, np.arange(sites), NEAR[:, k]] += rates[:, :, k]
    generator[:, np.arange(sites), np.arange(sites)] -= rates.sum(axis=2)
    steps = HALF * JUMPS
    # of the solutions that differ by a constant the one whose mean is zero
    correctors = np.linalg.solve(generator - occupied[:, None, :], -(rates @ steps))
    moved = steps + correctors[:, NEAR] - correctors[:, :, None]
    return np.asarray(np.einsum("ws,wsk,wskx->w", occupied, rates, moved**2) / 6 * 1e-4)


def traps(bonds: float, rate: float) -> Maker:
    """Disorder on an fcc lattice in continuous time; positions are read at the frames."""

    def make(random: Random, count: int, frames: int, ions: int) -> Made:
        rates, occupied = disordered(random, count, bonds, rate)
        sites = len(NEAR)
        flat = rates.reshape(-1, 12)
        leaving = flat.sum(axis=1)
        upper = (flat / leaving[:, None]).cumsum(axis=1)
        first = [random.choice(sites, ions, p=each) + number * sites for number, each in enumerate(occupied)]
        site = np.concatenate(first)
        path = np.zeros((frames + 1, count * ions, 3), dtype=np.float32)
        time, who = np.zeros(count * ions), np.arange(count * ions)
        while len(who):
            time = time + random.exponential(1 / leaving[site])
            frame = (time / FRAME_PS).astype(np.intp) + 1
            on = frame < frames
            time, who, site, frame = time[on], who[on], site[on], frame[on]
            jump = np.minimum((random.random(len(who))[:, None] > upper[site]).sum(axis=1), 11)
            path[frame, who] += (HALF * JUMPS[jump]).astype(np.float32)
            site = site - site % sites + NEAR[site % sites, jump]
        path = np.cumsum(path[:frames], axis=0)
        path += np.float32(0.25) * normal(random, path.shape)
        moved = path.reshape(frames, count, ions, 3).transpose(1, 0, 2, 3)
        return moved, homogenised(rates, occupied)

    return make


def rouse(random: Random, count: int, frames: int, ions: int) -> Made:
    """Ten modes with times (5 ps)/p² and variances ∝ 1/p² (MSD ∝ √t inside the cage), which hops."""
    path, truth = hops(0.1, rattle=0.0)(random, count, frames, ions)
    share = 1 / np.arange(1, 11) ** 2
    share /= share.sum()
    for mode, part in enumerate(share, 1):
        memory = np.exp(-FRAME_PS * mode**2 / 5.0)
        path += np.float32(0.8 * np.sqrt(part)) * relaxing(random, path.shape, memory)
    return path, truth


def switching(random: Random, count: int, frames: int, ions: int) -> Made:
    """Brownian ions of 0.5 Å²/ps for 10 ps, then of 0.02 for 20."""
    slow, fast, stay_ps = 0.02, 0.5, 10.0
    leave, enter = -np.expm1(-FRAME_PS / stay_ps), -np.expm1(-FRAME_PS / stay_ps / 2)
    share = enter / (enter + leave)
    moving = random.random(count * ions) < share
    path = normal(random, (count, frames, ions, 3))
    for frame in range(frames):
        size = np.sqrt(2 * FRAME_PS * np.where(moving, fast, slow)).astype(np.float32)
        path[:, frame] *= size.reshape(count, ions, 1)
        moving ^= random.random(len(moving)) < np.where(moving, leave, enter)
    path = np.cumsum(path, axis=1)
    path += np.float32(0.3) * normal(random, path.shape)
    return path, np.full(count, (share * fast + (1 - share) * slow) * 1e-4)


KINDS = (
    Kind("independent, 20 hops", 400, 24, hops(0.02)),
    Kind("independent, 200 hops", 600, 12, hops(0.3)),
    Kind("independent, 900 hops", 1200, 24, hops(0.3)),
    Kind("independent, 2400 hops", 2000, 40, hops(0.3)),
    Kind("pairs, 20 hops", 400, 24, hops(0.04, rattle=0.0), 2),
    Kind("pairs, 400 hops", 1200, 24, hops(0.3, rattle=0.0), 2),
    Kind("groups of four, 200 hops", 1200, 24, hops(0.3, rattle=0.0), 4),
    Kind("drifting cell", 1200, 24, drifting),
    Kind("soft cage 1 ps, 40 ps", 400, 24, caged(1.0, 0.3)),
    Kind("soft cage 1 ps, 120 ps", 1200, 24, caged(1.0, 0.3)),
    Kind("wide cage 5 ps, 100 ps", 1000, 24, caged(5.0, 1.0, hop=1.5)),
    Kind("wide cage 5 ps, 200 ps", 2000, 24, caged(5.0, 1.0, hop=1.5)),
    Kind("ballistic 1 ps, 60 ps", 600, 24, thrown(1.0)),
    Kind("ballistic 3 ps, 120 ps", 1200, 12, thrown(3.0)),
    Kind("barriers 1 kT, 60 ps", 600, 16, barriers(0.05, 1.0)),
    Kind("barriers 1 kT, 240 ps", 2400, 16, barriers(0.05, 1.0)),
    Kind("barriers 2 kT, 40 ps", 400, 24, barriers(0.1, 2.0)),
    Kind("barriers 3 kT, 40 ps", 400, 24, barriers(0.05, 3.0)),
    Kind("barriers 3 kT, 160 ps", 1600, 24, barriers(0.05, 3.0)),
    Kind("barriers 2 kT, pairs, 80 ps", 800, 24, barriers(0.05, 2.0, 0.0), 2),
    Kind("barriers 2 kT, pairs, 240 ps", 2400, 24, barriers(0.05, 2.0, 0.0), 2),
    Kind("cages, 20 slow hops", 550, 12, cage(0.5, 0.01)),
    Kind("cages, 70 slow hops", 930, 8, cage(0.5, 0.03)),
    Kind("cages, 700 slow hops", 3100, 24, cage(0.5, 0.03)),
    Kind("cages, ratio of ten", 1000, 24, cage(0.3, 0.03)),
    Kind("cages, 2000 slow hops", 1500, 24, cage(0.5, 0.1)),
    Kind("fcc traps 1 kT, 40 ps", 400, 16, traps(0.0, 0.1)),
    Kind("fcc traps 1 kT, 160 ps", 1600, 16, traps(0.0, 0.1)),
    Kind("fcc traps+bonds 2 kT, 40 ps", 400, 16, traps(2.0, 0.03)),
    Kind("fcc traps+bonds 2 kT, 160 ps", 1600, 16, traps(2.0, 0.03)),
    Kind("Rouse cage 5 ps, 40 ps", 400, 16, rouse),
    Kind("Rouse cage 5 ps, 160 ps", 1600, 16, rouse),
    Kind("two states 10 ps, 40 ps", 400, 16, switching),
    Kind("two states 10 ps, 160 ps", 1600, 16, switching),
    Kind("slow cage 12 ps, 60 ps", 600, 100, caged(12.0, 2.0, 0.05, rattle=0.3)),
    Kind("slow cage 20 ps, 60 ps", 600, 100, caged(20.0, 2.0, 0.05, rattle=0.3)),
    Kind("slow cage 40 ps, 60 ps", 600, 100, caged(40.0, 2.0, 0.05, rattle=0.3)),
    Kind("slow cage 20 ps, few ions", 600, 20, caged(20.0, 2.0, 0.05, rattle=0.3)),
    Kind("slow cage 20 ps, more hops", 600, 100, caged(20.0, 2.0, 0.2, rattle=0.3)),
)
