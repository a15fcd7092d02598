"""Series that hold something twice: a column, the samples of a restart that was appended, a run."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlplugins.errors import BadInput

Floats = NDArray[np.float64]
Marks = NDArray[np.uint64]
ANCHORS, ENOUGH = 32, 3
"""Every so many samples one is remembered; so many that come again at one distance are a repetition."""
MOST_TIMES = 5
"""A series that is there more often is periodic: a model, not molecular dynamics."""
PLACES = 1 << 12
"""Positions are told apart to this part of a cell vector: copies differ by their digits."""
LOOKED_AT, MOVES_A, SAME_A = 16, 0.2, 1e-3
"""Frames in which ions are compared, how far they have to move, and how much copies differ, Å."""
FEW, MIXER = 1 << 14, np.uint64(0x9E3779B97F4A7C15)
"""Samples of a long series whose marks are looked for in other series, chosen by the marks."""
ATOMS, IN_A_ROW = 24, 5
"""Atoms of a frame that are looked at, and frames at one distance that are no chance."""


def require_other_names(path: Path, names: Sequence[str]) -> None:
    """Refuse a column that is named twice.

    Raises:
        BadInput: naming it.
    """
    for name in names:
        if list(names).count(name) > 1:
            raise BadInput(f"{path}: the column '{name}' is named twice: expected different components")


def require_other_columns(path: Path, names: Sequence[str], values: Floats) -> None:
    """Refuse components that are the same numbers.

    Raises:
        BadInput: naming two.

    >>> require_other_columns(Path("j.npy"), ["x", "y"], np.array([[1.0, 1.0], [2.0, 2.0]]))
    Traceback (most recent call last):
    ...
    mlplugins.errors.BadInput: j.npy: 'x' and 'y' hold the same numbers: expected different components
    """
    for k, name in enumerate(names):
        for j in range(k):
            if np.ptp(values[:, k]) > 0 and np.array_equal(values[:, j], values[:, k]):
                raise BadInput(
                    f"{path}: '{names[j]}' and '{name}' hold the same numbers: expected different components"
                )


class Appended:
    """Looks for samples that come again in one file without step numbers.

    Where the first one does, more than five times, the series is periodic, and nothing is said.

    Args:
        path: named in messages.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._marks: dict[int, int] = {}
        self._lags: dict[int, int] = {}
        self._seen = self._period = 0

    def see(self, values: Floats) -> None:
        """The next samples (n, C).

        Raises:
            BadInput: a stretch of them was there before.
        """
        found = marks(values)
        numbers = np.arange(self._seen, self._seen + len(found))
        known = np.fromiter(self._marks, np.uint64, len(self._marks))
        looked_at = np.isin(found, np.concatenate([known, found[numbers % ANCHORS == 0]]))
        for number, mark in zip(numbers[looked_at].tolist(), found[looked_at].tolist(), strict=True):
            place = self._marks.get(mark)
            if place is None:
                if number % ANCHORS == 0:
                    self._marks[mark] = number
                continue
            lag = number - place
            self._lags[lag] = self._lags.get(lag, 0) + 1
            if place == 0 and not self._period:
                self._period = lag
            if self._lags[lag] >= ENOUGH and lag > ANCHORS and not self._period:
                raise BadInput(
                    f"{self.path}: samples around {number} are those around {place} again (a restart that "
                    "was appended?): expected each once; remove the repeated ones"
                )
        self._seen += len(found)

    def end(self) -> None:
        """There are no more samples.

        Raises:
            BadInput: they begin anew a few times.
        """
        period = self._period
        known = period > ANCHORS and self._lags[period] >= ENOUGH
        if known and self._seen <= MOST_TIMES * period:
            raise BadInput(
                f"{self.path}: the {self._seen} samples begin anew with sample {period} (the file joined to "
                "itself, or a run that was started again?): expected each once; remove the repeated ones"
            )


def in_one_piece(path: Path, values: Floats) -> None:
    """The same for a whole series.

    Raises:
        BadInput: a stretch of it is there twice.

    >>> series = np.random.default_rng(1).normal(size=(500, 3))
    >>> in_one_piece(Path("j.npy"), series)
    >>> in_one_piece(Path("j.npy"), np.concatenate([series[:300], series[150:]]))
    Traceback (most recent call last):
    ...
    mlplugins.errors.BadInput: j.npy: samples around 374 are those around 224 again (a restart that was \
appended?): expected each once; remove the repeated ones
    """
    appended = Appended(path)
    appended.see(values)
    appended.end()


@cache
def _factors(columns: int) -> Marks:
    return np.random.default_rng(7).integers(1, 2**63, columns, dtype=np.uint64) | np.uint64(1)


def marks(values: Floats) -> Marks:
    """A number for each row of numbers (n, C), the same for the same row: a sum modulo 2⁶⁴."""
    rows = np.ascontiguousarray(values, dtype=np.float64).view(np.uint64)
    return np.asarray((rows * _factors(rows.shape[1])).sum(axis=1, dtype=np.uint64))


