"""Options of the commands that write a model.pt from a checkpoint."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlplugins.cli import _common
from mlplugins.errors import BadInput

if TYPE_CHECKING:
    from mlplugins.workflows.convert import Changes, RadialTables


def add_arguments(parser: argparse.ArgumentParser, dtype: str | None, default: str) -> None:
    """Output, precision (`dtype` by default, described by `default`), portability, radial tables."""
    parser.add_argument(
        "-o", "--output", type=_common.OutputFile, default="model.pt", help="default: model.pt"
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "float64"),
        default=dtype,
        help=f"precision of the engines; default: {default}",
    )
    parser.add_argument(
        "--portable",
        action="store_true",
        help="without the ops of mlplugins, for programs that do not know them",
    )
    parser.add_argument(
        "--radial-tables", type=int, metavar="KNOTS", help="cubic radial tables, e.g. 1025 knots (not exact)"
    )
    parser.add_argument(
        "--structures", metavar="FILE", help="structures to measure the error of --radial-tables on"
    )


def checked(args: argparse.Namespace, *names: str) -> Path:
    """The checkpoint, itself or under one of `names` in a folder; options that cannot work are refused before
    anything is read.

    Raises:
        BadInput: no such checkpoint, or structures for tables that are not asked for.
    """
    path = _common.existing_file(args.checkpoint, *names)
    if args.structures is not None:
        if args.radial_tables is None:
            raise BadInput(
                "--structures: only --radial-tables are measured on them; add it, or leave this out"
            )
        _common.existing_file(args.structures)
    return path


def tables(args: argparse.Namespace) -> RadialTables | None:
    """Radial tables as they are asked for."""
    from mlplugins.workflows.convert import RadialTables

    if args.radial_tables is None:
        return None
    return RadialTables(args.radial_tables, args.structures or ())


def add_terms(parser: argparse.ArgumentParser) -> None:
    """Terms beside the model: `--zbl`, `--d3`."""
    parser.add_argument(
        "--zbl",
        nargs="*",
        type=float,
        metavar="Å",
        help="add the screened nuclear repulsion (ZBL) of LAMMPS' pair_style zbl INNER OUTER (Å); without "
        "numbers it ends at 0.7 of the sum of the covalent radii of each pair",
    )
    parser.add_argument(
        "--d3",
        nargs="+",
        metavar="NAME",
        help="add D3 dispersion: functional and damping (pbe-bj, r2scan-bj, revpbe-zero), and the cutoff of "
        "its pairs in Å if it is not to be 12",
    )


def changes(args: argparse.Namespace) -> Changes:
    """Radial tables and terms as they are asked for."""
    from mlplugins.workflows.convert import Changes

    return Changes(tables(args), **terms(args))


def terms(args: argparse.Namespace) -> dict[str, Any]:
    """The options of `add_terms` that were given, as `Changes` and the section `add` take them."""
    given = {"zbl": args.zbl or (None if args.zbl is None else True), "d3": args.d3}
    return {name: value for name, value in given.items() if value is not None}


def print_tables(record: dict[str, Any]) -> None:
    """Print the error that the tables introduce, if there are any."""
    from mlplugins.model_file.tables import TableError

    if "radial_tables" in record:
        error = TableError(**record["radial_tables"])
        _common.console().print(str(error), soft_wrap=True)
