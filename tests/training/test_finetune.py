"""Every strategy changes exactly what it says; what is exported is what was trained."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.io import write

from mlplugins import MLCalculator
from mlplugins.checkpoints import native
from mlplugins.errors import BadInput
from mlplugins.model_file import doubts
from mlplugins.models import lennard_jones, mace
from mlplugins.models import sum as sums
from mlplugins.structures import nearest
from mlplugins.training import finetune_config, forgetting
from mlplugins.training.data import DataSets
from mlplugins.training.finetune import finetune
from mlplugins.training.strategies import FinetuneTask, plan

from . import toy

STRATEGIES = {
    "full": {},
    "heads": {},
    "freeze:1": {},
    "lora": {"rank": 2},
    "replay": {"structures": "replay.extxyz"},
    "delta": {},
}
SMALL = {"family": "nequip", "cutoff": 3.0, "num_layers": 1, "num_features": 2, "radial_mlp": [4]}


def _write(path, structures):
    write(path, [s.to_atoms() for s in structures])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """train, test and replay frames: the base's labels scaled by 1.2, with other references."""
    path = tmp_path_factory.mktemp("toy")
    potential = toy.base().potential
    offsets = {"Ne": 0.3, "Ar": -0.7}
    for name, n, seed in (("train", 10, 1), ("test", 4, 2)):
        labels = toy.other_theory(toy.labelled(potential, toy.frames(n, seed)))
        _write(path / f"{name}.extxyz", toy.shifted(labels, offsets))
    _write(path / "replay.extxyz", toy.labelled(potential, toy.frames(12, 3, spread=2.6)))
    _write(path / "old.extxyz", toy.labelled(potential, toy.frames(8, 4, spread=2.6)))
    return path


def configuration(folder, strategy, epochs=2, **options):
    training = {"epochs": epochs, "batch_size": 3, "dtype": "float64", "devices": 1, "ema": 0.5}
    training |= {"schedule": {"warmup_steps": 0}, **options.pop("training", {})}
    for key in ("data", "structures"):
        if key in options:
            options[key] = str(folder / options[key])
    train, test = (str(folder / f"{name}.extxyz") for name in ("train", "test"))
    content = {
        "data": {"train": train, "validation": 0.2, "test": test},
        "base": {"checkpoint": "base.ckpt", "data": str(folder / "old.extxyz")},
        "finetune": {"strategy": strategy, **options},
        "training": training,
    }
    if strategy in finetune_config.OWN_MODEL:
        content["model"] = SMALL
    return finetune_config.parse(content, "config.yaml")


def tune(folder, directory, strategy, observer=None, **options):
    options = {**STRATEGIES.get(strategy, {}), **options}
    c = configuration(folder, strategy, **options)
    return finetune(c, lambda elements: toy.base(), directory, observer or toy.Quiet())


def changed(trained, prefix=""):
    """Names of the parameters and buffers that differ from the base's, to the last bit."""
    old = toy.base().potential.state_dict()
    new = {name.removeprefix(prefix): value for name, value in trained.potential.state_dict().items()}
    return {name for name, value in old.items() if not torch.equal(value, new[name])}


def of_stages(first):
    potential = toy.base().potential
    names = [*dict(potential.named_parameters()), "energy_scale"]
    return {n for n in names if potential.stage(n) >= first and potential.state_dict()[n].numel() > 0}


@pytest.mark.parametrize(("strategy", "first"), [("full", 0), ("replay", 0), ("freeze:1", 2), ("heads", 3)])
def test_exactly_the_named_stages_change(folder, tmp_path, strategy, first):
    trained = tune(folder, tmp_path, strategy)
    assert changed(trained) == of_stages(first)
    assert trained.metrics["finetune"]["strategy"] == strategy


@pytest.mark.parametrize(("strategy", "first"), [("heads", 3), ("freeze:1", 2), ("freeze:2", 3)])
def test_layers_of_a_base_beside_a_term_of_long_range(folder, strategy, first):
    """Two layers of 4 Å count as two beside pairs at 12 Å."""
    far = lennard_jones.Model(toy.ELEMENTS, lennard_jones.Hyperparameters(cutoff=12.0))
    base = replace(toy.base(), potential=sums.Model.of([toy.base().potential, far]))
    sets = DataSets([], [], [], toy.OLD, {})
    made = plan(FinetuneTask(configuration(folder, strategy), base, sets, []))
    parameters = made.potential.named_parameters()
    trained = {name.removeprefix("terms.0.") for name, p in parameters if p.requires_grad}
    names = [name for name, _ in toy.base().potential.named_parameters()]
    assert trained - {f"terms.{k}.energy_scale" for k in (0, 1)} - {"energy_scale"} == {
        name for name in names if toy.base().potential.stage(name) >= first
    }