def mark(fractions: Floats) -> int:
    """Of fractional coordinates (N, 3), whatever the images and the last digits."""
    some = fractions[:: -(-len(fractions) // ATOMS)].ravel()
    return int(marks((np.rint(some % 1.0 * PLACES) % PLACES)[None])[0])


def shared(one: Marks, other: Marks) -> tuple[int, int, int] | None:
    """Where a stretch of frames of `one` is in `other`, and of how many frames; None of atoms that stand
    still, of periodic models, and of chance.

    >>> walk = np.arange(100, dtype=np.uint64)
    >>> shared(walk[:60], walk[40:]), shared(walk[:4], walk), shared(walk * 0, walk * 0)
    ((40, 0, 20), None, None)
    """
    values, first = np.unique(one, return_index=True)
    if min(len(values) / len(one), len(np.unique(other)) / len(other)) < 1 / MOST_TIMES:
        return None
    place = np.minimum(np.searchsorted(values, other), len(values) - 1)
    there = np.flatnonzero(values[place] == other)
    if one is other:
        there = there[there - first[place[there]] > ANCHORS]
    lags = there - first[place[there]]
    if not len(lags):
        return None
    lag = int(np.bincount(lags - lags.min()).argmax()) + int(lags.min())
    chosen = there[lags == lag]
    if len(chosen) < IN_A_ROW or 2 * len(chosen) < chosen[-1] - chosen[0] + 1:
        return None
    return int(chosen[0]) - lag, int(chosen[0]), len(chosen)


def require_new_frames(found: Marks, where: str) -> None:
    """Refuse frames that are there twice in one run.

    Raises:
        BadInput: saying which.

    >>> walk = np.arange(100, dtype=np.uint64)
    >>> require_new_frames(np.concatenate([walk, walk]), "md.xyz")
    Traceback (most recent call last):
    ...
    mlplugins.errors.BadInput: md.xyz: frames from 101 on are those from 1 on again (100 frames): a file \
joined to itself, or a restart that was appended? Expected each frame once; remove the repeated ones
    """
    if (again := shared(found, found)) is not None:
        place, second, number = again
        raise BadInput(
            f"{where}: frames from {second + 1} on are those from {place + 1} on again ({number} frames): a "
            "file joined to itself, or a restart that was appended? Expected each frame once; remove the "
            "repeated ones"
        )


def copied(moved: Floats) -> str:
    """A warning about ions whose displacements (frames, ions, 3), Å, are those of others, as in a supercell
    that was made of a trajectory.

    >>> walk = np.cumsum(np.random.default_rng(1).normal(size=(100, 4, 3)), axis=0)
    >>> copied(walk), copied(np.tile(walk, (1, 2, 1)))[:32]
    ('', '4 of 8 ions move exactly as othe')
    """
    some = np.linspace(0, len(moved) - 1, LOOKED_AT).astype(int)
    rows = moved[some].transpose(1, 0, 2).reshape(moved.shape[1], -1)
    rows = np.rint(rows[np.ptp(rows, axis=1) > MOVES_A] / SAME_A)
    counts = np.unique(rows, axis=0, return_counts=True)[1] if len(rows) else np.zeros(0, dtype=int)
    if len(counts) < 2 or counts.min() < 2:  # atoms at rest move alike relative to others
        return ""
    number = len(rows) - len(counts)
    return (
        f"{number} of {moved.shape[1]} ions move exactly as others: a supercell made of a trajectory? Copies "
        "are no further ions: intervals are too short, σ collective is too large; give the cell that was run"
    )


def require_other_runs(names: Sequence[str], runs: Sequence[Floats]) -> None:
    """Refuse a run that is there twice: its scatter would count as independent.

    Raises:
        BadInput: naming both files.
    """
    for k, run in enumerate(runs):
        for j in range(k):
            if run.shape == runs[j].shape and np.array_equal(run, runs[j]):
                raise BadInput(f"{names[k]} holds the same numbers as {names[j]}: a run counts once")


def require_other_samples(names: Sequence[str], runs: Sequence[Floats]) -> None:
    """Refuse runs (n, …) that have samples in common: at least five in a row, of runs longer than 16 000
    at least a part in a thousand.

    Raises:
        BadInput: naming both files.

    >>> flux = np.random.default_rng(1).normal(size=(500, 3))
    >>> require_other_samples(["all.csv", "end.csv"], [flux, flux[300:]])
    Traceback (most recent call last):
    ...
    mlplugins.errors.BadInput: end.csv holds 200 samples of all.csv: each counts once
    """
    known = [marks(run.reshape(len(run), -1)) for run in runs]
    every = np.uint64(max([1, *(len(found) // FEW for found in known)]))
    some = [np.unique(found[(found * MIXER >> np.uint64(32)) % every == 0]) for found in known]
    for k in range(len(runs)):
        for j in range(k):
            if not len(np.intersect1d(some[j], some[k], assume_unique=True)):
                continue
            if (again := shared(known[j], known[k])) is not None:
                raise BadInput(f"{names[k]} holds {again[2]} samples of {names[j]}: each counts once")
