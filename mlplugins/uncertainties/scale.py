"""Scale and floor of a predicted variance, of largest likelihood on values that it has not seen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

Array = NDArray[np.float64]

LOG_WIDTH = 1.0
"""Standard deviation of ln(α_E/α_F) before any energy was seen: the scales of one posterior are alike."""

SMALLEST = 1e-12
"""Of a square relative to the mean, in fits of scales."""


@dataclass(frozen=True)
class Scale:
    """var = scale² · (posterior) + floor² · (number of atoms; 1 for forces)."""

    scale: float
    floor: float

    def deviations(self, variances: Array, sizes: Array | float = 1.0) -> Array:
        """Calibrated standard deviations of values with these `variances` before calibration."""
        found: Array = np.sqrt(self.scale**2 * variances + self.floor**2 * sizes)
        return found


def fit(errors: Array, variances: Array, sizes: Array, near: float | None = None) -> Scale:
    """Scale and floor of largest likelihood for normal errors of variance scale² v + floor² n.

    Args:
        errors, variances, sizes: e, v, n; each (M,).
        near: the scale is expected within a factor e of this one.

    >>> rng = np.random.default_rng(0)
    >>> v = np.exp(rng.uniform(-6.0, 2.0, 20000))
    >>> found = fit(rng.normal(0.0, np.sqrt(9.0 * v + 0.25)), v, np.ones(20000))
    >>> round(found.scale, 1), round(found.floor, 1)
    (3.0, 0.5)
    """
    squares = errors**2
    squares = squares + SMALLEST * max(float(squares.mean()), 1e-300)
    variances = variances + SMALLEST * float(variances.mean())
    scale = near or math.sqrt(float(squares.mean() / variances.mean()))
    floor = math.sqrt(float(np.mean(squares / sizes)))

    def cost(x: Array) -> float:
        total = np.exp(2 * x[0]) * variances + np.exp(2 * x[1]) * sizes
        prior = 0.0 if near is None else ((x[0] - math.log(near)) / LOG_WIDTH) ** 2
        return 0.5 * (float(np.sum(np.log(total) + squares / total)) + prior)

    low, high = math.log(scale) - 7, math.log(scale) + 7
    least, most = math.log(floor) - 7, math.log(floor) + 2
    starts = [(math.log(scale * a), math.log(floor * b)) for a, b in ((1.0, 1e-3), (0.5, 0.5), (0.1, 1.0))]
    options: Any = {"method": "L-BFGS-B", "bounds": [(low, high), (least, most)]}
    best = min((minimize(cost, np.array(s), **options) for s in starts), key=lambda r: float(r.fun))
    return Scale(*(float(x) for x in np.exp(best.x)))
