import json

import pytest
import yaml
from ase.build import bulk
from ase.io import write

from mlplugins.cli.main import main

from ..simulation.argon import write_model as write_argon

pytestmark = pytest.mark.usefixtures("native_build")


@pytest.fixture
def campaign(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_argon(tmp_path / "model.pt")
    write(tmp_path / "argon.extxyz", bulk("Ar", "fcc", a=5.5, cubic=True).repeat((2, 2, 2)))

    def save(**changes):
        settings = {
            "model": "model.pt",
            "structure": "argon.extxyz",
            "temperatures": [60],
            "timestep": 4,
            "steps": 50,
            "equilibration": {"steps": 20},
            **changes,
        }
        (tmp_path / "md.yaml").write_text(yaml.safe_dump(settings))

    save()
    return save


def test_run_then_repeat(campaign, tmp_path, capsys):
    assert main(["simulate", "md.yaml", "-o", "runs", "--json", "out.json"]) == 0
    content = json.loads((tmp_path / "out.json").read_text())
    assert [(run["run"], run["state"], run["step"]) for run in content["runs"]] == [
        ("T0060_seed1", "finished", 70)
    ]
    assert "mlplugins conductivity" in capsys.readouterr().out
    assert main(["simulate", "md.yaml", "-o", "runs"]) == 0


def test_write_only(campaign, tmp_path):
    for engine, file in (("lammps", "in.lmp"), ("ipi", "simulation.xml"), ("ase", "run.py")):
        assert main(["simulate", "md.yaml", "-o", "runs", "--engine", engine, "--write-only"]) == 0
        folder = tmp_path / "runs" / engine / "T0060_seed1"
        assert (folder / file).is_file()
        assert (folder / "run.sh").is_file()
        assert not list(folder.glob("traj*"))


def test_a_failing_run_gives_1_with_step_and_reason(campaign, capsys):
    campaign(timestep=500)
    assert main(["simulate", "md.yaml", "-o", "runs"]) == 1
    out = capsys.readouterr().out
    assert "T0060_seed1" in out
    assert "at step" in out
    assert "ERROR" in out


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"tempratures": [3]}, "unknown key 'tempratures'"),
        ({"model": "none.pt"}, "no such model file"),
        ({"engine": "ase", "ranks": 2}, "engine ase runs on 1 rank"),
    ],
)
def test_wrong_use_gives_2(campaign, capsys, changes, text):
    campaign(**changes)
    assert main(["simulate", "md.yaml"]) == 2
    assert text in capsys.readouterr().err
