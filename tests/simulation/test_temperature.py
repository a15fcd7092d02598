"""The temperature that every thermostat of every host samples is the one asked for, counted in one way.

The hosts run the files that a campaign writes, with a potential of their own in place of the model's line:
none (free atoms, whose kinetic energy is thermalised within a few steps) or Lennard-Jones. Then
0.3 % at 52 atoms is several standard errors; three degrees of freedom too many or too few are 1.9 %.
"""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.constraints import FixAtoms
from ase.io import write

from mlplugins.dynamics.output import table
from mlplugins.model_file.card import ModelCard
from mlplugins.model_file.write import save
from mlplugins.models import lennard_jones
from mlplugins.simulation import campaign as campaigns
from mlplugins.simulation.config import load
from mlplugins.simulation.plan import plan

from .argon import write_campaign

pytestmark = pytest.mark.usefixtures("native_build", "warm_start")
ELEMENTS = ["Li", "P", "S", "Cl"]
T = 600.0
BESIDE = Path(sys.executable).parent


def free_atoms():
    """52 with the masses of Li6PS5Cl, on sites of a lattice."""
    positions = 10.0 * np.indices((4, 4, 4)).reshape(3, -1).T[:52]
    return Atoms("Li24P4S20Cl4", positions, cell=[40.0] * 3, pbc=True)


def crystal():
    atoms = bulk("Ar", "fcc", a=5.4, cubic=True).repeat((13, 1, 1))
    atoms.symbols = "Li24P4S20Cl4"
    atoms.rattle(0.05, seed=1)
    return atoms


def _write(folder, engine, atoms, temperature=T, **changes):
    settings = {"log_interval": 1, "equilibration": {"steps": 200, "time_constant": 50}, **changes}
    steps = settings["steps"]
    settings |= {"dump_interval": steps, "restart_interval": steps, "temperatures": [temperature]}
    path = write_campaign(folder, structure="start.traj", mobile=None, **settings)
    model = lennard_jones.Model(
        ELEMENTS, lennard_jones.Hyperparameters(epsilon=0.0104, sigma=3.4, cutoff=5.0)
    )
    save(model, folder / "model.pt", ModelCard("lennard-jones", ELEMENTS, [0.0] * 4), "float64")
    write(folder / "start.traj", atoms)
    campaign = plan(load(path, engine), folder / "out")
    campaigns.write(campaign)
    return campaign.runs[0]


def _lammps(run, pair="zero 3.0", coefficients="* *"):
    """Kinetic energies of the production, eV."""
    deck = run.directory / "in.lmp"
    text = re.sub(r"pair_style .*", f"pair_style {pair}", deck.read_text())
    text = re.sub(r"pair_coeff .*", f"pair_coeff {coefficients}", text)
    if pair.startswith("zero"):
        text = text.replace(
            "every 1 delay 0 check yes", "every 100 delay 0 check no"
        )  # nobody has neighbours
    deck.write_text(text)
    done = subprocess.run(
        [BESIDE / "lmp", "-in", deck.name, "-log", "none"], cwd=run.directory, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-1000:]
    rows = table(run.directory / "log.lammps")
    rows = rows[rows[:, 0] > run.config.equilibration.steps]
    kinetic = rows[:, 4] - rows[:, 3]
    np.testing.assert_allclose(
        rows[:, 2], 2 * kinetic / (units.kB * run.degrees_of_freedom), rtol=1e-4
    )  # the host counts as we do
    return kinetic


def _ipi(run):
    for stage in ("equilibration", "simulation"):
        path = run.directory / f"{stage}.xml"
        direct = "<ffdirect name='model'> <pes>dummy</pes> </ffdirect>"
        text = re.sub(r"<ffsocket.*?</ffsocket>", direct, path.read_text(), flags=re.DOTALL)
        assert text.count("kinetic_md{electronvolt}") == 1
        # the other columns, and the threads of each step, take three quarters of the time
        text = text.replace("<simulation ", "<simulation threading='False' ")
        path.write_text(re.sub(r"\[ step,.*?\]", "[ step, kinetic_md{electronvolt} ]", text, flags=re.DOTALL))
        done = subprocess.run(
            [sys.executable, BESIDE / "i-pi", path.name], cwd=run.directory, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-1000:]
    return table(run.directory / "simulation.out")[1:, 1]


FREE = """
from ase.calculators.calculator import Calculator

class Free(Calculator):
    implemented_properties = ["energy", "forces"]

    def get_property(self, name, atoms=None, allow_calculation=True):
        return np.zeros((len(atoms), 3)) if name == "forces" else 0.0
"""


