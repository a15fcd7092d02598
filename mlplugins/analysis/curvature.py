"""Long-time slope of an MSD that need not be a straight line: a line plus decays of bounded size.

Fast hops back and forth, cages, disorder and a ballistic start add to the line of diffusion a part that
saturates, MSD(t) = c + 6 D t + Σ_k u_k (1 − exp(−t/τ_k)), with τ_k from half of the shortest lag to a fifth
of the run in octaves. The excess slopes u_k/τ_k are taken as normal, of either sign, with a standard
deviation that the curve itself sets: the change of slope from the octave of lags at τ_k to the next one plus
its error, but no more than the octave before has (70 % of it where the slope last *rose*: that is inertia,
one fast decay, where hops back have many), unless the change less twice its error exceeds that. The slope is
then the best linear unbiased estimate (kriging with a trend). Where the slope is the same from early lags on,
all lags count; where it still changes, the late ones decide, and what curvature may remain is part of the
variance: no test comes before the fit. The covariance of the MSD is that of a Gaussian process with the
*fitted* curve (Wick): with the measured one, points that are low by chance would weigh more.

A decay as slow as the run cannot be told from diffusion by the line and faster decays. Whether all lags,
those beyond half of the run included, show one is tested: a decay of 0.3 of the run, of any size, joins the
line and the decays up to a tenth of the run. Where its amplitude is positive at 2.5 %, the slope beside it is
given as well. The lags cannot tell how slow such a decay is: at 1 % the slope beside one of half of the run
is given, too, at 0.5 % that beside one as slow as the run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from mlplugins.analysis.linefit import JITTER, LineWeights, curve_covariance, generalised

Floats = NDArray[np.float64]
Lags = NDArray[np.intp]
LONGEST, FARTHEST = 0.5, 0.85
"""Longest lag of the slope, and of what looks for slow decays, over the length of the run."""
SLOWEST = 0.2
"""Longest decay time over the length of the run: slower ones cannot be told from diffusion."""
GAIN = 2.0
"""Excess slope at t = 0 of a decay over the change of slope that it makes between two octaves of lags."""
CERTAIN = 2.0
"""Standard errors below a change of slope that exceeds that of the octave before."""
HIDDEN = 0.3
"""Share of the prior's variance that is taken as error; `benchmarks/coverage.py` measures what it gives."""
FADING = 0.7
"""Bound of a decay over that of the octave before where the slope last rose."""
SLOW = {0.3: 1.96, 0.5: 2.33, 1.0: 2.58}
"""Times of slow decays over the length of the run, and evidence (2.5, 1, 0.5 %) from which on each counts."""
RAPID = 0.1
"""Longest time over the length of the run of the decays beside it."""
MOST_EXCESS = 50.0
LEAST = 1e-7


@dataclass(frozen=True)
class CurveFit:
    """Slope of the diffusive part.

    Attributes:
        line: weights of the lags; `variance` that of one walker with this MSD, per frame².
        curvature: variance of the slope by curvature that the lags do not exclude, (Å² per frame)².
        slow: the same beside slow decays of any size, as far as the lags show one.
    """

    line: LineWeights
    curvature: float
    slow: tuple[CurveFit, ...] = ()


def curve_fit(
    lags: Lags,
    msd: Floats,
    frames: int,
    walkers: float,
    observed: Callable[[Floats], float] = lambda weights: 0.0,
) -> CurveFit:
    """Weights that give the long-time slope of a 3-d MSD over all origins.

    Args:
        lags: in frames, rising, at least four to half of `frames`, of which the slope is taken; the others
            serve to see slow decays.
        msd: at the lags, Å².
        frames: length of the trajectory.
        walkers: number of walkers behind the MSD.
        observed: variance of a weighted sum of the MSD over lags; where that of the difference of an early
            and a late slope exceeds what independent walkers have, all variances are taken as larger.

    >>> lags = np.unique(np.geomspace(5, 500, 24).astype(int))
    >>> fit = curve_fit(lags, 2.0 + 0.5 * lags, 1000, 24)
    >>> round(float(fit.line.weights @ (2.0 + 0.5 * lags)), 9)
    0.5
    """
    x = lags.astype(float)
    taus = _taus(x, SLOWEST * frames)
    near = int(np.searchsorted(x, LONGEST * frames, side="right"))
    design = np.stack([x, np.ones(len(x))], axis=1)
    curve = msd.copy()  # stays the measured one beyond `near`, where a line that goes on would hide decays
    for _ in range(2):
        walker = process_covariance(lags, curve, frames)
        scatter = walker / walkers
        prior = _prior(x, (curve, scatter), taus, near)
        early, late = (_first(design, scatter + part, near)[0] for part in (0 * prior, prior))
        expected = float((late - early) @ scatter @ (late - early))
        excess = observed(late - early) / expected if expected > 0 else 1.0
        scatter = scatter * float(np.clip(excess, 1.0, MOST_EXCESS))
        prior = _prior(x, (curve, scatter), taus, near)
        curve[:near] = _kriged(design[:near], msd[:near], scatter[:near, :near], prior[:near, :near])

    def fit(slope: Floats, intercept: Floats) -> CurveFit:
        line = LineWeights(slope, intercept, float(slope @ walker @ slope))
        return CurveFit(line, HIDDEN * float(slope @ prior @ slope))

    rapid = taus[: max(1, int(np.searchsorted(taus, RAPID * frames)))]
    rest = scatter + _prior(x, (curve, scatter), rapid, near)
    decays = [1 - np.exp(-x / (slow * frames)) for slow in SLOW]
    beside = [generalised(np.column_stack([design, decay]), rest) for decay in decays]
    size = beside[0][2]
    error = np.sqrt(max(float(size @ rest @ size), observed(size)))
    evidence = float(size @ msd / error) if error > 0 else 0.0
    slow = tuple(fit(*other[:2]) for other, seen in zip(beside, SLOW.values()) if evidence > seen)
    return replace(fit(*_first(design, scatter + prior, near)), slow=slow)


