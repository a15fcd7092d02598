"""Long-time slope of an MSD that need not be a straight line: a line plus decays of bounded size.

Fast hops back and forth, cages, disorder and a ballistic start add to the line of diffusion a part that
saturates, MSD(t) = c + 6 D t + Σ_k u_k (1 − exp(−t/τ_k)), with τ_k from half of the shortest lag to a fifth
of the run in octaves. The excess slopes u_k/τ_k are taken as normal, of either sign, with a standard
deviation that the curve itself sets: the change of slope from the octave of lags at τ_k to the next one plus
its error, but no more than the octave before has, unless the change less twice its error exceeds that. The
slope is then the best linear unbiased estimate (kriging with a trend). Where the slope is the same from early
lags on, all lags count; where it still changes, the late ones decide, and what curvature may remain is part
of the variance: no test comes before the fit. The covariance of the MSD is that of a Gaussian process with
the *measured* curve (Wick), not that of a Brownian walk.

A decay as slow as the run cannot be told from diffusion by the line and faster decays. Whether the lags show
one is tested: a decay of half of the run, of any size, joins the line and the decays up to a tenth of the
run. Where its amplitude is positive at 1 %, the slope beside it is given as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from mlplugins.analysis.linefit import LineWeights, curve_covariance, generalised

Floats = NDArray[np.float64]
Lags = NDArray[np.intp]
SLOWEST = 0.2
"""Longest decay time over the length of the run: slower ones cannot be told from diffusion."""
GAIN = 2.0
"""Excess slope at t = 0 of a decay over the change of slope that it makes between two octaves of lags."""
CERTAIN = 2.0
"""Standard errors below a change of slope that exceeds that of the octave before."""
HIDDEN = 0.3
"""Share of the prior's variance that is taken as error; `benchmarks/coverage.py` measures what it gives."""
SLOW = 0.5
"""Time of the slow decay that is looked for over the length of the run."""
RAPID = 0.1
"""Longest time over the length of the run of the decays beside it."""
SEEN, SEEN_IN_BLOCKS = 2.33, 3.75
"""Amplitude over its error from which on a slow decay is seen (1 %), by theory and between five blocks."""
MOST_EXCESS = 50.0
LEAST = 1e-7


@dataclass(frozen=True)
class CurveFit:
    """Slope of the diffusive part.

    Attributes:
        line: weights of the lags; `variance` that of one walker with this MSD, per frame².
        curvature: variance of the slope by curvature that the lags do not exclude, (Å² per frame)².
        slow: the same with a slow decay of any size, where the lags show one.
        evidence: amplitude of the slow decay over its error.
    """

    line: LineWeights
    curvature: float
    slow: CurveFit | None = None
    evidence: float = 0.0


def curve_fit(
    lags: Lags,
    msd: Floats,
    frames: int,
    walkers: float,
    observed: Callable[[Floats], float] = lambda weights: 0.0,
) -> CurveFit:
    """Weights that give the long-time slope of a 3-d MSD over all origins.

    Args:
        lags: in frames, rising, at least four.
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
    design = np.stack([x, np.ones(len(x))], axis=1)
    walker = process_covariance(lags, msd, frames)
    scatter = walker / walkers
    prior = _prior(x, msd, scatter, taus)
    early, late = (generalised(design, scatter + part)[0] for part in (0 * prior, prior))
    expected = float((late - early) @ scatter @ (late - early))
    excess = observed(late - early) / expected if expected > 0 else 1.0
    scatter = scatter * float(np.clip(excess, 1.0, MOST_EXCESS))
    prior = _prior(x, msd, scatter, taus)

    def fit(slope: Floats, intercept: Floats) -> CurveFit:
        line = LineWeights(slope, intercept, float(slope @ walker @ slope))
        return CurveFit(line, HIDDEN * float(slope @ prior @ slope))

    slope, intercept = generalised(design, scatter + prior)
    rapid = taus[: max(1, int(np.searchsorted(taus, RAPID * frames)))]
    rest = scatter + _prior(x, msd, scatter, rapid)
    decay = 1 - np.exp(-x / (SLOW * frames))
    other, level, size = generalised(np.column_stack([design, decay]), rest)
    error = max(np.sqrt(size @ rest @ size), np.sqrt(observed(size)) * SEEN_IN_BLOCKS / SEEN)
    evidence = float(size @ msd / error) if error > 0 else 0.0
    slow = fit(other, level) if evidence > SEEN else None
    return replace(fit(slope, intercept), slow=slow, evidence=evidence)


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


def _prior(x: Floats, msd: Floats, scatter: Floats, taus: Floats) -> Floats:
    """Covariance of the saturating parts at the lags."""
    bounds: list[float] = []
    for tau in taus:
        change, error = _change(x, msd, scatter, max(tau, x[0]))
        before = bounds[-1] if bounds else np.inf
        bounds.append(max(min(before, change + error), change - CERTAIN * error))
    shapes = (1 - np.exp(-x[:, None] / taus)) * taus * (GAIN * np.array(bounds))
    return np.asarray(shapes @ shapes.T)


def _change(x: Floats, msd: Floats, scatter: Floats, low: float) -> tuple[float, float]:
    """Change of the ordinary slope from the octave of lags at `low` to the next, and its error."""
    weights = np.zeros(len(x))
    for sign, start in ((1.0, low), (-1.0, 2 * low)):
        inside = np.flatnonzero((x >= 0.95 * start) & (x <= 2.1 * start))
        if len(inside) < 2:
            inside = np.argsort(np.abs(np.log(x / (1.4 * start))))[:2]
        centred = x[inside] - x[inside].mean()
        weights[inside] += sign * centred / (centred @ centred)
    return float(abs(weights @ msd)), float(np.sqrt(weights @ scatter @ weights))


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
