"""H2 dissociation from 20 FCI points: python 06_h2_kernel.py [-o h2]

Reads h2_fci/ in the folder MLPLUGINS_REFERENCE_DATA. σ and λ are chosen by leaving out one of the 20 points
at a time; the other 431 points of the curve tell how good that was.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
import yaml
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.units import Hartree

parser = argparse.ArgumentParser()
parser.add_argument("-o", "--output", type=Path, default=Path("h2"))
output = parser.parse_args().output
folder = Path(os.environ.get("MLPLUGINS_REFERENCE_DATA", "")) / "h2_fci"
if not folder.is_dir():
    sys.exit("set MLPLUGINS_REFERENCE_DATA to the folder of the reference data (it holds h2_fci/)")

lengths, energies = (np.loadtxt(folder / name).ravel() for name in ("R_451.dat", "E_FCI_451.dat"))
chosen = np.isin(np.arange(len(lengths)), np.loadtxt(folder / "itrain.dat", dtype=int).ravel() - 1)
output.mkdir(parents=True, exist_ok=True)
for name, mask in (("train", chosen), ("rest", ~chosen)):
    frames = [Atoms("H2", [[0, 0, 0], [0, 0, r]]) for r in lengths[mask]]
    for atoms, energy in zip(frames, energies[mask]):
        atoms.calc = SinglePointCalculator(atoms, energy=energy * Hartree)
    ase.io.write(output / f"{name}.extxyz", frames)

configuration = {
    "data": {"train": "train.extxyz", "test": "rest.extxyz", "validation": 0.0, "keys": {"forces": None}},
    "model": {"family": "kreg", "kernel": "matern52"},
    "training": {"targets": "energies", "search": {"folds": 20}},
}
(output / "config.yaml").write_text(yaml.safe_dump(configuration))
mlplugins = Path(sys.executable).parent / "mlplugins"
subprocess.run([mlplugins, "train", output / "config.yaml", "-o", output, "--restart"], check=True)
metrics = json.loads((output / "metrics.json").read_text())
rmse = metrics["test"]["energy"]["rmse_meV_per_atom"] * 2 / 1000 / Hartree
print(f"RMSE over the other {(~chosen).sum()} points: {rmse:.1e} hartree")
