"""Some frames of a run with all of its atoms, evenly spaced, in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlplugins.analysis.store import FrameStore
from mlplugins.analysis.timegrid import TimeGrid
from mlplugins.units import FS_PER_PS

Floats = NDArray[np.float64]
SHARE = 10
"""One part in so many of the memory for displacements."""
MOST = 128
"""Snapshots, at most: distances need no more, and short runs no second copy of all of their frames."""


@dataclass(frozen=True)
class Snapshots:
    """Frames 0, s, 2s, … of a run.

    Attributes:
        symbols: elements of the atoms (N,).
        fractions: positions in the cell of each frame (F, N, 3).
        cells: lattice vectors as rows (F, 3, 3), Å.
        times_ps: since the first frame of the run (F,).
    """

    symbols: NDArray[np.str_]
    fractions: Floats
    cells: Floats
    times_ps: Floats


class SnapshotStore:
    """Takes every frame of a run, keeps some."""

    def __init__(self, memory_bytes: int) -> None:
        self._store = FrameStore(memory_bytes // SHARE, MOST)

    def add(self, fractions: Floats, cell: Floats) -> None:
        """The next frame: positions (N, 3) in fractions of its cell."""
        self._store.add(np.concatenate([cell.ravel(), fractions.ravel()]))

    def finish(self, symbols: NDArray[np.str_], steps: Sequence[int], grid: TimeGrid) -> Snapshots:
        """With times from the steps of all frames and their grid."""
        rows = self._store.rows
        start, stop = max(grid.segments, key=lambda part: part[1] - part[0])
        first, last = grid.frames[start], grid.frames[stop - 1]
        span = (stop - 1 - start) * grid.interval_fs / FS_PER_PS
        per_step = span / max(steps[last] - steps[first], 1)
        times = [(step - steps[0]) * per_step for step in steps[:: self._store.stride]]
        return Snapshots(
            symbols, rows[:, 9:].reshape(len(rows), -1, 3), rows[:, :9].reshape(-1, 3, 3), np.array(times)
        )
