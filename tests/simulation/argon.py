"""A campaign of Lennard-Jones argon, small enough to run in every engine."""

from pathlib import Path
from typing import Any

import ase.io
import yaml
from ase.build import bulk

from mlplugins.model_file.card import ModelCard
from mlplugins.model_file.write import save
from mlplugins.models import lennard_jones


def write_model(path: Path, record: dict[str, Any] | None = None, **changes: float) -> Path:
    parameters = {"epsilon": 0.0104, "sigma": 3.4, "cutoff": 5.0, **changes}
    model = lennard_jones.Model(["Ar"], lennard_jones.Hyperparameters(**parameters))
    save(model, path, ModelCard("lennard-jones", ["Ar"], [0.0], details=record or {}), "float64")
    return path


def write_campaign(folder: Path, **changes: object) -> Path:
    """model.pt, argon.extxyz and md.yaml; returns the YAML."""
    write_model(folder / "model.pt")
    atoms = bulk("Ar", "fcc", a=5.7, cubic=True).repeat((2, 2, 2))
    atoms.rattle(0.05, seed=1)
    ase.io.write(folder / "argon.extxyz", atoms)
    settings: dict[str, object] = {
        "model": "model.pt",
        "structure": "argon.extxyz",
        "temperatures": [100],
        "timestep": 4.0,
        "equilibration": {"steps": 40},
        "steps": 100,
        "dump_interval": 5,
        "log_interval": 10,
        "restart_interval": 20,
        "mobile": {"species": "Ar", "charge": 1},
        **changes,
    }
    path = folder / "md.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path
