"""Tasks in jobs of a scheduler, through Parsl (Y. Babuji et al., HPDC 2019): runs of a campaign, labels.

Parsl carries the tasks, no more: what is done is said by the files of each task, under a lock that whoever
works on it holds. So tasks that survive a killed driver do no harm, and a task may come twice.
"""

from __future__ import annotations

import contextlib
import ipaddress
import math
import runpy
import shlex
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mlplugins.dynamics.process import die_with_parent
from mlplugins.dynamics.settings import Cluster
from mlplugins.errors import BadInput, MissingDependency

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


@contextlib.contextmanager
def submitting(cluster: Cluster, folder: Path) -> Iterator[Callable[[Any], Any]]:
    """For the block: a function that makes functions into tasks, whose calls give futures.

    Args:
        cluster: where the tasks are executed.
        folder: of Parsl's own files.

    Raises:
        MissingDependency: Parsl is not installed.
        BadInput: options that Parsl's provider does not know, or no address that jobs could reach.
    """
    try:
        import parsl
    except ImportError as error:
        raise MissingDependency("parsl is not installed; pip install 'mlplugins[cluster]'") from error
    with parsl.load(_config(cluster, folder)):
        yield parsl.python_app
    parsl.clear()


def ended(error: BaseException) -> str:
    """Why a task has no result, in one line."""
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _config(cluster: Cluster, folder: Path) -> Any:
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
        "address": str(cluster.address) if cluster.address else _address(cluster.provider),
        "drain_period": cluster.drain and math.ceil(cluster.drain),
    }
    if (programs / INTERCHANGE).is_file():
        extra["interchange_launch_cmd"] = [sys.executable, "-m", __name__, str(programs / INTERCHANGE)]
    executor = HighThroughputExecutor(
        label="tasks", provider=provider, max_workers_per_node=cluster.workers, encrypted=True, **extra
    )
    return Config(
        executors=[executor],
        retries=cluster.retries,
        retry_handler=_cost,
        run_dir=str(folder),
        initialize_logging=True,
    )


def _cost(error: Exception, task: Any) -> float:
    """Of another try, in `retries`: what a job's end cut off goes on, what failed by itself fails again."""
    from parsl.executors.high_throughput.errors import ManagerLost, WorkerLost

    return 1.0 if isinstance(error, ManagerLost | WorkerLost) else math.inf


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


if __name__ == "__main__":  # Parsl's interchange, which would outlive a driver that is killed
    die_with_parent()
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
