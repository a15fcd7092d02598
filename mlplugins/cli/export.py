"""Write the model of a native checkpoint as a model.pt.

example:
  mlplugins export runs/li6ps5cl/checkpoint.ckpt -o model.pt --dtype float64

A checkpoint of an unfinished run works too: the best averaged weights so far are exported.
`--radial-tables` replaces the radial networks by cubic tables, which is faster and never exact: the error it
makes is measured on rattled crystals of the model's elements (or on --structures), printed and stored.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mlplugins.checkpoints import native
from mlplugins.cli import _common, _tables
from mlplugins.export.metatomic import DTYPES, Description, save


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
    _tables.add_arguments(parser)
    _common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Export; 0 if the file was written."""
    checkpoint = native.read(_common.existing_file(args.checkpoint))
    dtype = args.dtype or checkpoint.details["configuration"]["training"]["dtype"]
    potential, tables = _tables.apply(checkpoint.potential, checkpoint.elements, args)
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
