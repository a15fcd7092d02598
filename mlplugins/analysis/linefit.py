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
    lag = np.arange(2.0 * int(lags[-1]) + 2)
    return curve_covariance(lags, frames, step * lag + 2 * noise * (lag > 0))


def curve_covariance(lags: NDArray[np.intp], frames: int, walk: Floats, blocks: int = 1) -> Floats:
    """The same for any Gaussian process with stationary steps, from its MSD.

    Args:
        lags: lags in frames, rising, (M,).
        frames: length of the trajectory.
        walk: MSD of one axis at lags 0, 1, … at least the sum of two of `lags`, Å².
        blocks: of the origins of each lag; the covariance is that of the middle block.

    Returns:
        (M, M), Å⁴. With M(t) the MSD of an axis, ⟨(x_a − x_b)(x_c − x_d)⟩ is half of
        M(a − d) + M(b − c) − M(a − c) − M(b − d).
    """
    count = len(lags)
    result = np.empty((count, count))
    for a in range(count):
        for b in range(a, count):
            m, n = int(lags[a]), int(lags[b])
            # of the pairs that overlap; shift of the second origin, and |shift − m| and so on as slices
            ahead = np.concatenate([walk[n:0:-1], walk[: m + 1]])  # |shift|, shift = −n … m
            later = walk[: m + n + 1]  # shift + n
            before = later[::-1]  # m − shift
            middle = np.concatenate([walk[m:0:-1], walk[: n + 1]])  # |shift + n − m|
            covariance = 0.5 * (before + later - middle - ahead)
            shift = np.arange(-n, m + 1)
            own, other = (frames - m) / blocks, (frames - n) / blocks
            ahead_by = (other - own) * (blocks - 1) / 2
            pairs = np.minimum(own, ahead_by + other - shift) - np.maximum(0, ahead_by - shift)
            total = float((np.maximum(pairs, 0) * covariance**2).sum())
            result[a, b] = result[b, a] = 6.0 * total / (own * other)
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
        rows = generalised(design, covariance)
    return LineWeights(rows[0], rows[1], float(rows[0] @ covariance @ rows[0]))


def generalised(design: Floats, covariance: Floats) -> Floats:
    """(parameters, points): best linear unbiased estimates of the columns of `design`, as rows."""
    scale = np.sqrt(np.diag(covariance))
    correlation = covariance / np.outer(scale, scale) + JITTER * np.eye(len(scale))
    factor = linalg.cho_factor(correlation)
    scaled = design / scale[:, None]
    solved = linalg.cho_solve(factor, scaled)
    rows: Floats = np.linalg.solve(scaled.T @ solved, solved.T) / scale
    return rows


def ordinary_weights(lags: NDArray[np.intp], inside: NDArray[np.intp]) -> Floats:
    """Weights of the ordinary slope of a window over evenly spaced lags, on these lags."""
    x = lags[inside].astype(float)
    share = np.gradient(x)
    centred = (x - share @ x / share.sum()) * share
    weights = np.zeros(len(lags))
    weights[inside] = centred / (centred @ x)
    return weights


def drawn(weights: Floats, lags: NDArray[np.intp], inside: NDArray[np.intp], variance: float) -> LineWeights:
    """The line of this slope through the window, nearest to the early points, which scatter least."""
    level = np.zeros(len(lags))
    level[inside] = 1 / lags[inside].astype(float) ** 2
    level /= level.sum()
    return LineWeights(weights, level - weights * (level @ lags), variance)
