"""The command from Python: a YAML file, its content or the validated object; the same result."""

import json
from pathlib import Path

import pytest

import mlplugins
from mlplugins.analysis.study import Config, conductivity, load
from mlplugins.cli.main import main
from mlplugins.errors import BadInput
from mlplugins.testing.walks import LatticeWalk, crystal, write_lammps_dump

YAML = """species: Li
timestep: 2
runs:
  - {files: [a.dump], temperature: 600}
  - {files: [b.dump], temperature: 500}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two runs beside their configuration; the working directory is another."""
    for seed, name in enumerate(("a.dump", "b.dump")):
        write_lammps_dump(crystal(LatticeWalk(frames=200, ions=8, seed=seed)), tmp_path / name)
    (tmp_path / "runs.yaml").write_text(YAML)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path


@pytest.mark.long
def test_python_and_the_command_give_the_same(folder, capsys):
    assert main(["conductivity", "../runs.yaml", "-o", "by_command"]) == 0
    report = mlplugins.conductivity("../runs.yaml", "by_python")
    assert [run.temperature_k for run in report.runs] == [500.0, 600.0]
    written = {path.name: path.read_bytes() for path in Path("by_command").iterdir()}
    assert {path.name: path.read_bytes() for path in Path("by_python").iterdir()} == written
    assert json.loads(json.dumps(report.as_json())) == json.loads(written["results.json"])
    shown = capsys.readouterr().out
    assert "report: by_command/report.html" in shown
    for text in report.warnings:
        assert f"warning: {text}" in shown


def test_a_mapping_and_the_object_write_nothing_unless_told(folder):
    content = {"species": "Li", "timestep": 2, "runs": [{"files": [Path("../a.dump")], "temperature": 600}]}
    first = conductivity(content)
    config = load(content)
    assert isinstance(config, Config)
    assert conductivity(config).as_json() == first.as_json()
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"specie": "Li"}, "configuration: unknown key 'specie'"),
        ({"carriers": {"Li": 1}}, "configuration: carriers: 'Li' is the species already"),
        ({"runs": [{"files": ["no.dump"], "temperature": 600}]}, "no such trajectory: 'no.dump'"),
    ],
)
def test_mistakes_are_named(change, text):
    content = {"species": "Li", "runs": [{"files": ["a.dump"], "temperature": 600}]}
    with pytest.raises(BadInput, match=text):
        conductivity({**content, **change})


def test_an_object_made_by_hand_is_checked_too():
    config = Config(species="Li", runs=[{"files": ["a.dump"], "temperature": 600}], carriers={"Li": 2})
    with pytest.raises(BadInput, match="'Li' is the species already"):
        conductivity(config)


def test_progress_of_long_files(folder, monkeypatch):
    from contextlib import contextmanager

    monkeypatch.setattr("mlplugins.analysis.study.BYTES_WITH_PROGRESS", 0)
    seen = []

    @contextmanager
    def bar(title):
        seen.append(title)
        yield lambda fraction, frames: seen.append((fraction, frames))

    conductivity("../runs.yaml", progress=bar)
    assert [text for text in seen if isinstance(text, str)] == ["reading 500 K", "reading 600 K"]
    assert max(each[1] for each in seen if not isinstance(each, str)) == 200
