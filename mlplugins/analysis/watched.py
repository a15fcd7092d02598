"""The uncertainty of a model along a run, as a table that the run left, and what of the run is within it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlplugins.analysis.blocks import Paths
from mlplugins.errors import BadInput
from mlplugins.units import FS_PER_PS

Floats = NDArray[np.float64]
SHORTEST = 2
"""Frames of a stretch that displacements can be taken in."""


@dataclass(frozen=True)
class Watched:
    """What is known of one run's uncertainty.

    Attributes:
        what: in words, e.g. `model deviation of forces`.
        unit: of the values.
        limit: a larger value is outside of what the model knows.
        stop_above: a larger value ended the run; None: none would have.
        time_ps: (looks,) from the first frame; ascending.
        values: (looks,) of the least certain atom.
    """

    what: str
    unit: str
    limit: float
    stop_above: float | None
    time_ps: Floats
    values: Floats

    @property
    def outside(self) -> NDArray[np.bool_]:
        """(looks,) above the limit, or not a number."""
        return ~(self.values <= self.limit)

    @property
    def is_stopped(self) -> bool:
        """Whether the last value ended the run."""
        return self.stop_above is not None and len(self.values) > 0 and not self.values[-1] <= self.stop_above

    def unknown(self, times_ps: Floats) -> NDArray[np.bool_]:
        """Which of the times (ps) lie strictly between the looks beside one that was outside.

        >>> looks = np.array([0.0, 1.0, 2.0, 3.0])
        >>> run = Watched("u", "eV", 0.5, None, looks, np.array([0.1, 0.1, 0.9, 0.2]))
        >>> run.unknown(np.array([0.5, 1.0, 1.5, 2.5, 3.0])).tolist()
        [False, False, True, True, False]
        """
        padded = np.concatenate([[-np.inf], self.time_ps, [np.inf]])
        found = np.zeros(len(times_ps), dtype=bool)
        for k in np.flatnonzero(self.outside):
            found |= (times_ps > padded[k]) & (times_ps < padded[k + 2])
        return found


def read(
    path: Path, names: tuple[str, str], limits: tuple[float, float | None], first: int, step_fs: float
) -> Watched:
    """A table of steps, largest values, …; lines that begin with `#` and a cut last line do not count.

    Args:
        path: the table.
        names: what the values are, and their unit.
        limits: above which the model does not know, and above which the run was ended.
        first: step of the first frame of the trajectory; earlier ones are left out.
        step_fs: MD time step, fs.

    Raises:
        BadInput: no such file, or no table.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise BadInput(f"uncertainty: no such table: '{path}'") from error
    whole = text[: text.rfind("\n") + 1].splitlines()
    try:
        rows = [[float(word) for word in line.split()[:2]] for line in whole if line[:1] not in ("#", "")]
        table = np.array(rows, dtype=np.float64).reshape(-1, 2)
    except ValueError as error:
        raise BadInput(f"uncertainty: '{path}' is no table of steps and values: {error}") from error
    table = table[table[:, 0] >= first]
    time = (table[:, 0] - first) * step_fs / FS_PER_PS
    return Watched(*names, *limits, time, table[:, 1])


def known(paths: Paths, watched: Sequence[Watched | None], starts_ps: Sequence[float]) -> Paths:
    """The same displacements, without the stretches in which the model did not know.

    Args:
        paths: of all runs.
        watched: of each run; None: not watched, all of it stays.
        starts_ps: time of the first frame of `paths` in each run.
    """
    segments = []
    for parts, run, start, frames in zip(paths.segments, watched, starts_ps, paths.displacements):
        times = start + np.arange(len(frames), dtype=np.float64) * float(paths.interval_fs / FS_PER_PS)
        bad = np.zeros(len(frames), dtype=bool) if run is None else run.unknown(times)
        kept = [piece for part in parts for piece in _pieces(bad, *part)]
        segments.append(tuple(kept))
    return Paths(paths.displacements, segments, paths.interval_fs)


def _pieces(bad: NDArray[np.bool_], start: int, stop: int) -> list[tuple[int, int]]:
    """Stretches of [start, stop) without a bad frame.

    >>> _pieces(np.array([0, 0, 1, 0, 0, 0, 1, 0], dtype=bool), 0, 8)
    [(0, 2), (3, 6)]
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[1], bad[start:stop], [1]])))
    pairs = edges.reshape(-1, 2) + start
    return [(int(a), int(b)) for a, b in pairs if b - a >= SHORTEST]
