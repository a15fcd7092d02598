"""Series that hold something twice: a column, the samples of a restart that was appended, a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlplugins.errors import BadInput

Floats = NDArray[np.float64]
ANCHORS, ENOUGH = 32, 3
"""Every so many samples one is remembered; so many that come again at one distance are a repetition."""


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

    Where the first one does, the series is periodic (or all of it is there twice), and nothing is said.

    Args:
        path: named in messages.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._marks: dict[int, int] = {}
        self._lags: dict[int, int] = {}
        self._seen = 0
        self._periodic = False

    def see(self, values: Floats) -> None:
        """The next samples (n, C).

        Raises:
            BadInput: a stretch of them was there before.
        """
        rows = np.ascontiguousarray(values, dtype=np.float64).view(np.uint64)
        factors = np.random.default_rng(7).integers(1, 2**63, rows.shape[1], dtype=np.uint64) | np.uint64(1)
        marks = (rows * factors).sum(axis=1, dtype=np.uint64)  # modulo 2⁶⁴
        for number, mark in enumerate(marks.tolist(), self._seen):
            place = self._marks.get(mark)
            if place is None:
                if number % ANCHORS == 0:
                    self._marks[mark] = number
                continue
            self._periodic = self._periodic or place == 0
            if self._periodic:
                return
            lag = number - place
            self._lags[lag] = self._lags.get(lag, 0) + 1
            if self._lags[lag] >= ENOUGH and lag > ANCHORS:
                raise BadInput(
                    f"{self.path}: samples around {number} are those around {place} again (a restart that "
                    "was appended?): expected each once; remove the repeated ones"
                )
        self._seen += len(marks)


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
    Appended(path).see(values)


def require_other_runs(names: Sequence[str], runs: Sequence[Floats]) -> None:
    """Refuse a run that is there twice: its scatter would count as independent.

    Raises:
        BadInput: naming both files.
    """
    for k, run in enumerate(runs):
        for j in range(k):
            if run.shape == runs[j].shape and np.array_equal(run, runs[j]):
                raise BadInput(f"{names[k]} holds the same numbers as {names[j]}: a run counts once")
