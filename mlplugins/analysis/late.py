"""Whether the MSD keeps the slope D* at lags beyond those to which D* is fitted.

The fit takes lags up to half of the run and cannot tell a decay slower than a fifth of it from diffusion. The
lags from one to two thirds scatter more, but tell whether the MSD goes on as it should: their ordinary slope
is compared with the fit, in the error of the *difference*. That error is the larger of what blocks of time
and ions show (blocks of so long lags overlap and show too little) and of a Gaussian process with the measured
MSD, times the excess of the errors of D* over those of independent ions (ions that move together).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlplugins.analysis.blocks import MIN_BLOCKS, Lags, Paths, block_data, ion_variance, time_variance
from mlplugins.analysis.curvature import process_covariance
from mlplugins.analysis.linefit import LineWeights, ordinary_weights
from mlplugins.analysis.slopes import Estimate, Fit, over_time, relative_fit, weighed

Floats = NDArray[np.float64]
LATE = (1 / 3, 2 / 3)
"""Lags that are compared, of the longest stretch."""
LATE_LAGS = 8
FARTHEST = 2.576
"""Standard errors (99 %: a report holds several temperatures) beyond which the late slope contradicts D*."""


def late_lags(longest: int) -> Lags:
    """In frames; at least three, and short enough for blocks of origins."""
    last = min(int(LATE[1] * longest), longest - MIN_BLOCKS - 1)
    first = min(round(LATE[0] * longest), last - 2)
    return np.unique(np.geomspace(first, last, LATE_LAGS).round().astype(np.intp))


def late_slope(paths: Paths, fit: Fit, slope: Estimate) -> tuple[Fit, Estimate] | None:
    """The ordinary slope of the late lags where it contradicts that of the fit, else None.

    Args:
        paths: all runs of a temperature.
        fit: lags and weights of the slope.
        slope: D* of the fit, with its errors.
    """
    late = late_lags(paths.longest)
    lags = np.unique(np.concatenate([fit.lags, late]))
    data = block_data(paths, lags, MIN_BLOCKS)
    line = ordinary_weights(lags, np.searchsorted(lags, late))
    change = line.copy()
    change[np.searchsorted(lags, fit.lags)] -= fit.line.weights
    cells = np.einsum("m,mbna->bn", change, data.msd)
    seen = time_variance(cells.mean(axis=1), data.weights) + ion_variance(cells, data)
    away = float(change @ data.mean) ** 2 / FARTHEST**2
    if away <= seen:
        return None
    process = process_covariance(lags, data.mean, paths.longest)
    time, _ = over_time(slope.cells.mean(axis=1), slope.data, slope.one_mean)
    excess = max((time + slope.ions) / slope.model, 1.0) if slope.model > 0 else 1.0
    frames = sum(stop - start for _, (start, stop) in paths.stretches(int(lags[-1]) + MIN_BLOCKS))
    walkers = cells.shape[1] * frames / paths.longest
    if away <= excess * float(change @ process @ change) / walkers:
        return None
    weights = LineWeights(line, np.zeros(len(lags)), float(line @ process @ line))
    found = relative_fit(lags, weights, 0.0, float(line @ data.mean), MIN_BLOCKS)
    return found, weighed(paths, data, found, weights, slope.one_mean)
