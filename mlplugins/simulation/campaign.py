"""A campaign: writing its input files, what may be continued, and where it runs."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlplugins import engines, files
from mlplugins.config import parse_yaml
from mlplugins.dynamics.run import Run
from mlplugins.dynamics.settings import SimulationConfig
from mlplugins.engines.base import Engine
from mlplugins.errors import BadInput
from mlplugins.simulation import cluster, provenance
from mlplugins.simulation.config import load_all
from mlplugins.simulation.driving import STATUS, Progress, RunOutcome, drive, locked, save
from mlplugins.simulation.plan import (
    PLACES,
    WATCH,
    Campaign,
    as_yaml,
    conductivity_inputs,
    plan,
    with_defaults,
)

CONDUCTIVITY = "conductivity.yaml"


def write(campaign: Campaign) -> Engine:
    """Write the input files of all runs and `conductivity.yaml`.

    Existing runs are left as they are, unless `steps` has grown or the files have moved: then their inputs
    are written again, and they continue from their last state.

    Raises:
        BadInput: an existing run was made with other settings, is in use by another process, or is to be
            lengthened without a saved state.
    """
    engine = campaign.config.engine
    host = engines.load(engine)
    for run in campaign.runs:
        host.require(run)
    before = {run.name: _record(run) for run in campaign.runs}
    for run in campaign.runs:
        _refuse_difference(campaign, run, before[run.name], host)
    for run in campaign.runs:
        record = before[run.name]
        if record is not None and not _moved(campaign, run, record):
            continue
        run.directory.mkdir(parents=True, exist_ok=True)
        with locked(run) if record is not None else contextlib.nullcontext():
            host.write(run)
            outcome = RunOutcome(run.name, engine, "written", host.steps_done(run), run.config.total_steps)
            save(campaign, run, outcome)
    trajectories = [host.trajectories(run) for run in campaign.runs]
    for base in (
        campaign.directory.parent,
        campaign.directory,
    ):  # the newest campaign, and that of this engine
        path = base / CONDUCTIVITY
        files.write_text(path, conductivity_inputs(campaign, trajectories, base, _begun(path)))
    return host


def write_together(planned: Sequence[Campaign]) -> None:
    """`conductivity.yaml` over the campaigns of several engines: runs of one temperature are pooled."""
    if len(planned) < 2:
        return
    base = planned[0].directory.parent
    texts = []
    for campaign in planned:
        trajectories = [engines.load(campaign.config.engine).trajectories(run) for run in campaign.runs]
        begun = _begun(campaign.directory / CONDUCTIVITY)
        texts.append(parse_yaml(conductivity_inputs(campaign, trajectories, base, begun), CONDUCTIVITY))
    runs = [run for text in texts for run in text["runs"]]
    dynamics = provenance.together([text["dynamics"] for text in texts])
    files.write_text(base / CONDUCTIVITY, as_yaml({**texts[0], "runs": runs, "dynamics": dynamics}))


def _begun(path: Path) -> str:
    """The date in the file that the campaign left when it was begun; nothing if there is none."""
    try:
        return str(parse_yaml(path.read_text(encoding="utf-8"), str(path))["dynamics"]["begun"])
    except (OSError, BadInput, UnicodeDecodeError, KeyError, TypeError):
        return ""


def simulate(
    config: SimulationConfig | str | Path | Mapping[str, Any],
    directory: str | Path = "simulation",
    progress: Progress = lambda run, step: None,
) -> list[RunOutcome]:
    """Do what `mlplugins simulate` does: plan, write, run or continue every run, in each engine named.

    The same call continues a campaign that was interrupted, and lengthens one whose `steps` have grown.

    Args:
        config: of `mlplugins simulate`: a YAML file, its content, or the validated object.
        directory: for the folders of the runs and `conductivity.yaml`, the input of the analysis.
        progress: called with a run and its step, a few times a second.

    Returns:
        How each run ended; one that failed does not stop the others.

    Raises:
        BadInput: what `plan.plan` and `write` refuse; nothing has been started then.
        MissingDependency: the engine is not installed.

    >>> simulate(SimulationConfig(model="m.pt", structure="no.cif", temperatures=300, steps=100))
    Traceback (most recent call last):
    ...
    mlplugins.errors.BadInput: no such structure file: 'no.cif'
    """
    configs = [config] if isinstance(config, SimulationConfig) else load_all(config)
    planned = [plan(one, Path(directory).resolve()) for one in configs]
    return [one for _, outcomes in run_all(planned, progress) for one in outcomes]


def run_all(
    planned: Sequence[Campaign], progress: Progress = lambda run, step: None
) -> Iterator[tuple[Campaign, list[RunOutcome]]]:
    """Run campaigns of one engine each, one after the other; `conductivity.yaml` is over all of them."""
    for campaign in planned:
        outcomes = run(campaign, progress)
        write_together(planned)
        yield campaign, outcomes


def run(campaign: Campaign, progress: Progress = lambda run, step: None) -> list[RunOutcome]:
    """Write the input files and run what is not finished yet; a run that fails does not stop the others.

    Args:
        campaign: from `plan.plan`.
        progress: called with a run and its step, a few times a second.
    """
    write(campaign)
    if campaign.config.cluster is not None:
        return cluster.simulate(campaign, progress)
    return drive(campaign, campaign.runs, progress)


def _record(run: Run) -> dict[str, Any] | None:
    """What the status file of a run holds, None if there is none."""
    path = run.directory / STATUS
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record["settings"], dict):
            raise KeyError("settings")
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"'{path}' is not a status file of mlplugins: move '{run.directory}' away") from error
    return {**record, "settings": with_defaults(record["settings"])}


def _refuse_difference(campaign: Campaign, run: Run, record: dict[str, Any] | None, host: Engine) -> None:
    if record is None:
        return
    before, now = record["settings"], json.loads(json.dumps(campaign.settings()))
    longer = now["steps"] - before.get("steps", now["steps"])
    leave = [*PLACES, *WATCH, *(["steps"] if longer > 0 else [])]
    different = sorted(
        _differences(
            {key: value for key, value in before.items() if key not in leave},
            {key: value for key, value in now.items() if key not in leave},
        )
    )
    if different:
        shorter = " ('steps' can only grow)" if longer < 0 else ""
        raise BadInput(
            f"'{run.directory}' was made with other settings: {'; '.join(different)}{shorter}. "
            "Put the old settings back to continue it, or choose another directory with -o"
        )
    if longer > 0 and record.get("state") == "finished" and not host.has_state(run):
        raise BadInput(
            f"'{run.directory}' is finished and its last saved state is gone: it cannot be lengthened; "
            "choose another directory with -o"
        )


def _moved(campaign: Campaign, run: Run, record: dict[str, Any]) -> bool:
    """Whether the inputs of a run name other files, another folder, number of steps or threshold."""
    before, now = record["settings"], campaign.settings()
    there = str(run.directory.resolve())
    return record.get("directory", there) != there or any(
        before.get(key) != now[key] for key in (*PLACES, *WATCH, "steps")
    )


def _differences(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key in {**before, **now}:
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new, f"{prefix}{key}.")
        elif old != new:
            yield f"{prefix}{key} was {_short(old)}, is {_short(new)}"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) < 64 else text[:12] + "…"
