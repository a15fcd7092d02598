"""One rank with two threads against two ranks with one thread: seconds per NVE step in LAMMPS, wall time.

    python benchmarks/lammps_ranks.py [--model model.pt] [--atoms 500 4000] [--steps 20] [--rounds 3]

Without --model an untrained NequIP model of argon is written. The variants take turns; both run in mode auto:
fold on one rank, exchange on two. Needs two free cores.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
from engine_overhead import structure, write_model

from mlplugins.engines import lammps
from mlplugins.model_file import artifact
from mlplugins.model_file.artifact import Artifact

VARIANTS = {"1 rank × 2 threads": (1, 2), "2 ranks × 1 thread": (2, 1)}


def seconds_per_step(model: Artifact, atoms, steps: int, ranks: int, threads: int) -> float:
    """From LAMMPS' own loop time."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(threads)
    commands = [
        "velocity all create 30 1",
        "fix 1 all nve",
        "timestep 0.001",
        "thermo_style custom step cpu",
        "run 3",
        f"thermo {steps}",
        f"run {steps}",
    ]
    try:
        with tempfile.TemporaryDirectory() as folder:
            finished, _ = lammps.run_structure(model.path, atoms, commands, folder, ranks, "mode auto")
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before
    return float(finished.tables[-1]["CPU"][-1]) / steps


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path)
    parser.add_argument("--atoms", type=int, nargs="+", default=[500, 4000])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = artifact.load(args.model or write_model(Path(folder) / "model.pt"))
        for n_atoms in args.atoms:
            atoms = structure(n_atoms, model.elements[0])
            seconds: dict[str, list[float]] = {name: [] for name in VARIANTS}
            for _ in range(args.rounds):
                for name, (ranks, threads) in VARIANTS.items():
                    seconds[name].append(seconds_per_step(model, atoms, args.steps, ranks, threads))
            for name, values in seconds.items():
                median, spread = 1e3 * np.median(values), 1e3 * np.ptp(values)
                print(
                    f"{len(atoms):5d} atoms  {name}  {median:8.1f} ms per step (range {spread:.1f})",
                    flush=True,
                )


if __name__ == "__main__":
    main()
