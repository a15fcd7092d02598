"""Write the model of a native checkpoint as a model.pt.

example:
  mlplugins export runs/li6ps5cl/checkpoint.ckpt -o model.pt --dtype float64

A checkpoint of an unfinished run works too: the best averaged weights so far are exported.
In float32 the radial networks become cubic tables, which are faster, if their error, measured on crystals
and molecules of the model's elements (or on --structures), is below the round-off of the exact model; both
are printed and stored. `--radial-tables off` keeps the networks, `--radial-tables 1025` fixes the knots.
"""

from __future__ import annotations

import argparse

from mlplugins import files
from mlplugins.cli import _common, _model_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `mlplugins export`."""
    parser.add_argument("checkpoint", help="checkpoint.ckpt of mlplugins train, or its folder")
    _model_file.add_arguments(parser, None, "as trained")
    _common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Export; 0 if the file was written."""
    from mlplugins.workflows.convert import export_checkpoint

    path = _model_file.checked(args, "checkpoint.ckpt")
    record = export_checkpoint(path, args.output, args.dtype, args.portable, _model_file.tables(args))
    _model_file.print_radial(record)
    kind = ", portable" if args.portable else ""
    elements = " ".join(record["elements"])
    _common.console().print(f"{args.output}: {record['family']} for {elements}, {record['dtype']}{kind}")
    files.write_json(args.json, record)
    return 0
