"""Tracer and collective diffusion coefficients at one temperature, with an explained fit window and realistic
errors.

The slope is that of all lags from 0.5 ps to half of the run together, with decays of unknown strength beside
the line (`curvature`); what these may hide is part of the error. The window is then the earliest one whose
ordinary slope agrees with it and whose points lie on the line; a window given by the user is fitted by a
line alone. Where later lags go on with another slope (`late`) or show a decay as slow as the run, the
intervals hold that too. Errors come from
the scatter between blocks of time (which sees all correlations between ions) and between ions (which sees
ions that stay different for the whole run): V = V_time + V_ion − V_both, the two-way cluster variance, i.e.
the limit of the bootstrap over time blocks and over ions for infinitely many replicas (A. Cameron, J.
Gelbach, D. Miller, J. Bus. Econ. Stat. 29, 238 (2011)). Intervals are symmetric in ln D, with Student's t for
the few blocks, and never narrower than one standard error of independent Gaussian ions. Values are medians:
a mean of few squares is skewed, too low more often than too high, and is multiplied by the mean over the
median of the χ² distribution with its variance (`value.skewness`); a window given by the user keeps its plain
slope as D*. D_σ holds what ions that stay different do, which only D* can tell; H is D*/D_σ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import special

from mlplugins.analysis.blocks import (
    MIN_BLOCKS,
    Lags,
    Paths,
    block_count,
    block_data,
    collective_paths,
    ion_variance,
    time_variance,
)
from mlplugins.analysis.curvature import FARTHEST, LONGEST, curve_fit, process_covariance
from mlplugins.analysis.late import late_lags, late_slope
from mlplugins.analysis.linefit import drawn, ordinary_weights
from mlplugins.analysis.slopes import (
    Estimate,
    Fit,
    along_axis,
    difference,
    estimate,
    of_cells,
    one_mean_probability,
    over_time,
    relative_fit,
    weighed,
)
from mlplugins.analysis.value import UNKNOWN, Value, half_width, interval, skewness, spanning
from mlplugins.errors import BadInput
from mlplugins.units import CM2_S_PER_A2_FS, FS_PER_PS

Floats = NDArray[np.float64]
FLOOR_PS = 2.0
"""A window does not start earlier: vibrations in the cage and jumps back."""
FIRST_PS = 0.5
"""Shortest lag of the fit with decays: what the curve does before the window tells how far to trust it."""
CURVE_LAGS = 32
ON_THE_LINE = 0.05
"""Relative distance of the points of a window from the line."""
WINDOW_RATIO = 8.0
INDEPENDENT = 50
"""Independent displacements of all ions together at the longest lag considered."""
GLS_LAGS = 16
OLS_LAGS = 100
MIN_FRAMES = 20
MOST_OVERLAP = 3.0
"""Largest correction for blocks of time that overlap."""
CURVED_LEVEL = 0.98
"""Two ways to fit must differ at this level (Student's t of the blocks) for a given window to be curved."""


@dataclass(frozen=True)
class Window:
    """The lags that were fitted, ps, and why these."""

    low_ps: float
    high_ps: float
    reason: str
    linear: bool = True
    fixed: bool = False


@dataclass(frozen=True)
class Late:
    """Ordinary slope as D, cm²/s, of lags (ps) beyond those of the fit."""

    low_ps: float
    high_ps: float
    d: Value


@dataclass(frozen=True)
class Diffusion:
    """Diffusion coefficients in cm²/s.

    Attributes:
        tracer, collective: D* and D_σ, medians; collective is None where it is not defined.
        haven: D*/D_σ.
        axes: D* along x, y, z.
        window: the fitted lags.
        blocks: number of time blocks behind the errors.
        intercept_a2: intercept of the tracer line, Å² (vibrations).
        curvature: difference of the ordinary slope in the window and of D* in standard errors.
        curved: whether no window has D* as its slope or, for a window given, ordinary and generalised fits
            differ; the intervals then hold both.
        fits: lags and weights behind the numbers; the first gives the values, all of them the intervals.
        estimator: as asked for, see `diffusion`.
        one_mean: probability that all runs have one D*; where it is below 1 % the interval is that of the
            scatter between runs.
        late: the slope of later lags where it contradicts D*; the intervals then hold it.
        slow: whether the lags show a decay comparable with the run; the intervals then hold the slopes beside
            one, and D* is undetermined where they span more than a factor of 30.
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
    fits: tuple[Fit, ...]
    estimator: str = "gls"
    one_mean: float = 1.0
    late: Late | None = None
    slow: bool = False


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
        estimator: `gls`: generalised least squares, of a line in a given window, else of all lags with
            decays beside the line; `ols`: the ordinary slope of the window.
        collective: whether D_σ is defined (it is not if the drift of the mobile ions was removed).
    """
    if paths.longest < MIN_FRAMES:
        raise BadInput(
            f"longest stretch without a gap: {paths.longest} frames; a fit needs at least {MIN_FRAMES}"
        )
    if window_ps is None:
        return _through_the_curve(paths, estimator, collective)
    window = _fixed_window(paths, window_ps)
    order = (estimator, "ols" if estimator == "gls" else "gls")
    fits = _line_fits(paths, window, order)
    curvature = difference(fits[0], fits[1])
    limit = float(special.stdtrit(len(fits[0].data.weights) - 1, 0.5 + CURVED_LEVEL / 2))
    fits = fits if curvature > limit else fits[:1]
    lags = window_lags(paths, window, estimator)
    blocks = block_count(paths, int(lags[-1]))
    used = [_with_ions(relative_fit(lags, each.line, 0.0, each.value, blocks), each) for each in fits]
    both = _collective(paths, used, fits) if collective else []
    return _diffusion(paths, (window, used, estimator), (fits, both), curvature)


def _with_ions(fit: Fit, slope: Estimate) -> Fit:
    return replace(fit, ions=slope.ions / slope.value**2 if slope.value > 0 else 0.0)


def _collective(paths: Paths, used: Sequence[Fit], own: Sequence[Estimate]) -> list[Estimate]:
    """Σ r / √N by the weights of the tracer fits, so that the Haven ratio compares like with like."""
    charge = collective_paths(paths)
    data = block_data(charge, used[0].lags, used[0].blocks)
    return [weighed(charge, data, fit, each.line, each.one_mean) for fit, each in zip(used, own)]


def _diffusion(
    paths: Paths,
    shown: tuple[Window, Sequence[Fit], str],
    fits: tuple[list[Estimate], list[Estimate]],
    curvature: float,
) -> Diffusion:
    """Values of the first estimates, tracer and collective, with intervals that hold the others."""
    unit = CM2_S_PER_A2_FS / paths.interval_fs / 6.0
    own, both = fits
    window, used, estimator = shown
    return Diffusion(
        tracer=_value(own, unit),
        collective=replace(_value(both, unit), limit=UNKNOWN) if both else None,
        haven=_haven(own, both) if both else None,
        axes=_axes(own, unit),
        window=window,
        blocks=len(own[0].data.weights),
        intercept_a2=own[0].intercept,
        collective_intercept_a2=both[0].intercept if both else None,
        curvature=curvature,
        curved=len(own) > 1,
        fits=tuple(used),
        estimator=estimator,
        one_mean=own[0].one_mean,
    )


def _through_the_curve(paths: Paths, estimator: str, collective: bool) -> Diffusion:
    """D* with the window that shows it; `ols` gives the ordinary slope of that window.

    So does a curve whose slope is lost to slow decays: the interval then begins at 0.
    """
    fit, slope, slow = _curve(paths)
    window, holds = _choose(paths, fit, slope)
    time = fit.lags * (paths.interval_fs / FS_PER_PS)
    inside = np.flatnonzero((time >= window.low_ps * (1 - 1e-9)) & (time <= window.high_ps * (1 + 1e-9)))
    plain = ordinary_weights(fit.lags, inside)
    error = np.sqrt(slope.time + slope.ions + slope.curvature)
    away = abs(float(plain @ slope.data.mean) - slope.value)
    line = drawn(fit.line.weights, fit.lags, inside, fit.line.variance)
    ordinary = drawn(plain, fit.lags, inside, fit.line.variance)
    used = [replace(fit, line=line), replace(fit, line=ordinary, skew=1.0)]
    lost = slope.value <= 0 and not holds
    if lost:
        used[1] = relative_fit(fit.lags, ordinary, 0.0, float(plain @ slope.data.mean), fit.blocks)
    if lost or estimator == "ols":
        used.reverse()
    used = used if not window.linear or not holds else used[:1]
    fits = [weighed(paths, slope.data, each, each.line, slope.one_mean) for each in used]
    both = _collective(paths, used, fits) if collective else []
    away = away / float(error) if error > 0 else 0.0
    late = late_slope(paths, fit, slope)
    if slow:
        others = [weighed(paths, slope.data, each, each.line, slope.one_mean) for each in slow]
        used += slow
        fits += others
        both += _collective(paths, slow, others) if collective else []
    if late is not None:
        used.append(late[0])
        fits.append(late[1])
        both += _collective(paths, used[-1:], fits[-1:]) if collective else []
    result = _diffusion(paths, (window, used, estimator), (fits, both), away)
    if slow and result.tracer.low > 0:
        result = replace(result, tracer=replace(result.tracer, limit=UNKNOWN))
    result = replace(result, slow=bool(slow))
    if late is None:
        return result
    low, high = late_lags(paths.longest)[[0, -1]] * (paths.interval_fs / FS_PER_PS)
    d = _value(fits[-1:], CM2_S_PER_A2_FS / paths.interval_fs / 6)
    return replace(result, late=Late(float(low), float(high), d))


def _curve(paths: Paths) -> tuple[Fit, Estimate, list[Fit]]:
    """Slope of all lags with decays beside the line; further slopes beside slow decays, where one is seen."""
    lags = curve_lags(paths)
    rough = block_data(paths, lags, MIN_BLOCKS)
    mean, ions = rough.mean, rough.msd.shape[2]
    frames = sum(stop - start for _, (start, stop) in paths.stretches(int(lags[-1]) + MIN_BLOCKS))

    def observed(weights: Floats) -> float:
        cells = np.einsum("m,mbna->bn", weights, rough.msd)
        return time_variance(cells.mean(axis=1), rough.weights) + ion_variance(cells, rough)

    found = curve_fit(lags, mean, paths.longest, ions * frames / paths.longest, observed)
    value = float(found.line.weights @ mean)
    pull = np.abs(found.line.weights) * mean
    reach = int(np.ceil(np.sqrt(pull @ lags**2 / pull.sum()))) if pull.sum() > 0 else int(lags[-1])
    fit = relative_fit(lags, found.line, found.curvature, value, block_count(paths, reach))
    fit = replace(fit, overlap=_overlap(fit, mean, paths.longest, frames / paths.longest))
    data = block_data(paths, lags, fit.blocks) if fit.blocks != MIN_BLOCKS else rough
    # late lags of short blocks overlap too much to compare runs by
    early = lags[: max(3, int(np.searchsorted(lags, paths.longest // 10)))]
    one_mean = 1.0
    if len(paths.displacements) > 1:
        compared = estimate(block_data(paths, early, MIN_BLOCKS), early, paths, "gls")
        one_mean = one_mean_probability(paths, early, compared)
    slow = []
    for each in found.slow:
        value = float(each.line.weights @ mean)
        other = relative_fit(lags, each.line, each.curvature, value, fit.blocks)
        slow.append(replace(other, beside=True))
    slope = weighed(paths, data, fit, found.line, one_mean)
    if slope.value > 0:
        skew = skewness(max(slope.time + slope.ions, slope.model) / slope.value**2)
        line = replace(fit.line, weights=skew * fit.line.weights, variance=skew**2 * fit.line.variance)
        fit = _with_ions(replace(fit, line=line, skew=skew), slope)
        slope = weighed(paths, data, fit, line, one_mean)
    return fit, slope, slow


def _overlap(fit: Fit, mean: Floats, longest: int, runs: float) -> float:
    """Variance of the slope over what blocks show of it, which overlap by their lags."""
    blocks = round(fit.blocks / runs)
    if blocks < 2:
        return 1.0
    weights, whole = fit.line.weights, fit.line.variance
    block = float(weights @ process_covariance(fit.lags, mean, longest, blocks) @ weights)
    shown = (runs * block - whole) / (blocks * runs - 1)
    return float(np.clip(whole / shown, 1.0, MOST_OVERLAP)) if shown > 0 else MOST_OVERLAP


def curve_lags(paths: Paths) -> Lags:
    """Geometric, from 0.5 ps (or a fortieth of the longest stretch) to half of that, and on to where slow
    decays are looked for, as far as no stretch is lost."""
    length, frame_ps = paths.longest, paths.interval_fs / FS_PER_PS
    first = max(1, round(min(FIRST_PS / frame_ps, length / 40)))
    last = max(min(int(LONGEST * length), length - MIN_BLOCKS - 1), first + 3)
    shortest = min(stop - start for _, (start, stop) in paths.stretches(last + MIN_BLOCKS))
    end = max(min(int(FARTHEST * length), shortest - MIN_BLOCKS - 1), last)
    ratio = (last / first) ** (1 / (CURVE_LAGS - 1))
    beyond = last * ratio ** np.arange(1, int(np.log(end / last) / np.log(ratio)) + 1)
    lags = np.concatenate([np.geomspace(first, last, CURVE_LAGS), beyond])
    return np.unique(lags.round().astype(np.intp))


def _line_fits(paths: Paths, window: Window, order: Sequence[str]) -> list[Estimate]:
    """Fits of a line by several estimators, on the lags of the first one."""
    lags = window_lags(paths, window, order[0])
    data = block_data(paths, lags, block_count(paths, int(lags[-1])))
    fits = [estimate(data, lags, paths, name) for name in order]
    one_mean = one_mean_probability(paths, lags, fits[0])
    return [of_cells(fit.cells, data, fit.model, fit.line, one_mean) for fit in fits]


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
    return Window(max(low, frame_ps), high, f"fixed by the user to {low:g}–{high:g} ps", fixed=True)


def _choose(paths: Paths, fit: Fit, slope: Estimate) -> tuple[Window, bool]:
    """The earliest window that is a line with the slope D*, and whether D* (positive, or nobody moves) has
    the window's ordinary slope inside its interval.

    Candidates start at 2 ps (or a tenth of the run) and rise; a window ends at eight times its start, at
    least at a twentieth of the longest stretch, and at most where the ions have made 50 independent
    displacements together (between a fifth and a half of the stretch). A candidate is taken if its ordinary
    slope differs from D* (of all lags, with decays) by less than half of the 95 % interval, and if no point
    is farther than 5 % from the line. If there is none, it is the one with the nearest slope.
    """
    frame_ps, length, lags = paths.interval_fs / FS_PER_PS, paths.longest, fit.lags
    floor = max(1, round(min(FLOOR_PS, length * frame_ps / 10) / frame_ps))
    together = paths.displacements[0].shape[1] * length // INDEPENDENT
    ceiling = max(floor + 4, int(np.clip(together, length // 5, length // 2)))
    value = _value([slope], 1.0)
    half = half_width(slope.time + slope.ions, slope.model, slope.freedom, slope.curvature)
    mean, blocks = slope.data.mean, slope.data.msd.sum(axis=3).mean(axis=2)
    found: list[tuple[float, NDArray[np.intp]]] = []
    for start in np.flatnonzero(lags >= floor)[:-3]:
        if found and lags[start + 3] > ceiling:
            break
        top = int(np.clip(WINDOW_RATIO * lags[start], length // 20, ceiling))
        inside = np.flatnonzero((lags >= lags[start]) & (lags <= max(top, lags[start + 3])))
        away = abs(float(ordinary_weights(lags, inside) @ mean) - slope.value) / half if half > 0 else 0.0
        start_at = drawn(fit.line.weights, lags, inside, 0.0).intercept @ mean
        line = start_at + slope.value * lags[inside]
        noise = [np.sqrt(time_variance(each, slope.data.weights)) for each in blocks[inside]]
        room = np.clip(noise, ON_THE_LINE * mean[inside], 2 * ON_THE_LINE * mean[inside])
        on_line = bool((np.abs(line - mean[inside]) <= room).all())
        found.append((away, inside))
        if away <= 0.5 and on_line:
            break
    else:
        away, inside = min(found, key=lambda each: each[0])
        on_line = False
    low, high = lags[inside[0]] * frame_ps, lags[inside[-1]] * frame_ps
    plain = ordinary_weights(lags, inside)
    ordinary = float(plain @ mean)
    # nobody moves; else a slope that falls to the end of the run, which decays may explain to the full
    rest = slope.value <= 0 and ordinary < 2 * np.sqrt(time_variance(plain @ blocks, slope.data.weights))
    linear = rest or (on_line and slope.value > 0)
    span = f"{low:.3g}–{high:.3g} ps: the"
    if linear:
        reason = (
            f"{span} earliest window from {floor * frame_ps:.3g} ps on whose ordinary slope agrees with that "
            "of all lags (to half of its interval) and whose points lie on the line (to 5 % or their error)"
        )
    else:
        reason = f"{span} window whose ordinary slope is nearest to that of all lags; no window is a line"
    holds = rest or (slope.value > 0 and value.low <= ordinary <= value.high)
    return Window(float(low), float(high), reason, linear), holds


def _value(fits: Sequence[Estimate], unit: float) -> Value:
    """Interval of the first estimate; where the MSD is curved, it holds the other one too."""
    parts = []
    for fit in fits:
        errors = fit.time + fit.ions, fit.model, fit.freedom, fit.curvature
        single = fit.skew if fit.cells.shape[1] == 1 else 0.0
        parts.append(interval(fit.value, *errors, single, fit.beside))
    return spanning(parts).scaled(unit)


def _axes(fits: Sequence[Estimate], unit: float) -> tuple[Value, Value, Value]:
    x, y, z = (_value([along_axis(fit, axis) for fit in fits], 3 * unit) for axis in range(3))
    return x, y, z


def _haven(tracers: Sequence[Estimate], charges: Sequence[Estimate]) -> Value | None:
    """H = D*/D_σ of the first fits, spanning all; None where one of the first has no positive slope.

    Where another one has none, H has no lower limit.
    """
    pairs = [pair for pair in zip(tracers, charges) if min(fit.value for fit in pair) > 0]
    if min(tracers[0].value, charges[0].value) <= 0:
        return None
    found = spanning([_ratio(*pair) for pair in pairs])
    low = found.low if len(pairs) == len(tracers) else 0.0
    value = _value(tracers[:1], 1.0).value / _value(charges[:1], 1.0).value
    return replace(found, value=min(max(value, low), found.high), low=low, limit=UNKNOWN)


def _ratio(tracer: Estimate, both: Estimate) -> Value:
    """The two share their time blocks, so the scatter of the ratio is taken block by block.

    They share the noise of D* as well, which is no part of the least error of their ratio.
    """
    ratio = tracer.cells.mean(axis=1) / tracer.value - both.cells[:, 0] / both.value
    ions = tracer.ions / tracer.value**2
    time, freedom = over_time(ratio, tracer.data, tracer.one_mean)
    curvature = tracer.curvature / tracer.value**2
    shared = max(tracer.time + tracer.ions, tracer.model) / tracer.value**2
    least = max(both.model / both.value**2 - shared, 0.0)
    found = interval(1.0, time + ions, least, freedom, curvature, single=1.0)
    unity = Value(1.0, 1 / found.high, 1 / found.low, found.relative_error)
    return unity.scaled(tracer.value / both.value)
