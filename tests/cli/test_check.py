import json
from pathlib import Path

import ase.io
import pytest
from ase.build import bulk

from mlplugins.checks.suite import CheckOptions, check
from mlplugins.cli.main import main

from ..simulation.argon import write_model as write_argon


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("check")
    write_argon(folder / "model.pt")
    write_argon(folder / "cliff.pt", onset=1 - 1e-7)
    crystal = bulk("Ar", "fcc", a=5.3, cubic=True)
    ase.io.write(folder / "a.extxyz", [crystal, bulk("Ar", "fcc", a=5.4)])
    ase.io.write(folder / "nacl.extxyz", bulk("NaCl", "rocksalt", a=5.6))
    return folder


def test_passes_and_writes_json(folder, capsys):
    result = folder / "check.json"
    words = ["check", f"{folder}/model.pt", f"{folder}/a.extxyz", "--engines", "ase", "--nve-steps", "20"]
    assert main([*words, "--json", str(result)]) == 0
    content = json.loads(result.read_text())
    assert content["passed"] is True
    assert {row["structure"] for row in content["checks"]} == {"a.extxyz@0", "a.extxyz@1"}
    for row in content["checks"]:
        assert set(row) == {
            "name", "engine", "ranks", "value", "limit", "unit", "passed", "structure", "note",
        }  # fmt: skip
    assert "checks passed" in capsys.readouterr().out


def test_a_bad_model_gives_1_and_names_the_check(folder, capsys):
    words = ["check", f"{folder}/cliff.pt", f"{folder}/a.extxyz@0", "--engines", "ase", "--nve-steps", "0"]
    assert main(words) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any("cutoff: jump of energy" in line and "FAILED" in line for line in lines)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["model.pt", "none.xyz"], "no such structure file"),
        (["none.pt", "a.extxyz"], "no such model file"),
        (["model.pt", "nacl.extxyz"], "the model does not know Cl, Na; it knows Ar"),
        (["model.pt", "a.extxyz@7"], "ASE cannot read it"),
        (["model.pt", "a.extxyz", "--engines", "ase,lamps"], "did you mean 'lammps'?"),
        (["model.pt", "a.extxyz", "--engines", ""], "--engines: expected at least one value"),
        (["model.pt", "a.extxyz", "--ranks", "0"], "--ranks"),
        (["model.pt", "a.extxyz", "--engines", "ase", "--md"], "md (--md) runs in LAMMPS"),
    ],
)
def test_wrong_use_gives_2(folder, monkeypatch, capsys, words, text):
    monkeypatch.chdir(folder)
    assert main(["check", *words]) == 2
    shown = capsys.readouterr()
    assert text in shown.err
    assert shown.out == ""


def test_one_structure_or_several_by_name_path_or_as_they_are(folder):
    options = CheckOptions(("ase",), nve_steps=0)
    name = f"{folder}/a.extxyz@1"
    given = (name, Path(name), [name], ase.io.read(name))
    first, *others = (check(folder / "model.pt", each, options).record()["checks"] for each in given)
    for rows in others:
        assert [row["value"] for row in rows] == [row["value"] for row in first]


def test_an_engine_that_is_not_built_is_a_failed_row_with_the_remedy(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MLPLUGINS_CACHE", str(tmp_path / "empty"))
    words = ["check", f"{folder}/model.pt", f"{folder}/a.extxyz@1", "--engines", "lammps", "--ranks", "1"]
    assert main([*words, "--nve-steps", "0"]) == 1
    assert "run `mlplugins build`" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.usefixtures("native_build", "warm_start")
def test_all_engines(folder):
    assert main(["check", f"{folder}/model.pt", f"{folder}/a.extxyz", "--nve-steps", "20", "--md"]) == 0
