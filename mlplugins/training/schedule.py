"""Learning rate over time, and the exponential moving average of the weights."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from mlplugins.training.gradient_config import ScheduleSection


class Schedule:
    """Factor of the learning rate: linear warm-up times the shape named in the configuration.

    >>> schedule = Schedule(ScheduleSection(name="cosine", warmup_steps=0, final=0.1))
    >>> [round(schedule.factor(step=10, progress=p), 3) for p in (0.0, 0.5, 1.0)]
    [1.0, 0.55, 0.1]
    """

    def __init__(self, settings: ScheduleSection) -> None:
        self.settings = settings
        self.reduction = 1.0
        self.best = math.inf
        self.waited = 0

    def factor(self, step: int, progress: float) -> float:
        """Factor at a step (0, 1, …); `progress` is the part of the training done, 0 to 1."""
        s = self.settings
        warmup = min(1.0, (step + 1) / (s.warmup_steps + 1))
        progress = min(max(progress, 0.0), 1.0)
        if s.name == "cosine":
            return warmup * (s.final + (1.0 - s.final) * 0.5 * (1.0 + math.cos(math.pi * progress)))
        if s.name == "exponential":
            return warmup * s.final**progress
        return warmup * self.reduction

    def after_validation(self, score: float, epochs: int) -> None:
        """Tell the plateau schedule a validation loss, `epochs` after the last one."""
        if self.settings.name != "plateau":
            return
        if score < self.best:
            self.best, self.waited = score, 0
            return
        self.waited += epochs
        if self.waited >= self.settings.patience:
            self.reduction = max(self.reduction * self.settings.factor, self.settings.final)
            self.waited = 0

    def state(self) -> dict[str, Any]:
        """What `restore` needs."""
        return {"reduction": self.reduction, "best": self.best, "waited": self.waited}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state()`."""
        self.reduction, self.best, self.waited = state["reduction"], state["best"], state["waited"]


class MovingAverage:
    """θ̄ ← d θ̄ + (1 − d) θ with d = min(decay, (1 + t)/(10 + t)), so that early steps are forgotten.

    Attributes:
        module: copy of the model that holds θ̄.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self._source: list[Tensor] = list(module.parameters())
        self._mean: list[Tensor] = list(self.module.parameters())

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the current weights, after optimiser step number `step` (0, 1, …)."""
        decay = min(self.decay, (1.0 + step) / (10.0 + step))
        torch._foreach_lerp_(self._mean, self._source, 1.0 - decay)
