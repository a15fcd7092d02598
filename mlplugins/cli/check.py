"""Is a model physical, and the same in ASE, LAMMPS (1 and 2 ranks) and i-PI? One table, exit code 0 or 1.

Example:
  mlplugins check model.pt Li6PS5Cl.extxyz molecule.xyz
  mlplugins check model.pt frames.extxyz@0 --engines ase,lammps --ranks 1 2 4 --json check.json
  mlplugins check model.pt crystal.cif --md              # also NVE in LAMMPS

STRUCTURE is a file that ASE reads (all its frames) or FILE@INDEX. Checked: forces and stress against finite
differences; rotation, inversion, translation, permutation; isolated atoms; extensivity; smoothness at the
cutoff; drift of the energy in NVE; energy, forces and stress of every engine against ASE. An engine that is
not installed or not built fails; leave it out with --engines. JSON: {"passed", "checks": [{"name", "engine",
"ranks", "value", "limit", "unit", "passed", "structure", "note"}]}; a value that is null was not finite.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ase import Atoms
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from mlplugins import files
from mlplugins.checks.md import NVE, md_checks
from mlplugins.checks.parity import ENGINES, parity
from mlplugins.checks.physics import PhysicsChecks
from mlplugins.checks.result import Check
from mlplugins.cli._common import add_json, console
from mlplugins.errors import BadInput, RunFailed, nearest
from mlplugins.model_file import artifact
from mlplugins.model_file.artifact import Artifact
from mlplugins.structures import extxyz

Named = tuple[str, Atoms]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `mlplugins check`."""
    parser.add_argument("model", help="model.pt of mlplugins, or any metatomic model")
    parser.add_argument("structures", nargs="+", metavar="STRUCTURE", help="FILE (all frames) or FILE@INDEX")
    parser.add_argument("--engines", default=",".join(ENGINES), help="comma-separated (default: %(default)s)")
    parser.add_argument(
        "--ranks", type=int, nargs="+", default=[1, 2], metavar="N", help="MPI ranks of LAMMPS (default: 1 2)"
    )
    parser.add_argument(
        "--nve-steps", type=int, default=200, metavar="N", help="steps of the short NVE in ASE (default: 200)"
    )
    parser.add_argument("--md", action="store_true", help="also 4 ps of NVE in LAMMPS (first structure)")
    parser.add_argument(
        "--unconstrained",
        action="store_true",
        help="report rotations and inversion without judging them: for models, such as PET, that learn them",
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, … (default: %(default)s)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Check, print one table, return 0 if all passed."""
    engines = _engines(args.engines)
    if min(args.ranks) < 1 or args.nve_steps < 0:
        raise BadInput("--ranks: expected numbers from 1, --nve-steps: from 0")
    if args.md and "lammps" not in engines:
        raise BadInput("--md runs in LAMMPS: add lammps to --engines")
    structures = [named for source in args.structures for named in _read(source)]
    model = artifact.load(args.model, device=args.device)
    for label, atoms in structures:
        unknown = sorted(set(atoms.get_chemical_symbols()) - set(model.elements))
        if unknown:
            raise BadInput(
                f"{label}: the model does not know {', '.join(unknown)}; it knows {', '.join(model.elements)}"
            )
    out = console()
    rows = _check(model, structures, engines, args, out)
    passed = all(row.passed for row in rows)
    _print(rows, model, out)
    files.write_json(args.json, {"passed": passed, "checks": [row.record() for row in rows]})
    return 0 if passed else 1


def _check(
    model: Artifact, structures: list[Named], engines: list[str], args: argparse.Namespace, out: Console
) -> list[Check]:
    rows: list[Check] = []
    ranks = [1] if model.molecular else args.ranks  # a whole molecule refuses more
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    runs = len([count for count in ranks if count > 1]) * 2 + 1
    total = len(structures) * (7 + runs * ("lammps" in engines)) + 2 * ("ipi" in engines) + 1 + args.md
    with Progress(*columns, console=out, transient=True) as bar:
        task = bar.add_task("", total=total)

        def report(what: str) -> None:
            bar.update(task, description=what)
            bar.advance(task)

        for label, atoms in structures:
            rows += _physics(model, (label, atoms), args, report)
        rows += parity(model, structures, engines, ranks, report)
        if args.md:
            report("NVE in LAMMPS")
            rows += md_checks(model, *structures[0], ranks, NVE())
    return rows


def _physics(
    model: Artifact, named: Named, args: argparse.Namespace, report: Callable[[str], None]
) -> list[Check]:
    label, atoms = named
    try:
        suite = PhysicsChecks(model, atoms, label, args.unconstrained)
    except RunFailed as error:
        return [Check("evaluation", "ase", 1, np.nan, 0.0, "", label, str(error))]
    return suite.run(args.nve_steps, lambda name: report(f"{label}: {name}"))


def _engines(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in ENGINES:
            raise BadInput(f"--engines: unknown engine '{name}': {nearest(name, ENGINES)}")
    if not names:
        raise BadInput(f"--engines: expected some of {', '.join(ENGINES)}")
    return names


def _read(source: str) -> list[Named]:
    name, at, index = source.rpartition("@")
    path = Path(name if at else source)
    if at and not index.lstrip("-").isdigit():
        path, at = Path(source), ""
    if not path.is_file():
        raise BadInput(f"no such structure file: '{path}'")
    try:
        frames = extxyz.read(path, index if at else ":")
    except BadInput:
        raise
    except Exception as error:  # ASE's readers raise whatever the format's parser raises
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise BadInput(f"'{source}': ASE cannot read it ({reason}); expected FILE or FILE@INDEX") from error
    frames = frames if isinstance(frames, list) else [frames]
    if not frames:
        raise BadInput(f"'{source}' holds no structure")
    if at:
        return [(f"{path.name}@{index}", frames[0])]
    return [(path.name if len(frames) == 1 else f"{path.name}@{k}", atoms) for k, atoms in enumerate(frames)]


def _print(rows: list[Check], model: Artifact, out: Console) -> None:
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
