"""Fine-tuning as one call: the base is read, runs MD if its frames are wanted, and is trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlplugins import errors, files
from mlplugins.observer import SILENT

if TYPE_CHECKING:
    from mlplugins.simulation.driving import RunOutcome
    from mlplugins.simulation.plan import Campaign
    from mlplugins.training.finetune_config import FinetuneConfiguration
    from mlplugins.training.fit import TrainingObserver
    from mlplugins.training.run import Trained


def finetune(
    configuration: Path | str | Mapping[str, Any] | FinetuneConfiguration,
    directory: Path | str | None = None,
    observer: TrainingObserver = SILENT,
    restart: bool = False,
    drive: Callable[[Campaign], Sequence[RunOutcome]] | None = None,
) -> Trained:
    """Fine-tune a model, native or foreign, on labelled structures, or continue an interrupted run.

    Args:
        configuration: of `mlplugins finetune`: a YAML file, its content, or the validated object. Files that
            a YAML file names are sought beside it first.
        directory: where the results go, as in `mlplugins.train`.
        observer: told of the progress.
        restart: begin anew although `directory` holds a run (its checkpoint is kept).
        drive: runs the MD of `dynamics`; None: without a display.

    Returns:
        The fine-tuned potential, and the content of metrics.json as `metrics`.

    Raises:
        BadInput: a wrong configuration, wrong data, an element that the base lacks, or a directory that holds
            another run.
        RunFailed: training diverged, a run of `dynamics` failed, or a file could not be written.

    The page docs/finetune.md has an example that is run by the tests.
    """
    with errors.needed("training", "train"):
        from mlplugins.training import ending
        from mlplugins.training import finetune as tuning
    from mlplugins.training import finetune_config

    settings = finetune_config.load(configuration)
    base = files.in_folder(settings.base.checkpoint, "checkpoint.ckpt", "model.pt")
    folder = ending.output_folder(directory, configuration, [base, settings.model_dump(mode="json")])
    reader = tuning.base_reader(Path(settings.base.checkpoint), settings.base.head)
    if settings.strategy == "distill" and settings.options.dynamics is not None:
        from mlplugins.workflows import _dynamics

        settings = _dynamics.sampled(settings, reader, folder, observer, drive)
    return ending.completed(tuning.finetune(settings, reader, folder, observer, restart), folder)
