"""Ranks and threads in LAMMPS: milliseconds per NVE step on one rank and two, by wall time and by CPU time.

    python benchmarks/lammps_ranks.py [--model model.pt] [--atoms 500 4000 32000] [--steps 20] [--rounds 3]
                                      [--json ranks.json]

Without --model an untrained NequIP model of argon is written. The variants take turns; one rank folds ghosts,
two exchange features. On one rank, `mode exchange` shows what ghosts cost without waiting for another rank:
the ghost-ms of decomposition.py. Wall time needs two free cores. CPU time is that of a rank and all its
threads (LAMMPS' "CPU use"), which other load changes little; it holds what a rank waits for others.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from pathlib import Path

import numpy as np
from engine_overhead import structure, write_model

from mlplugins.engines import lammps
from mlplugins.model_file import artifact
from mlplugins.model_file.artifact import Artifact

VARIANTS = {
    "1 rank × 1 thread": (1, 1, "fold"),
    "1 rank × 1 thread, exchange": (1, 1, "exchange"),
    "1 rank × 2 threads": (1, 2, "fold"),
    "2 ranks × 1 thread": (2, 1, "exchange"),
}
COMMANDS = [
    "velocity all create 30 1",
    "fix 1 all nve",
    "timestep 0.001",
    "thermo_style custom step cpu",
    "run 3",
]


def seconds_per_step(
    model: Artifact, atoms, steps: int, ranks: int, threads: int, mode: str
) -> tuple[float, float]:
    """Wall and CPU time of a rank, from LAMMPS' own loop time."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        elements = lammps.type_order(atoms)
        box = lammps.write_data(folder / lammps.DATA, atoms, elements)
        lines = [*lammps.deck_head(model.path.resolve(), elements, box.boundary, f"mode {mode}"), *COMMANDS]
        (folder / lammps.DECK).write_text("\n".join([*lines, f"thermo {steps}", f"run {steps}"]) + "\n")
        finished = lammps.run(folder / lammps.DECK, ranks, threads)
    wall = float(re.findall(r"Loop time of (\S+) on", finished.output)[-1]) / steps
    use = float(re.findall(r"([\d.]+)% CPU use", finished.output)[-1]) / 100
    return wall, wall * use


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path)
    parser.add_argument("--atoms", type=int, nargs="+", default=[500, 4000, 32000])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        model = artifact.load(args.model or write_model(Path(folder) / "model.pt"))
        for n_atoms in args.atoms:
            atoms = structure(n_atoms, model.elements[0])
            seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in args.variants}
            for _ in range(args.rounds):
                for name in args.variants:
                    seconds[name].append(seconds_per_step(model, atoms, args.steps, *VARIANTS[name]))
            for name, values in seconds.items():
                wall, cpu = 1e3 * np.median(values, axis=0)
                spread = 1e3 * np.ptp(values, axis=0)
                print(
                    f"{len(atoms):5d} atoms  {name}  wall {wall:8.1f} ms per step (range {spread[0]:.1f})"
                    f"  CPU of a rank {cpu:8.1f} ms (range {spread[1]:.1f})",
                    flush=True,
                )
                rows.append({"atoms": len(atoms), "variant": name, "wall_ms": wall, "cpu_ms": cpu})
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
