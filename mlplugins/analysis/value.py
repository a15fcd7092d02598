"""Numbers with their 95 % intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import special

LEVEL = 0.95
UNDETERMINED = 1e6
"""High over low beyond which an interval is not printed: its ends are numbers without meaning."""
MOST_LOG = 2.0
"""Half of an interval over the value beyond which the error is one of the value, not of its logarithm."""
MOST_VARIANCE = 1.0
"""Relative, beyond which the median of χ² says nothing."""
UNKNOWN = 30.0
"""High over low beyond which a collective quantity (D_σ, σ collective, H) is not known."""


@dataclass(frozen=True)
class Value:
    """A number with its 95 % interval.

    Attributes:
        relative_error: standard error of the logarithm.
        limit: high over low from which on the number is undetermined. An upper limit alone says something of
            a D, but not of a collective quantity (`UNKNOWN`).
    """

    value: float
    low: float
    high: float
    relative_error: float
    limit: float = UNDETERMINED

    def scaled(self, factor: float) -> Value:
        """The same quantity in another unit."""
        return replace(self, value=self.value * factor, low=self.low * factor, high=self.high * factor)

    @property
    def determined(self) -> bool:
        """Whether the interval is narrow enough to be meaningful."""
        if self.low <= 0:
            return self.limit >= UNDETERMINED
        return self.high < self.limit * self.low

    def as_json(self) -> dict[str, float]:
        """`{"value", "low", "high"}`, and `"determined": false` where the interval says nothing."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        return numbers if self.determined else {**numbers, "determined": False}


def half_width(variance: float, model: float, freedom: float, known: float = 0.0) -> float:
    """Half of a 95 % interval, see `interval`."""
    t = float(special.stdtrit(max(freedom, 1), 0.5 + LEVEL / 2))
    z = float(special.ndtri(0.5 + LEVEL / 2))
    return float(max(np.sqrt(t**2 * variance + z**2 * known), np.sqrt(model)))


def interval(
    value: float,
    variance: float,
    model: float,
    freedom: float,
    known: float = 0.0,
    single: float = 0.0,
    positive: bool = False,
) -> Value:
    """95 % interval, symmetric in the logarithm; without a positive value only the upper limit says anything.

    Where the error is larger than the value (of a value that is not positive: only where it must be,
    `positive`), the interval is that of a normal distribution of which the part above 0 is possible.

    Student's t already allows for the few blocks; the Brownian variance `model` only keeps blocks that
    agree by chance from an interval narrower than one standard error. `known` is a variance that does not
    come from the blocks. `single` is for one walker, a Gaussian process: few blocks are all there is, and the
    interval is not narrower than that of χ² with the relative variance `model`/`value`². The value is then
    the median of this skewed distribution; `single` is the part of its `skewness` that `value` already has
    (1: none).
    """
    z = float(special.ndtri(0.5 + LEVEL / 2))
    half = half_width(variance, model, freedom, known)
    if half > MOST_LOG * value and (positive or (value > 0 and not single)):
        return _above_zero(value, half / z)
    if value <= 0:
        return Value(0.0, 0.0, max(float(value + max(half, z * np.sqrt(model))), 0.0), float("inf"))
    up = down = float(np.exp(min(half / value, 700.0)))
    middle = 1.0
    if single and model > 0:
        k = 2 * value**2 / model
        few, many = (float(special.chdtri(k, tail)) / k for tail in (0.5 + LEVEL / 2, 0.5 - LEVEL / 2))
        up, down = max(up, 1 / max(few, 1e-300)), max(down, many)
        middle = float(np.clip(skewness(model / value**2) / single, 1.0, up))
    return Value(value * middle, value / down, value * up, half / value / z)


def skewness(relative_variance: float) -> float:
    """Mean over median of χ² with this relative variance: what a mean of squares is to be multiplied by to
    be too low as often as too high.

    >>> round(skewness(0.1), 4)
    1.0343
    """
    k = 2 / float(np.clip(relative_variance, 1e-9, MOST_VARIANCE))
    return k / float(special.chdtri(k, 0.5))


def _above_zero(value: float, error: float) -> Value:
    """Of a normal distribution without its part below zero."""
    above = max(float(special.ndtr(value / error)), 1e-300)
    shares = above * (0.5 + LEVEL / 2), above * (0.5 - LEVEL / 2)
    low, high = (max(value - error * float(special.ndtri(share)), 0.0) for share in shares)
    widest = max(high / value, value / low) if value > 0 and low > 0 else np.inf
    return Value(max(value, 0.0), low, high, float(np.log(widest) / special.ndtri(0.5 + LEVEL / 2)))


def spanning(parts: Sequence[Value]) -> Value:
    """The first value, with an interval that includes those of all."""
    first = parts[0]
    low, high = min(part.low for part in parts), max(part.high for part in parts)
    if first.value <= 0 or len(parts) == 1:
        return Value(first.value, low, high, first.relative_error)
    widest = max(high / first.value, first.value / low if low > 0 else float("inf"))
    return Value(first.value, low, high, float(np.log(widest)) / float(special.ndtri(0.5 + LEVEL / 2)))
