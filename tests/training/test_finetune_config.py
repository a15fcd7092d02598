import pytest

from mlplugins.errors import BadInput
from mlplugins.training import finetune_config
from mlplugins.training.finetune_config import LEARNING_RATES, OPTIONS
from mlplugins.training.strategies import STRATEGIES

MINIMAL = {"data": {"train": "md.extxyz"}, "base": {"checkpoint": "b.ckpt"}, "finetune": {"strategy": "full"}}


def with_(section: str, **values):
    return {**MINIMAL, section: {**MINIMAL.get(section, {}), **values}}


def finetune(strategy, **values):
    return {**MINIMAL, "finetune": {"strategy": strategy, **values}}


def test_every_strategy_has_options_a_rate_and_a_function():
    assert OPTIONS.keys() == LEARNING_RATES.keys() == STRATEGIES.keys()


def test_defaults_depend_on_the_strategy_and_given_values_win():
    c = finetune_config.parse(MINIMAL, "c.yaml")
    assert (c.training.epochs, c.training.lr, c.base.elements) == (50, 0.001, "data")
    assert finetune_config.parse(finetune("lora", rank=4), "c.yaml").training.lr == 0.005
    assert finetune_config.parse(finetune("lora", rank=4), "c.yaml").options.rank == 4
    c = finetune_config.parse({**finetune("heads"), "training": {"lr": 0.1, "epochs": 3}}, "c.yaml")
    assert (c.training.lr, c.training.epochs) == (0.1, 3)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (
            finetune("ful"),
            "unknown strategy 'ful': did you mean 'full'? Valid: delta, distill, freeze:N, full, heads, lora",
        ),
        (finetune("freeze"), "unknown strategy 'freeze': did you mean 'freeze:N'?"),
        (finetune("full:2"), "unknown strategy 'full:2'"),
        (finetune("freeze:two"), "'freeze:N' needs a number of layers, got 'freeze:two'"),
        (finetune("freeze:1", layers=2), "c.yaml: finetune: unknown key 'layers'"),
        (finetune("full", rank=4), "c.yaml: finetune: 'rank' is an option of 'lora', not of 'full'"),
        (
            finetune("lora", rank=0),
            "c.yaml: finetune: 'rank': input should be greater than or equal to 1",
        ),
        (finetune("lora", rnk=4), "unknown key 'rnk': did you mean 'rank'?"),
        (finetune("full", dynamics={}), "finetune: 'dynamics' is an option of 'distill', not of 'full'"),
        (finetune("replay"), "replay needs either 'data'"),
        (finetune("replay", data="a", structures="b"), "replay needs either 'data'"),
        (finetune("delta"), "c.yaml: model: 'delta' trains a new model: give its family"),
        ({**finetune("delta"), "model": {"family": "neqip"}}, "model: unknown model family 'neqip'"),
        ({**MINIMAL, "model": {"family": "nequip"}}, "only delta and distill take one"),
        (with_("data", elements=["Li"]), "data.elements: the base has the elements; say base.elements"),
        (with_("base", checkpont="b"), "unknown key 'base.checkpont': did you mean 'checkpoint'?"),
        ({"data": {"train": "a"}, "base": {"checkpoint": "b"}}, "missing key 'finetune'"),
        (with_("data", prior={"energy": "cheap"}), "data.prior: a base gives whole energies"),
        ([1], "expected a mapping with 'data', 'base' and 'finetune', got list"),
    ],
)
def test_what_is_wrong_is_named(content, text):
    with pytest.raises(BadInput) as caught:
        finetune_config.parse(content, "c.yaml")
    assert text in str(caught.value)


def test_files_are_sought_beside_the_configuration(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "project"
    folder.mkdir()
    for name in ("a.extxyz", "base.ckpt", "old.extxyz", "more.extxyz"):
        (folder / name).touch()
    path = folder / "c.yaml"
    path.write_text(
        "data: {train: a.extxyz}\nbase: {checkpoint: base.ckpt, data: old.extxyz}\n"
        "finetune: {strategy: replay, structures: more.extxyz}\n"
    )
    c = finetune_config.load(path)
    assert c.data.train == str(folder / "a.extxyz")
    assert c.base.checkpoint == str(folder / "base.ckpt")
    assert c.base.data == str(folder / "old.extxyz")
    assert c.options.structures == str(folder / "more.extxyz")
