"""Add a predicted uncertainty to a model: the posterior of its last layer (LLPR), calibrated.

example:
  mlplugins uncertainty run/model.pt train.extxyz --held-out test.extxyz -o model.pt
  mlplugins uncertainty sevennet.pt mine.extxyz --held-out 0.2 -o model.pt --plot quality.png

Energies and forces stay the same; ASE and LAMMPS then also give the standard deviation of atomic energies,
ASE that of the total. DATA are the frames that the model was trained on, or, for a model of
others, labelled frames of the application. The held-out frames set its scale and must be new to the model.
"""

from __future__ import annotations

import argparse
from typing import Any

from mlplugins import files
from mlplugins.cli import _common, _model_file
from mlplugins.errors import BadInput


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `mlplugins uncertainty`."""
    parser.add_argument("model", help="model.pt, folder of a run, or a checkpoint that `convert` reads")
    parser.add_argument("data", nargs="+", help="labelled frames: files that ASE reads")
    parser.add_argument(
        "--held-out",
        nargs="+",
        action=_common.Items,
        required=True,
        metavar="FILE",
        help="labelled frames that the model was not trained on; or a fraction of DATA, e.g. 0.2",
    )
    parser.add_argument("-o", "--output", type=_common.OutputFile, required=True, help="model.pt to write")
    _common.add_keys(parser)
    parser.add_argument("--plot", type=_common.OutputFile, metavar="PNG", help="coverage and sparsification")
    _common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Add the uncertainty; 0 if the file was written."""
    from mlplugins.cli import _display
    from mlplugins.workflows.uncertainty import uncertainty

    console = _common.console()
    path, keys = _common.existing_file(args.model, "model.pt"), _common.named("--keys", args.keys)
    with _display.Bar(console, "describing") as bar:
        record = uncertainty(path, args.data, args.output, _held_out(args.held_out), keys, args.plot, bar)
    _print(console, record)
    files.write_json(args.json, record)
    return 0


def _held_out(words: list[str]) -> list[str] | float:
    """Files, or a fraction.

    >>> _held_out(["0.2"]), _held_out(["a.xyz", "b.xyz"])
    (0.2, ['a.xyz', 'b.xyz'])
    """
    if len(words) == 1:
        try:
            return float(words[0])
        except ValueError:
            return words
    if any(word.replace(".", "", 1).isdigit() for word in words):
        raise BadInput(f"--held-out: expected files or one fraction, got {' '.join(words)}")
    return words


def _print(console: Any, record: dict[str, Any]) -> None:
    from mlplugins.cli import _errors

    console.print(
        f"posterior of {record['features']} weights from {record['n_frames']} frames, calibrated on "
        f"{record['n_held_out']} held-out frames"
    )
    table = _errors.quality(record["quality"], "on the held-out frames")
    console.print(table)
    _model_file.print_radial(record)
    console.print(f"{record['model']}: {record['family']} with the output energy_uncertainty", soft_wrap=True)
