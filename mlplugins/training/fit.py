"""Gradient training on Lightning Fabric: one plain loop, resumable at any step.

The order of the frames in an epoch is a function of the seed and the epoch alone, so a run that was killed
and continued visits the same batches with the same state as one that was not.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from lightning.fabric import Fabric
from lightning.fabric.strategies import DDPStrategy
from torch import Tensor, nn

from mlplugins.errors import BadInput, Interrupted, RunFailed
from mlplugins.heads import LabelSizes
from mlplugins.models.base import Potential
from mlplugins.quantities import ENERGY, with_derivatives
from mlplugins.structures.batch import Batch, concatenate, pack
from mlplugins.training.gradient_config import TrainingSection
from mlplugins.training.loss import ErrorSums, Predictor, loss, residuals
from mlplugins.training.schedule import MovingAverage, Schedule

Row = dict[str, float]


class TrainingObserver(Protocol):
    """Receives the progress of training; the command line displays it."""

    def start(self, epoch: int, epochs: int) -> None:
        """Training begins, or continues after `epoch` epochs."""

    def epoch(self, row: Row, epochs: int, best: bool) -> None:
        """An epoch is over."""

    def note(self, text: str) -> None:
        """Something the user should know."""


class Store(Protocol):
    """Destination of checkpoints and the log."""

    def load(self) -> dict[str, Any] | None: ...
    def save(self, state: dict[str, Any]) -> None: ...
    def log(self, rows: Sequence[Row], restart: bool) -> None: ...


@dataclass
class Counters:
    """State of a run: plain numbers, saved unchanged.

    Attributes:
        epoch: epochs completed.
        batch: batches completed of the current epoch.
        step: optimiser steps.
        wall_s, cpu_s: spent so far, all sessions.
        best_score, best_epoch: lowest validation loss, and the epoch it was reached in; of the current stage.
        stopped: why the run (with stages: the current one) ended early, empty if it did not.
        stage: number of the current stage, 0, 1, …
        stage_epoch, stage_step: epochs and steps before it.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    best_score: float = float("inf")
    best_epoch: int = 0
    stopped: str = ""
    stage: int = 0
    stage_epoch: int = 0
    stage_step: int = 0


@dataclass(frozen=True)
class Outcome:
    """Result of a run: the counters, one row per epoch, and whether this process writes the files."""

    counters: Counters
    history: list[Row]
    is_main: bool


@dataclass(frozen=True)
class Parts:
    """Inputs of a run: the model, one-structure batches, settings, seed, sizes of the labels of heads."""

    potential: Potential
    train: list[Batch]
    validation: list[Batch]
    settings: TrainingSection
    seed: int = 0
    sizes: Mapping[str, LabelSizes] = field(default_factory=dict)


def fit(parts: Parts, store: Store, observer: TrainingObserver) -> Outcome:
    """Train `parts.potential` in place; it ends with the best averaged weights, on native ops on a CPU.

    Raises:
        RunFailed: the loss is no longer finite, or a checkpoint cannot be written.
        Interrupted: stopped by a signal, after a checkpoint was written.
    """
    fabric = _fabric(parts.settings)
    fabric.launch()
    with torch.random.fork_rng(
        devices=range(torch.cuda.device_count()) if fabric.device.type == "cuda" else []
    ):
        torch.manual_seed(parts.seed)
        run = _Run(fabric, parts, store, observer)
        run.resume()
        with _signals() as stopped:
            run.train(stopped)
    run.use_best()
    return Outcome(run.counters, run.history, fabric.is_global_zero)


def _fabric(settings: TrainingSection) -> Fabric:
    parallel = settings.num_nodes > 1 or settings.devices not in (1, "1", [0])
    count = torch.cuda.device_count() if settings.accelerator in ("auto", "gpu", "cuda") else 0
    if settings.devices == "auto" and settings.num_nodes == 1 and count < 2:
        parallel = False
    strategy: Any = DDPStrategy(find_unused_parameters=True) if parallel else "auto"
    try:
        return Fabric(
            accelerator=settings.accelerator,
            devices=settings.devices,
            num_nodes=settings.num_nodes,
            strategy=strategy,
        )
    except Exception as error:  # Lightning's own exceptions, and RuntimeError and TypeError
        reason = " ".join(str(error).split())
        raise BadInput(
            f"training.accelerator '{settings.accelerator}' with training.devices {settings.devices!r}: "
            f"{reason}"
        ) from error


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of stopping in the middle of a step."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def remember(number: int, _: Any) -> None:
        received.append(number)

    previous = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@dataclass
