"""Check that a model is physical and gives the same numbers in every engine: one table, exit code 0 or 1.

Example:
  mlplugins check model.pt Li6PS5Cl.extxyz molecule.xyz
  mlplugins check model.pt frames.extxyz@0 --engines ase,lammps --ranks 1 2 4 --json check.json
  mlplugins check model.pt crystal.cif --md              # also NVE in LAMMPS
  mlplugins check model.pt molecule.xyz --variant all    # each of several energies
  mlplugins check model.pt --against dft.extxyz --tolerance energy=0.001 forces=0.05

STRUCTURE is a file that ASE reads (all its frames) or FILE@INDEX. Checked: forces and stress against finite
differences; rotation, inversion, translation, permutation; isolated atoms; extensivity; smoothness at the
cutoff; drift of the energy in NVE; energy, forces and stress of every engine against ASE. An engine that is
not installed or not built fails; exclude it with --engines. JSON: {"passed", "checks": [{"name", "engine",
"ranks", "value", "limit", "unit", "passed", "structure", "note"}]}; a value that is null was not finite.

With --against, energies, forces and stress stored in files (by whatever package) are compared with those of
the model in every engine: largest and RMS differences, and whether a constant of the energy, a unit or a
sign explains them. Exit code 1 if one is beyond its --tolerance.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from mlplugins import engines, files
from mlplugins.cli import _comparison, _model_file
from mlplugins.cli._common import Items, add_json, add_keys, console
from mlplugins.errors import BadInput

if TYPE_CHECKING:
    from mlplugins.checks.result import Check
    from mlplugins.checks.suite import CheckReport


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `mlplugins check`."""
    parser.add_argument("model", help="model.pt (any metatomic model), or the folder of a run")
    parser.add_argument("structures", nargs="*", metavar="STRUCTURE", help="FILE (all frames) or FILE@INDEX")
    parser.add_argument(
        "--against",
        nargs="+",
        metavar="FILE",
        help="compare with labels in files that ASE reads; FILE@:100 takes the first 100 frames",
    )
    add_keys(parser)
    parser.add_argument(
        "--tolerance",
        nargs="+",
        action=Items,
        default=[],
        metavar="LABEL=X",
        help="largest difference that passes, eV/atom, eV/Å, eV/Å³, e.g. forces=0.01 (default: any)",
    )
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
        metavar="N",
        help="MPI ranks of LAMMPS (default: 1 2; with --against: 1)",
    )
    parser.add_argument(
        "--nve-steps",
        type=int,
        metavar="N",
        help="steps of the short NVE in ASE, 4 at least; 0: none (default: 200)",
    )
    parser.add_argument("--md", action="store_true", help="also 4 ps of NVE in LAMMPS (first structure)")
    parser.add_argument(
        "--unconstrained",
        action="store_true",
        help="only report rotations and inversion: for models, such as PET, that learn these symmetries",
    )
    parser.add_argument(
        "--variant",
        nargs="+",
        action=Items,
        default=[],
        metavar="NAME",
        help="which of several energies, one after another, or `all` (default: the first)",
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, … (default: %(default)s)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Check or compare, print one table, return 0 if all passed."""
    _require_one_task(args)
    out = console()
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as bar:
        task = bar.add_task("")

        def progress(text: str, step: int, total: int) -> None:
            bar.update(task, description=text, completed=step, total=total)

        work, show = (_comparison.work, _comparison.show) if args.against else (_work, _show)
        report: Any = work(args, progress)
    show(report, out)
    files.write_json(args.json, report.record())
    return 0 if report.passed else 1


def _require_one_task(args: argparse.Namespace) -> None:
    """Refuse what one of the two tasks would ignore."""
    if bool(args.structures) == bool(args.against):
        raise BadInput("expected either STRUCTURE … or --against FILE; see `mlplugins check --help`")
    of_checks = {
        "--nve-steps": args.nve_steps is not None,
        "--md": args.md,
        "--unconstrained": args.unconstrained,
    }
    others = {"--keys": args.keys, "--tolerance": args.tolerance}
    for option, given in (of_checks if args.against else others).items():
        if given:
            raise BadInput(
                f"{option} has no meaning {'with' if args.against else 'without'} --against: leave it out"
            )


def _work(args: argparse.Namespace, progress: Callable[[str, int, int], None]) -> CheckReport:
    from mlplugins.checks.suite import CheckOptions, check

    ranks, steps = tuple(args.ranks or (1, 2)), 200 if args.nve_steps is None else args.nve_steps
    variants = tuple(args.variant)
    options = CheckOptions(tuple(args.engines), ranks, steps, args.md, args.unconstrained, variants)
    return check(args.model, args.structures, options, args.device, progress)


def _show(report: CheckReport, out: Console) -> None:
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
    radial = _model_file.radial(model.record)
    if radial is not None:
        out.print(radial, soft_wrap=True, highlight=False)
    failed = [row for row in rows if not row.passed]
    for text in dict.fromkeys(f"{row.engine}: {row.note}" for row in failed if row.note):
        out.print(Text("FAILED", style="red"), text, soft_wrap=True)
    out.print(f"{len(rows) - len(failed)} of {len(rows)} checks passed")


def _cells(row: Check) -> tuple[str | Text, ...]:
    engine = row.engine if row.ranks == 1 else f"{row.engine} × {row.ranks}"
    return (
        f"  {row.name}",
        engine,
        f"{row.value:.1e}",
        f"{row.limit:.0e}",
        row.unit,
        _comparison.verdict(row.passed),
    )
