"""Train a potential on labelled structures, or continue an interrupted run.

example:
  mlplugins train config.yaml -o runs/li6ps5cl

  config.yaml:
    data: {train: train.extxyz, validation: 0.1, test: test.extxyz}
    model: {family: nequip, cutoff: 5.0}
    training: {epochs: 200, batch_size: 5, lr: 0.01}
    seed: 0

writes model.pt, checkpoint.ckpt, metrics.json, log.csv, learning.png and parity.png (both also as PDF). If
the run is killed, the same command continues it, with the same result as if it had not been.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mlplugins import files
from mlplugins.cli import _common, _model_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `mlplugins train`."""
    parser.add_argument("config", metavar="CONFIG.yaml")
    parser.add_argument(
        "-o",
        "--output",
        type=_common.OutputFolder,
        metavar="DIR",
        help="default: the name of the config file",
    )
    parser.add_argument(
        "--restart",
        action="store_true",
        help="start again although DIR has a run (its checkpoint is kept)",
    )
    _model_file.add_terms(parser)
    _common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Train; 0 if the model was written."""
    from mlplugins import training
    from mlplugins.cli import _display, _errors
    from mlplugins.training import config

    path = _common.existing_file(args.config)
    directory = output(args, path)
    console = _common.console(quiet=training.is_helper())
    with _display.Display(console) as display:
        trained = training.train(with_terms(config.load(path), args), directory, display, args.restart)
    if trained.is_main:
        files.write_json(args.json, trained.metrics)
        sets = {name: trained.metrics[name] for name in ("train", "validation", "test")}
        console.print(_errors.table({name: errors for name, errors in sets.items() if errors}))
        console.print(_display.summary(trained.metrics, directory), highlight=False, soft_wrap=True)
    return 0


def with_terms(configuration: Any, args: argparse.Namespace) -> Any:
    """The configuration with the terms of the command line in its section `add`."""
    from mlplugins.training.config import TermsSection

    given = _model_file.terms(args)
    if not given:
        return configuration
    old = configuration.add.model_dump(exclude_unset=True) if configuration.add else {}
    return configuration.model_copy(update={"add": TermsSection(**old | given)})


def output(args: argparse.Namespace, path: Path) -> Path:
    """The folder to write to: as named, or the name of the configuration file `path`."""
    directory = Path(args.output or path.stem)
    files.require_writable(directory, "-o", folder=True)
    return directory
