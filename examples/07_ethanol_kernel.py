"""Ethanol from 50, 200 or 1000 frames of rMD17: python 07_ethanol_kernel.py [-n 200] [-o ethanol]

Reads rmd17/ in the folder MLPLUGINS_REFERENCE_DATA. A tenth of the frames chooses σ and λ and is learned
from in the end; the learning curve (learning.png) extrapolates what more frames would give.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import yaml

parser = argparse.ArgumentParser()
parser.add_argument("-n", "--frames", type=int, default=200)
parser.add_argument("-o", "--output", type=Path, default=Path("ethanol"))
arguments = parser.parse_args()
output, n = arguments.output, arguments.frames
folder = Path(os.environ.get("MLPLUGINS_REFERENCE_DATA", "")) / "rmd17"
if not folder.is_dir():
    sys.exit("set MLPLUGINS_REFERENCE_DATA to the folder of the reference data (it holds rmd17/)")

configuration = {
    "data": {
        "train": f"{folder.resolve()}/ethanol_train.extxyz.gz@:{n}",
        "test": f"{folder.resolve()}/ethanol_test.extxyz.gz@:200",
        "validation": 0.1,
    },
    "model": {"family": "pkreg"},
    "training": {"learning_curve": [n // 8, n // 4, n // 2]},
}
output.mkdir(parents=True, exist_ok=True)
(output / "config.yaml").write_text(yaml.safe_dump(configuration))
mlplugins = Path(sys.executable).parent / "mlplugins"
subprocess.run([mlplugins, "train", output / "config.yaml", "-o", output, "--restart"], check=True)
metrics = json.loads((output / "metrics.json").read_text())
law = metrics["solver"]["learning_curve"]["forces_rmse_meV_per_A"]
print(f"test force MAE {metrics['test']['forces']['mae_meV_per_A']:.1f} meV/Å after {n} frames")
print(f"force RMSE ~ {law['a']:.3g} + {law['b']:.3g} / N^{law['c']:.2f} meV/Å")
