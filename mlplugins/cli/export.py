"""Write the model of a native checkpoint as a model.pt.

example:
  mlplugins export runs/li6ps5cl/checkpoint.ckpt -o model.pt --dtype float64

A checkpoint of an unfinished run works too: the best averaged weights so far are exported.
`--radial-tables` replaces the radial networks by cubic tables, which is faster and never exact: the error it
makes is measured on rattled crystals of the model's elements (or on --structures), printed and stored.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

import ase.io

from mlplugins.checkpoints import native
from mlplugins.cli import _common
from mlplugins.export.metatomic import DTYPES, Description, save
from mlplugins.export.tables import tabulated
from mlplugins.models.base import Potential


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `mlplugins export`."""
    parser.add_argument("checkpoint", help="checkpoint.ckpt of mlplugins train")
    parser.add_argument("-o", "--output", type=Path, default=Path("model.pt"), help="default: model.pt")
    parser.add_argument(
        "--dtype", choices=sorted(DTYPES), help="precision of the engines; default: as trained"
    )
    parser.add_argument(
        "--portable",
        action="store_true",
        help="free of mlplugins' ops, for engines that know nothing of them",
    )
    add_tables(parser)
    _common.add_json(parser)


def add_tables(parser: argparse.ArgumentParser) -> None:
    """Arguments of radial tables, for all commands that write a model."""
    parser.add_argument(
        "--radial-tables", type=int, metavar="KNOTS", help="cubic radial tables, e.g. 1025 knots (not exact)"
    )
    parser.add_argument(
        "--structures", metavar="FILE", help="structures to measure the error of --radial-tables on"
    )


def tabulate(potential: Potential, elements: list[str], args: argparse.Namespace) -> tuple[Potential, dict]:
    """The potential, with tables if they are asked for, and their record for the file."""
    if args.radial_tables is None:
        return potential, {}
    structures = ase.io.read(_common.existing_file(args.structures), ":") if args.structures else []
    potential, error = tabulated(potential, elements, args.radial_tables, structures)
    _common.console().print(str(error))
    return potential, {"radial_tables": asdict(error)}


def run(args: argparse.Namespace) -> int:
    """Export; 0 if the file was written."""
    checkpoint = native.read(_common.existing_file(args.checkpoint))
    dtype = args.dtype or checkpoint.details["configuration"]["training"]["dtype"]
    potential, tables = tabulate(checkpoint.potential, checkpoint.elements, args)
    description = Description(
        family=checkpoint.family,
        elements=checkpoint.elements,
        baseline=checkpoint.baseline,
        name=f"{checkpoint.family} for {'-'.join(checkpoint.elements)}",
        details=checkpoint.details | tables,
        references=checkpoint.references,
    )
    save(potential, args.output, description, dtype, args.portable)
    kind = ", portable" if args.portable else ""
    elements = " ".join(checkpoint.elements)
    _common.console().print(f"{args.output}: {checkpoint.family} for {elements}, {dtype}{kind}")
    record = {"model": str(args.output), "family": checkpoint.family, "elements": checkpoint.elements}
    _common.write_json(args.json, {**record, "dtype": dtype, "portable": args.portable, **tables})
    return 0
