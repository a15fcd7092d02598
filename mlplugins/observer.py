"""Progress of long work started from Python; the command line displays it."""

from __future__ import annotations

from typing import Any, Protocol


class Observer(Protocol):
    """Receives the progress of work in equal pieces; see `Silent` for one that ignores it."""

    def start(self, done: int, total: int) -> None:
        """Work of `total` pieces begins, or continues after `done` of them."""

    def step(self, done: int, total: int) -> None:
        """`done` of `total` pieces are finished."""

    def note(self, text: str) -> None:
        """Something the user should know."""


class Silent:
    """Ignores everything; also a base for observers that want to know one thing only.

    >>> class Notes(Silent):
    ...     def note(self, text: str) -> None:
    ...         print(text)
    >>> Notes().note("12 frames have no stress")
    12 frames have no stress
    """

    def start(self, done: int, total: int) -> None:
        """Nothing."""

    def step(self, done: int, total: int) -> None:
        """Nothing."""

    def epoch(self, row: dict[str, float], epochs: int, best: bool) -> None:
        """Nothing (an epoch of gradient training)."""

    def note(self, text: str) -> None:
        """Nothing."""


SILENT: Any = Silent()
"""What functions tell their progress to unless they are given an observer."""
