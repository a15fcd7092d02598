"""SOAP-GAP on public sets: errors on their test frames, calibration, cost of the fit.

python benchmarks/soap_gap.py Cu Ni Li Si -o runs        (mlearn, energies and forces)
python benchmarks/soap_gap.py ethanol malonaldehyde -o runs   (rMD17, 1000 frames)

Needs MLPLUGINS_REFERENCE_DATA. Cutoffs and basis sizes are chosen here; regularisation by a validation fifth
(mlearn) or tenth (rMD17) of the training frames. z-scores: error over predicted standard deviation of the
energies of the test frames, of which nothing was fitted.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from mlplugins.cli.main import main
from mlplugins.model_file import artifact
from mlplugins.structures import dataset
from mlplugins.structures.metrics import z_statistics

METAL = {"n_max": 6, "l_max": 4, "atom_sigma": 0.4, "two_body": 15}
MOLECULE = {
    "cutoff": 4.5,
    "n_max": 8,
    "l_max": 6,
    "atom_sigma": 0.3,
    "zeta": 4,
    "radial_exponent": 4,
    "two_body": 15,
}
SYSTEMS: dict[str, dict[str, Any]] = {
    "Cu": {
        "model": {"cutoff": 4.0, "n_max": 8, "l_max": 6, "atom_sigma": 0.5, "two_body": 15},
        "n_sparse": 500,
    },
    "Ni": {"model": {"cutoff": 4.0, **METAL}, "n_sparse": 300},
    "Li": {"model": {"cutoff": 5.0, **METAL}, "n_sparse": 600},
    "Si": {
        "model": {
            "cutoff": 5.0,
            "n_max": 8,
            "l_max": 6,
            "atom_sigma": 0.4,
            "radial_exponent": 4,
            "two_body": 15,
        },
        "n_sparse": 700,
    },
    "ethanol": {"model": MOLECULE, "n_sparse": 1500},
    "malonaldehyde": {"model": MOLECULE, "n_sparse": 1500},
}
QUOTED = {
    "Cu": (0.46, 10),
    "Ni": (0.42, 20),
    "Li": (0.49, 10),
    "Si": (2.91, 70),
    "ethanol": (None, 18.1),
    "malonaldehyde": (None, 26.4),
}
"""GAP: meV/atom (mlearn), meV/Å, mean absolute errors."""


def files(name: str) -> tuple[str, str]:
    """Training and test file."""
    root = Path(os.environ["MLPLUGINS_REFERENCE_DATA"])
    if len(name) == 2:
        found = [next((root / "mlearn").glob(f"{name}_{part}.xyz*")) for part in ("train", "test")]
    else:
        found = [root / "rmd17" / f"{name}_{part}.extxyz.gz" for part in ("train", "test")]
    return str(found[0]), str(found[1])


def run(name: str, directory: Path) -> dict[str, Any]:
    """Train and test one system."""
    train, test = files(name)
    system = SYSTEMS[name]
    configuration = {
        "data": {"train": train, "validation": 0.2 if len(name) == 2 else 0.1, "test": test},
        "model": {"family": "soap-gap", **system["model"]},
        "training": {"n_sparse": system["n_sparse"]},
    }
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "config.yaml"
    path.write_text(yaml.safe_dump(configuration))
    if main(["train", str(path), "-o", str(directory), "--restart"]):
        raise SystemExit(f"{name}: training failed")
    metrics = json.loads((directory / "metrics.json").read_text())
    scores = z_scores(directory / "model.pt", test)
    solver = metrics["solver"]
    return {
        "system": name,
        "energy_mae_meV_per_atom": metrics["test"]["energy"]["mae_meV_per_atom"],
        "energy_rmse_meV_per_atom": metrics["test"]["energy"]["rmse_meV_per_atom"],
        "forces_mae_meV_per_A": metrics["test"]["forces"]["mae_meV_per_A"],
        "forces_rmse_meV_per_A": metrics["test"]["forces"]["rmse_meV_per_A"],
        "quoted_gap": QUOTED[name],
        "cpu_s": metrics["cpu_s"],
        "peak_GB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "regularisation": solver["regularisation"],
        "unknowns": solver["unknowns"],
        "condition": solver["condition"],
        "uncertainty_scale": solver["uncertainty_scale"],
        "uncertainty_floor_eV_per_atom": solver["uncertainty_floor_eV_per_atom"],
        "z_left_out": solver["z_after_calibration"],
        "z_test_before_calibration": solver["test_z_before_calibration"],
        "z_test": solver["test_z"],
        "z_test_of_model_pt": z_statistics(scores),
    }


def z_scores(model: Path, test: str) -> np.ndarray:
    """Error over predicted standard deviation of the energies of the test frames."""
    loaded = artifact.load(model)
    scores = []
    for s in dataset.read(test):
        result = loaded.evaluate([s.to_atoms()], uncertainty=True)[0]
        if s.energy is None or result.uncertainty is None:
            raise SystemExit(f"{s.origin}: no energy")
        scores.append((result.energy - s.energy) / result.uncertainty)
    return np.array(scores)


def cli() -> None:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("systems", nargs="+", choices=sorted(SYSTEMS))
    parser.add_argument("-o", "--output", type=Path, default=Path("soap_gap_runs"))
    args = parser.parse_args()
    for name in args.systems:
        row = run(name, args.output / name)
        (args.output / f"{name}.json").write_text(json.dumps(row, indent=2))
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    cli()
