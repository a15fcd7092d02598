import json

import pytest
import yaml
from ase.build import bulk
from ase.constraints import FixAtoms
from ase.io import write

from mlplugins.cli.main import main

from ..simulation.argon import write_model as write_argon

pytestmark = pytest.mark.usefixtures("native_build", "warm_start")


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


def test_what_is_kept_is_said_and_a_begun_run_is_not_begun_anew(campaign, tmp_path, capsys):
    atoms = bulk("Ar", "fcc", a=5.5, cubic=True).repeat((2, 2, 2))
    atoms.set_masses([36.0] * 16 + [39.948] * 16)
    atoms.set_constraint(FixAtoms([0, 1]))
    write(tmp_path / "argon.extxyz", atoms)
    assert main(["simulate", "md.yaml", "-o", "runs", "--write-only"]) == 0
    out = capsys.readouterr().out
    assert "note: masses of the structure are kept: Ar 36, Ar 39.948 u" in out
    assert "note: fixed atoms of the structure are kept (2 in xyz, of 32): 90 degrees of freedom" in out
    assert "sh run.sh" in out
    assert main(["simulate", "md.yaml", "-o", "runs"]) == 0
    campaign(steps=80)
    capsys.readouterr()
    assert main(["simulate", "md.yaml", "-o", "runs", "--write-only"]) == 0
    assert "begun: the same command without --write-only continues it" in capsys.readouterr().out
    assert main(["simulate", "md.yaml", "-o", "runs", "--json", "out.json"]) == 0
    runs = json.loads((tmp_path / "out.json").read_text())["runs"]
    assert [(run["state"], run["step"], run["total_steps"]) for run in runs] == [("finished", 100, 100)]
