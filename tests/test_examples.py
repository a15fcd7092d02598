"""Every file in examples/ runs as the README says, on a copy; training and MD are shortened."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.io import read
from ase.optimize import BFGS
from ase.thermochemistry import IdealGasThermo
from ase.vibrations import Vibrations

from mlplugins import MLCalculator
from mlplugins.engines.lammps import read_log

from . import warm

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
TEST_SET = "data/li6ps5cl_pbe/test.extxyz"
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("native_build", "warm_start")]


def _run(command, folder, timeout=300):
    """One command as typed; with a shell if it says more than one."""
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    shell = "&" in command
    run = subprocess.run(
        command if shell else shlex.split(command),
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        shell=shell,
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
    """A copy of examples/ with a small potential trained for a few epochs."""
    folder = tmp_path_factory.mktemp("examples") / "examples"
    shutil.copytree(ROOT / "examples", folder, ignore=shutil.ignore_patterns("potential", "campaign"))
    _shorten(folder / "01_train.yaml", epochs=10, num_features=8)
    with warm.starts():
        _run("mlplugins train 01_train.yaml -o potential", folder)
    return folder


def test_training_learns_something(examples):
    output = _run(f"mlplugins evaluate potential/model.pt {TEST_SET} --json errors.json", examples)
    errors = json.loads((examples / "errors.json").read_text())
    assert errors["n_structures"] == 9
    frames = read(examples / TEST_SET, index=":")
    zero_force_mae = 1000 * np.mean([np.abs(atoms.get_forces()).mean() for atoms in frames])
    assert errors["forces"]["mae_meV_per_A"] < 0.5 * zero_force_mae, output


@pytest.mark.reference
@pytest.mark.skipif(
    not os.environ.get("MLPLUGINS_REFERENCE_DATA"), reason="needs MLPLUGINS_REFERENCE_DATA (h2_fci/)"
)
def test_h2_from_20_points(examples, tmp_path):
    output = _run("python 06_h2_kernel.py", examples)
    assert float(output.split()[-2]) < 3e-4  # hartree
    # as in docs/properties.md: an element's heat of formation is zero
    h2 = Atoms("H2", [[0, 0, 0], [0, 0, 0.8]], calculator=MLCalculator(examples / "h2" / "model.pt"))
    BFGS(h2, logfile=None).run(fmax=1e-4)
    assert h2.get_distance(0, 1) == pytest.approx(0.741, abs=0.002)
    vibrations = Vibrations(h2, name=str(tmp_path / "vibrations"), delta=0.005)
    vibrations.run()
    stretch = vibrations.get_energies()[-1].real
    assert stretch / units.invcm == pytest.approx(4401, rel=0.01)
    energy = h2.get_potential_energy()
    gas = IdealGasThermo([stretch], "linear", energy, h2, symmetrynumber=2, spin=0)
    atoms = 2 * (-0.5 * units.Hartree + 2.5 * units.kB * 298.15)
    atomisation = (atoms - gas.get_enthalpy(298.15, verbose=False)) / (units.kJ / units.mol)
    assert 2 * 217.998 - atomisation == pytest.approx(0, abs=2)  # kJ/mol


def test_ase_script(examples):
    _run("python 02_ase.py", examples)
    frames = read(examples / "ase.traj", index=":")
    assert len(frames) == 201
    assert np.isfinite(frames[-1].get_potential_energy())


@pytest.mark.parametrize(
    "launcher",
    ["", pytest.param("mpirun -np 2 ", marks=pytest.mark.exhaustive)],  # ranks: tests/engines
)
def test_lammps_deck(examples, launcher):
    _run(f"{launcher}lmp -in 03_lammps.in -log log.lammps", examples)
    log = (examples / "log.lammps").read_text()
    assert "Loop time" in log
    frames = read(examples / "lammps.lammpstrj", index=":", format="lammps-dump-text")
    assert len(frames) == 21
    assert frames[-1].get_chemical_formula() == "Cl4Li24P4S20"


def test_ipi_input(examples):
    address = f"li6ps5cl_{os.getpid()}"  # sockets lie in /tmp, where another run may have left one
    text = (examples / "04_ipi.xml").read_text()
    assert text.count("<address> li6ps5cl </address>") == 1
    (examples / "04_ipi.xml").write_text(text.replace("<address> li6ps5cl ", f"<address> {address} "))
    driver = f"mlplugins ipi-driver potential/model.pt li6ps5cl_init.xyz --unix {address}"
    _run(f"i-pi 04_ipi.xml & {driver}; wait", examples)
    rows = np.loadtxt(examples / "ipi.out")
    assert rows.shape[0] == 11
    assert np.ptp(rows[:, 2]) < 0.05  # conserved quantity, eV, over 100 fs


def test_multiple_time_steps(examples):
    """In LAMMPS and i-PI: the energy of the model is conserved, while its direct forces move the atoms."""
    _shorten(examples / "11_mts.yaml", epochs=4, num_features=8)
    _run("mlplugins train 11_mts.yaml -o mts", examples)
    _run("lmp -in 11_mts.in -log mts.log", examples)
    [table] = read_log(examples / "mts.log")
    assert list(table["Step"]) == [0, 5, 10, 15, 20, 25]
    np.testing.assert_allclose(table["Time"], 0.008 * table["Step"], rtol=0, atol=1e-9)
    assert re.findall(r"(\d+) evaluations", (examples / "mts.log").read_text()) == ["26", "101"]
    text, names = (examples / "11_mts.xml").read_text(), ("mts_whole", "mts_inner")
    for name in names:
        assert text.count(f"<address> {name} </address>") == 1
        text = text.replace(f"<address> {name} <", f"<address> {name}{os.getpid()} <")
    (examples / "11_mts.xml").write_text(text)
    driver = "mlplugins ipi-driver mts/model.pt li6ps5cl_init.xyz --unix"
    whole, inner = (f"{driver} {name}{os.getpid()}" for name in names)
    _run(f"i-pi 11_mts.xml & {inner} --non-conservative on & {whole}; wait", examples)
    rows = np.loadtxt(examples / "mts.out")
    np.testing.assert_allclose(rows[:, 1], 40.0 * np.arange(6), rtol=0, atol=1e-9)  # fs
    for energies in (table["TotEng"], rows[:, 2]):
        assert np.ptp(energies) < 0.1, energies  # eV, of 52 atoms


def test_simulate_then_conductivity(examples):
    _shorten(
        examples / "05_simulate.yaml",
        steps="400",
        equilibration="{steps: 200}",
        temperatures="[800, 1000, 1200]",
    )
    _run("mlplugins simulate 05_simulate.yaml -o campaign", examples, timeout=600)
    _run("mlplugins conductivity campaign/conductivity.yaml -o report --json sigma.json", examples)
    result = json.loads((examples / "sigma.json").read_text())
    assert [run["T_K"] for run in result["runs"]] == [800, 1000, 1200]
    for run in result["runs"]:
        assert run["D_cm2_s"]["low"] <= run["D_cm2_s"]["value"] <= run["D_cm2_s"]["high"]
    assert (examples / "report").is_dir()


@pytest.mark.exhaustive  # beyond the budget: thirteen commands, a SevenNet among the models
def test_universal_model_from_start_to_end(examples, drawn):
    """The whole worked example on a small SevenNet checkpoint: every step, resumable, results and plots."""
    checkpoint = ROOT / "tests" / "regression" / "sevennet_0130_even.pth"
    words = "--frames 5 --passes 5 --steps 200 --student-epochs 1 -o universal"
    command = f"{sys.executable} 06_universal/run.py --checkpoint {checkpoint} {words}"
    assert _run(command, examples, timeout=900).count("$ mlplugins") == 13
    results = json.loads((examples / "universal" / "results.json").read_text())
    for name in ("fine-tuned", "scratch"):
        assert results[name]["5"]["test"]["n_structures"] == 9
    assert [run["T_K"] for run in results["student"]["runs"]] == [700, 850, 1000]
    for name in ("learning_curve.png", "diffusion.png"):
        assert (examples / "universal" / name).stat().st_size > 10_000
    assert "$ mlplugins" not in _run(command, examples)


def test_molten_copper_from_cold_frames(examples):
    path = examples / "10_learn.yaml"
    _shorten(path, uncertainty="{method: gp}", temperatures="[2500]", steps="60", n_sparse="40")
    _shorten(path, until="{expected_error: 0.3, rounds: 1}")
    _run("mlplugins learn 10_learn.yaml -o learning --json learned.json", examples)
    result = json.loads((examples / "learned.json").read_text())
    assert result["stopped"].startswith("1 rounds")
    assert result["final"]["control"]["n_train"] == result["final"]["n_train"] == 9
    assert "chosen at random" in (examples / "learning" / "report.html").read_text()


@pytest.mark.exhaustive
def test_lithium_argyrodite_from_five_frames(examples):
    """With a trained potential in the place of CP2K, which takes a minute a label (H2: tests/labels)."""
    path = examples / "15_cp2k.yaml"
    text, count = re.subn(
        r"(?s)\n  kind: cp2k\n.*?\n(?=model:)",
        "\n  {kind: model, model: potential/model.pt}\n",
        path.read_text(),
    )
    assert count == 1
    assert text.count(", labelled: true") == 2
    path.write_text(text.replace(", labelled: true", ""))
    _shorten(
        path,
        structures="[start.extxyz@0]",
        steps="20",
        dump_interval="5",
        until="{expected_error: 0.2, rounds: 1}",
    )
    _shorten(path, select="{n: 2}", training="{epochs: 2}")
    shutil.copytree(examples / "potential", examples / "potential_38")
    output = _run("python 15_cp2k.py 40", examples)
    assert output.count("$ mlplugins") == 3
    rows = dict(re.findall(r"(?m)^(38 frames, \S.*?) {2,}(\S+)", output))
    assert float(rows["38 frames, 1000 K"]) == 0.0  # it has made these labels
    assert float(rows["38 frames, test frames"]) > 0.1
    assert len(read(examples / "learned" / "dataset.extxyz", ":")) == 5 + 2 + 9


def test_a_hop_and_the_heat_flux_of_argon(examples):
    _run("python 12_argon.py", examples)
    _shorten(examples / "12_barrier.yaml", supercell="[2, 2, 2]", images="1")
    _run("mlplugins barrier 12_barrier.yaml -o barrier --json barrier.json", examples)
    found = json.loads((examples / "barrier.json").read_text())
    assert found["quotable"]
    assert 0.05 < found["barrier_eV"] < 0.11
    assert len(found["imaginary_THz"]) == 1
    deck = examples / "13_thermal.in"
    text = deck.read_text()
    for long, short in {"5000\n": "100\n", "1000\n": "50\n", "30000\n": "2000\n"}.items():
        assert text.count(f"run             {long}") == 1
        text = text.replace(f"run             {long}", f"run {short}")
    deck.write_text(text)
    _run("lmp -in 13_thermal.in -log thermal.log", examples)
    _run("mlplugins thermal thermal.log --timestep 4 -o thermal --json thermal.json", examples)
    found = json.loads((examples / "thermal.json").read_text())
    assert found["interval_fs"] == 40.0
    assert 0 < found["kappa_W_mK"]["value"] < 2.0
    assert "W/(m K)" in (examples / "thermal" / "report.html").read_text()


@pytest.mark.skipif("MLPLUGINS_REFERENCE_DATA" not in os.environ, reason="needs MLPLUGINS_REFERENCE_DATA")
def test_melting_copper_says_how_sure_it_is(examples):
    for name in ("Cu_train.xyz.gz", "Cu_test.xyz.gz"):
        shutil.copy(Path(os.environ["MLPLUGINS_REFERENCE_DATA"]) / "mlearn" / name, examples)
    _shorten(examples / "08_uncertainty.yaml", train="Cu_train.xyz.gz@::12", n_sparse=60)
    _run("mlplugins train 08_uncertainty.yaml -o copper", examples)
    metrics = json.loads((examples / "copper" / "metrics.json").read_text())
    assert metrics["test"]["forces"]["mae_meV_per_A"] < 60.0
    deck = examples / "08_uncertainty.in"
    deck.write_text(deck.read_text().replace("run             500", "run             40"))
    for launcher in ("", "mpirun -np 2 "):
        _run(f"{launcher}lmp -in 08_uncertainty.in -log copper.log", examples)
        frames = read(examples / "melt.lammpstrj", index=":", format="lammps-dump-text")
        spread = [atoms.arrays["f_uncertainty"].max() for atoms in frames]
        assert len(spread) == 5
        assert spread[0] < min(spread[1:])  # the crystal is what the potential knows best
