"""Check that a model is physical and gives the same numbers in every engine: one table, exit code 0 or 1.

Example:
  mlplugins check model.pt Li6PS5Cl.extxyz molecule.xyz
  mlplugins check model.pt frames.extxyz@0 --engines ase,lammps --ranks 1 2 4 --json check.json
  mlplugins check model.pt crystal.cif --md              # also NVE in LAMMPS

STRUCTURE is a file that ASE reads (all its frames) or FILE@INDEX. Checked: forces and stress against finite
differences; rotation, inversion, translation, permutation; isolated atoms; extensivity; smoothness at the
cutoff; drift of the energy in NVE; energy, forces and stress of every engine against ASE. An engine that is
not installed or not built fails; exclude it with --engines. JSON: {"passed", "checks": [{"name", "engine",
"ranks", "value", "limit", "unit", "passed", "structure", "note"}]}; a value that is null was not finite.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from mlplugins import engines, files
from mlplugins.cli._common import Items, add_json, console

if TYPE_CHECKING:
    from mlplugins.checks.result import Check
    from mlplugins.checks.suite import CheckReport


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `mlplugins check`."""
    parser.add_argument("model", help="model.pt (any metatomic model), or the folder of a run")
    parser.add_argument("structures", nargs="+", metavar="STRUCTURE", help="FILE (all frames) or FILE@INDEX")
    parser.add_argument(
        "--engines",
        nargs="+",
        action=Items,
        default=engines.available(),
        metavar="NAME",
        help=f"default: {' '.join(engines.available())}",
    )
    parser.add_argument(
        "--ranks",
        nargs="+",
        action=Items,
        item=int,
        default=[1, 2],
        metavar="N",
        help="MPI ranks of LAMMPS (default: 1 2)",
    )
    parser.add_argument(
        "--nve-steps", type=int, default=200, metavar="N", help="steps of the short NVE in ASE (default: 200)"
    )
    parser.add_argument("--md", action="store_true", help="also 4 ps of NVE in LAMMPS (first structure)")
    parser.add_argument(
        "--unconstrained",
        action="store_true",
        help="only report rotations and inversion: for models, such as PET, that learn these symmetries",
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, … (default: %(default)s)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Check, print one table, return 0 if all passed."""
    from mlplugins.checks.suite import CheckOptions, check

    options = CheckOptions(
        tuple(args.engines), tuple(args.ranks), args.nve_steps, args.md, args.unconstrained
    )
    out = console()
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as bar:
        task = bar.add_task("")
        report = check(
            args.model,
            args.structures,
            options,
            args.device,
            lambda text, step, total: bar.update(task, description=text, completed=step, total=total),
        )
    _print(report, out)
    files.write_json(args.json, report.record())
    return 0 if report.passed else 1


def _print(report: CheckReport, out: Console) -> None:
    rows, model = report.rows, report.model
    table = Table(title=f"{model.path.name}, {model.dtype}", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("check")
    table.add_column("engine", no_wrap=True)
    for column in ("value", "limit"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    table.add_column("", no_wrap=True)
    for label in dict.fromkeys(row.structure for row in rows):
        table.add_section()
        table.add_row(Text(label, style="bold"))
        for row in rows:
            if row.structure == label:
                table.add_row(*_cells(row))
    out.print(table)
    failed = [row for row in rows if not row.passed]
    for text in dict.fromkeys(f"{row.engine}: {row.note}" for row in failed if row.note):
        out.print(Text("FAILED", style="red"), text, soft_wrap=True)
    out.print(f"{len(rows) - len(failed)} of {len(rows)} checks passed")


def _cells(row: Check) -> tuple[str | Text, ...]:
    engine = row.engine if row.ranks == 1 else f"{row.engine} × {row.ranks}"
    verdict = Text("passed", style="green") if row.passed else Text("FAILED", style="red")
    return f"  {row.name}", engine, f"{row.value:.1e}", f"{row.limit:.0e}", row.unit, verdict
