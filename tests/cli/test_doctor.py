"""`mlplugins doctor` and `mlplugins build` as the user calls them."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from mlplugins.cli.main import main


def doctor(tmp_path, **changes):
    """Exit code, checks by name, and the printed table."""
    report = tmp_path / "report.json"
    result = subprocess.run(
        [sys.executable, "-m", "mlplugins.cli.main", "doctor", "--json", str(report)],
        env={**os.environ, "COLUMNS": "200", **changes},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    content = json.loads(report.read_text())
    assert content["healthy"] == (result.returncode == 0), result.stderr
    return result.returncode, {check["name"]: check for check in content["checks"]}, result.stdout


@pytest.mark.slow
def test_healthy(native_build, tmp_path):
    code, checks, text = doctor(tmp_path, OMP_NUM_THREADS="1")
    assert code == 0, text
    assert checks["LAMMPS plug-in"]["status"] == "ok"
    assert checks["LAMMPS plug-in"]["found"].startswith("loads in LAMMPS")
    assert checks["ops"]["found"] == "compiled library loaded"
    for name in checks:
        assert name in text


@pytest.mark.slow
def test_missing_build_and_too_many_threads(native_build, tmp_path):
    code, checks, text = doctor(tmp_path, MLPLUGINS_CACHE=str(tmp_path / "cache"), OMP_NUM_THREADS="999")
    assert code == 1
    assert checks["native code"]["status"] == "fault"
    assert checks["native code"]["remedy"] == "mlplugins build"
    assert checks["LAMMPS plug-in"]["status"] == "fault"
    assert checks["threads"]["status"] == "fault"
    for check in checks.values():
        assert check["remedy"] or check["status"] == "ok", check
    assert "mlplugins build" in text


def test_it_needs_no_torch(tmp_path):
    """A broken torch is what doctor is there to find."""
    code = (
        "import sys; from mlplugins import engines; from mlplugins.checks import installation\n"
        "[engines.load(name).diagnose() for name in engines.available()]; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_build_is_done(native_build, tmp_path, capsys):
    report = tmp_path / "build.json"
    assert main(["build", "--json", str(report)]) == 0
    content = json.loads(report.read_text())
    assert content["status"] == "current"
    assert content["plugin"]
    assert not content["compiled"]
    assert content["directory"] in capsys.readouterr().out.replace("\n", "")


def test_build_without_a_compiler(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MLPLUGINS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert main(["build"]) == 2
    assert "CXX=no-such-compiler is not a program" in capsys.readouterr().err
