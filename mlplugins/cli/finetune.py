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
import hashlib
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mlplugins import checkpoints, files
from mlplugins.checkpoints import native
from mlplugins.checkpoints.native import Checkpoint
from mlplugins.cli import _common, train
from mlplugins.cli._dynamics import sampled
from mlplugins.cli.evaluate import table
from mlplugins.errors import BadInput
from mlplugins.models.composition import Composition
from mlplugins.training import finetune_config
from mlplugins.training.finetune import Reader, finetune
from mlplugins.training.strategies import Base


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `mlplugins finetune`: those of `train`."""
    train.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Fine-tune; 0 if the model was written."""
    path = _common.existing_file(args.config)
    configuration = finetune_config.load(path)
    directory = args.output or _common.OutputFolder(path.stem)
    files.require_writable(directory, "-o", folder=True)
    console = _common.console(quiet=train.is_helper())
    reader = base_reader(Path(configuration.base.checkpoint), configuration.base.head)
    if configuration.strategy == "distill" and configuration.options.dynamics is not None:
        configuration = sampled(configuration, reader, directory, console)
    with train.Display(console) as display:
        trained = finetune(configuration, reader, directory, display, args.restart)
    if train.finish(trained, directory, args.json):
        _print(console, trained.metrics, directory)
    return 0


def base_reader(path: Path, head: str | None = None) -> Reader:
    """Reads the base model from a native or a foreign checkpoint, with some of its elements or all.

    Raises:
        BadInput: no such file, not a checkpoint, or a head of a format without heads.
    """
    own = checkpoints.is_native(path)
    if own and head is not None:
        raise BadInput(f"base.head: {path} is of a format without heads; leave this key out")

    def read(elements: list[str] | None) -> Base:
        checkpoint: Checkpoint = native.read(path) if own else checkpoints.read(path, elements, head)
        if checkpoint.potential.molecular:
            raise BadInput(
                f"{path}: '{checkpoint.family}' is solved in closed form, there is nothing to fine-tune: "
                "train it anew, or learn a difference with data.prior"
            )
        source = checkpoint.details.get("source") or {"format": "mlplugins", "file": path.name}
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        energies = checkpoint.baseline
        return Base(
            checkpoint.potential,
            checkpoint.family,
            checkpoint.details["hyperparameters"],
            Composition(checkpoint.elements, energies, len(energies)),
            checkpoint.references,
            {**source, "sha256": digest},
        )

    return read


def _print(console: Console, metrics: dict[str, Any], directory: Path) -> None:
    tuned, forgetting = metrics["finetune"], metrics["forgetting"]
    report = tuned["references"]
    console.print(
        f"energy references (rank {report['rank']} for {report['n_elements']} elements; labels − base, RMS "
        f"{report['rms_before_meV_per_atom']:.1f} → {report['rms_after_meV_per_atom']:.1f} meV/atom)",
        highlight=False,
        soft_wrap=True,
    )
    console.print(_references(report))
    rows = {}
    for name in ("train", "validation", "test"):
        if name in tuned["base_errors"]:
            rows[f"{name}, base"] = tuned["base_errors"][name]
        if metrics[name]:
            rows[name] = metrics[name]
    rows["base set, before"] = forgetting["before"]
    rows["base set, after"] = forgetting["after"]
    console.print(table(rows))
    console.print(
        f"base: errors with the new references; base set (forgetting): {forgetting['set']}",
        highlight=False,
        soft_wrap=True,
    )
    console.print(train.summary(metrics, directory), highlight=False, soft_wrap=True)


def _references(report: dict[str, Any]) -> Table:
    """Energy references per element, old and new."""
    result = Table(box=None)
    result.add_column("eV per atom")
    for name in ("base", "fine-tuned", "change"):
        result.add_column(name, justify="right")
    for symbol, row in report["elements"].items():
        if row["change_eV"] is not None:
            cells = (row["base_eV"], row["finetuned_eV"], row["change_eV"])
            result.add_row(symbol, *(f"{value:.4f}" for value in cells))
    return result
