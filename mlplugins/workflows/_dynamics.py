"""`distill` with `dynamics`: the base runs MD in a host engine, and its frames join the training frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import ase.io

from mlplugins import engines
from mlplugins.dynamics.start import ForModel, prepare, read_structure
from mlplugins.errors import BadInput, RunFailed
from mlplugins.model_file import artifact
from mlplugins.model_file.write import save
from mlplugins.simulation import campaign as campaigns
from mlplugins.simulation import config as simulation
from mlplugins.simulation.driving import RunOutcome
from mlplugins.simulation.plan import Campaign, plan
from mlplugins.structures import dataset
from mlplugins.structures import state as states
from mlplugins.training import is_helper
from mlplugins.training.finetune import Reader
from mlplugins.training.finetune_config import FinetuneConfiguration
from mlplugins.training.fit import TrainingObserver

FOLDER, TEACHER, START = "dynamics", "teacher.pt", "start.extxyz"
DEFAULTS = {"dump_interval": 50}
"""Neighbouring frames of a trajectory teach the same: fewer than in a run for diffusion."""


def sampled(
    configuration: FinetuneConfiguration,
    read: Reader,
    directory: Path,
    observer: TrainingObserver,
    drive: Callable[[Campaign], Sequence[RunOutcome]] | None = None,
) -> FinetuneConfiguration:
    """The configuration with the frames of the base's own MD among its training frames.

    The MD is run, or continued, in `directory/dynamics`, from the first training frame unless a structure is
    named.

    Raises:
        BadInput: a wrong key of `dynamics`, an element that the base lacks, an engine that is missing, or
            dynamics of another base or with other settings in the folder.
        RunFailed: a run of the MD failed.
    """
    settings, folder = configuration.options.dynamics, directory / FOLDER
    given = configuration.data.train
    if isinstance(given, dict):
        raise BadInput("data.train: files by the names of energies are for strategies that train several")
    start = dataset.frames(given)[0][0]
    start.calc = None
    if "model" in settings:
        raise BadInput("finetune.dynamics: leave 'model' out: the base runs")
    structure = settings.get("structure", str(folder / START))
    content = {**DEFAULTS, **settings, "model": folder / TEACHER, "structure": structure}
    campaign = simulation.parse(content, "finetune.dynamics")  # before anything is written
    atoms = read_structure(structure) if "structure" in settings else start
    _write_teacher(read, sorted(set(atoms.get_chemical_symbols())), folder / TEACHER)
    if "structure" not in settings:
        ase.io.write(
            folder / START, prepare(start, "first training frame", (1, 1, 1), "auto", ForModel(True)).atoms
        )
    planned = plan(campaign, folder)
    if states.of(planned.runs[0].atoms.info) != states.ElectronicState():
        raise BadInput(
            f"finetune.dynamics: '{structure}' is charged or no singlet, which the frames of its dynamics "
            "would not say: start from a neutral singlet, or run the dynamics yourself and label the frames"
        )
    if not is_helper():
        observer.note(f"dynamics of the base in {campaign.engine}: {len(planned.runs)} runs")
        for note in planned.notes:
            observer.note(note)
        for outcome in (drive or campaigns.run)(planned):
            if outcome.state != "finished":
                raise RunFailed(f"finetune.dynamics: {outcome.run} {outcome.state}: {outcome.message}")
    host = engines.load(campaign.engine)
    frames = [str(path) for run in planned.runs for path in host.trajectories(run)]
    frames = [*([given] if isinstance(given, str) else given), *frames]
    data = configuration.data.model_copy(update={"train": frames})
    return configuration.model_copy(update={"data": data})


def _write_teacher(read: Reader, elements: list[str], path: Path) -> None:
    """The base as a file for the engine; one that is there is kept, since the MD belongs to it."""
    base = read(None)
    if base.source["format"] != "mlplugins":
        base = read(elements)
    digest = base.source["sha256"]
    if path.exists():
        if artifact.load(path).record["source"]["sha256"] != digest:
            raise BadInput(f"{path.parent} holds dynamics of another base: choose another output folder (-o)")
        return
    save(base.potential, path, base)
