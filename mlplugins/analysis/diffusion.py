"""Diffusion coefficients of one temperature, tracer and collective, with an explained fit window and honest
errors.

MSD(t) = c + 6 D t is fitted inside a window. Its errors come from the scatter between blocks of time (which
sees all correlations between ions) and between ions (which sees ions that stay different for the whole
run): V = V_time + V_ion − V_both, the two-way cluster variance, i.e. the limit of the bootstrap over time
blocks and over ions for infinitely many replicas (A. Cameron, J. Gelbach, D. Miller, J. Bus. Econ. Stat.
29, 238 (2011)). Intervals are symmetric in ln D, with Student's t for the few blocks, and never narrower than
one standard error of independent Brownian ions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from mlplugins.analysis.linefit import LineWeights, brownian_covariance, line_weights
from mlplugins.analysis.msd import block_msd, collective_displacement
from mlplugins.analysis.value import Value, interval, spanning
from mlplugins.errors import BadInput
from mlplugins.units import CM2_S_PER_A2_FS, FS_PER_PS

Floats = NDArray[np.float64]
Lags = NDArray[np.intp]
FLOOR_PS = 2.0
"""Shorter lags are vibrations in the cage and jumps back."""
SELECTION_BLOCKS = 10
MIN_BLOCKS = 5
MAX_BLOCKS = 20
WINDOW_RATIO = 8.0
INDEPENDENT = 50
"""Independent displacements of all ions together at the longest lag considered."""
LAGS_PER_DECADE = 12
GLS_LAGS = 16
OLS_LAGS = 100
MIN_FRAMES = 20
SELECTION_LEVEL = 0.99
"""Two windows must differ at this level to count as different: many pairs are compared."""
CONTRADICTION = 0.01
"""Probability below which runs of one temperature contradict each other."""
CURVED_LEVEL = 0.98
"""Two ways to fit must differ at this level (Student's t of the blocks) for a window to be called curved."""


@dataclass(frozen=True)
class Paths:
    """Displacements of one or more runs at the same temperature and frame spacing.

    Attributes:
        displacements: (frames, ions, 3) of each run, Å.
        segments: stretches without a gap of each run.
        interval_fs: time between frames, fs.
    """

    displacements: Sequence[Floats]
    segments: Sequence[Sequence[tuple[int, int]]]
    interval_fs: float

    def stretches(self, longer_than: int) -> list[tuple[int, tuple[int, int]]]:
        """(run, segment) of all stretches with more than `longer_than` frames."""
        found = [(run, part) for run, parts in enumerate(self.segments) for part in parts]
        return [(run, part) for run, part in found if part[1] - part[0] > longer_than]

    @property
    def longest(self) -> int:
        """Frames of the longest stretch."""
        return max(stop - start for _, (start, stop) in self.stretches(0))


@dataclass(frozen=True)
class Window:
    """The lags that were fitted, ps, and why these."""

    low_ps: float
    high_ps: float
    reason: str
    linear: bool = True


@dataclass(frozen=True)
class Diffusion:
    """Diffusion coefficients in cm²/s.

    Attributes:
        tracer, collective: D* and D_σ; collective is None where it is not defined.
        haven: D*/D_σ.
        axes: D* along x, y, z.
        window: the fitted lags.
        blocks: number of time blocks behind the errors.
        intercept_a2: intercept of the tracer line, Å² (vibrations).
        curvature: difference of the ordinary and the generalised fit in standard errors.
        curved: whether that difference, or the choice of the window, says that the MSD is not a line; the
            intervals then span both fits and a late one.
        estimator: the fit behind the numbers (ordinary where the MSD is curved in a chosen window).
        one_mean: probability that all runs have one D*; where it is below 1 % the interval is that of the
            scatter between runs.
    """

    tracer: Value
    collective: Value | None
    haven: Value | None
    axes: tuple[Value, Value, Value]
    window: Window
    blocks: int
    intercept_a2: float
    collective_intercept_a2: float | None
    curvature: float
    curved: bool
    estimator: str = "gls"
    one_mean: float = 1.0


@dataclass(frozen=True)
class BlockMsd:
    """Block MSDs over all runs: tracer (lags, blocks, ions, 3), weight and run of each block."""

    msd: Floats
    weights: Floats
    runs: NDArray[np.intp]

    @property
    def mean(self) -> Floats:
        """MSD at the lags, (lags,)."""
        per_block: Floats = self.msd.sum(axis=3).mean(axis=2)
        return per_block @ self.weights


@dataclass(frozen=True)
class Estimate:
    """A slope with its contributions per block and ion (blocks, ions), its variances, and what they are of.

    `one_mean` is the probability that the runs have one mean, `freedom` that of Student's t.
    """

    value: float
    cells: Floats
    time: float
    ions: float
    model: float
    line: LineWeights
    data: BlockMsd
    freedom: int
    one_mean: float

    @property
    def intercept(self) -> float:
        """Of the line, Å²."""
        return float(self.line.intercept @ self.data.mean)


def diffusion(
    paths: Paths,
    window_ps: tuple[float, float] | None = None,
    estimator: str = "gls",
    collective: bool = True,
) -> Diffusion:
    """D*, D_σ and the Haven ratio of the runs at one temperature.

    Args:
        paths: unwrapped, drift-free displacements.
        window_ps: fit window; None chooses it.
        estimator: `gls` or `ols`, see `linefit`.
        collective: whether D_σ is defined (it is not if the drift of the mobile ions was removed).
    """
    if paths.longest < MIN_FRAMES:
        raise BadInput(
            f"longest stretch without a gap: {paths.longest} frames; a fit needs at least {MIN_FRAMES}"
        )
    window = choose_window(paths) if window_ps is None else _fixed_window(paths, window_ps)
    order = (estimator, "ols" if estimator == "gls" else "gls")
    fits = _fits(paths, window, order)
    weights = fits[0].data.weights
    curvature = _difference(fits[0].cells.mean(axis=1), fits[1].cells.mean(axis=1), weights)
    limit = float(special.stdtrit(len(weights) - 1, 0.5 + CURVED_LEVEL / 2))
    curved = curvature > limit or not window.linear
    late = curved and window_ps is None
    if late:
        # the optimum of the generalised fit is that of a line: not here
        order = ("ols", "gls")
        fits = _fits(paths, window, order)
    fits = (fits if curved else fits[:1]) + ([_late(paths)] if late else [])
    both: list[Estimate] = []
    if collective:
        charge = collective_paths(paths)
        both = _fits(charge, window, order[: len(fits)]) + ([_late(charge)] if late else [])
    unit = CM2_S_PER_A2_FS / paths.interval_fs / 6.0
    tracer = fits[0]
    return Diffusion(
        tracer=_value(fits, unit),
        collective=_value(both, unit) if both else None,
        haven=_haven(fits, both) if both else None,
        axes=_axes(fits, unit),
        window=window,
        blocks=len(tracer.data.weights),
        intercept_a2=tracer.intercept,
        collective_intercept_a2=both[0].intercept if both else None,
        curvature=curvature,
        curved=curved,
        estimator=order[0],
        one_mean=tracer.one_mean,
    )


def _fits(paths: Paths, window: Window, order: Sequence[str]) -> list[Estimate]:
    """Fits by several estimators, on the lags of the first one."""
    lags = window_lags(paths, window, order[0])
    data = block_data(paths, lags, block_count(paths, int(lags[-1])))
    fits = [estimate(data, lags, paths, name) for name in order]
    one_mean = _one_mean(paths, lags, fits[0])
    return [_estimate(fit.cells, data, fit.model, fit.line, one_mean) for fit in fits]


def collective_paths(paths: Paths) -> Paths:
    """Σ r / √N of every run as the path of one walker."""
    summed = [collective_displacement(run) for run in paths.displacements]
    return Paths(summed, paths.segments, paths.interval_fs)


def _late(paths: Paths) -> Estimate:
    """Ordinary fit from a quarter to three quarters of the longest stretch: where a curved MSD is going."""
    length = paths.longest
    low, high = max(length // 4, 1), max(min(3 * length // 4, length - MIN_BLOCKS - 1), length // 4 + 3)
    lags = np.unique(np.linspace(low, high, GLS_LAGS).round().astype(np.intp))
    return estimate(block_data(paths, lags, MIN_BLOCKS), lags, paths, "ols")


def window_lags(paths: Paths, window: Window, estimator: str = "gls") -> Lags:
    """Lags (in frames) inside a window: geometric for GLS, even for OLS."""
    frame_ps = paths.interval_fs / FS_PER_PS
    low = max(1, int(np.ceil(window.low_ps / frame_ps - 1e-9)))
    high = int(np.floor(window.high_ps / frame_ps + 1e-9))
    if estimator == "ols":
        return np.unique(np.linspace(low, high, min(OLS_LAGS, high - low + 1)).round().astype(np.intp))
    return np.unique(np.geomspace(low, high, GLS_LAGS).round().astype(np.intp))


def _fixed_window(paths: Paths, window_ps: tuple[float, float]) -> Window:
    frame_ps = paths.interval_fs / FS_PER_PS
    low, high = window_ps
    limit = (paths.longest - MIN_BLOCKS) * frame_ps
    if not 0 <= low < high <= limit or high - max(low, frame_ps) < 2 * frame_ps:
        raise BadInput(
            f"--fit-window {low:g} {high:g} ps; expected 0 ≤ LO < HI ≤ {limit:.4g} ps with at least three "
            f"lags (a frame is {frame_ps:g} ps)"
        )
    return Window(max(low, frame_ps), high, f"fixed by the user to {low:g}–{high:g} ps")


def choose_window(paths: Paths) -> Window:
    """The earliest window from which on all later windows give the same slope.

    Candidates start at 2 ps (or a tenth of the run) and rise; a window ends at eight times its start, at
    least at a twentieth of the longest stretch, and at most where the ions have made 50 independent
    displacements together (between a fifth and a half of the stretch). A candidate is taken if no later one
    differs by more than the 99 % limit of the scatter of that difference between ten blocks of time and
    between ions, or that of Brownian ions where this is larger.
    """
    frame_ps = paths.interval_fs / FS_PER_PS
    length = paths.longest
    floor = max(1, round(min(FLOOR_PS, length * frame_ps / 10) / frame_ps))
    together = paths.displacements[0].shape[1] * length // INDEPENDENT
    ceiling = max(floor + 4, int(np.clip(together, length // 5, length // 2)))
    count = max(6, int(np.ceil(LAGS_PER_DECADE * np.log10(ceiling / floor))))
    lags = np.unique(np.geomspace(floor, ceiling, count).round().astype(np.intp))
    data = block_data(paths, lags, SELECTION_BLOCKS)
    windows: list[tuple[int, int]] = []
    slopes: list[Estimate] = []
    for start in range(len(lags) - 3):
        top = int(np.clip(WINDOW_RATIO * lags[start], length // 20, ceiling))
        chosen = np.flatnonzero((lags >= lags[start]) & (lags <= max(top, lags[start + 3])))
        part = BlockMsd(data.msd[chosen], data.weights, data.runs)
        windows.append((int(lags[chosen[0]]), int(lags[chosen[-1]])))
        slopes.append(estimate(part, lags[chosen], paths, "gls"))
    limit = float(special.stdtrit(len(data.weights) - 1, 0.5 + SELECTION_LEVEL / 2))
    index = next(
        index
        for index, slope in enumerate(slopes)
        if all(_contradiction(slope, other, data) < limit for other in slopes[index + 1 :])
    )
    low, high = windows[index]
    linear = index < len(windows) - 1
    reason = (
        f"{low * frame_ps:.3g}–{high * frame_ps:.3g} ps: the first of {len(windows)} windows (the earliest "
        f"from {windows[0][0] * frame_ps:.3g} ps) whose slope no later window contradicts at 99 %"
    )
    if not linear:
        reason = (
            f"{low * frame_ps:.3g}–{high * frame_ps:.3g} ps: the last of {len(windows)} windows; the slope "
            "still changes in all earlier ones"
        )
    return Window(low * frame_ps, high * frame_ps, reason, linear)


def _contradiction(first: Estimate, later: Estimate, data: BlockMsd) -> float:
    """|difference of two slopes| in standard errors; that of the later one is the least it can be."""
    cells = first.cells - later.cells
    delta = cells.mean(axis=1)
    time = time_variance(delta, data.weights)
    ions = _ion_variance(cells, data)
    brownian = max(
        later.model - first.model, 0.0
    )  # the earlier window is nearly contained in the optimal fit
    error = np.sqrt(max(time + ions, brownian))
    return float(abs(data.weights @ delta) / error) if error > 0 else 0.0


def block_count(paths: Paths, high: int) -> int:
    """Blocks at least twice as long as the longest lag, between 5 and 20 for the whole data."""
    total = sum(stop - start for _, (start, stop) in paths.stretches(high + MIN_BLOCKS))
    return int(np.clip(total // (2 * high), MIN_BLOCKS, MAX_BLOCKS))


def block_share(
    paths: Paths, lags: Lags, blocks: int | None = None
) -> list[tuple[int, tuple[int, int], int, float]]:
    """(run, segment, blocks in it, weight of each): the blocks of time shared out over all stretches."""
    high = int(lags[-1])
    count = block_count(paths, high) if blocks is None else blocks
    stretches = paths.stretches(high + MIN_BLOCKS)
    lengths = np.array([stop - start for _, (start, stop) in stretches], dtype=float)
    shared = []
    for (run, part), length in zip(stretches, lengths):
        share = max(1, round(count * length / lengths.sum()))
        share = min(share, part[1] - part[0] - high)
        shared.append((run, part, share, float(length / share)))
    return shared


def block_data(paths: Paths, lags: Lags, blocks: int) -> BlockMsd:
    """MSD in blocks of time, of all runs."""
    parts, weights, runs = [], [], []
    for run, part, share, weight in block_share(paths, lags, blocks):
        parts.append(block_msd(paths.displacements[run], part, lags, share))
        weights += [weight] * share
        runs += [run] * share
    shares = np.array(weights)
    return BlockMsd(np.concatenate(parts, axis=1), shares / shares.sum(), np.array(runs))


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
        # the limit is that of ions that may have diffused all the way seen
        step = float(data.mean[-1] / lags[-1]) / 3
        covariance = brownian_covariance(lags, paths.longest, step, 0.0)
        variance = float(line.weights @ covariance @ line.weights)
    frames = sum(stop - start for _, (start, stop) in paths.stretches(int(lags[-1]) + MIN_BLOCKS))
    return _estimate(cells, data, variance / cells.shape[1] * paths.longest / frames, line)


def _estimate(
    cells: Floats, data: BlockMsd, model: float, line: LineWeights, one_mean: float = 1.0
) -> Estimate:
    blocks = cells.mean(axis=1)
    time, freedom = _over_time(blocks, data, one_mean)
    value, ions = float(data.weights @ blocks), _ion_variance(cells, data)
    return Estimate(value, cells, time, ions, model, line, data, freedom, one_mean)


def _over_time(blocks: Floats, data: BlockMsd, one_mean: float) -> tuple[float, int]:
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


def _one_mean(paths: Paths, lags: Lags, fit: Estimate) -> float:
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


def _ion_variance(cells: Floats, data: BlockMsd) -> float:
    """V_ion − V_both: the part of the variance between ions that lasts from block to block."""
    ions = cells.shape[1]
    if ions == 1:
        return 0.0
    residual = (cells - float(data.weights @ cells.mean(axis=1))) * data.weights[:, None] / ions
    per_ion = sum(float((residual[data.runs == run].sum(axis=0) ** 2).sum()) for run in np.unique(data.runs))
    return max(per_ion - float((residual**2).sum()), 0.0)


def msd_band(paths: Paths, points: int = 24) -> tuple[Floats, Floats, Floats]:
    """Lags (ps), MSD and its standard error (Å²) up to 0.45 of the longest stretch, for plots."""
    top = max(int(0.45 * paths.longest), 2)
    lags = np.unique(np.geomspace(1, top, points).round().astype(np.intp))
    data = block_data(paths, lags, MIN_BLOCKS)
    errors = []
    for squares in data.msd.sum(axis=3):  # (blocks, ions)
        variance = time_variance(squares.mean(axis=1), data.weights) + _ion_variance(squares, data)
        errors.append(np.sqrt(variance))
    time: Floats = lags.astype(np.float64) * float(paths.interval_fs / FS_PER_PS)
    return time, data.mean, np.array(errors)


def time_variance(blocks: Floats, weights: Floats) -> float:
    """Variance of the weighted mean of blocks."""
    mean = weights @ blocks
    count = len(blocks)
    return float((weights**2 @ (blocks - mean) ** 2) * count / max(count - 1, 1))


def _difference(first: Floats, second: Floats, weights: Floats) -> float:
    """|difference of two estimates| over its standard error between blocks."""
    delta = first - second
    error = np.sqrt(time_variance(delta, weights))
    return float(abs(weights @ delta) / error) if error > 0 else 0.0


def _value(fits: Sequence[Estimate], unit: float) -> Value:
    """Interval of the first estimate; where the MSD is curved, that of all ways to fit together."""
    parts = [interval(fit.value, fit.time + fit.ions, fit.model, fit.freedom) for fit in fits]
    return spanning(parts).scaled(unit)


def _axes(fits: Sequence[Estimate], unit: float) -> tuple[Value, Value, Value]:
    x, y, z = (_value([_axis(fit, axis) for fit in fits], 3 * unit) for axis in range(3))
    return x, y, z


def _axis(fit: Estimate, axis: int) -> Estimate:
    cells = np.einsum("m,mbn->bn", fit.line.weights, fit.data.msd[..., axis])
    return _estimate(cells, fit.data, fit.model / 3, fit.line, fit.one_mean)


def _haven(tracers: Sequence[Estimate], charges: Sequence[Estimate]) -> Value | None:
    """H = D*/D_σ of the first fits, spanning all; None where one of them has no positive slope."""
    if any(fit.value <= 0 for fit in (*tracers, *charges)):
        return None
    return spanning([_ratio(tracer, both) for tracer, both in zip(tracers, charges)])


def _ratio(tracer: Estimate, both: Estimate) -> Value:
    """The two share their time blocks, so the scatter of the ratio is taken block by block."""
    ratio = tracer.cells.mean(axis=1) / tracer.value - both.cells[:, 0] / both.value
    ions = tracer.ions / tracer.value**2
    time, freedom = _over_time(ratio, tracer.data, tracer.one_mean)
    unity = interval(1.0, time + ions, both.model / both.value**2, freedom)
    return unity.scaled(tracer.value / both.value)
