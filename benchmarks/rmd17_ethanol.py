"""Accuracy with little data: 50 frames of rMD17 ethanol, force error on the 1000 test frames.

    MLPLUGINS_REFERENCE_DATA=… python benchmarks/rmd17_ethanol.py [-o DIR]

Published with 50 frames, force MAE in meV/Å: NequIP 40.2, MACE 32.6, ACE 43.0 (table of the MACE paper).
All 50 frames are trained on: nothing else is seen, and the weights at the end of the schedule are the result.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import yaml

MODEL = {"family": "nequip", "cutoff": 4.0, "num_layers": 3, "l_max": 2, "num_features": 32}
TRAINING = {"epochs": 700, "batch_size": 5, "lr": 0.01, "loss": {"energy": 1, "forces": 100}}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/rmd17_ethanol"))
    output = parser.parse_args().output
    folder = os.environ.get("MLPLUGINS_REFERENCE_DATA")
    if not folder:
        sys.exit("set MLPLUGINS_REFERENCE_DATA to the folder of the reference data (it holds rmd17/)")
    data = Path(folder) / "rmd17"
    output.mkdir(parents=True, exist_ok=True)
    configuration = {
        "data": {
            "train": f"{data}/ethanol_train.extxyz.gz@:50",
            "validation": 0.0,
            "test": f"{data}/ethanol_test.extxyz.gz",
        },
        "model": MODEL,
        "training": TRAINING,
    }
    (output / "config.yaml").write_text(yaml.safe_dump(configuration, sort_keys=False))
    mlplugins = Path(sys.executable).parent / "mlplugins"
    subprocess.run([mlplugins, "train", output / "config.yaml", "-o", output], check=True)
    metrics = json.loads((output / "metrics.json").read_text())
    forces, energy = metrics["test"]["forces"], metrics["test"]["energy"]
    print(f"rMD17 ethanol, {metrics['n_parameters']} parameters trained on 50 frames, {platform.processor()}")
    print(
        f"MAE over {metrics['test']['n_structures']} test frames: forces {forces['mae_meV_per_A']:.1f} meV/Å,"
    )
    print(f"energy {9 * energy['mae_meV_per_atom']:.1f} meV; {metrics['cpu_s'] / 60:.1f} CPU-minutes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
