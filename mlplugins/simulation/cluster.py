"""Campaigns on a cluster: every run is a task, in jobs of the scheduler (`dynamics/jobs.py`).

The same YAML, the same directories and status files as on one machine, which have to be on a file system
that all nodes share. A task whose job ends early (time limit) is submitted again and continues from the
host's last restart.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlplugins import engines
from mlplugins.dynamics import jobs
from mlplugins.dynamics.settings import SimulationConfig
from mlplugins.errors import BadInput
from mlplugins.simulation.driving import Progress, RunOutcome, drive
from mlplugins.simulation.plan import Campaign, plan

POLL_S = 1.0


def simulate(campaign: Campaign, progress: Progress) -> list[RunOutcome]:
    """Submit every run that is not finished, follow the status files, return how the runs ended.

    Raises:
        MissingDependency: Parsl is not installed.
        BadInput: options that Parsl's provider does not know.
    """
    cluster = campaign.config.cluster
    if cluster is None:
        raise BadInput("'cluster' is missing in the configuration")
    folder = campaign.directory / "parsl"
    config = campaign.config.model_dump(mode="json")
    host = engines.load(campaign.config.engine)
    with jobs.submitting(cluster, folder) as as_task:
        task = as_task(run_one)
        futures = {run.name: task(config, str(campaign.directory.parent), run.name) for run in campaign.runs}
        while not all(future.done() for future in futures.values()):
            for run in campaign.runs:
                progress(run, host.steps_done(run))
            time.sleep(POLL_S)
        outcomes = []
        for run in campaign.runs:
            ended = futures[run.name].exception()
            if ended is None:
                outcomes.append(RunOutcome(**futures[run.name].result()))
                continue
            message = f"the job ended before the run: {jobs.ended(ended)}"
            step = host.steps_done(run)
            outcomes.append(
                RunOutcome(run.name, campaign.config.engine, "failed", step, run.config.total_steps, message)
            )
    return outcomes


def run_one(config: dict[str, Any], directory: str, name: str) -> dict[str, Any]:
    """Work of one task: continue one run of the campaign; returns its outcome."""
    campaign = plan(SimulationConfig.model_validate(config), Path(directory))
    [run] = [run for run in campaign.runs if run.name == name]
    [outcome] = drive(campaign, [run], lambda run, step: None)
    return asdict(outcome)