def test_stages_of_mace():
    """Every layer's readout is a part of the head, the mixing before a layer a part of that layer."""
    model = mace.Model(["Li"], mace.Hyperparameters(num_channels=2, l_max=1, max_L=1, correlation=1))
    stages = {name: model.stage(name) for name in [*dict(model.named_parameters()), "energy_scale"]}
    assert {name for name, stage in stages.items() if stage == 3} == {
        name for name in stages if "readout" in name or name in ("shift", "energy_scale")
    }
    assert {name for name, stage in stages.items() if stage == 0} == {"embedding", "basis.roots"}
    assert stages["linear_up.1.weights.0"] == stages["layers.1.linear.weights.0"] == 2


def test_lora_changes_the_linear_maps_by_the_rank_and_the_shifts(folder, tmp_path):
    trained = tune(folder, tmp_path, "lora", rank=1, training={"epochs": 3})
    names = changed(trained)
    maps = {n for n in of_stages(0) if ".weights." in n}
    assert names == maps | {"shift"}
    old, new = toy.base().potential.state_dict(), trained.potential.state_dict()
    for name in maps:
        update = (new[name] - old[name]).reshape(-1, *old[name].shape[-2:])
        ranks = torch.linalg.matrix_rank(update, rtol=1e-8)
        assert int(ranks.max()) == 1, name
    assert trained.metrics["n_parameters"] == sum(p.numel() for p in toy.base().potential.parameters())
    part = trained.metrics["finetune"]
    assert 0 < part["n_trained_parameters"] < part["n_parameters_with_frozen"]


@pytest.mark.long
def test_delta_leaves_the_base_alone_and_starts_from_it(folder, tmp_path):
    trained = tune(folder, tmp_path / "run", "delta", epochs=10, training={"lr": 0.05})
    assert changed(trained, "terms.0.") == set()
    assert trained.card.family == "sum"
    untrained = tune(folder, tmp_path / "zero", "delta", training={"epochs": 1, "lr": 1e-300})
    before = trained.metrics["finetune"]["base_errors"]["test"]["forces"]
    assert untrained.metrics["test"]["forces"] == pytest.approx(before, rel=1e-9)
    assert trained.metrics["test"]["forces"] != pytest.approx(before, rel=1e-3)


@pytest.mark.long
def test_delta_is_trained_on_what_the_log_says(folder, tmp_path):
    """The residual labels of the small model: its validation error is that of the exported sum."""
    trained = tune(folder, tmp_path, "delta", epochs=4)
    rows = (tmp_path / "log.csv").read_text().splitlines()
    column = rows[0].split(",").index("validation_forces_mae_meV_per_A")
    logged = float(rows[trained.metrics["best_epoch"]].split(",")[column])
    assert trained.metrics["validation"]["forces"]["mae_meV_per_A"] == pytest.approx(logged, rel=1e-9)


def test_what_the_base_knows_of_close_atoms_stays(folder, tmp_path):
    """A record of the fine-tuning frames alone would call its frames odd."""
    base = toy.base()
    before = {"Ne-Ar": 0.123, "Ar-Ar": 5.5}
    base = replace(base, details={**base.details, "data": {doubts.CLOSEST: before}})
    tuned = finetune(configuration(folder, "heads", epochs=1), lambda elements: base, tmp_path, toy.Quiet())
    own = nearest.shortest(tuned.sets.train)
    expected = {"Ne-Ne": own["Ne-Ne"], "Ne-Ar": 0.123, "Ar-Ar": own["Ar-Ar"]}
    assert doubts.closest(tuned.card.details) == pytest.approx(expected, abs=1e-4)
    assert own["Ar-Ar"] < 4


@pytest.mark.parametrize("strategy", ["heads", "lora", "delta"])
def test_checkpoint_model_and_memory_agree(folder, tmp_path, strategy):
    """The exported file, the checkpoint read by `export`, and the trained model are one function."""
    trained = tune(folder, tmp_path, strategy)
    atoms = toy.frames(1, 9)[0].to_atoms()
    read = native.read(tmp_path / "checkpoint.ckpt")
    assert read.family == trained.card.family
    assert read.details["finetune"] == trained.card.details["finetune"]
    assert doubts.closest(read.details) == doubts.closest(trained.card.details)
    assert doubts.closest(read.details).keys() == {"Ne-Ne", "Ne-Ar", "Ar-Ar"}
    structure = toy.frames(1, 9)
    references = trained.sets.baseline
    expected = forgetting.evaluate(trained.potential, structure, references)[0]
    assert forgetting.evaluate(read.potential, structure, references)[0].energy == pytest.approx(
        expected.energy, abs=1e-10
    )
    atoms.calc = MLCalculator(tmp_path / "model.pt")
    assert atoms.get_potential_energy() == pytest.approx(expected.energy, abs=1e-9)
    np.testing.assert_allclose(atoms.get_forces(), expected.forces, rtol=0, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["heads", "lora", "delta"])
