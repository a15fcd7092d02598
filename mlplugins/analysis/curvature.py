"""Long-time slope of an MSD that need not be a straight line: a line plus decays of unknown strength.

Fast hops back and forth, cages, disorder and a ballistic start add to the line of diffusion a part that
saturates, MSD(t) = c + 6 D t + Σ_k u_k (1 − exp(−t/τ_k)), with τ_k from half of the shortest lag to a fifth
of the run in octaves. The u_k are taken as normal with standard deviation s D τ_k, of either sign; for each
strength s the slope is the best linear unbiased estimate, and the strengths are averaged with their
restricted likelihood (D. A. Harville, J. Am. Stat. Assoc. 72, 320 (1977)). Where early and late lags agree,
s = 0 wins and all lags count; where they do not, the late ones decide. What curvature may remain, and the
choice between the strengths, are part of the variance: no test comes before the fit. The covariance of the
MSD is that of a Gaussian process with the *measured* curve (Wick), not that of a Brownian walk.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, optimize

from mlplugins.analysis.linefit import JITTER, LineWeights, curve_covariance, generalised

Floats = NDArray[np.float64]
Lags = NDArray[np.intp]
STRENGTHS = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8)
"""Standard deviations of the excess slope that each decay time adds, in units of D."""
CONTRAST = 0.8
"""Strength whose slope is the late one."""
MOST_EXCESS = 50.0
HIDDEN = 0.4
"""Share of the prior's variance that is taken as error: with all of it the intervals of plain walks hold the
truth in 99 to 100 %, without it those of curved ones in less than 95 %."""
SLOWEST = 0.2
"""Longest decay time over the length of the run: slower ones cannot be told from diffusion."""


@dataclass(frozen=True)
class CurveFit:
    """Slope of the diffusive part.

    Attributes:
        line: weights of the lags; `variance` that of one walker with this MSD, per frame².
        curvature: variance of the slope by curvature that the lags do not exclude, (Å² per frame)².
        straight: probability that the MSD is a line from the first lag on.
    """

    line: LineWeights
    curvature: float
    straight: float


def curve_fit(
    lags: Lags,
    msd: Floats,
    frames: int,
    walkers: float,
    observed: Callable[[Floats], float] | None = None,
) -> CurveFit:
    """Weights that give the long-time slope of a 3-d MSD over all origins.

    Args:
        lags: in frames, rising, at least three.
        msd: at the lags, Å².
        frames: length of the trajectory.
        walkers: number of walkers behind the MSD.
        observed: variance of a weighted sum of the MSD over lags; where that of the difference of an early
            and a late slope exceeds what independent walkers have, all variances are taken as larger.

    >>> lags = np.unique(np.geomspace(5, 500, 24).astype(int))
    >>> fit = curve_fit(lags, 2.0 + 0.5 * lags, 1000, 24)
    >>> round(float(fit.line.weights @ (2.0 + 0.5 * lags)), 9), fit.straight > 0.2
    (0.5, True)
    """
    x = lags.astype(float)
    slope, walk = _smooth(x, msd, frames)
    walker = curve_covariance(lags, frames, walk)
    walker += JITTER * np.diag(np.diag(walker))
    scatter = walker / walkers
    design = np.stack([x, np.ones(len(x))], axis=1)
    shapes = _decays(x, frames) * slope
    prior = shapes @ shapes.T
    if observed is not None:
        early, late = (generalised(design, scatter + s**2 * prior)[0] for s in (0.0, CONTRAST))
        expected = float((late - early) @ scatter @ (late - early))
        excess = observed(late - early) / expected if expected > 0 else 1.0
        scatter = scatter * float(np.clip(excess, 1.0, MOST_EXCESS))
    rows, spread, evidence = [], [], []
    for strength in STRENGTHS:
        row, log = _given(design, scatter + strength**2 * prior, msd)
        rows.append(row)
        spread.append(strength**2 * float(row[0] @ prior @ row[0]))
        evidence.append(log)
    chance = np.exp(np.array(evidence) - max(evidence))
    chance /= chance.sum()
    mixed = np.einsum("s,sij->ij", chance, np.array(rows))
    slopes = np.array([float(row[0] @ msd) for row in rows])
    between = (slopes - mixed[0] @ msd) ** 2
    variance = float(mixed[0] @ walker @ mixed[0])
    line = LineWeights(mixed[0], mixed[1], variance)
    return CurveFit(line, HIDDEN * float(chance @ (np.array(spread) + between)), float(chance[0]))


def _taus(x: Floats, slowest: float) -> Floats:
    """Decay times in octaves from half of the shortest lag."""
    count = max(int(np.log2(max(slowest / x[0], 0.5))) + 2, 1)
    return np.asarray(0.5 * x[0] * 2.0 ** np.arange(count))


def _decays(x: Floats, frames: int) -> Floats:
    """(lags, decays): saturating parts, each with an excess slope of one at t = 0."""
    taus = _taus(x, SLOWEST * frames)
    return np.asarray((1 - np.exp(-x[:, None] / taus)) * taus)


def _smooth(x: Floats, msd: Floats, frames: int) -> tuple[float, Floats]:
    """Slope for the scale of the decays, and a smooth MSD per axis at lags 0, 1, … 2 max(x).

    Line, intercept and decays with coefficients ≥ 0: the MSD of some stationary Gaussian process.
    """
    taus = _taus(x, SLOWEST * frames)
    basis = np.column_stack([x, np.ones(len(x)), 1 - np.exp(-x[:, None] / taus)])
    errors = msd * np.sqrt(x / frames) + 1e-12
    found, _ = optimize.nnls(basis / errors[:, None], msd / errors)
    lag = np.arange(2.0 * x[-1] + 2)
    step = max(float(found[0]), 1e-12)
    walk = step * lag + found[1] * (lag > 0)
    for tau, amplitude in zip(taus, found[2:]):
        if amplitude > 0:
            walk += amplitude * (1 - np.exp(-lag / tau))
    return max(step, 0.3 * float(msd[-1] / x[-1])), walk / 3


def _given(design: Floats, covariance: Floats, msd: Floats) -> tuple[Floats, float]:
    """Rows of slope and intercept by generalised least squares, and the restricted log-likelihood."""
    rows = generalised(design, covariance)
    scale = np.sqrt(np.diag(covariance))
    correlation = covariance / np.outer(scale, scale) + JITTER * np.eye(len(scale))
    factor = linalg.cho_factor(correlation)
    scaled, residual = design / scale[:, None], (msd - design @ (rows @ msd)) / scale
    information = scaled.T @ linalg.cho_solve(factor, scaled)
    log = -float(np.log(np.diag(factor[0])).sum() + np.log(scale).sum())
    log -= 0.5 * float(np.linalg.slogdet(information)[1])
    log -= 0.5 * float(residual @ linalg.cho_solve(factor, residual))
    return rows, log
