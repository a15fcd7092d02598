"""From the steps and times of the frames to a uniform time grid with gaps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlplugins.errors import BadInput

CANDIDATES = 6
GOOD_SHARE = 0.4
"""The commonest spacing is taken if one stretch without a gap covers this part of the time."""
TENTH = 10
"""A stretch of so many times fewer frames than another is no run: a minimisation before it, say."""
TIME_TOLERANCE = 1e-3
NO_TIMES = "the trajectory holds no times; give --timestep, the MD time step in fs"


@dataclass(frozen=True)
class TimeGrid:
    """Frames on a uniform grid.

    Attributes:
        frames: indices of the frames that lie on the grid.
        segments: [start, stop) among `frames` of each stretch without a gap.
        interval_fs: time between neighbouring frames, fs.
        warnings: what was dropped.
        step_fs: length of an MD step, fs.
    """

    frames: NDArray[np.intp]
    segments: tuple[tuple[int, int], ...]
    interval_fs: float
    warnings: tuple[str, ...] = ()
    step_fs: float = float("nan")


def uniform_grid(
    steps: Sequence[int], times_fs: Sequence[float | None], timestep_fs: float | None
) -> TimeGrid:
    """Choose the spacing between frames; frames off the grid are dropped, gaps split the run.

    Args:
        steps: MD step of each frame, rising.
        times_fs: time of each frame, or None where the file has none.
        timestep_fs: MD time step, fs; None takes it from the times.

    >>> grid = uniform_grid([0, 10, 20, 25, 30, 60, 70], [None] * 7, 2.0)
    >>> grid.frames.tolist(), grid.segments, grid.interval_fs
    ([0, 1, 2, 4, 5, 6], ((0, 4), (4, 6)), 20.0)
    """
    numbers = np.asarray(steps, dtype=np.int64)
    differences = np.diff(numbers)
    span = int(numbers[-1] - numbers[0])
    choices: list[tuple[int, int, NDArray[np.intp]]] = []
    for interval, _ in Counter(differences.tolist()).most_common(CANDIDATES):
        frames = _on_grid(numbers, interval)
        longest = max(stop - start - 1 for start, stop in _segments(numbers[frames], interval))
        choices.append((longest, interval, frames))
    most = max((count for count, *_ in choices), default=0)
    choices = [(count * step, step, found) for count, step, found in choices if count * TENTH >= most]
    if not choices:
        raise BadInput(f"{len(numbers)} frame(s); a displacement needs at least two")
    good = [choice for choice in choices if choice[0] >= GOOD_SHARE * span]
    _, interval, frames = good[0] if good else max(choices, key=lambda choice: choice[0])
    kept = numbers[frames]
    segments = _segments(kept, interval)
    warnings = _warnings(numbers, kept, interval, segments)
    step = _timestep(numbers, times_fs, timestep_fs)
    return TimeGrid(frames, segments, interval * step, warnings, step)


def thinned(grid: TimeGrid, stride: int) -> TimeGrid:
    """The same grid when only frames 0, stride, 2 stride, … were kept; `frames` are then rows of those.

    >>> grid = thinned(uniform_grid([0, 1, 2, 3, 4, 9, 10, 11, 12], [None] * 9, 1.0), 2)
    >>> grid.frames.tolist(), grid.segments, grid.interval_fs
    ([0, 1, 2, 3, 4], ((0, 3), (3, 5)), 2.0)
    """
    if stride == 1:
        return grid
    rows: list[int] = []
    segments: list[tuple[int, int]] = []
    for start, stop in grid.segments:
        places = np.arange(start, stop)[grid.frames[start:stop] % stride == 0]
        for part in np.split(places, np.flatnonzero(np.diff(places) != stride) + 1):
            if len(part):
                segments.append((len(rows), len(rows) + len(part)))
                rows += (grid.frames[part] // stride).tolist()
    note = f"memory: every {stride}th frame kept (unwrapped with all of them)"
    return TimeGrid(
        np.array(rows, dtype=np.intp), tuple(segments), grid.interval_fs * stride, (*grid.warnings, note)
    )


def _on_grid(numbers: NDArray[np.int64], interval: int) -> NDArray[np.intp]:
    residues = numbers % interval
    main = Counter(residues.tolist()).most_common(1)[0][0]
    return np.flatnonzero(residues == main)


def _segments(numbers: NDArray[np.int64], interval: int) -> tuple[tuple[int, int], ...]:
    cuts = np.flatnonzero(np.diff(numbers) != interval) + 1
    edges = [0, *cuts.tolist(), len(numbers)]
    return tuple(zip(edges[:-1], edges[1:]))


def _warnings(
    numbers: NDArray[np.int64],
    kept: NDArray[np.int64],
    interval: int,
    segments: tuple[tuple[int, int], ...],
) -> tuple[str, ...]:
    texts = []
    if len(kept) < len(numbers):
        texts.append(
            f"frames are not evenly spaced: {len(numbers) - len(kept)} of {len(numbers)} that are not on "
            f"the grid of {interval} MD steps were dropped"
        )
    if len(segments) > 1:
        missing = int((kept[-1] - kept[0]) // interval + 1 - len(kept))
        first = int(kept[segments[0][1] - 1])
        texts.append(
            f"{missing} frame(s) missing in {len(segments) - 1} gap(s), the first after step {first}: "
            "displacements across a gap are not used"
        )
    return tuple(texts)


def _timestep(numbers: NDArray[np.int64], times_fs: Sequence[float | None], given: float | None) -> float:
    """Time step in fs, from the user or from the times; a contradiction is refused."""
    known = [time for time in times_fs if time is not None]
    measured = None
    if len(known) == len(numbers) and numbers[-1] > numbers[0]:
        measured = (known[-1] - known[0]) / float(numbers[-1] - numbers[0])
        spread = np.abs(np.diff(known) - measured * np.diff(numbers)).max()
        if measured > 0 and spread > TIME_TOLERANCE * measured * np.diff(numbers).max() and given is None:
            raise BadInput("the MD time step changes along the trajectory; expected frames at equal times")
    if given is None:
        if measured is None or measured <= 0:
            raise BadInput(NO_TIMES)
        return measured
    if measured is not None and abs(measured / given - 1) > TIME_TOLERANCE:
        raise BadInput(
            f"--timestep {given:g} fs, but the times in the file give {measured:g} fs per MD step; correct "
            "the one or leave --timestep out"
        )
    return given
