"""ASE: one plain Python script per run, which also continues an interrupted run."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import ase.io

from mlplugins.dynamics.output import largest, last_lines, last_table_step
from mlplugins.dynamics.run import Command, Run, Stage, threads
from mlplugins.errors import BadInput

START, SCRIPT = "start.extxyz", "run.py"
TEMPERATURE_COLUMN = 1
TRAJECTORY, LOG, SCREEN, FINISHED = "trajectory.traj", "md.log", "screen.out", "finished"

PRODUCTION = {
    ("nve", "csvr"): "VelocityVerlet(atoms, dt)",
    ("nvt", "csvr"): "Bussi(atoms, dt, temperature_K=T, taut=TAU * units.fs, rng=rng)",
    ("nvt", "nose-hoover"): "NoseHooverChainNVT(atoms, dt, temperature_K=T * nhc, tdamp=TAU * units.fs)",
    (
        "nvt",
        "langevin",
    ): "Langevin(atoms, dt, temperature_K=T, friction=1 / (TAU * units.fs), fixcm=False, rng=rng)",
    ("npt", "nose-hoover"): "mtk(TAU)",
}

REASON = {
    "nve": "NVE",
    "csvr": "stochastic velocity rescaling (Bussi 2007): canonical, and diffusion is left as in NVE",
    "nose-hoover": "Nose-Hoover chain: canonical and deterministic, diffusion as in NVE",
    "langevin": "Langevin: its friction slows diffusion; not for D or conductivity",
}

TEMPLATE = '''\
"""{title}; run with: python run.py (a run that was interrupted continues)"""

from pathlib import Path

import numpy as np
from ase import units
from ase.constraints import FixCartesian, FixCom
from ase.io import read
from ase.io.trajectory import Trajectory
from ase.md.bussi import Bussi
from ase.md.langevin import Langevin
from ase.md.nose_hoover_chain import IsotropicMTKNPT, NoseHooverChainNVT
from ase.md.verlet import VelocityVerlet

from mlplugins import MLCalculator
{watch_import}
MODEL = {model!r}
T, SEED = {temperature!r}, {seed!r}  # K
STEP = {timestep!r}  # fs
NPT_STEPS, EQUILIBRATION_STEPS, STEPS = {npt_steps}, {equilibration_steps}, {steps}
DUMP, LOG, CHECKPOINT = {dump_interval}, {log_interval}, {restart_interval}  # steps
TAU_EQUILIBRATION, TAU, TAU_PRESSURE = {tau_equilibration!r}, {tau!r}, {tau_pressure!r}  # fs
PRESSURE = {pressure!r} * units.GPa

atoms = read("start.extxyz")
atoms.calc = MLCalculator(MODEL, device={device!r})
{watch}dt = STEP * units.fs


def fixed():
    """The constraints of the file, which holds one for each atom, as one for each mask."""
    atoms_of = {{}}
    for constraint in atoms.constraints:
        atoms_of.setdefault(tuple(getattr(constraint, "mask", (True,) * 3)), []).extend(constraint.index)
    return [FixCartesian(indices, mask) for mask, indices in atoms_of.items() if any(mask)]


held = fixed() or [FixCom()]  # without fixed atoms the centre of mass rests
ndof = atoms.get_number_of_degrees_of_freedom()  # all that move; without fixed atoms 3N - 3
if not atoms.constraints:
    ndof -= 3
nhc = 1 - 1 / len(atoms)  # ASE's chains count 3N degrees of freedom, but the centre of mass rests: 3N - 3


def frames(name):
    """Frames already on disk; a frame cut by a kill does not count."""
    try:
        return Trajectory(name)
    except Exception:
        return []


def mtk(tau):
    atoms.set_constraint()
    return IsotropicMTKNPT(
        atoms,
        dt,
        temperature_K=T * nhc,
        pressure_au=PRESSURE,
        tdamp=tau * units.fs,
        pdamp=TAU_PRESSURE * units.fs,
    )


def go(make, name, every, first, steps):
    """Run `steps` steps (numbered from `first`), frames in `name`; continue from frames that are there."""
    done = frames(name)
    at = (len(done) - 1) * every if len(done) else 0
    if len(done):
        take(done[-1])
    if at >= steps:
        return
    global rng
    rng = np.random.default_rng([SEED, first + at])
    dynamics = make()
    with Trajectory(name, "a" if len(done) else "w", atoms, properties=["energy", "forces"]) as out:
        if not len(done):
            out.write()

        def report():
            if dynamics.nsteps == 0 and first + at > 0:
                return
            if dynamics.nsteps % every == 0 and dynamics.nsteps > 0:
                out.write()
            if dynamics.nsteps % LOG == 0 or dynamics.nsteps + at == steps:
                e, k = atoms.get_potential_energy(), atoms.get_kinetic_energy()
                temperature = k / (0.5 * units.kB * ndof)
                row = (first + at + dynamics.nsteps, temperature, e, e + k, atoms.cell.volume)
                print("%10d %10.3f %18.9f %18.9f %14.6f" % row, file=log, flush=True)

        dynamics.attach(report)
{watch_attach}        dynamics.run(steps - at)


def take(frame):
    """Continue from a frame: cell, positions (unwrapped) and momenta."""
    atoms.set_constraint()
    atoms.set_cell(frame.cell)
    atoms.set_positions(frame.positions)
    atoms.set_momenta(frame.get_momenta())


def langevin():
    atoms.set_constraint(held)
    return Langevin(
        atoms, dt, temperature_K=T, friction=1 / (TAU_EQUILIBRATION * units.fs), fixcm=False, rng=rng
    )


def production():
    # {reason}
    atoms.set_constraint(held)
    atoms.set_momenta(atoms.get_momenta())  # rounding
    atoms.set_constraint({constraint})
    return {production}


rng = np.random.default_rng(SEED)
if not atoms.has("momenta"):
    thermal = rng.standard_normal((len(atoms), 3)) * np.sqrt(atoms.get_masses()[:, None] * units.kB * T)
    atoms.set_constraint(held)
    atoms.set_momenta(thermal)  # fixed components, or the centre of mass, at rest
    kinetic = atoms.get_kinetic_energy() / (0.5 * units.kB * ndof * T)
    atoms.set_momenta(atoms.get_momenta() / np.sqrt(kinetic))  # exactly T, as LAMMPS and i-PI
atoms.set_constraint(held)
log = open("md.log", "a")
if not log.tell():
    print("#     step       T(K)     potential(eV)         total(eV)   volume(A^3)", file=log, flush=True)

started = len(frames("trajectory.traj")) > 0
if NPT_STEPS and not started:  # find the mean cell of the second half, then keep it
    go(lambda: mtk(TAU_EQUILIBRATION), "npt.traj", 10, 0, NPT_STEPS)
    volumes = [frame.get_volume() for frame in frames("npt.traj")]
    mean = np.mean(volumes[len(volumes) // 2 :])
    atoms.set_constraint()
    atoms.set_cell(atoms.cell * (mean / atoms.get_volume()) ** (1 / 3), scale_atoms=True)
if EQUILIBRATION_STEPS and not started:
    go(langevin, "equilibration.traj", CHECKPOINT, NPT_STEPS, EQUILIBRATION_STEPS)
go(production, "trajectory.traj", DUMP, NPT_STEPS + EQUILIBRATION_STEPS, STEPS)
Path("finished").write_text(str(STEPS))
'''


def require(run: Run) -> None:
    """Refuse combinations that ASE does not support."""
    config = run.config
    if run.atoms.constraints and config.ensemble == "nvt" and config.thermostat.kind == "nose-hoover":
        raise BadInput(
            f"engine ase, structure '{config.structure}' with fixed atoms: ASE's Nosé-Hoover chain takes no "
            "constraints; use thermostat.kind csvr or langevin, or engine lammps"
        )
    if (config.ensemble, config.thermostat.kind) not in PRODUCTION and config.ensemble != "nve":
        raise BadInput("engine ase, ensemble npt: ASE has it with thermostat.kind nose-hoover only")


def trajectories(run: Run) -> list[Path]:
    """The files that hold the production frames, in order."""
    return [run.directory / TRAJECTORY]


def write(run: Run) -> None:
    """Write the start structure and the script."""
    ase.io.write(run.directory / START, run.atoms, format="extxyz")
    (run.directory / SCRIPT).write_text(script(run), encoding="utf-8")
    (run.directory / "run.sh").write_text(
        f'#!/bin/sh\n# {run.title}\ncd "$(dirname "$0")"\nexport OMP_NUM_THREADS={run.config.threads}\n'
        f"exec {shlex.quote(sys.executable)} {SCRIPT}\n",
        encoding="utf-8",
    )


def next_stage(run: Run) -> Stage | None:
    """The script, until it has finished; it finds the point to continue from by itself."""
    if _is_finished(run):
        return None
    done = steps_done(run)
    how = f"from step {done}" if done else "from the start"
    return Stage(f"ase {how}", Command((sys.executable, SCRIPT), SCREEN, threads(run.config.threads)))


def steps_done(run: Run) -> int:
    """Last step in the log."""
    return run.config.total_steps if _is_finished(run) else last_table_step(run.directory / LOG)


def prune(run: Run) -> None:
    """Do nothing: the trajectory is the saved state."""


def has_state(run: Run) -> bool:
    """Whether there are production frames."""
    path = run.directory / TRAJECTORY
    return path.is_file() and path.stat().st_size > 0


def hottest(run: Run) -> float:
    """Highest temperature in the last part of the log, K."""
    return largest(run.directory / LOG, TEMPERATURE_COLUMN)


def failure(run: Run) -> list[str]:
    """Last output of the host."""
    return last_lines(run.directory / SCREEN, 3) + last_lines(run.directory / LOG, 1)


def _is_finished(run: Run) -> bool:
    """Whether the marker is there and holds the production steps (a lengthened run has more)."""
    path = run.directory / FINISHED
    text = path.read_text(encoding="utf-8").strip() if path.is_file() else ""
    return text.isdigit() and int(text) >= run.config.steps


def script(run: Run) -> str:
    """The Python script of a run."""
    config = run.config
    kind = "csvr" if config.ensemble == "nve" else config.thermostat.kind
    return TEMPLATE.format(
        **_watch(run),
        title=run.title,
        model=str(config.model),
        temperature=run.temperature,
        seed=run.seed,
        timestep=config.timestep,
        npt_steps=config.equilibration.npt_steps,
        equilibration_steps=config.equilibration.steps,
        steps=config.steps,
        dump_interval=config.dump_interval,
        log_interval=config.log_interval,
        restart_interval=config.restart_interval,
        tau_equilibration=config.equilibration.time_constant,
        tau=config.thermostat.time_constant,
        tau_pressure=config.barostat.time_constant,
        pressure=config.pressure,
        device=config.device,
        reason=REASON["nve" if config.ensemble == "nve" else kind],
        constraint="" if kind == "nose-hoover" else "held",
        production=PRODUCTION[config.ensemble, kind],
    )


def _watch(run: Run) -> dict[str, str]:
    """Lines of a script that watches the uncertainty; none of others."""
    given = run.watch
    if given is None:
        return {"watch_import": "", "watch": "", "watch_attach": ""}
    limits = f"stop_above={given.stop_above!r}, keep_above={given.keep_above!r}, probes={given.probes}"
    return {
        "watch_import": "from mlplugins.engines.ase.watching import Watcher\n",
        "watch": f"# {given.measure.words}, {given.measure.unit}, every {given.every} steps\n"
        f"watch = Watcher(atoms, {given.measure.key!r}, {given.every}, {limits})\n",
        "watch_attach": "        watch.begin(first + at)\n"
        "        dynamics.attach(lambda: watch.look(first + at + dynamics.nsteps))\n",
    }
