"""Writing a `model.pt` from a checkpoint: the options and steps of all commands that do it."""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ase import Atoms

from mlplugins.checkpoints.native import Checkpoint
from mlplugins.cli import _common
from mlplugins.errors import BadInput
from mlplugins.model_file.card import DTYPES
from mlplugins.model_file.tables import tabulated
from mlplugins.model_file.write import save
from mlplugins.structures import dataset


def add_arguments(parser: argparse.ArgumentParser, dtype: str | None, default: str) -> None:
    """Output, precision (`dtype` unless given; `default` says so in words), portability, radial tables."""
    parser.add_argument(
        "-o", "--output", type=_common.OutputFile, default="model.pt", help="default: model.pt"
    )
    parser.add_argument(
        "--dtype", choices=sorted(DTYPES), default=dtype, help=f"precision of the engines; default: {default}"
    )
    parser.add_argument(
        "--portable",
        action="store_true",
        help="free of mlplugins' ops, for engines that know nothing of them",
    )
    parser.add_argument(
        "--radial-tables", type=int, metavar="KNOTS", help="cubic radial tables, e.g. 1025 knots (not exact)"
    )
    parser.add_argument(
        "--structures", metavar="FILE", help="structures to measure the error of --radial-tables on"
    )


def checked(args: argparse.Namespace) -> Path:
    """The checkpoint, which exists; what cannot work is refused before anything is read.

    Raises:
        BadInput: no such checkpoint, or structures for tables that are not asked for.
    """
    path = _common.existing_file(args.checkpoint)
    if args.structures is not None:
        if args.radial_tables is None:
            raise BadInput(
                "--structures: only --radial-tables are measured on them; add it, or leave this out"
            )
        _common.existing_file(args.structures)
    return path


def write(checkpoint: Checkpoint, name: str, dtype: str, args: argparse.Namespace) -> dict[str, Any]:
    """Write the file, with tables if they are asked for, and return their record.

    Raises:
        BadInput: structures that cannot be read or hold other elements, or a file that cannot be written.
    """
    potential, tables = checkpoint.potential, {}
    if args.radial_tables is not None:
        structures = _structures(args.structures, checkpoint.elements) if args.structures else []
        potential, error = tabulated(potential, checkpoint.elements, args.radial_tables, structures)
        _common.console().print(str(error), soft_wrap=True)
        tables = {"radial_tables": asdict(error)}
    card = replace(checkpoint, name=name, details=checkpoint.details | tables)
    save(potential, args.output, card, dtype, args.portable)
    return tables


def _structures(source: str, elements: list[str]) -> list[Atoms]:
    frames = dataset.frames(source)
    for atoms, origin in frames:
        unknown = sorted(set(atoms.symbols) - set(elements))
        if unknown:
            raise BadInput(
                f"--structures: {origin} holds {', '.join(unknown)}; the model to be written knows "
                f"{' '.join(elements)}"
            )
    return [atoms for atoms, _ in frames]
