"""Outputs that are inputs are refused by name before any work, from Python and on the command line."""

from pathlib import Path

import pytest
from ase import Atoms
from ase.io import write

import mlplugins
from mlplugins.analysis.conduction import Settings
from mlplugins.analysis.spectra.settings import Settings as SpectraSettings
from mlplugins.cli.main import main
from mlplugins.errors import BadInput

CALLS = {
    "committee": lambda: mlplugins.committee(["a.pt", "b.pt"], "b.pt"),
    "committee of folders": lambda: mlplugins.committee(["run", "a.pt"], "run/model.pt"),
    "convert": lambda: mlplugins.convert("a.pt", "./a.pt"),
    "convert a folder": lambda: mlplugins.convert("run", "run/model.pt"),
    "export": lambda: mlplugins.export_checkpoint("run", "run/checkpoint.ckpt"),
    "uncertainty": lambda: mlplugins.uncertainty("run", "frames.xyz", "run/model.pt"),
    "uncertainty, held out": lambda: mlplugins.uncertainty("a.pt", "frames.xyz", "held.xyz", "held.xyz"),
    "evaluate": lambda: mlplugins.evaluate("a.pt", ["fr*.xyz"], predictions="frames.xyz"),
    "label": lambda: mlplugins.label("frames.xyz@:1", {"kind": "emt"}, "frames.xyz"),
    "finetune": lambda: mlplugins.finetune(
        {
            "base": {"checkpoint": "run/model.pt"},
            "finetune": {"strategy": "full"},
            "data": {"train": "frames.xyz"},
        },
        "run",
    ),
    "train": lambda: mlplugins.train(
        {"data": {"train": "run/log.csv"}, "model": {"family": "nequip", "cutoff": 5.0}}, "run"
    ),
    "conductivity": lambda: mlplugins.conductivity(
        {
            "species": "Li",
            "timestep": 2,
            "runs": [{"files": ["frames.xyz"], "temperature": 600}],
            "compare": [{"results": "report"}],
        },
        "report",
    ),
    "thermal": lambda: mlplugins.thermal(["report/results.csv"], Settings(), "report"),
    "spectra": lambda: mlplugins.spectra("power", ["report/spectrum.csv"], SpectraSettings(), "report"),
}


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("frames.xyz", [Atoms("Li"), Atoms("S")], format="extxyz")
    for name in (
        "run/model.pt",
        "run/checkpoint.ckpt",
        "run/log.csv",
        "report/results.json",
        "report/results.csv",
        "report/spectrum.csv",
    ):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(name)
    for name in ("a.pt", "b.pt", "held.xyz"):
        Path(name).write_text(name)
    return {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", CALLS)
def test_no_input_is_overwritten(files, name):
    with pytest.raises(BadInput, match="an input, which would be overwritten"):
        CALLS[name]()
    assert all(path.read_bytes() == content for path, content in files.items())


def test_the_command_line_sees_folders_and_patterns(files, capsys):
    assert main(["evaluate", "a.pt", "fr*.xyz", "-o", "frames.xyz"]) == 2
    assert "-o frames.xyz: an input" in capsys.readouterr().err
    Path("barrier.yaml").write_text("model: run/model.pt\ninitial: a.xyz\nfinal: frames.xyz@-1\n")
    for name in ("run/model.pt", "frames.xyz"):
        assert main(["barrier", "barrier.yaml", "--json", name]) == 2
        assert f"--json {name}: an input" in capsys.readouterr().err
    assert main(["convert", "run", "-o", "run/model.pt"]) == 2
    assert "run/model.pt: an input" in capsys.readouterr().err
