"""Memory of long runs: 20,000 steps in each engine, growth of the resident memory of all its processes.

    python benchmarks/soak.py model.pt structure.extxyz [--engines lammps ipi ase] [--steps 20000]

Growth is counted from 20 % of the run to its end. Exit code 1 if an engine grows by more than 10 MB or fails.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

from mlplugins.dynamics.run import Run
from mlplugins.dynamics.settings import SimulationConfig
from mlplugins.simulation.campaign import run as run_campaign
from mlplugins.simulation.plan import plan

LIMIT_MB = 10.0
WARM = 0.2


def descendants() -> list[int]:
    """Processes that this one started, directly or not."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
    family, found = [os.getpid()], []
    while family:
        children = [child for child, parent in parents.items() if parent in family]
        found += children
        family = children
    return found


def resident_mb() -> float:
    """Resident memory of all descendants, MB."""
    pages = 0
    for process in descendants():
        try:
            pages += int(Path(f"/proc/{process}/statm").read_text().split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def soak(args: argparse.Namespace, engine: str, folder: Path) -> bool:
    """Run one engine; whether its memory stayed."""
    settings = {
        "model": Path(args.model).resolve(),
        "structure": str(Path(args.structure).resolve()),
        "engine": engine,
        "temperatures": args.temperature,
        "steps": args.steps,
        "equilibration": {"steps": 0},
        "dump_interval": 100,
    }
    config = SimulationConfig.model_validate(settings)
    samples: list[tuple[int, float]] = []
    [outcome] = run_campaign(plan(config, folder), lambda run, step: sample(run, step, samples))
    if outcome.state != "finished":
        print(f"{engine:8s} FAILED: {outcome.message} {' | '.join(outcome.last_lines)}")
        return False
    steps, memory = np.array(samples).T
    # the last samples may see processes that have ended
    used = (steps >= WARM * args.steps) & (memory > 0.5 * np.median(memory))
    slope, _ = np.polyfit(steps[used], memory[used], 1)
    growth = slope * (1 - WARM) * args.steps
    passed = bool(growth <= LIMIT_MB)
    print(
        f"{engine:8s} {memory[used][0]:8.1f} MB → {memory[used][-1]:8.1f} MB over {args.steps} steps, "
        f"fitted growth {growth:+.2f} MB (limit {LIMIT_MB:g})  {'passed' if passed else 'FAILED'}",
        flush=True,
    )
    return passed


def sample(run: Run, step: int, samples: list[tuple[int, float]]) -> None:
    """Note the memory at a step."""
    if 0 < step < run.config.total_steps:
        samples.append((step, resident_mb()))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("structure")
    parser.add_argument("--engines", nargs="+", default=["lammps", "ipi", "ase"])
    parser.add_argument("--steps", type=int, default=20000)
    parser.add_argument("--temperature", type=float, default=300.0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return 0 if all([soak(args, engine, Path(folder)) for engine in args.engines]) else 1


if __name__ == "__main__":
    sys.exit(main())
