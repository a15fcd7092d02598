"""Write the model of a foreign checkpoint as a model.pt, without the foreign package.

example:
  mlplugins convert checkpoint_sevennet_0.pth -o model.pt
  mlplugins convert checkpoint_sevennet_0.pth --elements Li P S Cl --dtype float64
  mlplugins convert 2023-12-03-mace-128-L1_epoch-199.model -o model.pt
  mlplugins convert finetuned.model --head Default --radial-tables 1025

The format is found by the content of the file. Nothing in the file is executed.
`--radial-tables` as in `mlplugins export`: faster, never exact, with the error printed and stored.
"""

from __future__ import annotations

import argparse
import inspect
from pathlib import Path

from mlplugins import checkpoints
from mlplugins.checkpoints.native import Checkpoint
from mlplugins.cli import _common, _tables
from mlplugins.errors import BadInput
from mlplugins.export.metatomic import DTYPES, Description, save


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `mlplugins convert`."""
    parser.add_argument(
        "checkpoint",
        help="checkpoint of SevenNet (.pth) or NequIP (.ckpt, .nequip.zip), model of MACE (.model)",
    )
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
    parser.add_argument("--head", metavar="NAME", help="which head of several (MACE); default: 'Default'")
    parser.add_argument(
        "--portable",
        action="store_true",
        help="free of mlplugins' ops, for engines that know nothing of them",
    )
    _tables.add_arguments(parser)
    _common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Convert; 0 if the file was written."""
    path = _common.existing_file(args.checkpoint)
    checkpoint = _read(path, args.elements, args.head)
    source = checkpoint.details["source"]
    potential, tables = _tables.apply(checkpoint.potential, checkpoint.elements, args)
    description = Description(
        family=checkpoint.family,
        elements=checkpoint.elements,
        baseline=checkpoint.baseline,
        name=f"{source['format']} ({path.name})",
        details=checkpoint.details | tables,
        references=checkpoint.references,
    )
    save(potential, args.output, description, args.dtype, args.portable)
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
        **tables,
    }
    _print(record)
    _common.write_json(args.json, record)
    return 0


def _read(path: Path, elements: list[str] | None, head: str | None) -> Checkpoint:
    reader = checkpoints.reader(path)
    if head is None:
        checkpoint: Checkpoint = reader.read(path, elements)
    elif "head" in inspect.signature(reader.read).parameters:
        checkpoint = reader.read(path, elements, head)
    else:
        raise BadInput(f"--head {head}: {path} is of a format without heads; leave the option out")
    return checkpoint


def _print(record: dict) -> None:
    source, elements = record["source"], record["elements"]
    shown = " ".join(elements) if len(elements) <= 12 else f"{len(elements)} elements"
    version = f" (version {source['version']})" if source["version"] else ""
    head = f", head '{source['head']}'" if source.get("head") else ""
    kind = ", portable" if record["portable"] else ""
    console = _common.console()
    console.print(
        f"{source['file']}: {source['format']}{version}{head}, {shown}, "
        f"cutoff {record['cutoff_A']:g} Å, {record['layers']} layers, {record['parameters']:,} parameters",
        soft_wrap=True,
    )
    console.print(f"{record['model']}: {record['family']}, {record['dtype']}{kind}", soft_wrap=True)
