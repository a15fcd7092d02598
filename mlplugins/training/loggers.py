"""Errors of every epoch for TensorBoard, Weights & Biases or as CSV, by Lightning's loggers.

`log.csv` is written in any case; these are for those who watch many runs in one place.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

PACKAGES: dict[str, tuple[str, ...]] = {
    "csv": (),
    "tensorboard": ("tensorboard", "tensorboardX"),
    "wandb": ("wandb",),
}
"""By name of the logger: packages of which one must be there."""

FOLDER = "loggers"


def missing(names: Iterable[str]) -> str | None:
    """What is missing for these loggers, with the remedy; None if nothing is.

    >>> missing(["csv"]) is None
    True
    """
    for name in names:
        packages = PACKAGES[name]
        if packages and not any(importlib.util.find_spec(package) for package in packages):
            return f"'{name}' needs the package '{packages[0]}': pip install {packages[0]}"
    return None


def make(names: Sequence[str], directory: Path) -> list[Any]:
    """The loggers of a run, which write into the folder `loggers` in its directory."""
    folder = directory / FOLDER
    made: list[Any] = []
    for name in names:
        if name == "wandb":
            from lightning.pytorch.loggers import WandbLogger

            folder.mkdir(parents=True, exist_ok=True)
            made.append(WandbLogger(name=directory.name, save_dir=folder))
        else:
            from lightning.fabric.loggers import CSVLogger, TensorBoardLogger

            logger = {"csv": CSVLogger, "tensorboard": TensorBoardLogger}[name]
            made.append(logger(root_dir=folder, name=name))
    return made


def log(loggers: Iterable[Any], rows: Iterable[Mapping[str, float]]) -> None:
    """Log epochs, each at its number, and write them out."""
    for logger in loggers:
        for row in rows:
            values = {key: value for key, value in row.items() if key != "epoch"}
            logger.log_metrics(values, step=int(row["epoch"]))
        if hasattr(logger, "save"):
            logger.save()
