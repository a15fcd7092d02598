"""Errors of a model on labelled structures: table, JSON, parity plots, predictions as extended XYZ.

example:
  mlplugins evaluate model.pt test.extxyz --plot parity.png --json errors.json
  mlplugins evaluate model.pt run.xyz.gz --keys energy=energy_xtb forces=forces_xtb
  mlplugins evaluate model.pt test.extxyz -o predicted.extxyz

Errors are those of energy, forces, stress and every other quantity that the model predicts and the frames
are labelled with; of every file, config_type and element where there are several.
"""

from __future__ import annotations

import argparse

from mlplugins import files
from mlplugins.cli import _common


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `mlplugins evaluate`."""
    parser.add_argument("model", help="model.pt (any metatomic model), or the folder of a run")
    parser.add_argument("data", nargs="+", help="files that ASE reads; file@:100 takes the first 100 frames")
    _common.add_keys(parser)
    parser.add_argument("--plot", type=_common.OutputFile, metavar="PNG", help="parity plots")
    parser.add_argument(
        "-o",
        "--output",
        type=_common.OutputFile,
        metavar="XYZ",
        help="write the frames with their labels (REF_energy, …) and predictions (predicted_energy, …)",
    )
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument(
        "--variant",
        metavar="NAME",
        help="which of several energies the labels are of (default: as `head` in each frame's info says)",
    )
    _common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Evaluate; 0 if it worked."""
    from mlplugins.cli import _display, _errors
    from mlplugins.model_file import artifact
    from mlplugins.workflows.evaluate import evaluate

    path = _common.existing_file(args.model, "model.pt")
    model = path if args.variant is None else artifact.load(path, args.device, args.variant)
    keys = _common.named("--keys", args.keys)
    console = _common.console()
    with _display.Bar(console, "evaluating") as bar:
        result = evaluate(model, args.data, keys, args.device, args.plot, bar, args.output)
    rows = result.get("files", {})
    kinds = {f"energy {name}": errors for name, errors in result.get("energies", {}).items()}
    kinds |= {f"config_type {kind}": errors for kind, errors in result.get("config_types", {}).items()}
    console.print(_errors.table({**rows, **kinds, "all" if rows or kinds else args.data[0]: result}))
    if result.get("uncertainty"):
        console.print(_errors.quality(result["uncertainty"], "of energies per atom and force components"))
    if any(len(row) > 1 for row in result.get("elements", {}).values()):
        console.print(_errors.by_element(result["elements"]))
    if args.plot is not None:
        console.print(f"parity plots: {args.plot}")
    if args.output is not None:
        console.print(f"labels and predictions: {args.output}")
    files.write_json(args.json, result)
    return 0
