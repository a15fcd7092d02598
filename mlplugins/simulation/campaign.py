"""Running a campaign: at most `parallel` runs at a time, each resumable, with a status file and an ETA."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import yaml

from mlplugins import files
from mlplugins.errors import BadInput
from mlplugins.simulation import host as hosts
from mlplugins.simulation.host import Host
from mlplugins.simulation.plan import PLACES, Campaign, Run, conductivity_inputs, with_defaults
from mlplugins.simulation.process import RunningStage

STATUS, LOCK, CONDUCTIVITY = "status.json", ".lock", "conductivity.yaml"
POLL_S = 0.25
BLOWN_UP = 20.0
"""A logged temperature this many times the wanted one ends a run."""
STATUS_EVERY_S = 5.0
LOCK_WAIT_S = 15.0

Progress = Callable[[Run, int], None]


@dataclass
class Outcome:
    """How a run ended; `status.json` holds the same.

    Attributes:
        state: `written`, `running`, `finished` or `failed`.
        step: last step seen, of `total_steps` (equilibration included).
        message: why it failed.
        last_lines: what the host said last.
    """

    run: str
    engine: str
    state: str
    step: int
    total_steps: int
    message: str = ""
    last_lines: list[str] = field(default_factory=list)


def write(campaign: Campaign) -> Host:
    """Write the input files of all runs and `conductivity.yaml`.

    Existing runs are left as they are, unless `steps` has grown or the files have moved: then their inputs
    are written again, and they continue from their last state.

    Raises:
        BadInput: an existing run was made with other settings, is in use by another process, or is to be
            lengthened without a saved state.
    """
    engine = campaign.config.engine
    host = hosts.load(engine)
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
        with _locked(run) if record is not None else contextlib.nullcontext():
            host.write(run)
            outcome = Outcome(run.name, engine, "written", host.steps_done(run), run.config.total_steps)
            _save(campaign, run, outcome)
    trajectories = [host.trajectories(run) for run in campaign.runs]
    for base in (
        campaign.directory.parent,
        campaign.directory,
    ):  # the newest campaign, and that of this engine
        files.write_text(base / CONDUCTIVITY, conductivity_inputs(campaign, trajectories, base))
    return host


def write_together(planned: Sequence[Campaign]) -> None:
    """`conductivity.yaml` over the campaigns of several engines: runs of one temperature are pooled."""
    if len(planned) < 2:
        return
    base = planned[0].directory.parent
    texts = []
    for campaign in planned:
        trajectories = [hosts.load(campaign.config.engine).trajectories(run) for run in campaign.runs]
        texts.append(yaml.safe_load(conductivity_inputs(campaign, trajectories, base)))
    whole = {**texts[0], "runs": [run for text in texts for run in text["runs"]]}
    files.write_text(base / CONDUCTIVITY, yaml.safe_dump(whole, sort_keys=False, default_flow_style=None))


def simulate(campaign: Campaign, progress: Progress = lambda run, step: None) -> list[Outcome]:
    """Write the input files and run what is not finished yet; a run that fails does not stop the others.

    Args:
        campaign: from `plan.plan`.
        progress: called with a run and its step, a few times a second.
    """
    write(campaign)
    if campaign.config.cluster is not None:
        from mlplugins.simulation import cluster

        return cluster.simulate(campaign, progress)
    return drive(campaign, campaign.runs, progress)


def drive(campaign: Campaign, runs: Sequence[Run], progress: Progress) -> list[Outcome]:
    """Run some runs of a campaign here, whose input files are written."""
    host = hosts.load(campaign.config.engine)
    with contextlib.ExitStack() as stack:
        locks = {run.name: stack.enter_context(_locked(run)) for run in runs}
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
    """One run on its way: starts stage after stage, keeps `status.json`."""

    def __init__(self, campaign: Campaign, host: Host, run: Run, lock: int) -> None:
        self.run = run
        self._campaign = campaign
        self._host = host
        self._lock = lock
        self._stage: RunningStage | None = None
        self._saved = 0.0
        total = run.config.total_steps
        self.outcome = Outcome(run.name, campaign.config.engine, "running", host.steps_done(run), total)

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

    def _next(self, after: str | None = None) -> None:
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
        _save(self._campaign, self.run, self.outcome)


def _save(campaign: Campaign, run: Run, outcome: Outcome) -> None:
    record = {
        **asdict(outcome),
        "temperature_K": run.temperature,
        "seed": run.seed,
        "directory": str(run.directory.resolve()),
        "settings": campaign.settings(),
    }
    files.write_text(run.directory / STATUS, json.dumps(record, indent=2) + "\n")


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


def _refuse_difference(campaign: Campaign, run: Run, record: dict[str, Any] | None, host: Host) -> None:
    if record is None:
        return
    before, now = record["settings"], json.loads(json.dumps(campaign.settings()))
    longer = now["steps"] - before.get("steps", now["steps"])
    leave = [*PLACES, *(["steps"] if longer > 0 else [])]
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
    """Whether the inputs of a run name other files, another folder or another number of steps."""
    before, now = record["settings"], campaign.settings()
    there = str(run.directory.resolve())
    return record.get("directory", there) != there or any(
        before.get(key) != now[key] for key in (*PLACES, "steps")
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


@contextlib.contextmanager
def _locked(run: Run) -> Iterator[int]:
    """An exclusive lock on the run's directory, which the host's processes inherit."""
    descriptor = os.open(run.directory / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    deadline = (
        time.monotonic() + LOCK_WAIT_S
    )  # engines of a killed command end in order, which takes a moment
    try:
        while not _try_lock(descriptor):
            if time.monotonic() > deadline:
                raise BadInput(
                    f"'{run.directory}' is in use: another `mlplugins simulate`, or an engine it left, "
                    f"still runs there (`fuser {run.directory / LOCK}` names it); wait for it or end it"
                )
            time.sleep(POLL_S)
        yield descriptor
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
