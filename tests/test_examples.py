"""Every file in examples/ runs as the README says, on a copy; training and MD are shortened."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase.io import read

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
TEST_SET = "data/li6ps5cl_pbe/test.extxyz"
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("native_build")]


def _run(command, folder, timeout=300):
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout, shell=True
    )
    assert run.returncode == 0, f"{command}\n{run.stdout[-3000:]}\n{run.stderr[-3000:]}"
    return run.stdout


def _shorten(path, **replacements):
    text = path.read_text()
    for key, value in replacements.items():
        text, count = re.subn(rf"(?m)^( *){key}: .*", rf"\g<1>{key}: {value}", text, count=1)
        assert count == 1, f"{path.name} has no key '{key}'"
    path.write_text(text)


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """A copy of examples/ with a potential trained for a few epochs."""
    folder = tmp_path_factory.mktemp("examples") / "examples"
    shutil.copytree(ROOT / "examples", folder, ignore=shutil.ignore_patterns("potential", "campaign"))
    _shorten(folder / "01_train.yaml", epochs=8)
    _run("mlplugins train 01_train.yaml -o potential", folder)
    return folder


def test_training_learns_something(examples):
    output = _run(f"mlplugins evaluate potential/model.pt {TEST_SET} --json errors.json", examples)
    errors = json.loads((examples / "errors.json").read_text())
    assert errors["n_structures"] == 9
    frames = read(examples / TEST_SET, index=":")
    zero_force_mae = 1000 * np.mean([np.abs(atoms.get_forces()).mean() for atoms in frames])
    assert errors["forces"]["mae_meV_per_A"] < 0.5 * zero_force_mae, output


def test_ase_script(examples):
    _run("python 02_ase.py", examples)
    frames = read(examples / "ase.traj", index=":")
    assert len(frames) == 201
    assert np.isfinite(frames[-1].get_potential_energy())


@pytest.mark.parametrize("launcher", ["", "mpirun -np 2 "])
def test_lammps_deck(examples, launcher):
    _run(f"{launcher}lmp -in 03_lammps.in -log log.lammps", examples)
    log = (examples / "log.lammps").read_text()
    assert "Loop time" in log
    frames = read(examples / "lammps.lammpstrj", index=":", format="lammps-dump-text")
    assert len(frames) == 21
    assert frames[-1].get_chemical_formula() == "Cl4Li24P4S20"


def test_ipi_input(examples):
    driver = "mlplugins ipi-driver potential/model.pt li6ps5cl_init.xyz --unix li6ps5cl"
    _run(f"i-pi 04_ipi.xml & sleep 3; {driver}; wait", examples)
    rows = np.loadtxt(examples / "ipi.out")
    assert rows.shape[0] == 11
    assert np.ptp(rows[:, 2]) < 0.05  # conserved quantity, eV, over 100 fs


def test_simulate_then_conductivity(examples):
    _shorten(examples / "05_simulate.yaml", steps="1500", temperatures="[800, 1000, 1200]")
    _run("mlplugins simulate 05_simulate.yaml -o campaign", examples, timeout=600)
    _run("mlplugins conductivity campaign/conductivity.yaml -o report --json sigma.json", examples)
    result = json.loads((examples / "sigma.json").read_text())
    assert [run["T_K"] for run in result["runs"]] == [800, 1000, 1200]
    for run in result["runs"]:
        assert run["D_cm2_s"]["low"] <= run["D_cm2_s"]["value"] <= run["D_cm2_s"]["high"]
    assert (examples / "report").is_dir()
