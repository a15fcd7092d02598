"""Select a few structures from many: farthest points, CUR, or where a model is most uncertain.

example:
  mlplugins select md.extxyz -n 200 -o subset.extxyz
  mlplugins select md.extxyz -n 50 --method cur -o subset.extxyz
  mlplugins select md.extxyz -n 20 --method uncertainty --model model.pt -o label_these.extxyz

The subset keeps all labels and can train any family. `fps` and `cur` compare the mean SOAP vectors of the
structures; `uncertainty` uses one model with a predicted uncertainty (soap-gap), or the spread of the forces
of several models.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mlplugins import files
from mlplugins.cli import _common
from mlplugins.errors import BadInput


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `mlplugins select`."""
    parser.add_argument("data", nargs="+", help="files that ASE reads; file@::10 takes every tenth frame")
    parser.add_argument("-n", type=int, required=True, help="structures to choose")
    parser.add_argument(
        "--method", choices=("fps", "cur", "uncertainty"), default="fps", help="default: farthest points"
    )
    parser.add_argument(
        "--model",
        nargs="+",
        action=_common.Items,
        default=[],
        metavar="model.pt",
        help="for --method uncertainty: one, or a committee",
    )
    parser.add_argument("--cutoff", type=float, default=5.0, help="of the SOAP vectors, Å (default 5)")
    parser.add_argument("--seed", type=int, default=0, help="of the first point (default 0)")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument(
        "-o", "--output", type=_common.OutputFile, required=True, help="extended XYZ file to write"
    )
    _common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Select and write; 0 if it worked."""
    _check(args)
    import numpy as np

    from mlplugins.cli import _display
    from mlplugins.model_file import artifact
    from mlplugins.structures import dataset
    from mlplugins.workflows.select import select

    inputs = {Path(path).resolve() for word in args.data for path, _ in dataset.files(word)}
    if args.output.resolve() in inputs:
        raise BadInput(f"-o: '{args.output}' holds the structures to choose from; give another file")
    models = [artifact.load(_common.existing_file(path, "model.pt"), args.device) for path in args.model]
    console = _common.console()
    with _display.Bar(console, "evaluating" if models else "describing") as bar:
        found = select(args.data, args.n, args.method, models, args.cutoff, args.seed, bar)
    if found.scores is not None:
        scores = found.scores[found.chosen]
        span = f"{scores[-1]:.4g} to {scores[0]:.4g}, median of all {np.median(found.scores):.4g}"
        console.print(f"uncertainty: {span} ({found.unit})")
    found.write(args.output)
    console.print(f"{len(found.chosen)} of {found.n_structures} structures: {args.output}")
    files.write_json(args.json, found.record())
    return 0


def _check(args: argparse.Namespace) -> None:
    if args.n < 1:
        raise BadInput(f"-n: expected 1 or more structures, got {args.n}")
    if not args.cutoff > 0:
        raise BadInput(f"--cutoff: expected a length in Å, got {args.cutoff}")
    if (args.method == "uncertainty") != bool(args.model):
        raise BadInput("--method uncertainty and --model go together: give both, or neither")
    if args.output.suffix not in (".extxyz", ".xyz"):
        raise BadInput(f"-o: expected a file ending in .extxyz, got '{args.output.name}'")
