"""Migration barrier of an atom: climbing-image nudged elastic band with any model, in ASE, LAMMPS or i-PI.

example:
  mlplugins barrier barrier.yaml -o barrier

  barrier.yaml:
    model: model.pt
    structure: crystal.extxyz        # one atom of it is taken out; FILE or FILE@INDEX
    supercell: [2, 2, 2]
    hop: {species: Li, sites: [12, 3]}   # atom 12 hops into the vacancy at 3: numbers from 0, or positions
                                     # in Å; without sites: the first one and its nearest neighbour
    # or two structures:  initial: a.extxyz   final: b.extxyz
    # order: file                    # takes equal atoms as they come; else each goes to the nearest place
    engine: ase                      # ase | lammps (a process for each image) | ipi
    images: 7                        # between the end points
    fmax: 0.02                       # eV/Å
    steps: 500                       # of each optimisation at most
    climb: true
    cell: fixed                      # relaxed: the cell of the crystal, or of the first structure, first
    vibrations: false                # modes of the saddle, attempt frequency
    spring: 0.1                      # eV/Å²
    largest_move: 6.0                # Å; end points farther apart are refused

The end points are relaxed first. The folder is the state: the same command continues what was interrupted.
"""

from __future__ import annotations

import argparse

from mlplugins import files
from mlplugins.cli import _common


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `mlplugins barrier`."""
    parser.add_argument("config", metavar="CONFIG.yaml")
    parser.add_argument(
        "-o",
        "--output",
        type=_common.OutputFolder,
        default="barrier",
        metavar="DIR",
        help="default: %(default)s",
    )
    _common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Find the path; 0 if its barrier can be quoted, else 1."""
    from mlplugins.analysis.barrier_report import rows
    from mlplugins.cli import _display
    from mlplugins.workflows.barrier import barrier

    console = _common.console()
    path = _common.existing_file(args.config)
    with _display.Bar(console, "optimising") as bar:
        found = barrier(path, args.output, bar)
    files.write_json(args.json, found.as_json())

    def say(text: str, style: str | None = None) -> None:
        console.print(text, style=style, soft_wrap=True, highlight=False, markup=False)

    for name, value in rows(found):
        say(f"{name}: {value}")
    say(f"end points: {dict(found.assumptions)['end points']}")
    for text in found.warnings:
        say(f"warning: {text}", "yellow")
    say(f"report: {args.output / 'report.html'}")
    return 0 if found.quotable else 1
