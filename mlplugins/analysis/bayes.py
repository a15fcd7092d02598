"""Bayesian regression of an MSD as in kinisi, from our displacements: an independent error bar.

kinisi takes the variance of an MSD point from the observed squared displacements over the number n of
independent ones, n = N (F − 1)/m at lag m, and the covariance of two points from that of a Markov process,
cov(m, m') = var(m) n(m)/n(m') for m ≤ m'. With flat priors (slope ≥ 0) the posterior of the slope is a
truncated normal distribution whose centre is the generalised least-squares slope: it is written down here,
and `kinisi_posterior` lets kinisi sample it. A. R. McCluskey, S. W. Coles, B. J. Morgan, J. Chem. Theory
Comput. 21, 79 (2025), arXiv 2305.18244.

kinisi itself forms the displacements between all pairs of frames, O(F²): that is the part left out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, stats

from mlplugins.analysis.blocks import Lags, Paths
from mlplugins.analysis.diffusion import Window
from mlplugins.analysis.value import LEVEL, Value
from mlplugins.errors import MissingDependency
from mlplugins.units import CM2_S_PER_A2_FS, CM2_S_PER_A2_PS, FS_PER_PS

Floats = NDArray[np.float64]
POINTS = 24
CONDITION = 1e16
MOST_FILLED = 2.0
OBSERVATIONS = 400_000
"""Squared displacements per lag that the variance is taken from."""


@dataclass(frozen=True)
class MsdPoints:
    """MSD at a few lags with kinisi's variances.

    Attributes:
        lags: in frames.
        msd, variance: Å², Å⁴.
        independent: number of independent displacements.
    """

    lags: Lags
    msd: Floats
    variance: Floats
    independent: Floats

    @property
    def covariance(self) -> Floats:
        """cov(m, m') = var(m) n(m)/n(m') for m ≤ m'; positive if var(m) n(m)² grows with m."""
        ratio = self.independent[:, None] / self.independent[None, :] * self.variance[:, None]
        upper: Floats = np.triu(ratio)
        return upper + np.triu(ratio, 1).T


def window_points(paths: Paths, window: Window, points: int = POINTS) -> Lags:
    """Even lags inside a fit window."""
    frame_ps = paths.interval_fs / FS_PER_PS
    low = max(1, int(np.ceil(window.low_ps / frame_ps - 1e-9)))
    high = int(np.floor(window.high_ps / frame_ps + 1e-9))
    return np.unique(np.linspace(low, high, min(points, high - low + 1)).round().astype(np.intp))


def msd_points(paths: Paths, lags: Lags) -> MsdPoints:
    """MSD, variance of its mean and number of independent displacements, over all runs and stretches.

    Runs of one temperature count as further ions, as kinisi's `dtype="identical"`.
    """
    rows = [_moments(paths, int(lag)) for lag in lags]
    msd, variance, independent = (np.array(column) for column in zip(*rows))
    return MsdPoints(lags, msd, variance / independent, independent)


def _moments(paths: Paths, lag: int) -> tuple[float, float, float]:
    """Mean and variance of the squared displacement at one lag, and how many are independent."""
    count = total = square = 0.0
    sampled = 0
    independent = 0.0
    for run, (start, stop) in paths.stretches(lag):
        path = paths.displacements[run][start:stop]
        ions = path.shape[1]
        stride = max(1, (len(path) - lag) * ions // OBSERVATIONS)
        squares = ((path[lag::stride] - path[: len(path) - lag : stride]) ** 2).sum(axis=2)
        weight = (len(path) - lag) * ions
        total += weight * float(squares.mean())
        square += weight * float((squares**2).mean())
        count += weight
        sampled += squares.size
        independent += ions * (len(path) - 1) / lag
    mean = total / count
    return mean, (square / count - mean**2) * sampled / max(sampled - 1, 1), independent


def posterior(points: MsdPoints, interval_fs: float) -> Value | None:
    """D in cm²/s with its 95 % credible interval, in closed form.

    The covariance is positive definite if var(m) n(m)² grows with m, as it does for a Markov process:
    dips by noise are filled. None where that would double a variance: the MSD flattens, and a sampler would
    return anything.
    """
    points, filled = _growing(points)
    scale = np.sqrt(points.variance)
    if filled > MOST_FILLED or not (scale > 0).all():
        return None
    design = np.stack([points.lags.astype(float), np.ones(len(points.lags))], axis=1) / scale[:, None]
    factor = linalg.cho_factor(points.covariance / np.outer(scale, scale))
    solved = linalg.cho_solve(factor, design)
    covariance = linalg.inv(design.T @ solved)
    slope = float((covariance @ solved.T @ (points.msd / scale))[0])
    error = float(np.sqrt(covariance[0, 0]))
    law = stats.truncnorm(-slope / error, np.inf, loc=slope, scale=error)
    low, high = (float(law.ppf(0.5 + sign * LEVEL / 2)) for sign in (-1, 1))
    value = float(law.mean())
    return Value(value, low, high, float(law.std()) / value).scaled(CM2_S_PER_A2_FS / interval_fs / 6)


def _growing(points: MsdPoints) -> tuple[MsdPoints, float]:
    """Points whose var(m) n(m)² grows at least as √m, and the largest factor needed for it."""
    growth = points.variance * points.independent**2
    least = np.sqrt(points.lags)
    filled = np.maximum.accumulate(growth / least) * least
    factor = filled / np.where(growth > 0, growth, np.inf)
    variance = filled / points.independent**2
    return replace(points, variance=variance), float(factor.max())


def kinisi_posterior(points: MsdPoints, interval_fs: float, seed: int = 1) -> Value:
    """The same, sampled by kinisi's Bayesian regression on our MSD.

    Raises:
        MissingDependency: kinisi is not installed.
    """
    try:
        import scipp
        from kinisi.diffusion import Diffusion
    except ImportError as error:
        raise MissingDependency("kinisi is not installed; pip install 'mlplugins[analysis]'") from error
    area = scipp.Unit("angstrom") ** 2
    time = scipp.array(dims=["time interval"], values=points.lags * interval_fs / FS_PER_PS, unit="ps")
    curve = scipp.DataArray(
        scipp.array(
            dims=["time interval"], values=points.msd, variances=points.variance.astype(float), unit=area
        ),
        coords={
            "time interval": time,
            "n_samples": scipp.array(dims=["time interval"], values=points.independent),
        },
    )
    fit = Diffusion(scipp.DataGroup({"da": curve, "dimensionality": scipp.scalar(3)}))
    state = np.random.get_state()
    try:  # kinisi and emcee draw from numpy's global generator
        fit.bayesian_regression(
            time[0], cond_max=CONDITION, progress=False, random_state=np.random.RandomState(seed)
        )
    finally:
        np.random.set_state(state)
    samples = np.asarray(fit.gradient.values) / 6 * CM2_S_PER_A2_PS
    low, high = np.percentile(samples, [50 - 50 * LEVEL, 50 + 50 * LEVEL])
    value = float(samples.mean())
    return Value(value, float(low), float(high), float(samples.std()) / value)
