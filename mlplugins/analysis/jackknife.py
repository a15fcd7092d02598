"""Standard errors of functions of sums over blocks of time: each block is left out once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import special

from mlplugins.analysis.value import LEVEL, Value, half_width, interval

Floats = NDArray[np.float64]
BLOCKS = 10
"""Blocks of time that the runs of a temperature are cut into."""


def block_of(frames: NDArray[np.generic], total: int) -> NDArray[np.intp]:
    """Block of each frame, counted over all stretches one after the other.

    >>> block_of(np.array([0, 9, 10, 99]), 100).tolist()
    [0, 0, 1, 9]
    """
    return np.minimum(np.asarray(frames) * BLOCKS // max(total, 1), BLOCKS - 1).astype(np.intp)


def jackknife(sums: Floats, of: Callable[[Floats], float], least: float = 0.0) -> tuple[float, float, int]:
    """A function of the sums over all blocks, its standard error and the degrees of freedom of that.

    Args:
        sums: (blocks, …); a block without data has zeros throughout and is not counted.
        of: of the sum over blocks; it does not change if all sums are multiplied by a number, as ratios.
        least: variance below which the scatter of a few blocks is not believed.

    >>> sums = np.array([[1.0, 1.0], [2.0, 1.0], [3.0, 1.0]])
    >>> value, error, freedom = jackknife(sums, lambda total: total[0] / total[1])
    >>> value, round(error, 6), freedom
    (2.0, 0.57735, 2)
    """
    used = sums[np.any(sums != 0, axis=tuple(range(1, sums.ndim)))]
    total = used.sum(axis=0)
    count = len(used)
    value = float(of(total))
    if count < 2:
        return value, float("inf"), 0
    parts = np.array([float(of(total - each)) for each in used])
    variance = float((count - 1) / count * ((parts - parts.mean()) ** 2).sum())
    return value, float(np.sqrt(max(variance, least))), count - 1


def positive(value: float, error: float, freedom: int) -> Value:
    """95 % interval of a quantity that is positive: symmetric in its logarithm."""
    if not np.isfinite(error):
        return Value(value, 0.0, float("inf"), float("inf"))
    return interval(value, error**2, 0.0, freedom)


def additive(value: float, error: float, freedom: int) -> Value:
    """95 % interval of a quantity of either sign, such as an energy."""
    if not np.isfinite(error):
        return Value(value, -float("inf"), float("inf"), float("inf"))
    half = half_width(error**2, 0.0, freedom)
    z = float(special.ndtri(0.5 + LEVEL / 2))
    return Value(value, value - half, value + half, half / z / abs(value) if value else float("inf"))
