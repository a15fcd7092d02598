"""Training in stages: what each begins with, what it leaves alone, and that a kill changes nothing."""

import csv
import json

import pytest
import torch
from ase.io import write

import mlplugins
from mlplugins.errors import BadInput
from mlplugins.models import nequip
from mlplugins.models.base import TrainingStatistics
from mlplugins.structures import batch
from mlplugins.structures.dataset import from_atoms
from mlplugins.training import checkpoint, config, finetune_config
from mlplugins.training.fit import Parts, fit
from mlplugins.training.gradient_config import StageSection, TrainingSection
from mlplugins.training.loss import Predictor

from .argon import argon
from .test_fit import Memory, numbers, weights

DIRECT = {"name": "direct", "epochs": 2, "loss": {"forces": 0, "stress": 0}}
GRADIENT = {"name": "gradient", "epochs": 2, "lr": 0.002, "loss": {"direct_forces": 0.1}}
MINIMAL = {"data": {"train": "a.xyz"}, "model": {"family": "nequip"}, "heads": {"direct_forces": {}}}


def parts(*stages, **settings) -> Parts:
    graphs = [batch.single(from_atoms(a), ["Ar"], 4.2, 0.0, torch.float64) for a in argon(9, 5)]
    torch.manual_seed(0)
    head = {"direct_forces": {"channels": 2, "num_basis": 4, "width": 4}}
    hyperparameters = nequip.Hyperparameters(
        cutoff=4.2, num_layers=2, num_features=4, radial_mlp=[8], heads=head
    )
    model = nequip.Model(["Ar"], hyperparameters)
    model.initialise(TrainingStatistics(40.0, 0.5))
    given = {"batch_size": 3, "devices": 1, "dtype": "float64", "checkpoint_seconds": 0.0, **settings}
    given |= {"stages": [StageSection.model_validate(stage) for stage in stages]} if stages else {}
    return Parts(model, graphs[:6], graphs[6:], TrainingSection(**given))


def run(p: Parts, state=None, saves=None) -> tuple[torch.Tensor, Memory]:
    store = Memory(state, saves)
    fit(p, store, store)
    return weights(p), store


@pytest.fixture(scope="module")
def whole():
    return run(parts(DIRECT, GRADIENT))


@pytest.mark.parametrize("saves", [1, 6, 11])
def test_a_kill_in_any_stage_changes_nothing(whole, saves):
    """Six saves, after each of two steps and each epoch, are of the first stage."""
    broken = Memory(saves=saves)
    with pytest.raises(InterruptedError):
        fit(parts(DIRECT, GRADIENT), broken, broken)
    assert broken.state["counters"]["stage"] == (0 if saves <= 6 else 1)
    again, resumed = run(parts(DIRECT, GRADIENT), broken.state)
    torch.testing.assert_close(again, whole[0], rtol=0, atol=1e-13)
    assert numbers(resumed.rows) == [pytest.approx(row, rel=1e-10) for row in numbers(whole[1].rows)]


def test_a_stage_begins_with_the_best_average_and_no_memory(whole):
    """As a training of its own that begins with these weights, in batches that hold all frames."""
    p = parts(DIRECT, GRADIENT, batch_size=6, lr=0.05)
    staged, _ = run(p)
    first = parts(**{"batch_size": 6, "lr": 0.05, "epochs": 2, "loss": p.settings.each()[0].loss})
    run(first)
    second = parts(**{"batch_size": 6, "lr": 0.002, "epochs": 2, "loss": p.settings.each()[1].loss})
    second.potential.load_state_dict(first.potential.state_dict())
    torch.testing.assert_close(run(second)[0], staged, rtol=0, atol=1e-12)
    assert [row["lr"] for row in whole[1].rows][1:3] != [0.01, 0.002]  # both schedules were run through
    assert [row["stage"] for row in whole[1].rows] == [1, 1, 2, 2]


def test_only_what_a_stage_learns_from_is_computed():
    p = parts(DIRECT, GRADIENT)
    direct, gradient = (Predictor(p.potential, stage.loss.learned) for stage in p.settings.each())
    expected = gradient(p.train[0], False)
    found = direct(p.train[0], True)
    assert {*found} == {"energy", "direct_forces", "direct_stress"}
    assert {*gradient(p.train[0], True)} == {*expected}
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name])


def test_heads_that_a_stage_does_not_name_stay(whole):
    p = parts(DIRECT, {**GRADIENT, "heads": []}, optimizer="adamw", weight_decay=0.5)
    run(p)
    alone = parts(DIRECT, optimizer="adamw", weight_decay=0.5)
    run(alone)
    one, other = (dict(each.potential.named_parameters()) for each in (p, alone))
    for name, value in one.items():
        if value.numel() > 0:
            assert torch.equal(value, other[name]) == name.startswith("heads."), name


def test_early_stopping_ends_the_stage_only():
    p = parts({**DIRECT, "epochs": 50, "lr": 5.0, "early_stopping": 2}, {**GRADIENT, "epochs": 1})
    _, store = run(p)
    assert [row["stage"] for row in store.rows[-2:]] == [1, 2]
    assert len(store.rows) < 51
    assert any("stage direct after no better validation loss for 2 epochs" in note for note in store.notes)