class _Run:
    fabric: Fabric
    parts: Parts
    store: Store
    observer: TrainingObserver
    counters: Counters = field(default_factory=Counters)
    history: list[Row] = field(default_factory=list)
    best: dict[str, Tensor] | None = None

    def __post_init__(self) -> None:
        self.stages = self.parts.settings.each()
        self.potential = self.parts.potential.to(self.fabric.device).train()
        if self.fabric.device.type == "cpu":
            self.potential.use_native_ops()
            self.potential.set_exchange(nn.Identity())  # no ghosts here; the op has no second derivative
        self.sums = ErrorSums(self.fabric.device)
        self.packed = [batch.to(self.fabric.device) for batch in self._mine(pack(self.parts.validation))]
        self.saved_at = self.clock = (time.perf_counter(), time.process_time())
        self._begin()

    def _begin(self) -> None:
        """What a stage begins with beside the weights: it remembers nothing of the one before."""
        settings = self.settings = self.stages[self.counters.stage]
        self.best = None
        self.average = MovingAverage(self.potential, settings.ema)
        self.averaged = Predictor(self.average.module)  # type: ignore[arg-type]
        self.raw_optimizer = _optimizer(self.potential, settings)
        predictor = Predictor(self.potential, settings.loss.learned)
        self.model, self.optimizer = self.fabric.setup(predictor, self.raw_optimizer)
        self.schedule = Schedule(settings.schedule)
        self.per_epoch = -(-len(self.parts.train) // (settings.batch_size * self.fabric.world_size))

    # --- the loop ---------------------------------------------------------------------------------------

    def train(self, stopped: list[int]) -> None:
        """All epochs that are left, of all stages."""
        self.observer.start(self.counters.epoch, self.parts.settings.epochs)
        while True:
            while not self._stage_is_done() and not self._stop_early():
                if not (self._epoch(stopped) and self._end_of_epoch(stopped)):
                    self._save()
                    self.observer.note("interrupted; checkpoint written, the same command continues")
                    raise Interrupted(stopped[0] if stopped else signal.SIGTERM)  # or another rank was
            if self.counters.stage + 1 == len(self.stages):
                break
            self._next_stage()
        self._save()

    def _stage_is_done(self) -> bool:
        return self.counters.epoch - self.counters.stage_epoch >= self.settings.epochs

    def _next_stage(self) -> None:
        """Begin the next stage with the best averaged weights of this one."""
        counters = self.counters
        names = self.parts.settings.names
        ended = f"after {counters.stopped}" if counters.stopped else "done"
        self.observer.note(
            f"stage {names[counters.stage]} {ended}; {names[counters.stage + 1]} begins with its epoch "
            f"{counters.best_epoch - counters.stage_epoch}"
        )
        self.use_best()
        self.potential.train()
        counters.stage += 1
        counters.stage_epoch, counters.stage_step = counters.epoch, counters.step
        counters.best_score, counters.best_epoch = Counters.best_score, counters.epoch
        self._begin()

    def _epoch(self, stopped: list[int]) -> bool:
        """The remaining batches of an epoch; False if interrupted."""
        order = self._order(self.counters.epoch)
        for index in range(self.counters.batch, self.per_epoch):
            batch = concatenate([self.parts.train[i] for i in order[index]]).to(self.fabric.device)
            self._step(batch)
            self.counters.batch = index + 1
            alone = self.fabric.world_size == 1
            if (alone or index % 10 == 0) and self._agreed(bool(stopped)):
                return False
            if alone:
                if self._out_of_time():
                    break
                self._save_if_due()
        return True

    def _step(self, batch: Batch) -> None:
        counters, settings = self.counters, self.settings
        step = counters.step - counters.stage_step
        rate = settings.lr * self.schedule.factor(step, self._progress())
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        errors = residuals(self.model(batch, True), batch)
        value = loss(errors, settings.loss, self.parts.sizes)
        self.optimizer.zero_grad()
        weights = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        self.fabric.backward(value, inputs=weights)  # not to the positions, which are leaves too
        if settings.gradient_clip is not None:
            torch.nn.utils.clip_grad_norm_(self.potential.parameters(), settings.gradient_clip)
        self.optimizer.step()
        self.average.update(step)
        self.sums.add(errors, value, batch.n_systems)
        counters.step += 1

    def _end_of_epoch(self, stopped: list[int]) -> bool:
        """Validate and log; False if interrupted, with the state of before the validation."""
        counters, trained = self.counters, self.sums
        self._tick()
        sums = self._reduced(self.sums)
        row: Row = {"epoch": counters.epoch + 1, "step": counters.step, "seconds": round(counters.wall_s, 3)}
        if self.parts.settings.stages is not None:
            row["stage"] = counters.stage + 1
        row["lr"] = self.optimizer.param_groups[0]["lr"]
        row |= {f"train_{name}": value for name, value in sums.summary().items()}
        self._require_finite(row["train_loss"])
        counters.epoch, counters.batch = counters.epoch + 1, 0
        self.sums = ErrorSums(self.fabric.device)
        improved = self._validate(row, stopped)
        if improved is None:
            counters.epoch, counters.batch, self.sums = counters.epoch - 1, self.per_epoch, trained
            return False
        self.history.append(row)
        if self.fabric.is_global_zero:
            self.store.log([row], restart=False)
            self.observer.epoch(row, self.parts.settings.epochs, improved)
        self._save_if_due()
        return True

    def _validate(self, row: Row, stopped: list[int]) -> bool | None:
        """Errors of the averaged weights on the validation set; True if they are the best so far, None if
        interrupted (a run on one rank)."""
        counters, every = self.counters, self.settings.validate_every
        last = self._stage_is_done() or self._out_of_time()
        if not self.parts.validation:
            counters.best_epoch = counters.epoch  # nothing to choose by: the last weights count
            return False
        if counters.epoch % every and not last:
            return False
        sums = ErrorSums(self.fabric.device)
        for batch in self.packed:
            if stopped and self.fabric.world_size == 1:
                return None
            errors = residuals(self.averaged(batch, False), batch)
            sums.add(errors, loss(errors, self.settings.loss, self.parts.sizes), batch.n_systems)
        summary = self._reduced(sums).summary()
        row |= {f"validation_{name}": value for name, value in summary.items()}
        score = summary["loss"]
        self._require_finite(score)
        self.schedule.after_validation(score, every)
        if score >= counters.best_score:
            return False
        counters.best_score, counters.best_epoch = score, counters.epoch
        self.best = {name: value.clone() for name, value in self.average.module.state_dict().items()}
        return True

    def _stop_early(self) -> bool:
        counters, patience = self.counters, self.settings.early_stopping
        waited = counters.epoch - counters.best_epoch
        counters.stopped = ""
        if patience is not None and self.parts.validation and waited >= patience:
            counters.stopped = f"no better validation loss for {waited} epochs"
        elif self._agreed(self._out_of_time()):
            counters.stopped = f"{self.settings.max_minutes} minutes are over"
        return bool(counters.stopped)

    # --- order and clocks -------------------------------------------------------------------------------

    def _order(self, epoch: int) -> list[list[int]]:
        """Frames of each batch of this rank; ranks get equally many batches, the last ones wrap around."""
        size, ranks = self.settings.batch_size, self.fabric.world_size
        generator = torch.Generator().manual_seed((self.parts.seed << 32) ^ epoch)
        order = torch.randperm(len(self.parts.train), generator=generator).tolist()
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        wanted = self.per_epoch * ranks
        batches += [batches[i % len(batches)] for i in range(wanted - len(batches))]
        return batches[self.fabric.global_rank : wanted : ranks]

    def _progress(self) -> float:
        done = (self.counters.step - self.counters.stage_step) / (self.per_epoch * self.settings.epochs)
        if self.settings.max_minutes is None:
            return done
        self._tick()
        return max(done, self.counters.wall_s / (60.0 * self.settings.max_minutes))

    def _out_of_time(self) -> bool:
        if self.settings.max_minutes is None:
            return False
        self._tick()
        return self.counters.wall_s >= 60.0 * self.settings.max_minutes

    def _tick(self) -> None:
        now = (time.perf_counter(), time.process_time())
        self.counters.wall_s += now[0] - self.clock[0]
        self.counters.cpu_s += now[1] - self.clock[1]
        self.clock = now

    # --- several ranks ----------------------------------------------------------------------------------

    def _mine(self, batches: list[Batch]) -> list[Batch]:
        return batches[self.fabric.global_rank :: self.fabric.world_size]

    def _reduced(self, sums: ErrorSums) -> ErrorSums:
        total = ErrorSums(self.fabric.device)
        total.values = sums.values.clone()
        if self.fabric.world_size > 1:
            total.values = self.fabric.all_reduce(total.values, reduce_op="sum")
        return total

    def _agreed(self, mine: bool) -> bool:
        """Whether any rank says so (all ranks must leave the loop together)."""
        if self.fabric.world_size == 1:
            return mine
        flag = torch.tensor(float(mine), device=self.fabric.device)
        return bool(self.fabric.all_reduce(flag, reduce_op="sum").item() > 0)

    # --- state ------------------------------------------------------------------------------------------

    def _require_finite(self, value: float) -> None:
        if not torch.isfinite(torch.tensor(value)):
            raise RunFailed(
                f"the loss became {value} in epoch {self.counters.epoch + 1}, step {self.counters.step}: "
                "lower training.lr or training.gradient_clip, or look for wrong labels; the checkpoint holds "
                "the last finite state"
            )

    def _finite(self) -> bool:
        tensors = [self.sums.values, *self.potential.parameters()]
        return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)

    def _save_if_due(self) -> None:
        if time.perf_counter() - self.saved_at[0] >= self.settings.checkpoint_seconds:
            self._save()

    def _save(self) -> None:
        self.saved_at = (time.perf_counter(), 0.0)
        self._tick()
        if not self.fabric.is_global_zero or not self._finite():
            return
        self.store.save(
            {
                "weights": self.potential.state_dict(),
                "average": self.average.module.state_dict(),
                "best": self.best,
                "optimizer": self.raw_optimizer.state_dict(),
                "schedule": self.schedule.state(),
                "counters": vars(self.counters).copy(),
                "sums": self.sums.values,
                "history": self.history,
                "rng": torch.get_rng_state(),
            }
        )

    def resume(self) -> None:
        """Continue from the checkpoint, if there is one."""
        state = self.store.load()
        if state is None:
            self.store.log([], restart=True)
            return
        try:
            self.potential.load_state_dict(state["weights"])
        except (RuntimeError, KeyError, TypeError) as error:
            raise BadInput(
                "the checkpoint was written by a version whose model has other weights: continue with that "
                f"version, or begin anew with --restart ({str(error).splitlines()[-1].strip()})"
            ) from error
        try:
            self._restore(state)
        except Exception as error:  # an entry that is missing, or of another kind than ours
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise BadInput(
                f"the checkpoint is not intact ({reason}): take a copy of it, or begin anew with --restart"
            ) from error
        if self.fabric.is_global_zero:
            self.store.log(self.history, restart=True)
            self.observer.note(f"continuing after epoch {self.counters.epoch}, step {self.counters.step}")

    def _restore(self, state: dict[str, Any]) -> None:
        device = self.fabric.device
        counters = Counters(**state["counters"])
        for name, value in vars(Counters()).items():
            kind = float | int if isinstance(value, float) else type(value)
            if not isinstance(getattr(counters, name), kind):
                raise TypeError(f"'counters.{name}' is {getattr(counters, name)!r}")
        self.counters = counters
        if counters.stage > 0:
            self._begin()
        self.average.module.load_state_dict(state["average"])
        self.raw_optimizer.load_state_dict(state["optimizer"])
        self.schedule.restore(state["schedule"])
        self.history = [dict(row) for row in state["history"]]
        self.sums.restore(state["sums"].to(device))
        self.best = state["best"] and {name: value.to(device) for name, value in state["best"].items()}
        torch.set_rng_state(state["rng"])

    def use_best(self) -> None:
        """Leave the best averaged weights in the potential."""
        self.potential.load_state_dict(self.best or self.average.module.state_dict())
        self.potential.eval()


def _optimizer(potential: Potential, settings: TrainingSection) -> torch.optim.Optimizer:
    parameters = [p for p in _learning(potential, settings) if p.requires_grad]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(
            parameters, lr=settings.lr, weight_decay=settings.weight_decay, amsgrad=True, fused=True
        )
    return torch.optim.Adam(parameters, lr=settings.lr, amsgrad=True, fused=True)


def _learning(potential: Potential, settings: TrainingSection) -> list[nn.Parameter]:
    """Parameters without those of heads that do not learn (of what two heads share, if neither does)."""
    active: set[int] = set()
    idle: set[int] = set()
    for part in potential.parts():
        for name, head in part.heads.items():
            learns = any(
                each in settings.loss.learned
                for each in with_derivatives(["energy" if name.startswith(ENERGY) else name])
            )
            (active if learns else idle).update(id(p) for p in head.parameters())
    return [p for p in potential.parameters() if id(p) not in idle - active]
