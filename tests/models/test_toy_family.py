"""One more family is one file: found by name, trained, exported and run without another change."""

import csv
import json

import numpy as np
import pytest
from ase.io import write

from mlplugins import MLCalculator, models
from mlplugins.cli.main import main
from mlplugins.models import capabilities
from tests.training.argon import argon

MORSE = '''"""Morse potential with a trainable depth; its energies are uncertain by 0.25 eV per atom."""

from dataclasses import dataclass
from typing import Dict, List, Tuple

import torch
from torch import Tensor, nn

from mlplugins.models.base import Potential
from mlplugins.models.capabilities import PredictsVariance
from mlplugins.structures.graph import Graph


@dataclass(frozen=True)
class Hyperparameters:
    cutoff: float = 5.5
    width: float = 1.0


class Model(PredictsVariance, Potential):
    def __init__(self, elements: List[str], hyperparameters: Hyperparameters) -> None:
        super().__init__(hyperparameters.cutoff)
        self.width = float(hyperparameters.width)
        self.depth = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, graph: Graph) -> Dict[str, Tensor]:
        r = torch.linalg.vector_norm(graph.vectors, dim=1)
        x = torch.exp((3.8 - r) / self.width)
        pair = self.depth * (x * x - 2.0 * x) * (1.0 - (r / self.cutoff) ** 2) ** 3
        energy = torch.zeros(graph.n_centers, dtype=r.dtype, device=r.device)
        return {"energy": energy.index_add(0, graph.centers, 0.5 * pair)}

    @torch.jit.unused
    def has_variance(self) -> bool:
        return True

    @torch.jit.export
    def posterior_features(self, graph: Graph, found: Dict[str, Tensor]) -> Tuple[Tensor, Tensor]:
        v = graph.vectors
        residual = torch.full([graph.n_centers], 0.0625, dtype=v.dtype, device=v.device)
        return residual, torch.zeros(graph.n_centers, 0, dtype=v.dtype, device=v.device)
'''

CONFIG = """
data: {train: train.extxyz, validation: 0.25}
model: {family: morse, width: 0.7}
training: {epochs: 4, batch_size: 2, lr: 0.03, ema: 0.0, dtype: float64, devices: 1}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    package = tmp_path / "families"
    package.mkdir()
    (package / "morse.py").write_text(MORSE)
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(package)])
    monkeypatch.chdir(tmp_path)
    write("train.extxyz", argon(16, 1))
    (tmp_path / "config.yaml").write_text(CONFIG)
    return tmp_path


def test_a_family_of_one_file(folder):
    assert "morse" in models.families()
    family = models.family("morse")
    assert (family.solver, family.references) == (None, [])
    assert capabilities.predicts_variance(family.Model(["Ar"], family.Hyperparameters()))
    assert main(["train", "config.yaml", "-o", "run"]) == 0
    with (folder / "run" / "log.csv").open() as stream:
        losses = [float(row["validation_loss"]) for row in csv.DictReader(stream)]
    assert len(losses) == 4
    assert losses[-1] < 0.9 * losses[0]
    metrics = json.loads((folder / "run" / "metrics.json").read_text())
    assert metrics["configuration"]["model"] == {"family": "morse", "width": 0.7}
    assert metrics["finite_differences"]["max_error_meV_per_A"] < 1e-3
    atoms, calculator = argon(1, 9)[0], MLCalculator(folder / "run" / "model.pt")
    assert np.abs(calculator.get_property("forces", atoms)).max() > 1e-3
    assert calculator.get_property("energy_uncertainty", atoms) == pytest.approx(0.25 * len(atoms) ** 0.5)
    np.testing.assert_allclose(calculator.get_property("energies_uncertainty", atoms), 0.25)