def test_a_finished_run_goes_on_with_another_stage(whole, tmp_path):
    first, store = run(parts(DIRECT))
    longer = parts(DIRECT, GRADIENT)
    found, _ = run(longer, store.state)
    torch.testing.assert_close(found, whole[0], rtol=0, atol=1e-13)
    old, new = (
        {"training": p.settings.model_dump(mode="json")}
        for p in (parts(DIRECT, GRADIENT), parts(DIRECT, {**GRADIENT, "lr": 0.1}))
    )
    content = {"configuration": old, "sha256": {}, "state": {"counters": {"stage": 0}}}
    checkpoint.require_same_run(tmp_path, content, new, {})
    content["state"]["counters"]["stage"] = 1
    with pytest.raises(BadInput, match=r"training.stages.1.lr: 0.002 → 0.1"):
        checkpoint.require_same_run(tmp_path, content, new, {})
    longer = {"training": parts({**DIRECT, "epochs": 3}, GRADIENT).settings.model_dump(mode="json")}
    with pytest.raises(BadInput, match=r"training.stages.0.epochs: 2 → 3"):
        checkpoint.require_same_run(tmp_path, content, longer, {})


def with_stages(*stages, **more):
    return {**MINIMAL, "training": {"stages": list(stages), **more}}


def test_what_a_stage_leaves_out_is_as_in_training():
    training = config.parse(
        with_stages(DIRECT, GRADIENT, lr=0.03, loss={"energy": 3.0, "huber": 0.1}), "c.yaml"
    ).training
    direct, gradient = training.each()
    assert (training.epochs, direct.epochs, direct.lr, gradient.lr) == (4, 2, 0.03, 0.002)
    assert (direct.loss.energy, direct.loss.forces, direct.loss.huber) == (3.0, 0.0, 0.1)
    assert (gradient.loss.forces, gradient.loss.direct_forces) == (100.0, 0.1)
    again = config.load(config.parse(with_stages(DIRECT, GRADIENT), "c.yaml"))
    assert again.training.epochs == 4


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (with_stages({**DIRECT, "epoch": 3}), "unknown key 'training.stages.0.epoch'.*'epochs'"),
        (
            with_stages({**DIRECT, "loss": {"force": 1}}),
            "unknown key 'training.stages.0.loss.force'.*'forces'",
        ),
        (with_stages({"name": "a"}), "missing key 'training.stages.0.epochs'"),
        (with_stages(), "at least 1 item"),
        (with_stages(DIRECT, epochs=7), "the stages have 2 together, got 7: leave this key out"),
        (with_stages(DIRECT, DIRECT), "a name of its own for each, got direct, direct"),
        (with_stages(DIRECT, max_minutes=5.0), "max_minutes: expected none beside stages"),
        ({**with_stages(DIRECT), "model": {"family": "kreg"}, "heads": {}}, "unknown key 'training.stages'"),
    ],
)
def test_stages_that_say_nothing_clear_are_refused(content, words):
    with pytest.raises(BadInput, match=words):
        config.parse(content, "c.yaml")


def test_finetune_takes_its_learning_rate_but_no_epochs_of_its_own():
    content = {"data": {"train": "a.xyz"}, "base": {"checkpoint": "b.pt"}, "finetune": {"strategy": "full"}}
    training = finetune_config.parse(
        {**content, "training": {"stages": [DIRECT, GRADIENT]}}, "c.yaml"
    ).training
    assert [stage.lr for stage in training.each()] == [0.001, 0.002]
    assert training.epochs == 4


@pytest.mark.long
def test_train_and_finetune_in_stages(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("train.extxyz", argon(8, 1))
    head = {"direct_forces": {"channels": 2, "num_basis": 4, "width": 4}}
    content = {
        "data": {"train": "train.extxyz", "validation": 0.25},
        "heads": head,
        "model": {"family": "nequip", "cutoff": 4.2, "num_layers": 2, "num_features": 4, "radial_mlp": [8]},
        "training": {"batch_size": 6, "devices": 1, "stages": [DIRECT, GRADIENT]},
    }
    trained = mlplugins.train(content, "run")
    with open("run/log.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["stage"] for row in rows] == ["direct", "direct", "gradient", "gradient"]
    assert [bool(row["train_forces_mae_meV_per_A"]) for row in rows] == [False, False, True, True]
    assert all(row["train_direct_forces_mae_meV_per_A"] for row in rows)
    assert trained.metrics["best_epoch"] in (3, 4)
    assert json.loads((tmp_path / "run/metrics.json").read_text())["epochs"] == 4
    for stages, words in (
        ([{**DIRECT, "heads": ["dipole"]}], "direct: no head 'dipole' whose labels the frames hold"),
        ([{**DIRECT, "heads": [], "loss": {"energy": 0, "forces": 0, "stress": 0}}], "nothing is learned"),
        ([{**DIRECT, "loss": {"dipole": 1}}], "direct: loss: {dipole: 1}: the model does not predict"),
    ):
        with pytest.raises(BadInput, match=words):
            mlplugins.train({**content, "training": {"devices": 1, "stages": stages}}, "other")
    tuned = {key: content[key] for key in ("data", "training")}
    tuned |= {"base": {"checkpoint": "run/model.pt"}, "finetune": {"strategy": "full"}}
    tuned["training"] = {**content["training"], "stages": [{**GRADIENT, "epochs": 1, "heads": []}]}
    found = mlplugins.finetune(tuned, "tuned")
    assert "direct_forces, which it does not learn" in " ".join(found.metrics["warnings"])
    assert "gradient" in (tmp_path / "tuned/log.csv").read_text()
