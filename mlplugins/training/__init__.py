"""Training: data, loss, gradient training, closed-form solvers, fine-tuning; `train` is the whole command."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlplugins import errors
from mlplugins.observer import SILENT

if TYPE_CHECKING:
    from mlplugins.training.config import Configuration
    from mlplugins.training.fit import TrainingObserver
    from mlplugins.training.run import Trained

MEMBER = "member_{}"
"""Folder of one model in that of a committee."""


def train(
    configuration: Path | str | Mapping[str, Any] | Configuration,
    directory: Path | str | None = None,
    observer: TrainingObserver = SILENT,
    restart: bool = False,
) -> Trained:
    """Train a potential, by gradients or in closed form as its family asks for, or continue a run.

    Args:
        configuration: of `mlplugins train`: a YAML file, its content, or the validated object. Data files
            that a YAML file names are sought beside it first.
        directory: where model.pt, checkpoint.ckpt, metrics.json, log.csv and the plots go; None: a folder
            with the name of the YAML file.
        observer: told of the progress.
        restart: begin anew although `directory` holds a run (its checkpoint is kept).

    Returns:
        The trained potential, and the content of metrics.json as `metrics`.

    Raises:
        BadInput: a wrong configuration, wrong data, or a directory that holds another run or a committee.
        RunFailed: training diverged, or a file could not be written.

    The page docs/training.md has an example that is run by the tests.
    """
    with errors.needed("training", "train"):
        from mlplugins.training import ending, run, solve
    from mlplugins.training import config

    settings = config.load(configuration)
    folder = ending.output_folder(directory, configuration, settings.model_dump(mode="json"))
    if (folder / MEMBER.format(1)).is_dir():
        raise errors.BadInput(
            f"'{folder}' holds a committee (`train --committee`), whose model.pt would be replaced: choose "
            "another output folder (-o), or a folder of one of its members"
        )
    if isinstance(settings, config.ClosedFormConfiguration):
        trained = solve.train(settings, folder, observer, restart)
    else:
        trained = run.train(settings, folder, observer, restart)
    return ending.completed(trained, folder)


def is_helper() -> bool:
    """Whether this process is not the first of a parallel run."""
    return any(os.environ.get(name, "0") not in ("", "0") for name in ("LOCAL_RANK", "RANK", "SLURM_PROCID"))
