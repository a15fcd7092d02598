"""Error against number of training frames: ε(N) = a + b / N^c."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import least_squares

from mlplugins.errors import BadInput


class PowerLaw(NamedTuple):
    """ε(N) = a + b / N^c with a ≥ 0, b ≥ 0, 0 ≤ c ≤ 3."""

    a: float
    b: float
    c: float

    def __call__(self, n: float) -> float:
        """The error that N frames would give."""
        return self.a + self.b / n**self.c


def fit(sizes: Sequence[float], errors: Sequence[float]) -> PowerLaw:
    """Least squares of the logarithms (errors span decades). With two sizes a is zero.

    >>> law = fit([10, 100, 1000], [1.0, 0.1, 0.01])
    >>> round(law.a, 4), round(law.b, 2), round(law.c, 3)
    (0.0, 10.0, 1.0)

    Raises:
        BadInput: fewer than two sizes, or errors that are not positive.
    """
    n, e = np.asarray(sizes, dtype=np.float64), np.asarray(errors, dtype=np.float64)
    if len(n) < 2 or len(n) != len(e) or not (e > 0).all() or not (n > 0).all():
        raise BadInput("learning curve: expected two sizes or more, each with a positive error")
    slope, intercept = np.polyfit(np.log(n), np.log(e), 1)
    c0 = min(max(-slope, 0.0), 3.0)
    if len(n) == 2:
        return PowerLaw(0.0, float(np.exp(intercept)), float(c0))
    scale = float(e.min())
    start = [0.05, intercept, c0]

    def residuals(p: np.ndarray) -> np.ndarray:
        return np.log(p[0] * scale + np.exp(p[1]) / n ** p[2]) - np.log(e)

    found = least_squares(residuals, start, bounds=([0.0, -np.inf, 0.0], [1.0, np.inf, 3.0])).x
    return PowerLaw(float(found[0] * scale), float(np.exp(found[1])), float(found[2]))
