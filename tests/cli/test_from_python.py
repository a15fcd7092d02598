"""The functions of the package do what the commands do: the same numbers, the same files, silently."""

import json
import subprocess
import sys

import ase.io
import pytest
import yaml

import mlplugins
from mlplugins.cli.main import main
from mlplugins.errors import BadInput
from mlplugins.observer import Silent
from mlplugins.training import config, finetune_config

TIMES = {"wall_s", "cpu_s"}


def numbers(metrics):
    return {key: value for key, value in metrics.items() if key not in TIMES}


def test_every_public_name_is_there_and_documented():
    for name in mlplugins.__all__:
        found = getattr(mlplugins, name)
        assert name == "__version__" or found.__doc__, name
    assert set(mlplugins.__all__) <= set(dir(mlplugins))
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        mlplugins.trian  # noqa: B018


def test_importing_the_package_imports_nothing_heavy():
    heavy = "{'torch', 'numpy', 'ase', 'pydantic', 'rich'}"
    code = f"import sys, mlplugins; print(sorted({heavy} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


def test_training_gives_the_metrics_of_the_command(finished, tmp_path, capsys):
    folder, _ = finished
    told = []

    class Epochs(Silent):
        def epoch(self, row, epochs, best):
            told.append(row["epoch"])

    trained = mlplugins.train(folder / "config.yaml", tmp_path / "again", Epochs())
    assert capsys.readouterr().out == ""
    assert told == [1, 2, 3, 4]
    written = json.loads((tmp_path / "again" / "metrics.json").read_text())
    command = json.loads((folder / "run" / "metrics.json").read_text())
    assert numbers(written) == numbers(command)
    assert list(written) == list(command)
    assert numbers(trained.metrics) == numbers(written)
    assert {p.name for p in (tmp_path / "again").iterdir()} == {p.name for p in (folder / "run").iterdir()}


def test_evaluation_gives_the_errors_of_the_command(finished, tmp_path, capsys):
    folder, _ = finished
    model, data = folder / "run" / "model.pt", str(folder / "test.extxyz")
    files = [data, str(folder / "train.extxyz")]
    assert main(["evaluate", str(model), *files, "--json", str(tmp_path / "e.json")]) == 0
    capsys.readouterr()
    assert mlplugins.evaluate(model, files) == json.loads((tmp_path / "e.json").read_text())
    frames = ase.io.read(data, ":")
    assert mlplugins.evaluate(str(model), frames) == mlplugins.evaluate(model, data)
    assert capsys.readouterr().out == ""
    with pytest.raises(BadInput, match=r"keys \(--keys\): unknown label 'energies'"):
        mlplugins.evaluate(model, data, keys={"energies": "e"})
    with pytest.raises(BadInput, match="expected files or frames"):
        mlplugins.evaluate(model, [data, *frames])


def test_info_and_export_give_the_records_of_the_commands(finished, tmp_path):
    folder, _ = finished
    model, written = folder / "run" / "model.pt", tmp_path / "m.pt"
    assert main(["info", str(model), "--json", str(tmp_path / "i.json")]) == 0
    assert mlplugins.info(model) == json.loads((tmp_path / "i.json").read_text())
    checkpoint = folder / "run" / "checkpoint.ckpt"
    assert main(["export", str(checkpoint), "-o", str(written), "--json", str(tmp_path / "x.json")]) == 0
    record = mlplugins.export_checkpoint(checkpoint, written)
    assert record == json.loads((tmp_path / "x.json").read_text())
    with pytest.raises(BadInput, match="dtype 'float16'"):
        mlplugins.export_checkpoint(checkpoint, written, dtype="float16")


@pytest.mark.long
def test_selection_gives_the_structures_of_the_command(finished, tmp_path):
    folder, _ = finished
    data, report = str(folder / "train.extxyz"), tmp_path / "s.json"
    words = ["-n", "3", "-o", str(tmp_path / "s.extxyz"), "--json", str(report)]
    assert main(["select", data, *words]) == 0
    found = mlplugins.select(data, 3)
    assert found.record() == json.loads(report.read_text())
    assert mlplugins.select(ase.io.read(data, ":"), 3).chosen == found.chosen


@pytest.mark.parametrize(
    ("load", "content"),
    [
        (
            config.load,
            {
                "data": {"train": "a.extxyz", "keys": {"forces": None}},
                "model": {"family": "nequip", "radial_mlp": [8]},
                "training": {"epochs": 7},
            },
        ),
        (
            config.load,
            {
                "data": {"train": ["a.extxyz", "b.extxyz"], "keys": {"forces": None}},
                "model": {"family": "sgdml", "sigma": 3},
                "training": {"search": {"trials": 5}},
            },
        ),
        (
            finetune_config.load,
            {
                "base": {"checkpoint": "a.ckpt"},
                "finetune": {"strategy": "freeze:2"},
                "data": {"train": "a.extxyz"},
            },
        ),
    ],
    ids=["gradients", "closed-form", "finetune"],
)
def test_a_configuration_is_a_file_a_mapping_or_an_object(load, content, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    first = load(path)
    for source in (str(path), content, first, load(content)):
        again = load(source)
        assert again.model_dump() == first.model_dump()
        assert again.data.keys.names == first.data.keys.names
        assert type(again).__name__ == type(first).__name__


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (3, "configuration: expected a file or a mapping with 'data' and 'model', got int"),
        (
            {"data": {"train": "a"}, "model": {"family": "nequip"}, "sed": 1},
            "unknown key 'sed': did you mean",
        ),
        ({"data": {"train": "a"}, "model": {"family": "nequip", "cutoff": float("nan")}}, "finite number"),
    ],
)
def test_what_is_no_configuration_is_refused(source, text):
    with pytest.raises(BadInput, match=text):
        mlplugins.train(source, "nowhere")


def test_a_mapping_needs_a_folder():
    content = {"data": {"train": "a.extxyz"}, "model": {"family": "nequip"}}
    with pytest.raises(BadInput, match="directory: expected a folder for the results"):
        mlplugins.train(content)
