"""Trajectories → MSD, diffusion coefficient, ionic conductivity, Arrhenius law, with error bars and a report.

One run (several files of it are joined in order):
    mlplugins conductivity run.lammpstrj --species Li --charge 1 --temperature 600 --timestep 2

Several temperatures, in a YAML file:
    mlplugins conductivity runs.yaml -o conductivity

    species: Li
    charge: 1
    timestep: 2                      # fs; or in each run
    discard_ps: 5
    runs:
      - {files: [600K.lammpstrj], temperature: 600}
      - {files: [700K-a.xyz, 700K-b.xyz], temperature: 700}
      - {files: [800K.traj], temperature: 800, interval: 50}    # MD steps per frame

Two entries of the same temperature are independent runs and are pooled. Reads LAMMPS dumps, i-PI and
extended xyz, ASE .traj, XDATCAR, and with --topology the formats of MDAnalysis (XTC, TRR, DCD, NetCDF,
…); also compressed. Needs times: --timestep where the file holds step numbers only, --interval (MD steps
between frames) where it does not hold even those.

Several charged species (L_ij, transference numbers): --carriers Cl=-1, or carriers: {Cl: -1} in the YAML.
To compare with, in the YAML: experiment: [{temperature: 300, sigma: 2.4, label: …}] (mS/cm; D: in cm²/s) and
compare: [{results: other/results.json, label: …}]; how the runs were made: dynamics: {potential: …}.
A Green–Kubo check: green_kubo: FILE in a run of the YAML, a LAMMPS dump with vx vy vz or the file of a
fix ave/correlate of the charge current.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from mlplugins import files
from mlplugins.analysis.choices import DRIFTS, ESTIMATORS, HOP_LENGTH_A
from mlplugins.cli._common import Items, OutputFolder, add_json, console
from mlplugins.errors import BadInput

if TYPE_CHECKING:
    from mlplugins.analysis.report import Report
    from mlplugins.analysis.study import Config

CONFIG_SUFFIXES = (".yaml", ".yml")
WIDE = 120
"""Columns of a terminal from which on intervals stand beside their values."""
CAMPAIGN = "conductivity.yaml"
"""What `simulate` leaves in its folder."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    several: dict[str, Any] = {"nargs": "+", "action": Items}
    parser.add_argument(
        "trajectories",
        nargs="+",
        metavar="TRAJ",
        help="files of ONE run in order, or one YAML file, or the folder of `simulate`",
    )
    parser.add_argument("--species", help="element of the mobile ions, e.g. Li")
    parser.add_argument("--charge", type=float, help="charge of the mobile ion in e (default 1)")
    parser.add_argument("--temperature", type=float, metavar="K")
    parser.add_argument(
        "--timestep", type=float, metavar="FS", help="MD time step, where the file holds no times"
    )
    parser.add_argument(
        "--interval", type=int, metavar="STEPS", help="MD steps between frames; overrides the file"
    )
    parser.add_argument("--type-map", **several, metavar="EL", help="elements of the LAMMPS types in order")
    parser.add_argument("--discard-ps", type=float, metavar="PS", help="equilibration left out (default 0)")
    parser.add_argument(
        "--fit-window", **several, item=float, metavar="PS", help="its ends (default: chosen)"
    )
    parser.add_argument("--fit", choices=ESTIMATORS, help="generalised (default) or ordinary least squares")
    parser.add_argument(
        "--drift", choices=DRIFTS, help="whose centre of mass is held fixed (default framework)"
    )
    parser.add_argument(
        "--hop-length", type=float, metavar="A", help=f"for the count of hops (default {HOP_LENGTH_A:g})"
    )
    parser.add_argument("--carriers", **several, metavar="EL=CHARGE", help="other mobile charged species")
    parser.add_argument(
        "--sites", metavar="FILE", help="fractional coordinates of sites, and names (default: found)"
    )
    parser.add_argument("--topology", metavar="FILE", help="elements for formats of MDAnalysis")
    parser.add_argument(
        "--viscosity", type=float, metavar="MPA_S", help="of a liquid: finite-size correction (Yeh–Hummer)"
    )
    parser.add_argument(
        "--volume",
        type=float,
        metavar="A3",
        help="of the material, Å³, if not that of the cell (slabs)",
    )
    parser.add_argument(
        "--kinisi", action="store_true", default=None, help="sample the Bayesian check with kinisi (slower)"
    )
    parser.add_argument("-o", "--output", type=OutputFolder, default="conductivity", metavar="DIR")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Study the runs, print a table."""
    from mlplugins.analysis.study import conductivity

    screen = console()
    report = conductivity(_configuration(args), args.output, partial(_progress, screen))
    files.write_json(args.json, report.as_json())
    _print(screen, report)
    screen.print(f"report: {args.output / 'report.html'}", soft_wrap=True)
    return 0


def _configuration(args: argparse.Namespace) -> Config:
    """The configuration from the YAML file or from the options; options win over the file."""
    from mlplugins.analysis.study import load, read

    names = (
        "species",
        "charge",
        "timestep",
        "interval",
        "type_map",
        "discard_ps",
        "fit_window",
        "fit",
        "drift",
        "hop_length",
        "sites",
        "topology",
        "viscosity",
        "volume",
        "kinisi",
    )
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if args.carriers is not None:
        given["carriers"] = _charges(args.carriers)
    named = [str(files.in_folder(name, CAMPAIGN)) for name in args.trajectories]
    configs = [name for name in named if Path(name).suffix in CONFIG_SUFFIXES]
    if not configs:
        for name in ("species", "temperature"):
            if getattr(args, name) is None:
                raise BadInput(
                    f"--{name} is missing, e.g. --species Li --charge 1 --temperature 600 --timestep 2"
                )
        entry = {"files": args.trajectories, "temperature": args.temperature}
        return load({**given, "runs": [entry]}, "command line")
    if len(args.trajectories) > 1:
        raise BadInput(f"{configs[0]} is a configuration; give it alone, its 'runs' name the trajectories")
    if args.temperature is not None:
        raise BadInput("--temperature cannot be given with a YAML file; each of its runs has its own")
    return load({**read(Path(configs[0])), **given}, configs[0])


def _charges(words: Sequence[str]) -> dict[str, float]:
    charges = {}
    for word in words:
        name, equals, charge = word.partition("=")
        try:
            charges[name] = float(charge)
        except ValueError as error:
            raise BadInput(f"--carriers {word}: expected ELEMENT=CHARGE, e.g. Cl=-1") from error
        if not equals or charges[name] == 0:
            raise BadInput(f"--carriers {word}: expected ELEMENT=CHARGE with a charge, e.g. Cl=-1")
    return charges


@contextmanager
def _progress(screen: Console, title: str) -> Iterator[Callable[[float, int], None]]:
    """A bar for the reading of one run."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[frames]} frames", markup=False),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=screen, transient=True) as bar:
        task = bar.add_task(title, total=1.0, frames=0)
        yield lambda fraction, frames: bar.update(task, completed=fraction, frames=frames)


