"""A run that has ended, and loggers."""

import csv
import shutil

import pytest

from mlplugins.cli.main import main
from mlplugins.errors import BadInput
from mlplugins.training import config, loggers


def copied(finished, tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(finished[0], folder)
    return folder


def test_a_finished_run_says_so_at_once(finished, tmp_path, capsys, monkeypatch):
    folder = copied(finished, tmp_path)
    before = {path.name: path.read_bytes() for path in (folder / "run").iterdir()}
    monkeypatch.setattr("mlplugins.training.run.fit", None)  # whoever trains, fails
    monkeypatch.setattr("mlplugins.training.run.export", None)
    words = ["train", str(folder / "config.yaml"), "-o", str(folder / "run")]
    assert main([*words, "--json", str(tmp_path / "o.json")]) == 0
    text = capsys.readouterr().out
    assert "this run is finished, nothing is done again" in " ".join(text.split())
    assert "test " in text
    assert {path.name: path.read_bytes() for path in (folder / "run").iterdir()} == before
    assert (tmp_path / "o.json").read_bytes() == before["metrics.json"]


def test_a_finished_run_that_lost_its_model_writes_it_again(finished, tmp_path):
    folder = copied(finished, tmp_path)
    (folder / "run" / "model.pt").unlink()
    assert main(["train", str(folder / "config.yaml"), "-o", str(folder / "run")]) == 0
    assert (folder / "run" / "model.pt").is_file()


def test_loggers_of_lightning(project, tmp_path):
    """Lightning's CSV holds the numbers of log.csv."""
    path = project(epochs=2, more="ema: 0.9, loggers: [csv]")
    assert main(["train", str(path), "-o", str(tmp_path / "run")]) == 0
    [logged] = (tmp_path / "run" / loggers.FOLDER).rglob("metrics.csv")
    theirs, ours = (
        list(csv.DictReader(file.read_text().splitlines())) for file in (logged, tmp_path / "run" / "log.csv")
    )
    assert [row["step"] for row in theirs] == ["1", "2"]
    for mine, other in zip(ours, theirs, strict=True):
        assert float(mine["validation_loss"]) == pytest.approx(float(other["validation_loss"]), rel=1e-6)
        assert float(mine["lr"]) == pytest.approx(float(other["lr"]), rel=1e-6)


def test_a_logger_that_is_missing_is_named_before_training(monkeypatch):
    monkeypatch.setitem(loggers.PACKAGES, "wandb", ("no_such_package",))
    content = {"data": {"train": "a"}, "model": {"family": "nequip"}, "training": {"loggers": ["wandb"]}}
    with pytest.raises(
        BadInput, match="'wandb' needs the package 'no_such_package': pip install no_such_package"
    ):
        config.parse(content, "c.yaml")
