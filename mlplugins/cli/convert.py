"""Write the model of a foreign checkpoint as a model.pt, without the foreign package.

example:
  mlplugins convert checkpoint_sevennet_0.pth -o model.pt
  mlplugins convert checkpoint_sevennet_0.pth --elements Li P S Cl --dtype float64

The format is found by the content of the file. Nothing in the file is executed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mlplugins import checkpoints
from mlplugins.checkpoints.native import Checkpoint
from mlplugins.cli import _common
from mlplugins.export.metatomic import DTYPES, Description, save


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `mlplugins convert`."""
    parser.add_argument("checkpoint", help="checkpoint of SevenNet (.pth)")
    parser.add_argument("-o", "--output", type=Path, default=Path("model.pt"), help="default: model.pt")
    parser.add_argument(
        "--dtype",
        choices=sorted(DTYPES),
        default="float32",
        help="precision of the engines; default: float32",
    )
    parser.add_argument(
        "--elements", nargs="+", metavar="SYMBOL", help="keep only these elements; default: all of the model"
    )
    parser.add_argument(
        "--portable",
        action="store_true",
        help="free of mlplugins' ops, for engines that know nothing of them",
    )
    _common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Convert; 0 if the file was written."""
    path = _common.existing_file(args.checkpoint)
    checkpoint: Checkpoint = checkpoints.reader(path).read(path, args.elements)
    source = checkpoint.details["source"]
    description = Description(
        family=checkpoint.family,
        elements=checkpoint.elements,
        baseline=checkpoint.baseline,
        name=f"{source['format']} ({path.name})",
        details=checkpoint.details,
        references=checkpoint.references,
    )
    save(checkpoint.potential, args.output, description, args.dtype, args.portable)
    record = {
        "model": str(args.output),
        "family": checkpoint.family,
        "elements": checkpoint.elements,
        "cutoff_A": checkpoint.potential.cutoff,
        "layers": checkpoint.potential.n_layers,
        "parameters": checkpoint.details["n_parameters"],
        "dtype": args.dtype,
        "portable": args.portable,
        "source": source,
    }
    _print(record)
    _common.write_json(args.json, record)
    return 0


def _print(record: dict) -> None:
    source, elements = record["source"], record["elements"]
    shown = " ".join(elements) if len(elements) <= 12 else f"{len(elements)} elements"
    kind = ", portable" if record["portable"] else ""
    console = _common.console()
    console.print(
        f"{source['file']}: {source['format']} (version {source['version']}), {shown}, "
        f"cutoff {record['cutoff_A']:g} Å, {record['layers']} layers, {record['parameters']:,} parameters",
        soft_wrap=True,
    )
    console.print(f"{record['model']}: {record['family']}, {record['dtype']}{kind}", soft_wrap=True)
