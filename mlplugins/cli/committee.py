"""Make one model.pt of several: their mean, whose uncertainty is their spread.

example:
  mlplugins committee runs/1 runs/2 runs/3 runs/4 -o model.pt

The models are of the same elements and in the same precision, trained alike from different random numbers or
frames. One file needs one neighbour list, and runs in ASE, LAMMPS (on any number of ranks) and i-PI like any
other, which then also give the spread of energies and forces. Separate files are a committee, too:
`MLCalculator(["a.pt", "b.pt"])`, `mlplugins ipi-driver a.pt+b.pt`.
"""

from __future__ import annotations

import argparse

from mlplugins import files
from mlplugins.cli import _common, _model_file, info
from mlplugins.errors import BadInput


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `mlplugins committee`."""
    parser.add_argument("models", nargs="*", help="model.pt, folders of runs, or checkpoints; two or more")
    parser.add_argument(
        "-o", "--output", type=_common.OutputFile, default="model.pt", help="default: model.pt"
    )
    _common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Write the committee; 0 if the file was written."""
    if len(args.models) < 2:
        raise BadInput(
            f"expected two models or more, got {len(args.models)}: mlplugins committee a.pt b.pt -o model.pt"
        )
    from mlplugins.workflows.committee import committee

    paths = [_common.existing_file(model, "model.pt", "checkpoint.ckpt") for model in args.models]
    record = committee(paths, args.output)
    _model_file.print_radial(record)
    _common.console().print(
        f"{record['model']}: {info.parts('committee', record['parts'])}; {' '.join(record['elements'])}, "
        f"cutoff {record['cutoff_A']:g} Å, {record['parameters']:,} parameters, {record['dtype']}",
        soft_wrap=True,
    )
    files.write_json(args.json, record)
    return 0