def _ase(run, free=True):
    path = run.directory / "run.py"
    if free:
        text = path.read_text().replace("from mlplugins import MLCalculator", FREE)
        path.write_text(re.sub(r"MLCalculator\(.*\)", "Free()", text))
    done = subprocess.run([sys.executable, path.name], cwd=run.directory, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-1000:]
    rows = table(run.directory / "md.log")
    rows = rows[rows[:, 0] > run.config.equilibration.steps]
    kinetic = rows[:, 3] - rows[:, 2]
    np.testing.assert_allclose(
        rows[:, 1], 2 * kinetic / (units.kB * run.degrees_of_freedom), rtol=1e-4, atol=1e-3
    )
    return kinetic


def _check(kinetic, run, bound):
    """Mean temperature within `bound` of the wanted one, which has to be several standard errors."""
    temperatures = 2 * kinetic / (units.kB * run.degrees_of_freedom) / run.temperature
    blocks = temperatures[: len(temperatures) // 20 * 20].reshape(20, -1).mean(axis=1)
    error = blocks.std(ddof=1) / np.sqrt(20)
    assert error < bound / 2.5, (blocks.mean(), error)
    assert abs(blocks.mean() - 1) < bound, (blocks.mean(), error)


@pytest.mark.parametrize(("kind", "step", "tau"), [("csvr", 10.0, 10.0), ("langevin", 20.0, 40.0)])
def test_lammps(tmp_path, kind, step, tau):
    settings = {"timestep": step, "thermostat": {"kind": kind, "time_constant": tau}}
    run = _write(tmp_path, "lammps", free_atoms(), steps=40_000, **settings)
    _check(_lammps(run), run, 0.003)


def test_lammps_nose_hoover(tmp_path):
    settings = {"timestep": 2.0, "thermostat": {"kind": "nose-hoover", "time_constant": 50}}
    run = _write(tmp_path, "lammps", crystal(), 60.0, steps=40_000, **settings)
    _check(_lammps(run, "lj/cut 5.0", "* * 0.0104 3.4"), run, 0.006)


def test_langevin_of_unequal_masses(tmp_path):
    """1 and 99 u at 300 K: 7576 K with LAMMPS' `zero yes`."""
    atoms = free_atoms()[[0, 51]]
    atoms.set_masses([1.0, 99.0])
    settings = {"timestep": 20.0, "thermostat": {"kind": "langevin", "time_constant": 40}}
    run = _write(tmp_path, "lammps", atoms, 300.0, steps=40_000, **settings)
    assert run.degrees_of_freedom == 3
    _check(_lammps(run), run, 0.03)


@pytest.mark.parametrize(("kind", "step", "tau"), [("csvr", 10.0, 10.0), ("langevin", 20.0, 40.0)])
def test_lammps_with_most_atoms_fixed(tmp_path, kind, step, tau):
    """36 degrees of freedom; 153 counted instead would be 4 times too hot."""
    atoms = free_atoms()
    atoms.set_constraint(FixAtoms(range(40)))
    settings = {"timestep": step, "thermostat": {"kind": kind, "time_constant": tau}}
    run = _write(tmp_path, "lammps", atoms, steps=40_000, **settings)
    assert run.degrees_of_freedom == 36
    _check(_lammps(run), run, 0.008)


def _cases(csvr, langevin):
    """Step, time constant and steps of each thermostat, with 0 and with 40 atoms held."""
    return [
        ("csvr", *csvr, 0),
        ("langevin", *langevin, 40),
        pytest.param("csvr", *csvr, 40, marks=pytest.mark.exhaustive),
        pytest.param("langevin", *langevin, 0, marks=pytest.mark.exhaustive),
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "step", "tau", "steps", "held"), _cases((10.0, 10.0, 10_000), (20.0, 40.0, 15_000))
)
def test_ipi(tmp_path, kind, step, tau, steps, held):
    atoms = free_atoms()
    atoms.set_constraint(FixAtoms(range(held)) if held else None)
    settings = {"timestep": step, "thermostat": {"kind": kind, "time_constant": tau}}
    run = _write(tmp_path, "ipi", atoms, steps=steps, **settings)
    _check(_ipi(run), run, 0.009 if held else 0.005)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "step", "tau", "steps", "held"), _cases((10.0, 10.0, 12_000), (5.0, 50.0, 16_000))
)
def test_ase(tmp_path, kind, step, tau, steps, held):
    atoms = free_atoms()
    atoms.set_constraint(FixAtoms(range(held)) if held else None)
    settings = {"timestep": step, "thermostat": {"kind": kind, "time_constant": tau}}
    run = _write(tmp_path, "ase", atoms, steps=steps, **settings)
    bound = {("csvr", 0): 0.005, ("csvr", 40): 0.01, ("langevin", 0): 0.01, ("langevin", 40): 0.02}
    _check(_ase(run), run, bound[kind, held])


@pytest.mark.slow
def test_ase_nose_hoover(tmp_path):
    settings = {"timestep": 2.0, "thermostat": {"kind": "nose-hoover", "time_constant": 50}}
    run = _write(tmp_path, "ase", crystal(), 60.0, steps=6_000, **settings)
    _check(_ase(run, free=False), run, 0.015)
