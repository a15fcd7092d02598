"""Write the model of a foreign checkpoint as a model.pt, without the foreign package.

example:
  mlplugins convert checkpoint_sevennet_0.pth -o model.pt
  mlplugins convert checkpoint_sevennet_0.pth --elements Li P S Cl --dtype float64
  mlplugins convert 2023-12-03-mace-128-L1_epoch-199.model -o model.pt
  mlplugins convert finetuned.model --head Default --radial-tables off
  mlplugins convert checkpoint_sevennet_mf_0.pth --task PBE
  mlplugins convert checkpoint_sevennet_0.pth --elements Li P S Cl --zbl 0.7 1.4

The format is found by the content of the file. Nothing in the file is executed. A model.pt of mlplugins is
taken, too: to keep fewer elements, in another precision, portable, or with tables.
`--radial-tables` as in `mlplugins export`: in float32 tables by default, with their error printed and stored.
"""

from __future__ import annotations

import argparse

from mlplugins import files
from mlplugins.cli import _common, _model_file, info
from mlplugins.errors import BadInput


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `mlplugins convert`."""
    parser.add_argument(
        "checkpoint",
        nargs="?",
        help="checkpoint of SevenNet (.pth) or NequIP (.ckpt, .nequip.zip; of 0.6 best_model.pth with the "
        "config.yaml beside it), model of MACE (.model) or Nequix (.nqx), or a model.pt of ours",
    )
    _model_file.add_arguments(parser, "float32", "float32")
    parser.add_argument(
        "--elements",
        nargs="+",
        action=_common.Items,
        metavar="SYMBOL",
        help="keep only these elements (Li P S, or Li,P,S); default: all of the model",
    )
    parser.add_argument(
        "--head",
        "--task",
        metavar="NAME",
        help="which of several levels of theory: head of MACE (default: Default; all: as several energies) "
        "or task of SevenNet",
    )
    _model_file.add_terms(parser)
    parser.add_argument(
        "--charge",
        type=int,
        metavar="Q",
        help="fix the total charge, e, of a MACE model with charges; default: every structure has its own",
    )
    parser.add_argument(
        "--spin",
        type=int,
        metavar="M",
        help="fix the spin multiplicity of a MACE model with spins; default: every structure has its own",
    )
    _common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Convert; 0 if the file was written."""
    if args.checkpoint is None:
        raise BadInput("no checkpoint named; it comes first: mlplugins convert FILE --elements Li P S")
    from mlplugins.workflows.convert import Variant, convert

    path = _model_file.checked(args, "model.pt")
    changes = _model_file.changes(args)
    variant = Variant(args.head, args.charge, args.spin)
    record = convert(path, args.output, args.elements, variant, args.dtype, args.portable, changes)
    _model_file.print_radial(record)
    _print(record)
    files.write_json(args.json, record)
    return 0


def _print(record: dict) -> None:
    source, elements = record["source"], record["elements"]
    shown = " ".join(elements) if len(elements) <= 12 else f"{len(elements)} elements"
    version = f" (version {source['version']})" if source["version"] else ""
    head = f", head '{source['head']}'" if source.get("head") else ""
    for name, unit in (("total_charge", " e"), ("total_spin", "")):
        if name in source:
            head += f", {name.replace('_', ' ')} {source[name]:g}{unit}"
    kind = ", portable" if record["portable"] else ""
    console = _common.console()
    console.print(
        f"{source['file']}: {source['format']}{version}{head}, {shown}, "
        f"cutoff {record['cutoff_A']:g} Å, {record['layers']} layers, {record['parameters']:,} parameters",
        soft_wrap=True,
    )
    family = info.parts(record["family"], record["parts"]) or record["family"]
    console.print(f"{record['model']}: {family}, {record['dtype']}{kind}", soft_wrap=True)
    for text in info.inputs(record["inputs"]):
        console.print(f"of every structure the model takes: {text}", soft_wrap=True)
    if record["unfused_degree"]:
        console.print(
            f"degree {record['unfused_degree']}: not in the fused convolution; the model runs in plain "
            "torch, about 6 times slower, and holds all messages of a step in memory",
            soft_wrap=True,
        )
    for text in record["warnings"]:
        console.print(f"warning: {text}", style="yellow", soft_wrap=True)