def test_a_run_broken_off_ends_as_if_it_had_not_been(folder, tmp_path, strategy):
    options = {"epochs": 4, "training": {"checkpoint_seconds": 0.0}}
    whole = tune(folder, tmp_path / "whole", strategy, **options)
    with pytest.raises(toy.Broken):
        tune(folder, tmp_path / "run", strategy, toy.Quiet(break_after=2), **options)
    observer = toy.Quiet()
    again = tune(folder, tmp_path / "run", strategy, observer, **options)
    assert any("continuing after epoch" in note for note in observer.notes)
    for name, value in whole.potential.state_dict().items():
        torch.testing.assert_close(again.potential.state_dict()[name], value, rtol=0, atol=1e-12)


def test_another_strategy_does_not_continue_the_run(folder, tmp_path):
    tune(folder, tmp_path, "full")
    with pytest.raises(BadInput, match="another run.*finetune.strategy: full → heads"):
        tune(folder, tmp_path, "heads")


@pytest.mark.slow
def test_replay_forgets_less(folder, tmp_path):
    """New labels are the old ones times 1.2: what is learned from them alone is wrong for the base's data."""
    options = {"epochs": 30, "training": {"lr": 0.01, "ema": 0.9}}
    forces = {}
    for strategy in ("full", "replay"):
        trained = tune(folder, tmp_path / strategy, strategy, **options)
        found = trained.metrics["forgetting"]
        assert found["set"] == "base.data"
        assert found["before"]["forces"]["mae_meV_per_A"] < 1e-4
        forces[strategy] = found["after"]["forces"]["mae_meV_per_A"]
        base_error = trained.metrics["finetune"]["base_errors"]["test"]["forces"]["mae_meV_per_A"]
        assert trained.metrics["test"]["forces"]["mae_meV_per_A"] < base_error
    assert forces["replay"] < 0.7 * forces["full"]


@pytest.mark.slow
def test_replayed_frames_weigh_what_they_should(folder, tmp_path):
    """Weight 0 leaves the direction of the gradient, and so Adam's steps, to the new frames alone."""
    runs = {}
    for name, options in {
        "own": {"structures": "replay.extxyz", "weight": 0.0},
        "file": {"data": "old.extxyz", "structures": None, "weight": 0.0},
        "heavy": {"structures": "replay.extxyz", "weight": 10.0},
    }.items():
        options = {k: v for k, v in options.items() if v is not None}
        c = configuration(folder, "replay", epochs=4, training={"batch_size": 100}, **options)
        trained = finetune(c, lambda elements: toy.base(), tmp_path / name, toy.Quiet())
        runs[name] = trained.potential.state_dict()["readout.weights.0"]
    torch.testing.assert_close(runs["own"], runs["file"], rtol=0, atol=1e-6)
    assert float((runs["own"] - runs["heavy"]).abs().max()) > 1e-4


def test_distilled_student_learns_the_base(folder, tmp_path):
    """Labels of the file are not used: test errors are those against the teacher."""
    trained = tune(folder, tmp_path, "distill", epochs=3)
    assert trained.card.family == "nequip"
    assert trained.potential.cutoff == 3.0
    teacher = toy.labelled(toy.base().potential, trained.sets.test)
    for frame, label in zip(trained.sets.test, teacher):
        np.testing.assert_allclose(frame.forces, label.forces, rtol=0, atol=1e-10)


def test_without_a_base_set_rattled_copies_serve(folder, tmp_path):
    c = configuration(folder, "full")
    c = c.model_copy(update={"base": c.base.model_copy(update={"data": None})})
    trained = finetune(c, lambda elements: toy.base(), tmp_path, toy.Quiet())
    found = trained.metrics["forgetting"]
    assert "rattled copies" in found["set"]
    assert found["before"]["forces"]["mae_meV_per_A"] < 1e-6
    assert found["after"]["forces"]["mae_meV_per_A"] > 0.1


def test_freeze_beyond_the_layers_is_refused(folder, tmp_path):
    with pytest.raises(BadInput, match="'freeze:3': the base has 2 layers"):
        tune(folder, tmp_path, "freeze:3")


def test_an_element_that_the_base_lacks_is_refused_by_frame(folder, tmp_path):
    frames = [s.to_atoms() for s in toy.labelled(toy.base().potential, toy.frames(4, 1))]
    frames[2].symbols[1] = "Kr"
    write(tmp_path / "train.extxyz", frames)
    c = configuration(folder, "full")
    train = str(tmp_path / "train.extxyz")
    c = c.model_copy(update={"data": c.data.model_copy(update={"train": train, "test": None})})
    with pytest.raises(BadInput, match=r"frame 2: element\(s\) Kr that the base does not know; .* Ar Ne"):
        finetune(c, lambda elements: toy.base(), tmp_path / "run", toy.Quiet())
    assert not (tmp_path / "run").exists()
