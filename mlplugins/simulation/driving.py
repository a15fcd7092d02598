"""Driving runs on this machine: at most `parallel` at a time, each locked, resumable, with a status file."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

from mlplugins import engines, files
from mlplugins.dynamics import watch
from mlplugins.dynamics.process import RunningStage
from mlplugins.dynamics.run import Run
from mlplugins.engines.base import Engine
from mlplugins.simulation.plan import Campaign

STATUS, LOCK = "status.json", ".lock"
POLL_S = 0.25
BLOWN_UP = 20.0
"""A logged temperature this many times the wanted one ends a run."""
STATUS_EVERY_S = 5.0
LOCK_WAIT_S = 15.0

Progress = Callable[[Run, int], None]


@dataclass
class RunOutcome:
    """How a run ended; `status.json` holds the same.

    Attributes:
        state: `written`, `running`, `finished`, `stopped` (above `stop_above`) or `failed`.
        step: last step seen, of `total_steps` (equilibration included).
        message: why it failed or was stopped.
        last_lines: what the host said last.
    """

    run: str
    engine: str
    state: str
    step: int
    total_steps: int
    message: str = ""
    last_lines: list[str] = field(default_factory=list)


def drive(campaign: Campaign, runs: Sequence[Run], progress: Progress) -> list[RunOutcome]:
    """Run some runs of a campaign here, whose input files are written."""
    host = engines.load(campaign.config.engine)
    with contextlib.ExitStack() as stack:
        locks = {run.name: stack.enter_context(locked(run)) for run in runs}
        waiting = [_Worker(campaign, host, run, locks[run.name]) for run in runs]
        active: list[_Worker] = []
        done: list[_Worker] = []
        try:
            while waiting or active:
                while waiting and len(active) < campaign.config.parallel:
                    active.append(waiting.pop(0))
                    active[-1].start()
                for worker in list(active):
                    worker.advance()
                    progress(worker.run, worker.outcome.step)
                    if worker.outcome.state != "running":
                        active.remove(worker)
                        done.append(worker)
                if active:
                    time.sleep(POLL_S)
        finally:
            for worker in active:
                worker.stop()
    order = [run.name for run in campaign.runs]
    return sorted((worker.outcome for worker in done), key=lambda outcome: order.index(outcome.run))


class _Worker:
    """One run in progress: starts stage after stage, updates `status.json`."""

    def __init__(self, campaign: Campaign, host: Engine, run: Run, lock: int) -> None:
        self.run = run
        self._campaign = campaign
        self._host = host
        self._lock = lock
        self._stage: RunningStage | None = None
        self._saved = 0.0
        total = run.config.total_steps
        self.outcome = RunOutcome(run.name, campaign.config.engine, "running", host.steps_done(run), total)

    def start(self) -> None:
        """Start the first stage that is not complete; `finished` if there is none."""
        self._next()

    def advance(self) -> None:
        """Look at the running stage; go on to the next when it has ended."""
        if self._stage is None:
            return
        status = self._stage.poll()
        self._host.prune(self.run)
        self.outcome.step = self._host.steps_done(self.run)
        if status is not None and self._is_stopped():
            return
        hottest = self._host.hottest(self.run)
        if hottest > BLOWN_UP * self.run.temperature:
            self._stage.stop()
            self._fail(
                f"a temperature of {hottest:.3g} K: the run has blown up (look at the time step, the "
                "starting structure and the model)"
            )
        elif status is None:
            if time.monotonic() - self._saved > STATUS_EVERY_S:
                self._save()
        elif status != 0:
            self._fail(f"{self._stage.stage.name}: the host ended with status {status}")
        else:
            self._next(after=self._stage.stage.name)

    def stop(self) -> None:
        """Interrupted: stop the host in order; the run can be continued."""
        if self._stage is not None:
            self._stage.stop()
            self.outcome.step = self._host.steps_done(self.run)
            self._save()

    def _is_stopped(self) -> bool:
        """Whether the run met more than `stop_above`: an end that is recorded as one."""
        row = watch.stopped_at(self.run.directory, self.run.watch)
        if row is None or self.run.watch is None:
            return False
        symbol = self.run.atoms.get_chemical_symbols()[row.atom - 1] if row.atom > 0 else ""
        self._stage = None
        self.outcome.state, self.outcome.step = "stopped", row.step
        self.outcome.message = watch.describe(row, self.run.watch, symbol)
        self._save()
        return True

    def _next(self, after: str | None = None) -> None:
        if after is None and self._is_stopped():
            return
        stage = self._host.next_stage(self.run)
        if stage is None:
            self._stage = None
            self.outcome.state, self.outcome.step = "finished", self.outcome.total_steps
        elif after is not None and stage.name.split(" from ")[0] == after.split(" from ")[0]:
            self._fail(f"{after}: the host ended before its last step")
            return
        else:
            self._stage = RunningStage(stage, self.run.directory, self._lock)
        self._save()

    def _fail(self, message: str) -> None:
        self._stage = None
        self.outcome.state = "failed"
        self.outcome.message = f"{message}, at step {self.outcome.step} of {self.outcome.total_steps}"
        self.outcome.last_lines = self._host.failure(self.run)
        self._save()

    def _save(self) -> None:
        self._saved = time.monotonic()
        save(self._campaign, self.run, self.outcome)


def save(campaign: Campaign, run: Run, outcome: RunOutcome) -> None:
    """Write `status.json`: the outcome, and the settings that a run must share to be continued."""
    record = {
        **asdict(outcome),
        "temperature_K": run.temperature,
        "seed": run.seed,
        "directory": str(run.directory.resolve()),
        "settings": campaign.settings(),
    }
    files.write_text(run.directory / STATUS, json.dumps(record, indent=2) + "\n")


def locked(run: Run) -> contextlib.AbstractContextManager[int]:
    """An exclusive lock on the run's directory, which the host's processes inherit; engines of a killed
    command end in order, which takes a moment."""
    return files.locked(run.directory / LOCK, LOCK_WAIT_S)
