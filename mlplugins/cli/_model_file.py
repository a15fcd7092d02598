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
        "--radial-tables",
        type=_knots,
        metavar="KNOTS",
        help="knots of the cubic tables in place of radial networks, or `off`: the exact networks; default: "
        "in float32 as many as make the error smaller than round-off, in float64 the exact networks",
    )
    parser.add_argument(
        "--structures", metavar="FILE", help="structures to measure the error of the tables on"
    )


def _knots(word: str) -> int | str:
    """A number of knots, or `off`.

    >>> _knots("1025"), _knots("off")
    (1025, 'off')
    """
    if word == "off":
        return word
    try:
        return int(word)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number of knots or 'off', got '{word}'") from None


def checked(args: argparse.Namespace, *names: str) -> Path:
    """The checkpoint, itself or under one of `names` in a folder; options that cannot work are refused before
    anything is read.

    Raises:
        BadInput: no such checkpoint, or structures for a file that will have no tables.
    """
    path = _common.existing_file(args.checkpoint, *names)
    if args.structures is not None:
        if args.radial_tables == "off" or (args.radial_tables is None and args.dtype == "float64"):
            raise BadInput(
                "--structures: only radial tables are measured on them, and this file will have none; name "
                "their knots (--radial-tables), or leave this out"
            )
        _common.existing_file(args.structures)
    return path


def tables(args: argparse.Namespace) -> RadialTables:
    """Radial tables as they are asked for."""
    from mlplugins.workflows.convert import RadialTables

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


def radial(record: dict[str, Any]) -> str | None:
    """The line on the radial functions of a file, in what a command found out about it."""
    from mlplugins.model_file.card import RADIAL
    from mlplugins.model_file.radial import RadialFunctions

    found = RadialFunctions.of(record.get(RADIAL))
    return None if found is None else str(found)


def print_radial(record: dict[str, Any]) -> None:
    """Print that line, if there is one."""
    text = radial(record)
    if text is not None:
        _common.console().print(text, soft_wrap=True, highlight=False)
