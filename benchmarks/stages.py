"""Conservative fine-tuning: direct forces first, gradients last, against gradients alone; rMD17 ethanol.

    MLPLUGINS_REFERENCE_DATA=… python benchmarks/stages.py [-o DIR] [--only stages]   about four CPU-minutes

Both runs train the same model from the same seed on the same 950 frames (50 more choose the best epoch), with
one thread each, and are tested on 1000 frames. The first learns from gradient forces throughout; the second
from direct forces, whose steps need no second derivatives, then from both. `runs.png` and `NAME.json` have
the errors on the validation frames against the CPU time of the training loop. CPU-s per epoch of the same
kind of step are printed for both runs: they tell how far other load has changed the times.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import mlplugins
from mlplugins import plotting
from mlplugins.observer import Silent

MODEL = {"family": "nequip", "cutoff": 4.0, "num_layers": 3, "l_max": 2, "num_features": 64}
COMMON: dict[str, Any] = {"batch_size": 20, "lr": 0.01, "loss": {"energy": 1, "forces": 100}}
DIRECT = {"forces": 0, "direct_forces": 100}
GRADIENT = {"direct_forces": 0}
NAMES = ("gradients", "stages")
ERROR = "validation_forces_mae_meV_per_A"
OF_DIRECT = "validation_direct_forces_mae_meV_per_A"


class Clock(Silent):
    """CPU time of the training loop after every epoch, with the errors."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.began = 0.0

    def start(self, epoch: int, epochs: int) -> None:
        self.began = time.process_time()

    def epoch(self, row: dict[str, float], epochs: int, best: bool) -> None:
        self.rows.append({**row, "cpu_s": time.process_time() - self.began})

    def note(self, text: str) -> None:
        print(f"  {text}", flush=True)


def train(name: str, training: dict[str, Any], heads: dict[str, Any], folder: Path) -> dict[str, Any]:
    """One run: its rows, and the errors on the test frames."""
    data = Path(os.environ["MLPLUGINS_REFERENCE_DATA"]) / "rmd17"
    configuration = {
        "data": {
            "train": f"{data}/ethanol_train.extxyz.gz",
            "validation": 0.05,
            "test": f"{data}/ethanol_test.extxyz.gz",
        },
        "model": MODEL,
        "heads": heads,
        "training": {**COMMON, **training},
    }
    clock = Clock()
    trained = mlplugins.train(configuration, folder / name, clock, restart=True)
    test = trained.metrics["test"]
    found = {
        "cpu_s": clock.rows[-1]["cpu_s"],
        "forces MAE meV/Å": test["forces"]["mae_meV_per_A"],
        "energy MAE meV": 9 * test["energy"]["mae_meV_per_atom"],
    }
    if "direct_forces" in test:
        found["direct forces MAE meV/Å"] = test["direct_forces"]["mae_meV_per_A"]
    print(f"{name}: " + ", ".join(f"{key} {value:.2f}" for key, value in found.items()), flush=True)
    return {**found, "rows": clock.rows}


def per_epoch(rows: Sequence[dict[str, float]]) -> dict[int, float]:
    """Median CPU-s of an epoch by the number of its stage."""
    ends = [0.0, *(row["cpu_s"] for row in rows)]
    spent: dict[int, list[float]] = {}
    for row, begin, end in zip(rows, ends, ends[1:]):
        spent.setdefault(int(row.get("stage", 0)), []).append(end - begin)
    return {stage: round(float(np.median(values)), 3) for stage, values in spent.items()}


def figure(runs: dict[str, dict[str, Any]], path: Path) -> None:
    """Validation errors against CPU time; the test errors at the ends."""
    with plotting.style():
        canvas = plotting.canvas(plotting.COLUMN, 2.6)
        ax = canvas.subplots()
        for (name, run), color in zip(runs.items(), (plotting.GREY, plotting.BLUE)):
            rows = run["rows"]
            gradient = [row for row in rows if row.get("stage") != 1]
            ax.plot([r["cpu_s"] for r in gradient], [r[ERROR] for r in gradient], color=color, label=name)
            direct = [row for row in rows if row.get("stage") == 1]
            if direct:
                times, errors = [r["cpu_s"] for r in direct], [r[OF_DIRECT] for r in direct]
                ax.plot(times, errors, "--", color=color, label="direct forces, the stage before")
            ax.plot(run["cpu_s"], run["forces MAE meV/Å"], "o", color=color, mec=plotting.INK)
        ax.set(xlabel="CPU time of the training, s", ylabel="forces MAE, meV/Å", yscale="log")
        plotting.finish(ax)
        ax.legend()
        plotting.save(canvas, path)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/stages"))
    parser.add_argument("--epochs", type=int, default=16, help="of gradients alone")
    parser.add_argument("--stages", type=int, nargs=2, default=[34, 10], help="epochs of both stages")
    parser.add_argument("--rates", type=float, nargs=2, default=[0.01, 0.005], help="their learning rates")
    parser.add_argument("--only", choices=NAMES, help="this run; the other as it was")
    args = parser.parse_args()
    if "MLPLUGINS_REFERENCE_DATA" not in os.environ:
        sys.exit("set MLPLUGINS_REFERENCE_DATA to the folder of the reference data (it holds rmd17/)")
    torch.set_num_threads(1)
    args.output.mkdir(parents=True, exist_ok=True)
    parts = zip(("direct", "gradient"), args.stages, args.rates, (DIRECT, GRADIENT), strict=True)
    stages = [{"name": name, "epochs": n, "lr": rate, "loss": loss} for name, n, rate, loss in parts]
    settings = {"gradients": {"epochs": args.epochs}, "stages": {"stages": stages}}
    runs = {}
    for name in NAMES:
        record = args.output / f"{name}.json"
        if args.only in (None, name):
            heads: dict[str, Any] = {"direct_forces": {}} if name == "stages" else {}
            found = train(name, settings[name], heads, args.output)
            record.write_text(json.dumps(found, indent=1) + "\n")
        if record.exists():
            runs[name] = json.loads(record.read_text())
    figure(runs, args.output / "runs")
    for name, run in runs.items():
        print(f"{name}: CPU-s per epoch {per_epoch(run['rows'])}")
    if len(runs) == len(NAMES):
        one, other = runs["gradients"], runs["stages"]
        error = "forces MAE meV/Å"
        print(
            f"stages over gradients: CPU time {other['cpu_s'] / one['cpu_s']:.2f}, test error of the forces ",
            end="",
        )
        print(f"{other[error] / one[error]:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
