"""Train a potential on labelled structures, or continue an interrupted run.

example:
  mlplugins train config.yaml -o runs/li6ps5cl
  mlplugins train config.yaml -o runs/committee --committee 4

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
from typing import TYPE_CHECKING, Any

from mlplugins import files
from mlplugins.cli import _common, _model_file

if TYPE_CHECKING:
    from rich.console import Console


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
    parser.add_argument(
        "--committee",
        type=int,
        metavar="N",
        help="train N models with seeds seed, seed + 1, … in DIR/member_1, …; DIR/model.pt is all of them",
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
    if args.committee is not None:
        return _committee(args, path, directory, console)
    with _display.Display(console) as display:
        trained = training.train(with_terms(config.load(path), args), directory, display, args.restart)
    if trained.is_main:
        files.write_json(args.json, trained.metrics)
        sets = {name: trained.metrics[name] for name in ("train", "validation", "test")}
        console.print(_errors.table({name: errors for name, errors in sets.items() if errors}))
        console.print(_display.summary(trained.metrics, directory), highlight=False, soft_wrap=True)
    return 0


def _committee(args: argparse.Namespace, path: Path, directory: Path, console: Console) -> int:
    from mlplugins.cli import _display, _errors, info
    from mlplugins.training import config
    from mlplugins.workflows.committee import train_committee

    configuration = with_terms(config.load(path), args)
    with _display.Display(console) as display:
        runs, record = train_committee(configuration, args.committee, directory, display, args.restart)
    metrics = [run.metrics for run in runs]
    files.write_json(args.json, {"members": metrics, "committee": record})
    held_out = "validation" if metrics[0]["validation"] else "train"
    console.print(_errors.table({f"{k + 1}, {held_out}": each[held_out] for k, each in enumerate(metrics)}))
    _model_file.print_radial(record)
    text = f"{record['model']}: {info.parts('committee', record['parts'])}; the models: {directory}/member_…"
    console.print(text, highlight=False, soft_wrap=True)
    return 0


def with_terms(configuration: Any, args: argparse.Namespace) -> Any:
    """The configuration with the terms of the command line in its section `add`."""
    from mlplugins.training.sections import TermsSection

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
