"""How often the 95 % intervals hold the truth: many synthetic trajectories with known D, D_σ and H.

    python benchmarks/coverage.py --walks 400                 about ten minutes
    python benchmarks/coverage.py --only barriers cages       the cases whose names hold one of these words
    python benchmarks/coverage.py --kinisi                    also kinisi's sampler, fed with our MSD (slow)

Independent ions, ions that hop together (D_σ = g D*), soft cages, a ballistic start, cells that drift, random
barriers (D by homogenisation), fast hops in cages with slow ones between, cages that relax as slowly as the
run. Printed for D*, D_σ and H: share of intervals with the truth inside, median and mean over the truth,
median of high over low, how many of the walks have one, how many of these are undetermined or upper limits;
the same for the Bayesian regression where it exists; how often the MSD
was called curved.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlplugins.analysis.bayes import kinisi_posterior, msd_points, posterior, window_points
from mlplugins.analysis.blocks import Paths, collective_paths
from mlplugins.analysis.diffusion import diffusion
from mlplugins.analysis.value import Value
from mlplugins.testing.walks import LatticeWalk, NetworkWalk, ballistic, cages, random_barriers, soft_cage

Floats = NDArray[np.float64]
Made = tuple[Floats, float]
"""Displacements and the exact D."""


@dataclass(frozen=True)
class Case:
    name: str
    make: Callable[[int], Made]
    together: int = 1


def plain(frames: int, ions: int, rate: float = 0.3, together: int = 1) -> Callable[[int], Made]:
    def make(seed: int) -> Made:
        walk = LatticeWalk(frames, ions // together, rate=rate, seed=seed, vibration=0.0)
        moved = np.repeat(walk.displacements(), together, axis=1)
        noise = np.random.default_rng(seed + 10_000).normal(size=moved.shape)
        return moved + 0.3 * noise, walk.exact_cm2_s

    return make


def caged(
    frames: int, ions: int, relaxation_ps: float, amplitude: float, hop: float
) -> Callable[[int], Made]:
    def make(seed: int) -> Made:
        walk = LatticeWalk(frames, ions, hop=hop, rate=0.4, seed=seed, vibration=0.1)
        return walk.displacements() + soft_cage(walk, relaxation_ps, amplitude), walk.exact_cm2_s

    return make


def slow_cage(ions: int, relaxation_ps: float, rate: float) -> Callable[[int], Made]:
    """60 ps in wide cages that relax as slowly as the run, with rare hops."""

    def make(seed: int) -> Made:
        walk = LatticeWalk(600, ions, rate=rate, seed=seed)
        return walk.displacements() + soft_cage(walk, relaxation_ps, 2.0), walk.exact_cm2_s

    return make


def thrown(frames: int, ions: int, relaxation_ps: float) -> Callable[[int], Made]:
    def make(seed: int) -> Made:
        walk = LatticeWalk(frames, ions, rate=0.4, seed=seed)
        return ballistic(walk, relaxation_ps), walk.exact_cm2_s

    return make


def drifting(frames: int, ions: int) -> Callable[[int], Made]:
    def make(seed: int) -> Made:
        moved, truth = plain(frames, ions)(seed)
        random = np.random.default_rng(seed + 20_000)
        drift = np.cumsum(0.02 + 0.1 * random.normal(size=(frames, 1, 3)), axis=0)
        framework = 0.2 * random.normal(size=(frames, 28, 3)) + drift
        return moved + drift - framework.mean(axis=1, keepdims=True), truth

    return make


def network(
    rates: Callable[[int], Floats], frames: int, ions: int, together: int = 1
) -> Callable[[int], Made]:
    def make(seed: int) -> Made:
        walk = NetworkWalk(rates(seed), frames, ions, seed=seed, together=together)
        return walk.displacements(), walk.exact_cm2_s

    return make


def disorder(rate: float, width: float) -> Callable[[int], Floats]:
    return lambda seed: random_barriers(rate, width, seed)


def cage(fast: float, slow: float) -> Callable[[int], Floats]:
    return lambda seed: cages(fast, slow)


CASES = (
    Case("independent", plain(1200, 24)),
    Case("short, few ions", plain(600, 12)),
    Case("long, many ions", plain(5000, 40)),
    Case("20 hops in all", plain(400, 24, rate=0.02)),
    Case("in pairs", plain(1200, 24, together=2), 2),
    Case("in groups of four", plain(1200, 24, together=4), 4),
    Case("drifting cell", drifting(1200, 24)),
    Case("soft cage, 1 ps", caged(1200, 24, 1.0, 0.3, 2.5)),
    Case("wide cage, 5 ps", caged(4000, 24, 5.0, 1.0, 1.5)),
    Case("ballistic, 1 ps", thrown(600, 24, 1.0)),
    Case("ballistic, 3 ps", thrown(1200, 12, 3.0)),
    Case("barriers 1 kT, 60 ps", network(disorder(0.05, 1.0), 600, 16)),
    Case("barriers 2 kT, 40 ps", network(disorder(0.1, 2.0), 400, 24)),
    Case("barriers 3 kT, 40 ps", network(disorder(0.05, 3.0), 400, 24)),
    Case("barriers 3 kT, 160 ps", network(disorder(0.05, 3.0), 1600, 24)),
    Case("barriers 2 kT, pairs", network(disorder(0.05, 2.0), 800, 24, 2), 2),
    Case("cages, 20 slow hops", network(cage(0.5, 0.01), 550, 12)),
    Case("cages, 70 slow hops", network(cage(0.5, 0.03), 930, 8)),
    Case("cages, 700 slow hops", network(cage(0.5, 0.03), 3100, 24)),
    Case("cages, ratio of ten", network(cage(0.3, 0.03), 1000, 24)),
    Case("cages, 2000 slow hops", network(cage(0.5, 0.1), 1500, 24)),
    Case("slow cage 12 ps", slow_cage(100, 12.0, 0.05)),
    Case("slow cage 20 ps", slow_cage(100, 20.0, 0.05)),
    Case("slow cage 40 ps", slow_cage(100, 40.0, 0.05)),
    Case("slow cage, few ions", slow_cage(20, 20.0, 0.05)),
    Case("slow cage, more hops", slow_cage(100, 20.0, 0.2)),
)


def paths_of(moved: Floats) -> Paths:
    """Frames every 100 fs."""
    return Paths([moved], [[(0, len(moved))]], 100.0)


def coverage(case: Case, seeds: Sequence[int], bayes: bool, kinisi: bool) -> dict[str, list[list[float]]]:
    """Rows of (holds, over the truth, high over low, undetermined) by quantity; `curved` alone."""
    rows: dict[str, list[list[float]]] = {}
    for seed in seeds:
        moved, truth = case.make(seed)
        paths = paths_of(moved)
        result = diffusion(paths)
        found: dict[str, tuple[Value | None, float]] = {
            "D*": (result.tracer, truth),
            "D_σ": (result.collective, case.together * truth),
            "H": (result.haven, 1 / case.together),
        }
        if bayes or kinisi:
            points = msd_points(paths, window_points(paths, result.window))
            charge = collective_paths(paths)
            both = msd_points(charge, window_points(paths, result.window))
            for name, each, factor in (("D*", points, 1), ("D_σ", both, case.together)):
                found[f"{name} Bayes"] = (posterior(each, paths.interval_fs), factor * truth)
                if kinisi:
                    found[f"{name} kinisi"] = (kinisi_posterior(each, paths.interval_fs), factor * truth)
        for name, (value, exact) in found.items():
            if value is not None:
                span = value.high / value.low if value.low > 0 else np.inf
                unknown = not value.determined or value.low <= 0
                row = [value.low < exact < value.high, value.value / exact, span, unknown]
                rows.setdefault(name, []).append(row)
        rows.setdefault("curved", []).append([result.curved])
    return rows


def report(cases: Sequence[Case], walks: int, bayes: bool = False, kinisi: bool = False) -> None:
    """Print a line for each case."""
    error = np.sqrt(0.95 * 0.05 / walks)
    print(f"{walks} trajectories each; one standard error of a share near 0.95: {error:.3f}")
    for case in cases:
        start = time.process_time()
        rows = coverage(case, range(walks), bayes, kinisi)
        curved = int(np.sum(rows.pop("curved"), axis=0)[0])
        texts = []
        for name, row in rows.items():
            held, ratio, span, unknown = np.array(row).T
            told = f", {int(unknown.sum())} undetermined" if unknown.any() else ""
            texts.append(
                f"{name} {held.mean():.3f} {np.median(ratio):.3f} {ratio.mean():.3f} {np.median(span):.3g} "
                f"({len(row)}{told})"
            )
        seconds = time.process_time() - start
        print(f"{case.name:22s} {' | '.join(texts)} | curved {curved}  ({seconds:.0f} CPU-s)", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--walks", type=int, default=400)
    parser.add_argument("--only", nargs="+", default=[""], metavar="WORD")
    parser.add_argument("--bayes", action="store_true")
    parser.add_argument("--kinisi", action="store_true")
    arguments = parser.parse_args()
    chosen = [case for case in CASES if any(word in case.name for word in arguments.only)]
    report(chosen, arguments.walks, arguments.bayes, arguments.kinisi)
    return 0


if __name__ == "__main__":
    sys.exit(main())
