"""Learn a potential where it is needed: train, explore, label what is uncertain, again until it is enough.

example:
  mlplugins learn learn.yaml -o learning

  learn.yaml:
    start: {frames: start.extxyz}          # labelled: true takes the labels that they have
    labels: {kind: cp2k, input: cp2k.inp}  # as in `mlplugins label`
    model: {family: nequip, cutoff: 5.0}   # model and training: as in `mlplugins train`
    training: {epochs: 100}
    uncertainty: {method: committee, members: 4}       # committee | gp (soap-gap) | llpr (networks)
    explore:                               # other keys: as in `mlplugins simulate`
      engine: lammps
      structures: [li6ps5cl.cif]
      temperatures: [600, 1000]            # K
      steps: 20000
      stop_above: 1.0                      # eV/Å: a run that expects a larger error of a force is left
    select: {n: 20, per_trajectory: 5}     # labels of one round
    until: {expected_error: 0.1, rounds: 10, labels: 300}      # eV/Å on the worst atom; the first that is met
    control: random                        # also train on frames chosen blindly

The folder is the state: the same command continues a loop that was killed, and computes no label twice.
report.html has the learning curve, expected and true errors, the chosen frames and why, and the cost.
"""

from __future__ import annotations

import argparse
from typing import Any

from mlplugins import files
from mlplugins.cli import _common


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `mlplugins learn`."""
    parser.add_argument("config", metavar="CONFIG.yaml")
    parser.add_argument(
        "-o",
        "--output",
        type=_common.OutputFolder,
        default="learning",
        metavar="DIR",
        help="default: %(default)s",
    )
    _common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Learn; 0 if the loop is over, 1 while labels are computed elsewhere."""
    from mlplugins.cli import _display
    from mlplugins.workflows.learn import learn

    console = _common.console()
    path = _common.existing_file(args.config)
    with _display.Bar(console, "exploring") as bar:
        found = learn(path, args.output, bar)
    files.write_json(args.json, found.record())
    if found.waiting:
        how = f"submit {found.script}" if found.script else f"put results into {found.folder / 'labels'}"
        console.print(f"waiting for {found.waiting} labels: {how}, then the same command", soft_wrap=True)
        return 1
    console.print(f"stopped: {found.stopped}", soft_wrap=True)
    for name, record in (("", found.final), ("chosen at random: ", found.final.get("control"))):
        if record:
            console.print(f"{name}{_errors(record)}", soft_wrap=True)
    console.print(f"{found.model}, {found.folder / 'report.html'}", soft_wrap=True)
    return 0


def _errors(record: dict[str, Any]) -> str:
    held = record["held_out"]
    return (
        f"{record['n_train']} frames learned from; forces {1000 * held['forces_rmse_eV_A']:.3g} meV/Å, "
        f"energies {1000 * held['energy_rmse_eV_atom']:.3g} meV/atom (RMSE on {held['n_frames']} set aside)"
    )
