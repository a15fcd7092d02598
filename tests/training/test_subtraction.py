"""Terms that are not learned: labels lose them, and the written model holds them if it is to."""

import json

import numpy as np
import pytest
from ase.io import read, write

import mlplugins
from mlplugins import MLCalculator
from mlplugins.checkpoints import native
from mlplugins.errors import BadInput
from mlplugins.model_file.card import ModelCard
from mlplugins.model_file.write import save
from mlplugins.models import zbl
from mlplugins.structures.dataset import from_atoms
from mlplugins.training.subtraction import without
from mlplugins.workflows.convert import Changes

from . import argon

ENDS = [2.5, 5.0]
"""Å, far outside any core, so that the frames feel the repulsion."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("argon")
    write(path / "train.extxyz", argon.argon(6, 0))
    save(
        zbl.Model(["Ar"], zbl.Hyperparameters(*ENDS)),
        path / "zbl.pt",
        ModelCard("zbl", ["Ar"], [0.0]),
        "float64",
    )
    mlplugins.train(configuration(path, add={"zbl": ENDS}), path / "with")
    mlplugins.train(configuration(path, data={"subtract": {"zbl": ENDS}}), path / "without")
    return path


def configuration(folder, **more):
    model = {"family": "nequip", "cutoff": 4.0, "num_layers": 1, "num_features": 2, "radial_mlp": [4]}
    training = {"epochs": 2, "batch_size": 3, "dtype": "float64", "devices": 1, "ema": 0.5}
    data = {"train": str(folder / "train.extxyz"), "validation": 0.0, **more.pop("data", {})}
    return {"data": data, "model": model, "training": training, **more}


def energies(folder, *names):
    """Energy of the first frame by each model file."""
    found = []
    for name in names:
        atoms = read(folder / "train.extxyz", 0)
        atoms.calc = MLCalculator(folder / name)
        found.append(atoms.get_potential_energy())
    return found


def test_labels_lose_what_the_engine_computes(folder):
    """Energy, forces and stress, each with its sign."""
    calculator = MLCalculator(folder / "zbl.pt")
    for atoms in read(folder / "train.extxyz", ":"):
        frame = from_atoms(atoms)
        (left,) = without([{"family": "zbl", "inner": ENDS[0], "outer": ENDS[1]}], [frame])
        atoms.calc = calculator
        assert frame.energy - left.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-10)
        np.testing.assert_allclose(frame.forces - left.forces, atoms.get_forces(), atol=1e-12)
        np.testing.assert_allclose(frame.stress - left.stress, atoms.get_stress(voigt=False), atol=1e-14)
        assert abs(left.stress - frame.stress).max() > 1e-3


def test_the_written_model_is_the_learned_one_and_the_term(folder):
    """The same is learned with `data.subtract`, where the model is without the term."""
    whole, rest, term = energies(folder, "with/model.pt", "without/model.pt", "zbl.pt")
    assert term > 0.1
    assert whole == pytest.approx(rest + term, abs=1e-10)


def test_reported_errors_are_those_of_the_written_model(folder):
    metrics = json.loads((folder / "with" / "metrics.json").read_text())
    labels = read(folder / "train.extxyz", ":")
    calculator = MLCalculator(folder / "with" / "model.pt")
    errors = []
    for atoms in labels:
        expected = atoms.get_forces()
        atoms.calc = calculator
        errors.append(np.abs(atoms.get_forces() - expected).mean())
    assert metrics["train"]["forces"]["mae_meV_per_A"] == pytest.approx(1e3 * np.mean(errors), rel=1e-9)
    assert metrics["finite_differences"]["max_error_meV_per_A"] < 1e-3


def test_checkpoints_give_the_whole_model(folder):
    found = native.read(folder / "with" / "checkpoint.ckpt")
    assert [term["family"] for term in found.parts] == ["nequip", "zbl"]
    mlplugins.export_checkpoint(folder / "with", folder / "again.pt")
    whole, again = energies(folder, "with/model.pt", "again.pt")
    assert again == pytest.approx(whole, abs=1e-12)


def test_forgetting_is_that_of_what_was_learned(folder, tmp_path):
    """The base has no repulsion: where nothing was trained, nothing was forgotten."""
    content = configuration(folder, add={"zbl": ENDS})
    del content["model"]
    content["training"]["lr"] = 1e-12
    content |= {"base": {"checkpoint": str(folder / "without")}, "finetune": {"strategy": "full"}}
    found = mlplugins.finetune(content, tmp_path / "run").metrics["forgetting"]
    assert found["after"]["forces"]["rmse_meV_per_A"] < 1e-6


def test_finetuning_adds_and_refuses_a_second_one(folder, tmp_path):
    def tune(base, **more):
        content = configuration(folder, **more)
        content["training"] |= {"epochs": 1, "dtype": "float32"}  # the default; the term is in float64
        del content["model"]
        content |= {"base": {"checkpoint": str(folder / base)}, "finetune": {"strategy": "heads"}}
        return mlplugins.finetune(content, tmp_path / base.replace("/", "_"))

    tuned = tune("without", add={"zbl": ENDS})
    assert tuned.card.family == "sum"
    assert [term["family"] for term in tuned.card.parts] == ["nequip", "zbl"]
    with pytest.raises(BadInput, match="zbl: .*with has a screened nuclear repulsion already"):
        tune("with", add={"zbl": True})


def test_a_term_is_taken_off_once(folder, tmp_path):
    content = configuration(folder, add={"zbl": ENDS}, data={"subtract": {"zbl": True}})
    with pytest.raises(BadInput, match="data.subtract, add: both name zbl"):
        mlplugins.train(content, tmp_path)


@pytest.mark.parametrize("place", ["add", "subtract"])
def test_labels_named_after_their_dispersion(folder, tmp_path, place):
    """What is written holds the term once, whether the run or a later conversion adds it."""
    pytest.importorskip("tad_dftd3", reason="pip install 'mlplugins[d3]'")
    frames = read(folder / "train.extxyz", ":3")
    for atoms in frames:
        results = atoms.calc.results
        atoms.info["pbe_d3_energy"], atoms.arrays["f"] = results["energy"], results["forces"]
        atoms.calc = None
    write(tmp_path / "pbe_d3.extxyz", frames)
    terms = {"d3": ["pbe-bj", 6.0]}
    keys = {"energy": "pbe_d3_energy", "forces": "f"}
    data = {"train": [str(tmp_path / "pbe_d3.extxyz")], "keys": keys}
    more = {"add": terms} if place == "add" else {}
    content = configuration(folder, data={**data, **({} if more else {"subtract": terms})}, **more)
    content["training"]["epochs"] = 1
    mlplugins.train(content, tmp_path / "run")
    found = native.read(tmp_path / "run" / "checkpoint.ckpt")
    last = tmp_path / "run" / "model.pt"
    if place == "subtract":
        assert found.family == "nequip"
        first, last = last, tmp_path / "with_d3.pt"
        mlplugins.convert(first, last, changes=Changes(d3="pbe-bj"))
    parts = mlplugins.info(last)["parts"]
    assert [term["family"] for term in parts] == ["nequip", "d3"]
    with pytest.raises(BadInput, match="d3: .* holds dispersion already"):
        mlplugins.convert(last, tmp_path / "twice.pt", changes=Changes(d3="pbe-bj"))


def test_a_new_model_with_a_repulsion_is_refused_before_it_is_trained(folder, tmp_path):
    content = configuration(folder, add={"zbl": True})
    content["model"]["zbl"] = True
    content |= {"base": {"checkpoint": str(folder / "without")}, "finetune": {"strategy": "delta"}}
    with pytest.raises(BadInput, match="zbl: the model has a screened nuclear repulsion already"):
        mlplugins.finetune(content, tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoint.ckpt").exists()


def test_a_family_with_a_repulsion_of_its_own_is_refused_a_second_one(folder, tmp_path):
    content = configuration(folder, add={"zbl": True})
    content["model"]["zbl"] = True
    with pytest.raises(BadInput, match="zbl: the model has a screened nuclear repulsion already"):
        mlplugins.train(content, tmp_path)
