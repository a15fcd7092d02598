"""Fine-tune a model, native or foreign, on labelled structures, or continue an interrupted run.

example:
  mlplugins finetune config.yaml -o runs/tuned

  config.yaml:
    base: {checkpoint: checkpoint_sevennet_0.pth}
    finetune: {strategy: full}
    data: {train: train.extxyz, validation: 0.1, test: test.extxyz}
    training: {epochs: 50, batch_size: 2}

The base is a checkpoint.ckpt or model.pt of mlplugins, or a foreign one that `mlplugins convert` reads.

strategies: full, heads, freeze:N, lora (rank, alpha), replay (data or structures, weight), delta and distill
(with a section `model`; distill also with `dynamics`: keys of `mlplugins simulate`, the base runs that MD and
the student is trained on its frames). Writes what `train` writes; metrics.json also holds the errors of the
base, the new energy references and the errors on a base set before and after (forgetting).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlplugins import files
from mlplugins.cli import _common, train

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `mlplugins finetune`: those of `train`."""
    train.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Fine-tune; 0 if the model was written."""
    from mlplugins import training
    from mlplugins.cli import _display, simulate
    from mlplugins.training import finetune_config
    from mlplugins.workflows.finetune import finetune

    path = _common.existing_file(args.config)
    directory = train.output(args, path)
    console = _common.console(quiet=training.is_helper())
    with _display.Display(console) as display:
        trained = finetune(
            train.with_terms(finetune_config.load(path), args),
            directory,
            display,
            args.restart,
            lambda campaign: simulate.drive(campaign, console),
        )
    if trained.is_main:
        files.write_json(args.json, trained.metrics)
        _print(console, trained.metrics, directory)
    return 0


def _print(console: Console, metrics: dict[str, Any], directory: Path) -> None:
    from mlplugins.cli import _display, _errors

    tuned, forgetting = metrics["finetune"], metrics["forgetting"]
    report = tuned["references"]
    if "rank" in report:  # the frames have energies
        _print_references(console, report)
    rows = {}
    for name in ("train", "validation", "test"):
        if name in tuned["base_errors"]:
            rows[f"{name}, base"] = tuned["base_errors"][name]
        if metrics[name]:
            rows[name] = metrics[name]
    rows["base set, before"] = forgetting["before"]
    rows["base set, after"] = forgetting["after"]
    console.print(_errors.table(rows))
    console.print(
        f"base: errors with the new references; base set (forgetting): {forgetting['set']}",
        highlight=False,
        soft_wrap=True,
    )
    console.print(_display.summary(metrics, directory), highlight=False, soft_wrap=True)


def _print_references(console: Console, report: dict[str, Any]) -> None:
    console.print(
        f"energy references (rank {report['rank']} for {report['n_elements']} elements; labels − base, RMS "
        f"{report['rms_before_meV_per_atom']:.1f} → {report['rms_after_meV_per_atom']:.1f} meV/atom)",
        highlight=False,
        soft_wrap=True,
    )
    console.print(_references(report))


def _references(report: dict[str, Any]) -> Table:
    """Energy references per element, old and new."""
    from rich.table import Table

    result = Table(box=None)
    result.add_column("eV per atom")
    for name in ("base", "fine-tuned", "change"):
        result.add_column(name, justify="right")
    for symbol, row in report["elements"].items():
        if row["change_eV"] is not None:
            cells = (row["base_eV"], row["finetuned_eV"], row["change_eV"])
            result.add_row(symbol, *(f"{value:.4f}" for value in cells))
    return result
