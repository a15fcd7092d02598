"""Diffusion coefficients of one temperature, tracer and collective, with an explained fit window and honest
errors.

MSD(t) = c + 6 D t is fitted inside a window. Its errors come from the scatter between blocks of time (which
sees all correlations between ions) and between ions (which sees ions that stay different for the whole
run): V = V_time + V_ion − V_both, the two-way cluster variance, i.e. the limit of the bootstrap over time
blocks and over ions for infinitely many replicas (A. Cameron, J. Gelbach, D. Miller, J. Bus. Econ. Stat.
29, 238 (2011)). It is never taken below what independent Brownian ions would give. Intervals are symmetric
in ln D, with Student's t for the few blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from mlplugins.analysis.linefit import LineWeights, line_weights
from mlplugins.analysis.msd import block_msd, collective_displacement
from mlplugins.errors import BadInput
from mlplugins.units import CM2_S_PER_A2_FS, FS_PER_PS

Floats = NDArray[np.float64]
Lags = NDArray[np.intp]
LEVEL = 0.95
FLOOR_PS = 2.0
"""Shorter lags are vibrations in the cage and jumps back."""
SELECTION_BLOCKS = 10
MIN_BLOCKS = 5
MAX_BLOCKS = 20
WINDOW_RATIO = 8.0
LAGS_PER_DECADE = 12
GLS_LAGS = 16
OLS_LAGS = 100
MIN_FRAMES = 20
SELECTION_LEVEL = 0.99
"""Two windows must differ at this level to count as different: many pairs are compared."""
CURVED = 3.5
"""Standard errors between the two ways to fit above which a window is called curved."""


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
class Value:
    """A number with its 95 % interval; `relative_error` is the standard error of its logarithm."""

    value: float
    low: float
    high: float
    relative_error: float

    def scaled(self, factor: float) -> Value:
        """The same quantity in another unit."""
        return Value(self.value * factor, self.low * factor, self.high * factor, self.relative_error)

    def as_json(self) -> dict[str, float]:
        """`{"value", "low", "high"}`."""
        return {"value": self.value, "low": self.low, "high": self.high}


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
            intervals
            then span both fits.
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


@dataclass(frozen=True)
class _Blocks:
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
class _Estimate:
    """A slope with its contributions: per block and ion (blocks, ions), and its variances."""

    value: float
    cells: Floats
    time: float
    ions: float
    model: float
    line: LineWeights


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
    charge = Paths(
        [collective_displacement(run) for run in paths.displacements], paths.segments, paths.interval_fs
    )
    window = choose_window(paths) if window_ps is None else _fixed_window(paths, window_ps)
    lags = window_lags(paths, window, estimator)
    blocks = _block_count(paths, int(lags[-1]))
    data = _block_data(paths, lags, blocks)
    tracer = _estimate(data, lags, paths, estimator)
    unit = CM2_S_PER_A2_FS / paths.interval_fs / 6.0
    second = "ols" if estimator == "gls" else "gls"
    other = _estimate(data, lags, paths, second)
    count = len(data.weights)
    curvature = _difference(tracer.cells.mean(axis=1), other.cells.mean(axis=1), data.weights)
    curved = curvature > CURVED or not window.linear
    both = both_other = None
    intercept = None
    if collective:
        summed = _block_data(charge, lags, blocks)
        both = _estimate(summed, lags, charge, estimator)
        both_other = _estimate(summed, lags, charge, second)
        intercept = float(both.line.intercept @ summed.mean)
    return Diffusion(
        tracer=_value(tracer, other if curved else None, unit, count),
        collective=_value(both, both_other if curved else None, unit, count) if both else None,
        haven=_haven(tracer, both, data.weights) if both else None,
        axes=_axes(data, tracer.line, unit, count),
        window=window,
        blocks=count,
        intercept_a2=float(tracer.line.intercept @ data.mean),
        collective_intercept_a2=intercept,
        curvature=curvature,
        curved=curved,
    )


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

    Candidates start at 2 ps (or a tenth of the run) and rise; a window ends at eight times its start,
    at least a twentieth and at most a fifth of the longest stretch. A candidate is taken if no later one
    differs by more than the 99 % limit of the scatter of that difference between ten blocks of time.
    """
    frame_ps = paths.interval_fs / FS_PER_PS
    length = paths.longest
    total_ps = length * frame_ps
    floor = max(1, round(min(FLOOR_PS, total_ps / 10) / frame_ps))
    ceiling = max(floor + 4, length // 5)
    count = max(6, int(np.ceil(LAGS_PER_DECADE * np.log10(ceiling / floor))))
    lags = np.unique(np.geomspace(floor, ceiling, count).round().astype(np.intp))
    data = _block_data(paths, lags, SELECTION_BLOCKS)
    windows: list[tuple[int, int]] = []
    slopes: list[Floats] = []
    for start in range(len(lags) - 3):
        top = int(np.clip(WINDOW_RATIO * lags[start], length // 20, ceiling))
        chosen = np.flatnonzero((lags >= lags[start]) & (lags <= max(top, lags[start + 3])))
        part = _Blocks(data.msd[chosen], data.weights, data.runs)
        windows.append((int(lags[chosen[0]]), int(lags[chosen[-1]])))
        slopes.append(_estimate(part, lags[chosen], paths, "gls").cells.mean(axis=1))
    limit = float(special.stdtrit(len(data.weights) - 1, 0.5 + SELECTION_LEVEL / 2))
    index = next(
        index
        for index, slope in enumerate(slopes)
        if all(_difference(slope, other, data.weights) < limit for other in slopes[index + 1 :])
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


def _block_count(paths: Paths, high: int) -> int:
    """Blocks at least twice as long as the longest lag, between 5 and 20 for the whole data."""
    total = sum(stop - start for _, (start, stop) in paths.stretches(high + MIN_BLOCKS))
    return int(np.clip(total // (2 * high), MIN_BLOCKS, MAX_BLOCKS))


def _block_data(paths: Paths, lags: Lags, blocks: int) -> _Blocks:
    stretches = paths.stretches(int(lags[-1]) + MIN_BLOCKS)
    lengths = np.array([stop - start for _, (start, stop) in stretches], dtype=float)
    parts, weights, runs = [], [], []
    for (run, part), length in zip(stretches, lengths):
        share = max(1, round(blocks * length / lengths.sum()))
        share = min(share, part[1] - part[0] - int(lags[-1]))
        parts.append(block_msd(paths.displacements[run], part, lags, share))
        weights += [length / share] * share
        runs += [run] * share
    shares = np.array(weights)
    return _Blocks(np.concatenate(parts, axis=1), shares / shares.sum(), np.array(runs))


def _estimate(data: _Blocks, lags: Lags, paths: Paths, estimator: str) -> _Estimate:
    """Slope in Å² per frame (= 6 D Δt), its contributions and variances."""
    mean = data.mean
    rough = np.polyfit(lags, mean, 1)
    step = max(float(rough[0]), 0.02 * float(mean[-1] / lags[-1]), 1e-12) / 3
    noise = max(float(rough[1]), 0.0) / 6
    line = line_weights(lags, paths.longest, step, noise, estimator)
    cells = np.einsum("m,mbna->bn", line.weights, data.msd)
    value = float(data.weights @ cells.mean(axis=1))
    ions = cells.shape[1]
    time = _time_variance(cells.mean(axis=1), data.weights)
    residual = (cells - value) * data.weights[:, None] / ions
    per_ion = sum(float((residual[data.runs == run].sum(axis=0) ** 2).sum()) for run in np.unique(data.runs))
    persistent = per_ion - float((residual**2).sum()) if ions > 1 else 0.0
    frames = sum(stop - start for _, (start, stop) in paths.stretches(int(lags[-1]) + MIN_BLOCKS))
    model = line.variance / ions * paths.longest / frames
    return _Estimate(value, cells, time, max(persistent, 0.0), model, line)


def _time_variance(blocks: Floats, weights: Floats) -> float:
    """Variance of the weighted mean of blocks."""
    mean = weights @ blocks
    count = len(blocks)
    return float((weights**2 @ (blocks - mean) ** 2) * count / max(count - 1, 1))


def _difference(first: Floats, second: Floats, weights: Floats) -> float:
    """|difference of two estimates| over its standard error between blocks."""
    delta = first - second
    error = np.sqrt(_time_variance(delta, weights))
    return float(abs(weights @ delta) / error) if error > 0 else 0.0


def _interval(value: float, variance: float, model: float, blocks: int) -> Value:
    """95 % interval, symmetric in the logarithm; without a positive value only the upper limit "
    "means something."""
    t = float(special.stdtrit(max(blocks - 1, 1), 0.5 + LEVEL / 2))
    z = float(special.ndtri(0.5 + LEVEL / 2))
    half = max(t * np.sqrt(variance), z * np.sqrt(model))
    if value <= 0:
        return Value(0.0, 0.0, max(float(value + half), 0.0), float("inf"))
    half = float(half)
    factor = float(np.exp(min(half / value, 700.0)))
    return Value(value, value / factor, value * factor, half / value / z)


def _value(estimate: _Estimate, other: _Estimate | None, unit: float, blocks: int) -> Value:
    """Interval of an estimate; where the MSD is curved, that of both ways to fit (`other`) together."""
    first = _interval(estimate.value, estimate.time + estimate.ions, estimate.model, blocks).scaled(unit)
    if other is None:
        return first
    second = _interval(other.value, other.time + other.ions, other.model, blocks).scaled(unit)
    low, high = min(first.low, second.low), max(first.high, second.high)
    if first.value <= 0:
        return Value(first.value, low, high, first.relative_error)
    widest = max(high / first.value, first.value / low if low > 0 else float("inf"))
    return Value(first.value, low, high, float(np.log(widest)) / float(special.ndtri(0.5 + LEVEL / 2)))


def _axes(data: _Blocks, line: LineWeights, unit: float, blocks: int) -> tuple[Value, Value, Value]:
    per_axis = np.einsum("m,mbna->ba", line.weights, data.msd) / data.msd.shape[2]
    values = []
    for axis in range(3):
        slope = float(data.weights @ per_axis[:, axis])
        variance = _time_variance(per_axis[:, axis], data.weights)
        values.append(_interval(slope, variance, 0.0, blocks).scaled(3 * unit))
    return values[0], values[1], values[2]


def _haven(tracer: _Estimate, both: _Estimate, weights: Floats) -> Value | None:
    """H = D*/D_σ; the two share their time blocks, so the scatter of the ratio is taken block by block."""
    if tracer.value <= 0 or both.value <= 0:
        return None
    ratio = tracer.cells.mean(axis=1) / tracer.value - both.cells[:, 0] / both.value
    variance = _time_variance(ratio, weights) + tracer.ions / tracer.value**2
    unity = _interval(1.0, variance, both.model / both.value**2, len(weights))
    return unity.scaled(tracer.value / both.value)
