"""Straight line through an MSD whose lags are strongly correlated: weights, and the variance that Brownian
motion implies.

The points of an MSD over all time origins are correlated, so ordinary least squares wastes information and
its textbook error is far too small. The best linear unbiased estimate needs the covariance of the points,
which is known in closed form for Brownian motion with local (vibrational) noise: H. Qian, M. Sheetz, E.
Elson, Biophys. J. 60, 910 (1991); X. Michalet, A. Berglund, Phys. Rev. E 85, 061916 (2012); A. McCluskey,
S. Coles, B. Morgan, J. Chem. Theory Comput. 21, 79 (2025).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

Floats = NDArray[np.float64]
JITTER = 1e-9
ESTIMATORS = ("gls", "ols")


@dataclass(frozen=True)
class LineWeights:
    """Linear estimate of the slope: slope = `weights` · MSD, intercept = `intercept` · MSD.

    `variance` is that of the slope for ONE Brownian walker with the parameters used (same units, squared).
    """

    weights: Floats
    intercept: Floats
    variance: float


def brownian_covariance(lags: NDArray[np.intp], frames: int, step: float, noise: float) -> Floats:
    """Covariance of the MSD at `lags` (in frames) of one 3-d Brownian walker over all origins of `frames`
    frames.

    Args:
        lags: lags in frames, (M,).
        frames: length of the trajectory.
        step: variance of the free displacement per frame and axis (2 D Δt), Å².
        noise: variance of the uncorrelated local position per axis, Å².

    Returns:
        (M, M), Å⁴. By Wick's theorem cov(x², y²) = 2 cov(x, y)², summed over pairs of origins.

    >>> value = brownian_covariance(np.array([1]), 101, 1.0, 0.0)[0, 0]  # 100 independent steps: 3 · 2/100
    >>> round(float(value), 6)
    0.06
    """
    count = len(lags)
    result = np.empty((count, count))
    for a in range(count):
        for b in range(a, count):
            m, n = int(lags[a]), int(lags[b])
            shift = np.arange(-n, m + 1)
            overlap = np.maximum(np.minimum(m, shift + n) - np.maximum(shift, 0), 0)
            ends = (shift == m - n).astype(float) + (shift == 0) - (shift == m) - (shift == -n)
            pairs = np.minimum(frames - m, frames - n - shift) - np.maximum(0, -shift)
            covariance = step * overlap + noise * ends
            total = float((np.maximum(pairs, 0) * covariance**2).sum())
            result[a, b] = result[b, a] = 6.0 * total / ((frames - m) * (frames - n))
    return result


def line_weights(
    lags: NDArray[np.intp], frames: int, step: float, noise: float, estimator: str = "gls"
) -> LineWeights:
    """Weights of the slope (per frame) of a line with free intercept.

    Args:
        lags: lags in frames, at least two.
        frames: length of the trajectory.
        step: guess of 2 D Δt, Å² (only its ratio to `noise` matters to the weights).
        noise: guess of the local variance per axis, Å².
        estimator: `gls` (generalised least squares) or `ols`.

    >>> fit = line_weights(np.array([2, 4, 6]), 100, 1.0, 0.0, "ols")
    >>> round(float(fit.weights @ (5.0 + 3.0 * np.array([2, 4, 6]))), 9)
    3.0
    """
    covariance = brownian_covariance(lags, frames, step, noise)
    design = np.stack([lags.astype(float), np.ones(len(lags))], axis=1)
    if estimator == "ols":
        rows = np.linalg.pinv(design)
    else:
        scale = np.sqrt(np.diag(covariance))
        correlation = covariance / np.outer(scale, scale) + JITTER * np.eye(len(lags))
        factor = linalg.cho_factor(correlation)
        scaled = design / scale[:, None]
        solved = linalg.cho_solve(factor, scaled)
        rows = np.linalg.solve(scaled.T @ solved, solved.T) / scale
    return LineWeights(rows[0], rows[1], float(rows[0] @ covariance @ rows[0]))