def _first(design: Floats, covariance: Floats, count: int) -> Floats:
    """Weights of all lags that give the parameters of `design` from the first `count` of them."""
    weights = np.zeros(design.shape[::-1])
    weights[:, :count] = generalised(design[:count], covariance[:count, :count])
    return weights


def _kriged(design: Floats, msd: Floats, scatter: Floats, prior: Floats) -> Floats:
    """The MSD without its noise: trend and decays, given the points."""
    trend = design @ (generalised(design, scatter + prior) @ msd)
    scale = np.sqrt(np.diag(scatter + prior))
    whole = (scatter + prior) / np.outer(scale, scale) + JITTER * np.eye(len(scale))
    part = prior / np.outer(scale, scale) @ np.linalg.solve(whole, (msd - trend) / scale)
    return np.asarray(np.maximum(trend + part * scale, 0.1 * msd))


def process_covariance(lags: Lags, msd: Floats, frames: int, blocks: int = 1) -> Floats:
    """Covariance of the MSD of one walker, a Gaussian process with this (3-d) MSD: (lags, lags), Å⁴."""
    return _positive(curve_covariance(lags, frames, _smooth(lags.astype(float), msd, frames), blocks))


def _positive(covariance: Floats) -> Floats:
    """With eigenvalues of the correlation of at least `LEAST`: only pairs that overlap were summed."""
    scale = np.sqrt(np.diag(covariance))
    values, vectors = np.linalg.eigh(covariance / np.outer(scale, scale))
    whole = (vectors * np.maximum(values, LEAST * values[-1])) @ vectors.T
    return np.asarray(whole * np.outer(scale, scale))


def _taus(x: Floats, slowest: float) -> Floats:
    """Decay times in octaves from half of the shortest lag."""
    count = max(int(np.log2(max(slowest / x[0], 0.5))) + 2, 1)
    return np.asarray(0.5 * x[0] * 2.0 ** np.arange(count))


def _prior(x: Floats, curve: tuple[Floats, Floats], taus: Floats, near: int) -> Floats:
    """Covariance of the saturating parts at the lags, from the first `near` points of an MSD and theirs."""
    msd, scatter = curve
    points = x[:near], msd[:near], scatter[:near, :near]
    bounds: list[float] = []
    share = 1.0
    for tau in taus:
        change, error = _change(*points, max(tau, x[0]))
        before = share * bounds[-1] if bounds else np.inf
        bounds.append(max(min(before, abs(change) + error), abs(change) - CERTAIN * error))
        if abs(change) > CERTAIN * error:
            share = FADING if change < 0 else 1.0
    shapes = (1 - np.exp(-x[:, None] / taus)) * taus * (GAIN * np.array(bounds))
    return np.asarray(shapes @ shapes.T)


def _change(x: Floats, msd: Floats, scatter: Floats, low: float) -> tuple[float, float]:
    """Fall of the ordinary slope from the octave of lags at `low` to the next, and its error."""
    weights = np.zeros(len(x))
    for sign, start in ((1.0, low), (-1.0, 2 * low)):
        inside = np.flatnonzero((x >= 0.95 * start) & (x <= 2.1 * start))
        if len(inside) < 2:
            inside = np.argsort(np.abs(np.log(x / (1.4 * start))))[:2]
        centred = x[inside] - x[inside].mean()
        weights[inside] += sign * centred / (centred @ centred)
    return float(weights @ msd), float(np.sqrt(weights @ scatter @ weights))


def _smooth(x: Floats, msd: Floats, frames: int) -> Floats:
    """A smooth MSD per axis at lags 0, 1, … 2 max(x).

    Line, intercept, decays and ballistic starts with coefficients ≥ 0: the MSD of some stationary Gaussian
    process.
    """
    taus = _taus(x, SLOWEST * frames)
    decays = 1 - np.exp(-x[:, None] / taus)
    basis = np.column_stack([x, np.ones(len(x)), decays, x[:, None] - taus * decays])
    errors = msd * np.sqrt(x / frames) + 1e-12
    found = _not_negative(basis / errors[:, None], msd / errors)
    lag = np.arange(2.0 * x[-1] + 2)
    walk = max(float(found[0]), 1e-12) * lag + found[1] * (lag > 0)
    for tau, amplitude, start in zip(taus, found[2:], found[2 + len(taus) :]):
        if amplitude > 0 or start > 0:
            decay = 1 - np.exp(-lag / tau)
            walk += amplitude * decay + start * (lag - tau * decay)
    return np.asarray(walk / 3)


def _not_negative(basis: Floats, points: Floats) -> Floats:
    """Coefficients ≥ 0 of the least squares; columns that are nearly alike can make the active set cycle."""
    scale = np.linalg.norm(basis, axis=0)
    scale[scale == 0] = 1.0
    try:
        found, _ = optimize.nnls(basis / scale, points, maxiter=30 * len(scale))
    except RuntimeError:
        found = np.maximum(optimize.lsq_linear(basis / scale, points, (0, np.inf)).x, 0.0)
    return np.asarray(found / scale)
