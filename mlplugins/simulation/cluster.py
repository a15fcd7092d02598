"""Campaigns on a cluster: every run is a task of Parsl (Y. Babuji et al., HPDC 2019), in jobs of the
scheduler.

The same YAML, the same directories and status files as on one machine, which have to be on a file system
that all nodes share. A task whose job ends early (time limit) is submitted again and continues from the
host's last restart.
"""

from __future__ import annotations

import ipaddress
import shlex
import socket
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlplugins import engines
from mlplugins.dynamics.settings import Cluster, SimulationConfig
from mlplugins.errors import BadInput, MissingDependency
from mlplugins.simulation.driving import Progress, RunOutcome, drive
from mlplugins.simulation.plan import Campaign, plan

POLL_S = 1.0
INTERCHANGE = "interchange.py"
LOOPBACK = "127.0.0.1"
PROVIDERS = {
    "local": "LocalProvider",
    "slurm": "SlurmProvider",
    "pbspro": "PBSProProvider",
    "torque": "TorqueProvider",
    "lsf": "LSFProvider",
    "grid_engine": "GridEngineProvider",
    "condor": "CondorProvider",
}


def simulate(campaign: Campaign, progress: Progress) -> list[RunOutcome]:
    """Submit every run that is not finished, follow the status files, return how the runs ended.

    Raises:
        MissingDependency: Parsl is not installed.
        BadInput: options that Parsl's provider does not know.
    """
    cluster = campaign.config.cluster
    if cluster is None:
        raise BadInput("'cluster' is missing in the configuration")
    try:
        import parsl
    except ImportError as error:
        raise MissingDependency("parsl is not installed; pip install 'mlplugins[cluster]'") from error
    folder = campaign.directory / "parsl"
    config = campaign.config.model_dump(mode="json")
    host = engines.load(campaign.config.engine)
    with parsl.load(_parsl_config(cluster, folder)):
        task = parsl.python_app(run_one)
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
            message = f"the job ended before the run: {type(ended).__name__}: {ended}".splitlines()[0]
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


def _parsl_config(cluster: Cluster, folder: Path) -> Any:
    from parsl import providers
    from parsl.config import Config
    from parsl.executors import HighThroughputExecutor

    options = {"init_blocks": 1, "max_blocks": cluster.jobs, **cluster.options}
    programs = Path(sys.executable).parent  # not in the PATH of an environment that was not activated
    if cluster.provider == "local":
        path = f'export PATH={shlex.quote(str(programs))}:"$PATH"'
        options["worker_init"] = f"{path}\n{options.get('worker_init', '')}"
    try:
        provider = getattr(providers, PROVIDERS[cluster.provider])(**options)
    except (TypeError, AttributeError) as error:
        raise BadInput(f"'cluster.options' for {cluster.provider}: {error}") from error
    extra: dict[str, Any] = {
        "address": str(cluster.address) if cluster.address else _address(cluster.provider)
    }
    if (programs / INTERCHANGE).is_file():
        extra["interchange_launch_cmd"] = [sys.executable, str(programs / INTERCHANGE)]
    executor = HighThroughputExecutor(
        label="runs", provider=provider, max_workers_per_node=cluster.workers, encrypted=True, **extra
    )
    return Config(executors=[executor], retries=cluster.retries, run_dir=str(folder), initialize_logging=True)


def _address(provider: str) -> str:
    """The address that this process listens on: on a cluster that of its host name, never all addresses."""
    if provider == "local":
        return LOOPBACK
    try:
        found = socket.gethostbyname(socket.gethostname())
    except OSError:
        found = LOOPBACK
    if ipaddress.ip_address(found).is_loopback:
        raise BadInput(
            f"'cluster.address': the host name '{socket.gethostname()}' stands for no address that a job "
            "could reach; give the address of this machine on the cluster's network"
        )
    return found
