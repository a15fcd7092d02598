"""Foreign checkpoints: what a conversion costs, and a fine-tuning step beside the stock package's.

    python benchmarks/foreign.py [--files FILE …] [--rounds 5] [--json foreign.json]

Default: the checkpoints inside the environment of sevenn that `make bench` creates. Conversion: CPU time and
peak memory of a process that runs `mlplugins convert`, all elements, as it is and with tables of 1025 knots.
Fine-tuning step of SevenNet-0: one frame of Li6PS5Cl (52 atoms), forward and backward pass of a loss on
energy and forces; stock sevenn and mlplugins take turns, median CPU time, 1 thread. "loop" is what a whole
step of `mlplugins finetune` costs per frame, optimiser and average of the weights included.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from speed import HERE, KNOTS, Process, environment, write_models

TRAIN = HERE.parent / "examples" / "data" / "li6ps5cl_pbe" / "train.extxyz"
SEVENNET_0 = "SevenNet_0__11Jul2024"
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
CONVERT = """
import sys, time
from mlplugins.cli.main import main
code = main(sys.argv[1:])
peak = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print("measured", code, time.process_time(), int(peak[0]) / 1024)
"""


def released() -> list[Path]:
    """Checkpoints of one modality that the stock package ships."""
    folder = environment("sevenn").parents[1]
    found = sorted(folder.glob("lib/python*/site-packages/sevenn/pretrained_potentials/*/*.pth"))
    return [path for path in found if "_MF_" not in path.parent.name]


def conversion(path: Path, options: list[str]) -> dict[str, Any]:
    """CPU seconds and peak memory of one conversion, interpreter and imports included."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["convert", str(path), "-o", f"{folder}/model.pt", *options]
        done = subprocess.run(
            [sys.executable, "-c", CONVERT, *words],
            env=ONE_THREAD,
            capture_output=True,
            text=True,
            check=True,
        )
    code, cpu_s, peak = done.stdout.split("measured")[1].split()
    if code != "0":
        raise SystemExit(f"mlplugins convert {path} failed: {done.stderr}")
    return {"file": path.parent.name, "options": options, "cpu_s": float(cpu_s), "peak_MiB": float(peak)}


def training_steps(checkpoint: Path, rounds: int) -> dict[str, float]:
    """Median ms of a training step, taking turns."""
    found: dict[str, list[float]] = {"stock": [], "ours": []}
    with tempfile.TemporaryDirectory() as name:
        model = write_models(str(checkpoint), "float32", Path(name))[0]
        ours = [str(TRAIN), "--model", str(model), "--source", str(checkpoint)]
        peers = {
            "stock": Process(environment("sevenn"), "sevennet_stock.py", [str(TRAIN)]),
            "ours": Process(Path(sys.executable), "ours.py", ours),
        }
        for turn in range(rounds + 1):
            for variant, peer in peers.items():
                seconds = peer.ask("train", 2)["cpu_s"][-1]  # the first one of a process compiles
                found[variant] += [1e3 * seconds] if turn else []
        for peer in peers.values():
            peer.close()
    return {variant: float(np.median(values)) for variant, values in found.items()}


def loop(checkpoint: Path) -> float:
    """CPU ms per frame of `mlplugins finetune`, the whole loop."""
    epochs, frames = 4, 5
    content = {
        "base": {"checkpoint": str(checkpoint)},
        "finetune": {"strategy": "full"},
        "data": {"train": f"{TRAIN}@:{frames}", "validation": 0.0},
        "training": {"epochs": epochs, "batch_size": 1},
    }
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tune.yaml").write_text(yaml.safe_dump(content))
        words = [sys.executable, "-m", "mlplugins.cli.main", "finetune", "tune.yaml", "-o", "run"]
        subprocess.run(words, cwd=folder, env=ONE_THREAD, check=True, stdout=subprocess.DEVNULL)
        metrics = json.loads((Path(folder) / "run" / "metrics.json").read_text())
    return 1e3 * float(metrics["cpu_s"]) / (epochs * frames)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", nargs="+", type=Path, help="checkpoints to convert")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = []
    for path in args.files or released():
        for options in ([], ["--radial-tables", str(KNOTS)]):
            rows.append(conversion(path, options))
            print("{file} {options}: {cpu_s:.1f} CPU-s, {peak_MiB:.0f} MiB".format(**rows[-1]), flush=True)
    base = next(path for path in released() if path.parent.name == SEVENNET_0)
    steps = training_steps(base, args.rounds)
    steps["loop"] = loop(base)
    print("fine-tuning step, ms: " + ", ".join(f"{name} {value:.0f}" for name, value in steps.items()))
    print(f"stock / ours {steps['stock'] / steps['ours']:.1f}×, / loop {steps['stock'] / steps['loop']:.1f}×")
    if args.json:
        args.json.write_text(json.dumps({"conversion": rows, "step_ms": steps}, indent=1) + "\n")


if __name__ == "__main__":
    main()
