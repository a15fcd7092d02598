"""Rows of numbers, one per frame, in bounded memory: beyond the budget every second frame is dropped."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
BUDGET_BYTES = 400_000_000


class FrameStore:
    """Keeps frame 0, s, 2s, … with s = 1 until the rows no longer fit, then 2, 4, ….

    Diffusion is read at lags of picoseconds: a coarser spacing of a trajectory that is long enough to need it
    costs nothing. Unwrapping happens before, with every frame.

    >>> store = FrameStore(budget=8 * 1 * 8)
    >>> for number in range(20):
    ...     store.add(np.array([float(number)]))
    >>> store.stride, store.rows[:, 0].tolist()
    (4, [0.0, 4.0, 8.0, 12.0, 16.0])
    """

    def __init__(self, budget: int = BUDGET_BYTES, most_rows: int | None = None) -> None:
        self.stride = 1
        self.seen = 0
        self._budget, self._most_rows = budget, most_rows
        self._kept = 0
        self._data: Floats = np.zeros((0, 0))

    def add(self, row: Floats) -> None:
        """Take the next frame; `row` has the same length every time."""
        number, self.seen = self.seen, self.seen + 1
        if number % self.stride:
            return
        if self._kept == len(self._data):
            self._make_room(len(row))
            if number % self.stride:
                return
        self._data[self._kept] = row
        self._kept += 1

    def _make_room(self, width: int) -> None:
        most = max(self._budget // (8 * width), 8)
        most = min(most, self._most_rows or most)
        if self._kept == 0:
            self._data = np.empty((min(256, most), width))
        elif self._kept < most:
            self._data.resize((min(int(self._kept * 1.5) + 1, most), width), refcheck=False)
        else:
            half = self._data[: self._kept : 2].shape[0]
            self._data[:half] = self._data[: self._kept : 2].copy()
            self._kept, self.stride = half, 2 * self.stride

    @property
    def rows(self) -> Floats:
        """The kept rows (frames, width)."""
        return self._data[: self._kept]
