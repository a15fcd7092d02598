"""Molecular dynamics in LAMMPS, i-PI or ASE: write native input files and run them; can be resumed.

Example:
  mlplugins simulate md.yaml -o runs             # then: mlplugins conductivity runs/conductivity.yaml
  mlplugins simulate md.yaml --engine ipi
  mlplugins simulate md.yaml --write-only        # only the input files, to edit and run by hand

md.yaml:
  model: model.pt
  structure: Li6PS5Cl.extxyz       # or FILE@INDEX; any file that ASE reads
  velocities: auto                 # auto: the structure's own if it has any | structure | thermal
  engine: lammps                   # lammps | ipi | ase, or several: [lammps, ipi]
  ensemble: nvt                    # nve | nvt | npt
  temperatures: [700, 850, 1000]   # K
  seeds: [1]
  timestep: 2.0                    # fs; with mts the outer step
  mts: {inner: direct, every: 4}   # multiple time steps (lammps, ipi): direct | student.pt
  equilibration: {steps: 1000, npt_steps: 0}    # npt_steps: find the mean cell first
  steps: 20000                     # production
  dump_interval: 10                # steps between frames
  thermostat: {kind: csvr, time_constant: 100}  # csvr | nose-hoover | langevin; fs
  barostat: {coupling: iso, time_constant: 1000}      # iso | aniso | flexible
  beads: 1                         # path integrals (i-PI): with csvr PILE-G, with langevin PILE-L
  pressure: 0.0                    # GPa
  stop_above: 0.5                  # uncertainty on an atom that ends a run: eV/Å (eV of models without that)
  keep_above: 0.2                  # above it frames are kept in a file of their own
  watch_interval: 10               # steps between looks (default: dump_interval); probes: 8
  supercell: [1, 1, 1]
  mobile: {species: Li, charge: 1}              # for conductivity.yaml
  ranks: 1                         # MPI ranks of one run (LAMMPS); threads: 1 of each
  parallel: 1                      # runs at the same time
  cluster: {provider: slurm, jobs: 4, workers: 1, options: {partition: P, walltime: "24:00:00"}}   # by Parsl

The same command continues a campaign that was killed and skips runs that are finished; with larger `steps` it
lengthens them, with a higher `stop_above` it continues those that were stopped (exit code 3). Fixed atoms,
masses and velocities of the structure are kept, or refused by name.
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from mlplugins import engines, files
from mlplugins.cli._common import OutputFolder, add_json, console
from mlplugins.errors import RunStopped

if TYPE_CHECKING:
    from mlplugins.dynamics.run import Run
    from mlplugins.simulation.driving import RunOutcome
    from mlplugins.simulation.plan import Campaign

LINE_EVERY_S = 30.0  # between lines of progress where there is no terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `mlplugins simulate`."""
    parser.add_argument("config", type=Path, help="campaign, YAML (see above)")
    parser.add_argument("--engine", choices=engines.available(), help="instead of the file's engine")
    parser.add_argument("--write-only", action="store_true", help="write the input files, run nothing")
    parser.add_argument(
        "-o", "--output", type=OutputFolder, default="simulation", metavar="DIR", help="default: %(default)s"
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Plan, write, run; 1 if a run failed, else 3 if one was stopped."""
    from mlplugins.simulation import campaign as campaigns
    from mlplugins.simulation.config import load_all
    from mlplugins.simulation.plan import plan

    out = console()
    command = _command(args)
    planned = [
        replace(plan(config, args.output.resolve()), command=command)
        for config in load_all(args.config, args.engine)
    ]
    for note in dict.fromkeys(note for campaign in planned for note in campaign.notes):
        out.print(f"note: {note}", soft_wrap=True, highlight=False)
    directory = str(planned[0].directory if len(planned) == 1 else planned[0].directory.parent)
    if args.write_only:
        for campaign in planned:
            engine = campaigns.write(campaign)
            for item in campaign.runs:
                begun = "begun: the same command without --write-only continues it (run.sh would begin anew)"
                how = begun if engine.has_state(item) else "sh run.sh"
                out.print(f"{item.directory}: {how}", soft_wrap=True)
        campaigns.write_together(planned)
        names = [item.name for campaign in planned for item in campaign.runs]
        files.write_json(args.json, {"directory": directory, "runs": names})
        return 0
    outcomes = []
    with progress_of(planned, out) as show:
        for campaign, ended in campaigns.run_all(planned, show):
            _print(campaign, ended, out)
            outcomes += ended
    files.write_json(args.json, {"directory": directory, "runs": [asdict(item) for item in outcomes]})
    states = {item.state for item in outcomes}
    return (
        RunStopped.exit_code
        if states <= {"finished", "stopped"} and "stopped" in states
        else (0 if states == {"finished"} else 1)
    )


def _command(args: argparse.Namespace) -> str:
    engine = ["--engine", args.engine] if args.engine else []
    return shlex.join(["mlplugins", "simulate", str(args.config), *engine, "-o", str(args.output)])


def drive(campaign: Campaign, out: Console) -> list[RunOutcome]:
    """Run a campaign and show its progress."""
    from mlplugins.simulation import campaign as campaigns

    with progress_of([campaign], out) as show:
        return campaigns.run(campaign, show)


@contextlib.contextmanager
def progress_of(planned: Sequence[Campaign], out: Console) -> Iterator[Callable[[Run, int], None]]:
    """Progress of the campaigns: a bar for each, and one for each of its runs."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps, left"),
        TimeRemainingColumn(),
    )
    campaign_of = {run.directory: campaign for campaign in planned for run in campaign.runs}
    with Progress(*columns, console=out, transient=not out.is_terminal) as bars:
        printed = time.monotonic()
        tasks: dict[Path, TaskID] = {}
        steps: dict[Path, int] = {}

        def show(item: Run, step: int) -> None:
            nonlocal printed
            campaign, length = campaign_of[item.directory], item.config.total_steps
            if campaign.directory not in tasks:
                what = f"{len(campaign.runs)} runs, {campaign.config.engine}"
                tasks[campaign.directory] = bars.add_task(what, total=length * len(campaign.runs))
            if item.directory not in tasks:
                tasks[item.directory] = bars.add_task(f"  {item.name}", total=length, completed=step)
            total = tasks[campaign.directory]
            steps[item.directory] = step
            bars.update(tasks[item.directory], completed=step)
            bars.update(total, completed=sum(steps.get(run.directory, 0) for run in campaign.runs))
            if not out.is_terminal and time.monotonic() - printed > LINE_EVERY_S:
                printed = time.monotonic()
                task = bars.tasks[total]
                left = "?" if task.time_remaining is None else f"{task.time_remaining:.0f}"
                out.print(f"{task.completed:.0f} of {task.total:.0f} steps, {left} s left")

        yield show


def _print(campaign: Campaign, outcomes: list[RunOutcome], out: Console) -> None:
    from mlplugins.simulation.campaign import CONDUCTIVITY

    table = Table("run", "state", "steps")
    for item in outcomes:
        colour = {"finished": "green", "stopped": "yellow"}.get(item.state, "red")
        table.add_row(item.run, Text(item.state, style=colour), f"{item.step} of {item.total_steps}")
    out.print(table)
    for item in outcomes:
        if item.state in ("failed", "stopped"):
            colour = "red" if item.state == "failed" else "yellow"
            out.print(Text(item.run, style=colour), f": {item.message}", sep="", soft_wrap=True)
            for line in item.last_lines:
                out.print(f"    {line}", soft_wrap=True)
    ready = campaign.directory.parent / CONDUCTIVITY
    if all(item.state in ("finished", "stopped") for item in outcomes):
        out.print(f"next: mlplugins conductivity {ready}", soft_wrap=True)
