"""Labelling in several processes at a time: on this machine, or in jobs of a scheduler.

Both start `labels/_worker.py` on the same store, whose locks and files are all that they share.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from mlplugins import files
from mlplugins.dynamics import jobs
from mlplugins.dynamics.output import last_lines
from mlplugins.dynamics.process import RunningStage
from mlplugins.dynamics.run import Command, Stage
from mlplugins.dynamics.settings import Cluster
from mlplugins.errors import RunFailed
from mlplugins.labels._contract import LabelSettings
from mlplugins.labels._store import LOCK, LabelStore
from mlplugins.observer import Observer

WORKER = (sys.executable, "-m", "mlplugins.labels._worker")
POLL_S = 0.1
SAID = 3
"""Last lines of a process that did not label."""
QUIET = "they said nothing, and were ended from outside; the same call continues"


def compute(
    store: LabelStore,
    names: Sequence[str],
    pending: Sequence[str],
    settings: LabelSettings,
    observer: Observer,
) -> None:
    """Label what is pending, and wait for it.

    Raises:
        RunFailed: structures are left, and nobody labels them any more.
    """
    attempts = 1 + len(settings.retries)

    def tell() -> int:
        left = len(store.pending(pending, attempts))
        observer.step(len(names) - left, len(names))
        return left

    observer.start(len(names) - len(pending), len(names))
    if settings.cluster is None:
        said = _here(store, pending, settings.parallel, tell)
    else:
        said = _in_jobs(store, pending, settings.cluster, tell)
    if left := tell():
        raise RunFailed(
            f"{left} of {len(names)} structures have no label, and the processes that label have ended: "
            + (" / ".join(said) or QUIET)
        )


def _here(store: LabelStore, pending: Sequence[str], parallel: int, tell: Callable[[], int]) -> list[str]:
    """In `parallel` processes; what those said last."""
    count = min(parallel, len(pending))
    listed = store.path / f"pending_{os.getpid()}.txt"
    files.write_text(listed, "\n".join(pending) + "\n")
    outputs = [f"worker_{os.getpid()}_{part}.out" for part in range(count)]
    workers: list[RunningStage] = []
    with _lock(store) as descriptor:
        try:
            for part, output in enumerate(outputs):
                words = (*WORKER, str(store.path), listed.name, str(part), str(count))
                workers.append(RunningStage(Stage(output, Command(words, output)), store.path, descriptor))
            while any([worker.poll() is None for worker in workers]):  # all of them are looked at
                tell()
                time.sleep(POLL_S)
        finally:
            for worker in workers:
                worker.stop()
            said = [line for output in outputs for line in last_lines(store.path / output, SAID)]
            for path in (listed, *(store.path / output for output in outputs)):
                path.unlink(missing_ok=True)
    return said


def _in_jobs(
    store: LabelStore, pending: Sequence[str], cluster: Cluster, tell: Callable[[], int]
) -> list[str]:
    """Every structure a task in a job; why some came to nothing."""
    with jobs.submitting(cluster, store.path / "parsl") as as_task:
        task = as_task(label_one)
        futures = [task(str(store.path), name) for name in pending]
        while not all(future.done() for future in futures):
            tell()
            time.sleep(POLL_S)
        errors = [error for future in futures if (error := future.exception())]
        said = [future.result() for future in futures if not future.exception()]
    return list(dict.fromkeys([*map(jobs.ended, errors), *filter(None, said)]))[:SAID]


def label_one(store: str, name: str) -> str:
    """Work of one task: label one structure in a process of its own, which ends with this one; what that said
    last. Another task may be at it, e.g. one that a killed driver left: it is waited for."""
    place = LabelStore(Path(store))
    output = f"worker_{socket.gethostname()}_{os.getpid()}.out"
    words = (sys.executable, *WORKER[1:], str(place.path), name)
    with _lock(place) as descriptor:
        running = RunningStage(Stage(name, Command(words, output)), place.path, descriptor)
        try:
            while running.poll() is None:
                time.sleep(POLL_S)
        finally:
            running.stop()
            said = last_lines(place.path / output, SAID)
            with suppress(OSError):
                (place.path / output).unlink()
    return " / ".join(said)


@contextmanager
def _lock(store: LabelStore) -> Iterator[int]:
    """A descriptor for child processes to hold."""
    descriptor = os.open(store.path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
