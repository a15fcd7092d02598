"""How good predicted uncertainties are (LLPR) on test frames of four data sets: coverage, RLL, rank.

    MLPLUGINS_REFERENCE_DATA=… python benchmarks/calibration.py [li6ps5cl cu si ethanol] [-o DIR]

A small nequip for every set, trained for a minute or so; the posterior from its training frames, calibration
on further frames of the training file, figures on frames of the test file, which neither has seen (forces: at
most 50 frames, 32 probes). Rows of the table in RESULTS.md are printed.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase.io import read, write

import mlplugins

TRAINING = {"batch_size": 4, "lr": 0.01, "loss": {"energy": 1, "forces": 100}}
MODEL = {"family": "nequip", "num_layers": 2, "num_features": 16, "radial_mlp": [32], "readout_mlp": [32]}


class Case(NamedTuple):
    """Files, how many frames train, calibrate and test, cutoff (Å), epochs."""

    train: str
    test: str
    n: tuple[int, int, int]
    cutoff: float
    l_max: int
    epochs: int


CASES = {
    "li6ps5cl": Case("li6ps5cl_pbe/train.extxyz", "li6ps5cl_pbe/test.extxyz", (28, 10, 9), 4.5, 2, 60),
    "cu": Case("mlearn/Cu_train.xyz.gz", "mlearn/Cu_test.xyz.gz", (60, 40, 30), 4.5, 1, 40),
    "si": Case("mlearn/Si_train.xyz.gz", "mlearn/Si_test.xyz", (60, 40, 25), 4.5, 1, 40),
    "ethanol": Case(
        "rmd17/ethanol_train.extxyz.gz", "rmd17/ethanol_test.extxyz.gz", (200, 100, 300), 4.0, 2, 60
    ),
}


def judged(case: Case, data: Path, folder: Path) -> dict[str, dict[str, float]]:
    """Quality of energies and forces of the test frames."""
    rng = np.random.default_rng(0)
    frames, test = read(data / case.train, ":"), read(data / case.test, ":")
    order = rng.permutation(len(frames))
    n_train, n_held, n_test = case.n
    parts = {
        "train": [frames[k] for k in order[:n_train]],
        "held": [frames[k] for k in order[n_train : n_train + n_held]],
        "test": [test[k] for k in rng.permutation(len(test))[:n_test]],
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in parts.items():
        write(folder / f"{name}.extxyz", part)
    model = {**MODEL, "cutoff": case.cutoff, "l_max": case.l_max}
    configuration = {
        "data": {"train": str(folder / "train.extxyz"), "validation": 0.0},
        "model": model,
        "training": {**TRAINING, "epochs": case.epochs},
    }
    mlplugins.train(configuration, folder / "run")
    held = folder / "held.extxyz"
    mlplugins.uncertainty(folder / "run", folder / "train.extxyz", folder / "sure.pt", held_out=held)
    found = mlplugins.evaluate(folder / "sure.pt", folder / "test.extxyz")
    quality: dict[str, dict[str, float]] = found["uncertainty"]
    return quality


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", choices=[*CASES, []], default=[*CASES])
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/calibration"))
    args = parser.parse_args()
    data = os.environ.get("MLPLUGINS_REFERENCE_DATA")
    if not data:
        sys.exit("set MLPLUGINS_REFERENCE_DATA to the folder of the reference data")
    for name in args.cases:
        before = time.process_time()
        quality = judged(CASES[name], Path(data), args.output / name)
        seconds = time.process_time() - before
        for what, q in quality.items():
            shares = f"{100 * q['coverage_68']:.0f} | {100 * q['coverage_95']:.0f}"
            rank = f"{q['rll_percent']:.0f} | {q['rll_exact_percent']:.0f} | {q['spearman']:.2f}"
            print(f"| {name} | {what} | {q['n']} | {q['z_rms']:.2f} | {shares} | {rank} |", flush=True)
        print(f"{name}: {seconds:.0f} CPU-s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
