import json

import numpy as np
import pytest
import torch
from ase.io import write

from mlplugins import MLCalculator
from mlplugins.cli.main import main
from mlplugins.errors import BadInput
from mlplugins.model_file.card import ModelCard
from mlplugins.model_file.write import save
from mlplugins.models import sum as sums
from mlplugins.models.base import TrainingStatistics
from mlplugins.structures.batch import graph_of
from mlplugins.testing.families import FamilySuite
from mlplugins.testing.structures import standard_structures

DEEP = {"family": "nequip", "cutoff": 3.5, "num_layers": 3, "num_features": 3, "radial_mlp": [6]}
WIDE = {"family": "nequip", "cutoff": 5.0, "num_layers": 1, "num_features": 2, "radial_mlp": [4]}


def _model(elements, *terms):
    model = sums.Model(elements, sums.Hyperparameters(list(terms)))
    model.initialise(TrainingStatistics(average_neighbors=12.0, force_rms=0.8))
    return model


class TestSum(FamilySuite):
    """A deep model of short range and a shallow one of longer range."""

    def make_model(self):
        return _model(self.elements, DEEP, WIDE)


class TestSumWithLennardJones(FamilySuite):
    def make_model(self):
        return _model(self.elements, {"family": "lennard-jones", "cutoff": 4.0}, {**DEEP, "num_layers": 2})


def test_range_is_that_of_the_farthest_reaching_term():
    model = _model(["Li"], DEEP, WIDE)  # 10.5 Å in layers of 5 Å
    assert (model.cutoff, model.n_layers) == (5.0, 3)
    assert model.exchange_width == 3 + 3 * 3
    assert _model(["Li"], DEEP, {**DEEP, "num_features": 2}).n_layers == 3


def test_depth_is_that_of_the_deepest_term_whatever_the_range():
    """Engines that see a range of one cutoff only leave out what the deep term's ghosts need."""
    far = {"family": "lennard-jones", "cutoff": 12.0}
    model = _model(["Li"], DEEP, far)
    assert (model.cutoff, model.n_layers) == (12.0, 3)
    assert 12.0 < model.reach < 12.001
    stages = {name.split(".", 2)[2]: model.stage(name) for name, _ in model.named_parameters()}
    assert {name.split(".")[0] for name, stage in stages.items() if stage == 4} >= {"readout", "shift"}
    layers = {f"interactions.{k}": k + 1 for k in range(3)}
    for name, stage in stages.items():
        layer = ".".join(name.split(".")[:2])
        assert stage == layers.get(layer, stage)
        assert name.startswith("interactions.") == (1 <= stage <= 3), name


def test_energy_is_the_sum_of_the_terms_on_their_own_neighbour_lists():
    torch.manual_seed(0)
    model = _model(["Li", "S"], DEEP, WIDE)
    atoms = standard_structures(["Li", "S"])["crystal"]
    whole = model(graph_of(atoms, ["Li", "S"], 5.0))["energy"]
    parts = [t(graph_of(atoms, ["Li", "S"], t.cutoff))["energy"] for t in model.potentials()]
    torch.testing.assert_close(whole, parts[0] + parts[1], rtol=0, atol=1e-12)
    assert float(parts[1].detach().abs().max()) > 1e-4


def test_exports_and_runs_in_the_calculator(tmp_path):
    """Native ops in all terms: their exchange must be the op of the ghosts, not the sum's alone."""
    torch.manual_seed(0)
    model = _model(["Li", "S"], DEEP, WIDE)
    atoms = standard_structures(["Li", "S"])["crystal"]
    expected = float(model(graph_of(atoms, ["Li", "S"], 5.0))["energy"].detach().sum())
    for portable in (False, True):
        path = tmp_path / f"{portable}.pt"
        save(model, path, ModelCard("sum", ["Li", "S"], [1.0, 2.0]), "float64", portable)
        atoms.calc = MLCalculator(path)
        baseline = sum({"Li": 1.0, "S": 2.0}[symbol] for symbol in atoms.symbols)
        assert atoms.get_potential_energy() == pytest.approx(expected + baseline, abs=1e-9)
        assert np.isfinite(atoms.get_stress()).all()


@pytest.mark.slow
def test_equal_in_lammps_on_two_ranks(native_build, warm_start, tmp_path):
    """Two terms of different cutoffs exchange their features in turn."""
    torch.manual_seed(0)
    model = _model(["Li", "S"], {**DEEP, "cutoff": 4.0}, {**WIDE, "num_layers": 2})
    save(model, tmp_path / "model.pt", ModelCard("sum", ["Li", "S"], [1.0, 2.0]), "float64")
    atoms = standard_structures(["Li", "S"])["crystal"] * (2, 1, 1)
    atoms.rattle(0.1, seed=1)
    write(tmp_path / "crystal.xyz", atoms)
    words = ["check", tmp_path / "model.pt", tmp_path / "crystal.xyz", "--engines", "ase,lammps"]
    json_file = tmp_path / "check.json"
    assert main([str(word) for word in [*words, "--json", json_file]]) == 0
    compared = {row["name"] for row in json.loads(json_file.read_text())["checks"] if row["ranks"] == 2}
    assert "forces = ASE (exchange)" in compared


def test_stages_follow_the_terms():
    model = _model(["Li"], DEEP, WIDE)
    assert model.stage("terms.0.interactions.1.linear_up.weights.0") == 2
    assert model.stage("terms.0.readout.weights.0") == model.stage("terms.1.shift") == 4
    assert model.stage("terms.1.basis.roots") == 0


@pytest.mark.parametrize(
    ("terms", "text"),
    [
        ([DEEP], "two 'terms' or more, got 1"),
        ([DEEP, {"cutoff": 3.0}], "every term needs a 'family'"),
        ([DEEP, {"family": "neqip"}], "did you mean 'nequip'"),
        ([DEEP, {"family": "nequip", "cutof": 3.0}], "term 'nequip': .*cutof"),
    ],
)
def test_bad_terms_are_refused(terms, text):
    with pytest.raises(BadInput, match=text):
        sums.Model(["Li"], sums.Hyperparameters(terms))
