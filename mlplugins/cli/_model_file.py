"""Options of the commands that write a model.pt from a checkpoint."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlplugins.cli import _common
from mlplugins.errors import BadInput

if TYPE_CHECKING:
    from mlplugins.workflows.convert import RadialTables


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


def print_tables(record: dict[str, Any]) -> None:
    """Print the error that the tables introduce, if there are any."""
    from mlplugins.model_file.tables import TableError

    if "radial_tables" in record:
        error = TableError(**record["radial_tables"])
        _common.console().print(str(error), soft_wrap=True)
