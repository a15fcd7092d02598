"""A small engine: velocity Verlet with an optional Langevin thermostat, in a process of its own."""

import json
import sys
from pathlib import Path

import ase.io

from mlplugins.dynamics.output import largest, last_lines, last_table_step
from mlplugins.dynamics.run import Command, Stage, threads
from mlplugins.dynamics.start import thermal
from mlplugins.engines.base import Abilities, Way
from mlplugins.engines.findings import OK, Finding
from mlplugins.errors import BadInput, MlpluginsError

TITLE = "Verlet"
ABILITIES = Abilities(thermostats=("langevin",), couplings=("iso",))
PROGRAM = Path(__file__).parent / "program.py"


def require(run):
    if run.config.needs_pressure or run.fixed.any():
        raise BadInput("engine verlet: no barostat, no fixed atoms")


def write(run):
    config = run.config
    atoms = run.atoms if run.atoms.has("momenta") else thermal(run.atoms, run.temperature, run.seed)
    ase.io.write(run.directory / "start.extxyz", atoms)
    friction = 0.0 if config.ensemble == "nve" else 1 / config.thermostat.time_constant
    settings = {
        "model": str(config.model),
        "temperature": run.temperature,
        "seed": run.seed,
        "timestep": config.timestep,
        "friction": friction,
        "first": config.equilibration.steps,
        "steps": config.total_steps,
        "dump_interval": config.dump_interval,
        "log_interval": config.log_interval,
    }
    (run.directory / "input.json").write_text(json.dumps(settings))


def next_stage(run):
    if steps_done(run) >= run.config.total_steps:
        return None
    program = Command((sys.executable, str(PROGRAM)), "screen.out", threads(run.config.threads))
    return Stage(f"verlet from step {steps_done(run)}", program)


def steps_done(run):
    return last_table_step(run.directory / "log")


def prune(run):
    """Nothing: one state is kept."""


def has_state(run):
    return (run.directory / "state.npz").is_file()


def hottest(run):
    return largest(run.directory / "log", 1)


def failure(run):
    return last_lines(run.directory / "screen.out", 3)


def trajectories(run):
    return [run.directory / "trajectory.xyz"]


def ways(model, structures, ranks):
    return [Way(tuple(range(len(structures))))]


def single_points(model, structures, way):
    found = []
    for atoms in structures:
        try:
            found += model.evaluate([atoms])
        except MlpluginsError as error:
            found.append(error)
    return found


def diagnose():
    yield Finding("Verlet", OK, "part of the tests")