def _print(screen: Console, report: Report) -> None:
    """The table and what else is said; every number is in one piece on 80 columns."""
    from mlplugins.analysis.report import headline, not_quotable, observable_lines

    screen.print(_table(report, narrow=screen.width < WIDE))

    def say(text: str, style: str | None = None) -> None:
        screen.print(text, style=style, soft_wrap=True, highlight=False, markup=False)

    for text in [*observable_lines(report.runs), *headline(report)]:
        say(text)
    if mark := not_quotable(report):
        say(mark, "bold yellow")
    for text in report.warnings:
        say(f"warning: {text}", "yellow")


def _table(report: Report, narrow: bool) -> Table:
    from mlplugins.analysis.numbers import conductivity_unit, parts, unit_of

    runs = report.runs
    d = unit_of((run.diffusion.tracer for run in runs), "cm²/s")
    sigma = conductivity_unit(value for run in runs for value in (run.sigma_tracer, run.sigma_collective))
    columns = {
        d.heads("D*"): [parts(run.diffusion.tracer, d) for run in runs],
        sigma.heads("σ tracer"): [parts(run.sigma_tracer, sigma) for run in runs],
        sigma.heads("σ collective"): [parts(run.sigma_collective, sigma) for run in runs],
        "Haven ratio": [parts(run.diffusion.haven) for run in runs],
    }
    between = "\n" if narrow else " "
    table = Table(
        title=f"{report.species}: value [95 % interval]",
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("T (K)", justify="right")
    for head in columns:
        table.add_column(head.replace(" (", f"{between}("), justify="right", no_wrap=True)
    table.add_column(f"fit{between}(ps)", justify="right", no_wrap=True)
    for row, run in enumerate(runs):
        window = f"{run.diffusion.window.low_ps:.3g}–{run.diffusion.window.high_ps:.3g}"
        cells = [between.join(filter(None, cells[row])) for cells in columns.values()]
        table.add_row(f"{run.temperature_k:g}", *cells, window)
    return table
