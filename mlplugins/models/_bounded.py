"""A bound on the memory for building a model, whose sizes come from files that may be wrong."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from mlplugins.errors import BadInput

FACTORIES = {torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.full, torch.eye}


class Bounded(TorchFunctionMode):
    """Context in which at most `most` numbers, in at most `calls` tensors, may be requested from torch.

    >>> with Bounded(10**6, 100, "a.ckpt"):
    ...     torch.nn.Linear(10**6, 10**6)
    Traceback (most recent call last):
    ...
    mlplugins.errors.BadInput: a.ckpt: its sizes ask for a model of more than 1e+06 numbers
    """

    def __init__(self, most: int, calls: int, where: str) -> None:
        super().__init__()
        self.most, self.calls, self.where = most, calls, where
        self.count = 0

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, arguments: Any = (), options: Any = None
    ) -> Any:
        """Count the tensor that is about to be created."""
        options = options or {}
        if function in FACTORIES:
            size = options.get("size", arguments[:1] if function is torch.full else arguments)
            self.count += math.prod(_whole(size))
            self.calls -= 1
            if self.count > self.most or self.calls < 0:
                raise BadInput(
                    f"{self.where}: its sizes ask for a model of more than {self.most:.3g} numbers"
                )
        return function(*arguments, **options)


def _whole(size: Any) -> list[int]:
    if isinstance(size, int):
        return [max(size, 0)]
    return [number for part in size for number in _whole(part)] if isinstance(size, list | tuple) else []


def like_its_file(path: Path) -> Bounded:
    """The bound for a model read from a file: the size of the file, and tables that are built in addition."""
    return Bounded(path.stat().st_size + 20_000_000, 100_000, str(path))


def like_this_machine(where: str) -> Bounded:
    """The bound for a new model: its weights, gradients and averages must fit into the memory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Bounded(memory // 128, 1_000_000, where)
