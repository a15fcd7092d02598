"""Slopes of an MSD by given weights of its lags, and their errors between blocks, between ions, by theory."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import special

from mlplugins.analysis.blocks import (
    MIN_BLOCKS,
    BlockMsd,
    Lags,
    Paths,
    block_data,
    ion_variance,
    time_variance,
)
from mlplugins.analysis.linefit import LineWeights, brownian_covariance, line_weights

Floats = NDArray[np.float64]
CONTRADICTION = 0.01
"""Probability below which runs of one temperature contradict each other."""


@dataclass(frozen=True)
class Fit:
    """How a slope is taken from an MSD: slope = `line.weights` · MSD(`lags`).

    Attributes:
        lags: in frames.
        line: weights; `variance` that of one walker.
        curvature: relative variance of the slope by curvature that the lags do not exclude.
        blocks: blocks of time that its errors come from.
        relative_variance: of the slope of one walker.
        overlap: variance of the slope over that which its blocks of time show, which lags longer than a block
            make alike.
        beside: whether a slow decay of any size was fitted as well.
        skew: factor in the weights that makes the slope the median of its distribution, not the mean.
        ions: relative variance by ions that stay different for the whole run: no block of time shows it in
            the sum of all ions.
    """

    lags: Lags
    line: LineWeights
    curvature: float
    blocks: int
    relative_variance: float
    overlap: float = 1.0
    beside: bool = False
    skew: float = 1.0
    ions: float = 0.0


@dataclass(frozen=True)
class Estimate:
    """A slope with its contributions per block and ion (blocks, ions), its variances, and what they are of.

    `curvature` is the variance by curvature, `one_mean` the probability that the runs have one mean,
    `freedom` that of Student's t, `overlap`, `beside` and `skew` as in `Fit`.
    """

    value: float
    cells: Floats
    time: float
    ions: float
    model: float
    curvature: float
    line: LineWeights
    data: BlockMsd
    freedom: float
    one_mean: float
    overlap: float = 1.0
    beside: bool = False
    skew: float = 1.0

    @property
    def intercept(self) -> float:
        """Of the line, Å²."""
        return float(self.line.intercept @ self.data.mean)


def relative_fit(lags: Lags, line: LineWeights, curvature: float, slope: float, blocks: int) -> Fit:
    square = slope**2 if slope else np.inf
    return Fit(lags, line, curvature / square, blocks, line.variance / square)


def weighed(paths: Paths, data: BlockMsd, fit: Fit, line: LineWeights, one_mean: float) -> Estimate:
    """Estimate by given weights."""
    cells = np.einsum("m,mbna->bn", line.weights, data.msd)
    value = float(data.weights @ cells.mean(axis=1))
    variance = fit.relative_variance * value**2
    if value <= 0:
        variance = _ceiling_variance(line, data.mean, fit.lags, paths)
    frames = sum(stop - start for _, (start, stop) in paths.stretches(int(fit.lags[-1]) + MIN_BLOCKS))
    model = variance / cells.shape[1] * paths.longest / frames
    found = of_cells(cells, data, model, line, one_mean, fit.overlap)
    square = found.value**2 if value > 0 else 0.0
    # in the sum of all ions those that stay different are seen by D* alone
    curvature = (fit.curvature + (fit.ions if cells.shape[1] == 1 else 0.0)) * square
    return replace(found, curvature=curvature, beside=fit.beside, skew=fit.skew)


def line_for(mean: Floats, lags: Lags, paths: Paths, estimator: str) -> LineWeights:
    """Weights of the lags for a 3-d MSD like `mean`: its slope and intercept set step and noise."""
    rough = np.polyfit(lags, mean, 1)
    step = max(float(rough[0]), 0.02 * float(mean[-1] / lags[-1]), 1e-12) / 3
    noise = max(float(rough[1]), 0.0) / 6
    return line_weights(lags, paths.longest, step, noise, estimator)


def estimate(data: BlockMsd, lags: Lags, paths: Paths, estimator: str) -> Estimate:
    """Slope in Å² per frame (= 6 D Δt), its contributions and variances."""
    line = line_for(data.mean, lags, paths, estimator)
    cells = np.einsum("m,mbna->bn", line.weights, data.msd)
    variance = line.variance
    if data.weights @ cells.mean(axis=1) <= 0:
        variance = _ceiling_variance(line, data.mean, lags, paths)
    frames = sum(stop - start for _, (start, stop) in paths.stretches(int(lags[-1]) + MIN_BLOCKS))
    return of_cells(cells, data, variance / cells.shape[1] * paths.longest / frames, line)


def _ceiling_variance(line: LineWeights, mean: Floats, lags: Lags, paths: Paths) -> float:
    """Of the slope of one walker, for the limit of ions that may have diffused all the way seen."""
    last = np.flatnonzero(line.weights)[-1]
    step = float(mean[last] / lags[last]) / 3
    covariance = brownian_covariance(lags, paths.longest, step, 0.0)
    return float(line.weights @ covariance @ line.weights)


def of_cells(
    cells: Floats,
    data: BlockMsd,
    model: float,
    line: LineWeights,
    one_mean: float = 1.0,
    overlap: float = 1.0,
) -> Estimate:
    blocks = cells.mean(axis=1)
    time, freedom = over_time(blocks, data, one_mean)
    value, ions = float(data.weights @ blocks), ion_variance(cells, data)
    if cells.shape[1] > 1 and one_mean >= CONTRADICTION:
        # the mean of two estimates, where that of blocks alone is larger: ions that move together
        time += max(overlap * time - time - ions, 0.0) / 2
    return Estimate(value, cells, time, ions, model, 0.0, line, data, freedom, one_mean, overlap)


def over_time(blocks: Floats, data: BlockMsd, one_mean: float) -> tuple[float, int]:
    """Variance of the mean over time and its degrees of freedom.

    Where the runs contradict each other, they are all there is to tell the error from.
    """
    time = time_variance(blocks, data.weights)
    if one_mean >= CONTRADICTION:
        return time, len(blocks) - 1
    means, shares = _run_means(blocks, data)
    return max(time, time_variance(means, shares)), len(means) - 1


def _run_means(blocks: Floats, data: BlockMsd) -> tuple[Floats, Floats]:
    """Mean and weight of each run."""
    _, run = np.unique(data.runs, return_inverse=True)
    shares = np.bincount(run, data.weights).astype(np.float64)
    return np.bincount(run, data.weights * blocks) / shares, shares


def one_mean_probability(paths: Paths, lags: Lags, fit: Estimate) -> float:
    """Probability that the runs have one slope: F test of their means against five blocks of time in each."""
    runs = len(np.unique(fit.data.runs))
    if runs < 2:
        return 1.0
    data = block_data(paths, lags, MIN_BLOCKS * runs)
    blocks = np.einsum("m,mbna->b", fit.line.weights, data.msd) / data.msd.shape[2]
    means, shares = _run_means(blocks, data)
    _, run = np.unique(data.runs, return_inverse=True)
    freedom = len(blocks) - runs
    between = float(shares @ (means - data.weights @ blocks) ** 2) / (runs - 1)
    if between <= 0 or freedom < 1:
        return 1.0
    within = float(data.weights**2 @ (blocks - means[run]) ** 2) * len(blocks) / freedom + fit.ions
    return float(special.fdtrc(runs - 1, freedom, between / within)) if within > 0 else 0.0


def difference(first: Estimate, second: Estimate) -> float:
    """|difference of two estimates| over its standard error between blocks."""
    delta, weights = (first.cells - second.cells).mean(axis=1), first.data.weights
    error = np.sqrt(time_variance(delta, weights))
    return float(abs(weights @ delta) / error) if error > 0 else 0.0


def along_axis(fit: Estimate, axis: int) -> Estimate:
    cells = np.einsum("m,mbn->bn", fit.line.weights, fit.data.msd[..., axis])
    found = of_cells(cells, fit.data, fit.model / 3, fit.line, fit.one_mean, fit.overlap)
    part = (found.value / fit.value) ** 2 if fit.value > 0 else 0.0
    return replace(found, curvature=fit.curvature * part, beside=fit.beside)
