"""A checkpoint format as one file: Lennard-Jones parameters of each element in JSON."""

from __future__ import annotations

import json
from pathlib import Path

from mlplugins.checkpoints import _record
from mlplugins.checkpoints.native import Checkpoint
from mlplugins.models import lennard_jones


def recognises(path):
    try:
        return "pair_json" in json.loads(Path(path).read_bytes())
    except ValueError:
        return False


def read(path, elements=None):
    path = Path(path)
    with _record.intact(path, "file of pair_json"):
        content = json.loads(path.read_bytes())
        symbols, rows = _record.kept(list(content["pairs"]), elements)
        epsilon, sigma, energies = zip(*(list(content["pairs"].values())[row] for row in rows))
        parameters = lennard_jones.Hyperparameters(list(epsilon), list(sigma), content["cutoff"])
        model = lennard_jones.Model(symbols, parameters)
        source = _record.source("pair_json", path, str(content["pair_json"]))
        return Checkpoint(
            potential=model.eval(),
            family="lennard-jones",
            elements=symbols,
            baseline=list(energies),
            details=_record.details(model, parameters, source=source),
        )
