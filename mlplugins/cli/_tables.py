"""Radial tables, for the commands that write a model: their options, and the error they make."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

import ase.io

from mlplugins.cli import _common
from mlplugins.export.tables import tabulated
from mlplugins.models.base import Potential


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of radial tables, for all commands that write a model."""
    parser.add_argument(
        "--radial-tables", type=int, metavar="KNOTS", help="cubic radial tables, e.g. 1025 knots (not exact)"
    )
    parser.add_argument(
        "--structures", metavar="FILE", help="structures to measure the error of --radial-tables on"
    )


def apply(
    potential: Potential, elements: list[str], args: argparse.Namespace
) -> tuple[Potential, dict[str, Any]]:
    """The potential, with tables if they are asked for, and their record for the file."""
    if args.radial_tables is None:
        return potential, {}
    structures = ase.io.read(_common.existing_file(args.structures), ":") if args.structures else []
    potential, error = tabulated(potential, elements, args.radial_tables, structures)
    _common.console().print(str(error), soft_wrap=True)
    return potential, {"radial_tables": asdict(error)}
