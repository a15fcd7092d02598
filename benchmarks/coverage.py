"""How often the 95 % intervals hold the truth: many synthetic trajectories with known D, D_σ and H.

    python benchmarks/coverage.py --walks 400            about a minute and a half
    python benchmarks/coverage.py --kinisi               also kinisi's sampler, fed with our MSD (slow)

Independent ions, ions that hop together in groups of four (D_σ = 4 D*), and a soft cage on a walker, where
early lags are too steep. Printed: share of intervals with the truth inside, for ours, for the Bayesian
regression (of the cases where it exists).
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass

import numpy as np

from mlplugins.analysis.bayes import kinisi_posterior, msd_points, posterior, window_points
from mlplugins.analysis.diffusion import Paths, collective_paths, diffusion
from mlplugins.analysis.value import Value
from mlplugins.testing.walks import LatticeWalk


@dataclass(frozen=True)
class Case:
    name: str
    frames: int
    ions: int
    together: int = 1
    cage_ps: float = 0.0


CASES = (
    Case("independent", 1200, 24),
    Case("in groups of four", 1200, 24, together=4),
    Case("soft cage, 1 ps", 1200, 24, cage_ps=1.0),
    Case("short, few ions", 600, 12),
    Case("long, many ions", 5000, 40),
)


def trajectory(case: Case, seed: int) -> tuple[Paths, float]:
    """Paths and the exact D."""
    walk = LatticeWalk(case.frames, case.ions // case.together, rate=0.3, seed=seed, vibration=0.0)
    ions = np.repeat(walk.displacements(), case.together, axis=1)
    random = np.random.default_rng(seed + 10_000)
    noise = random.normal(size=ions.shape)
    if case.cage_ps:
        memory = np.exp(-walk.frame_ps / case.cage_ps)
        for frame in range(1, case.frames):
            noise[frame] = memory * noise[frame - 1] + np.sqrt(1 - memory**2) * noise[frame]
    return Paths([ions + 0.3 * noise], [[(0, case.frames)]], 100.0), walk.exact_cm2_s


def coverage(case: Case, walks: int, kinisi: bool) -> dict[str, float]:
    """Share of intervals that hold the truth."""
    inside: dict[str, list[bool]] = {}
    for seed in range(walks):
        paths, truth = trajectory(case, seed)
        result = diffusion(paths)
        found: dict[str, tuple[Value | None, float]] = {
            "D*": (result.tracer, 1.0),
            "D_σ": (result.collective, case.together),
        }
        if result.haven is not None:
            found["H"] = (result.haven, 1 / case.together / truth)
        for name, path, factor in (("D*", paths, 1), ("D_σ", collective_paths(paths), case.together)):
            points = msd_points(path, window_points(path, result.window))
            found[f"{name} Bayes"] = (posterior(points, paths.interval_fs), factor)
            if kinisi:
                found[f"{name} kinisi"] = (kinisi_posterior(points, paths.interval_fs), factor)
        for name, (value, factor) in found.items():
            if value is None:
                continue
            inside.setdefault(name, []).append(value.low < factor * truth < value.high)
    return {name: float(np.mean(flags)) for name, flags in inside.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--walks", type=int, default=400)
    parser.add_argument("--kinisi", action="store_true")
    arguments = parser.parse_args()
    print(
        f"{arguments.walks} trajectories each; one standard error of a share near 0.95: "
        f"{np.sqrt(0.95 * 0.05 / arguments.walks):.3f}"
    )
    for case in CASES:
        start = time.process_time()
        shares = coverage(case, arguments.walks, arguments.kinisi)
        text = "  ".join(f"{name} {share:.3f}" for name, share in shares.items())
        print(f"{case.name:20s} {text}  ({time.process_time() - start:.0f} CPU-s)", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
