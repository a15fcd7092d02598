"""Kinds of jumps, their rates, and activation energies.

A kind is the names of the two sites (where sites have names) and a mode of the lengths. Its rate is the
number of jumps over the time that ions spent on sites it can start from. Counts are Poisson distributed
unless they scatter more, between blocks of time (jumps that trigger each other) or between ions (unlike
surroundings): the interval is then that of as many fewer jumps. Activation energies of several temperatures
maximise the Poisson likelihood of the counts, so that a temperature without a jump counts too; that of one
is ΔF = kT ln(ν z/Γ) of transition-state theory, with the attempt frequency ν and z ways to start from a
site.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, optimize, special
from scipy.spatial import cKDTree

from mlplugins.analysis.jackknife import BLOCKS, block_of
from mlplugins.analysis.sites import SHIFTS, Sites, poisson_rate
from mlplugins.analysis.value import LEVEL, Value
from mlplugins.analysis.visits import Visits
from mlplugins.units import BOLTZMANN_EV_K

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]
Z = float(special.ndtri(0.5 + LEVEL / 2))
BIN_A, WIDTH_A = 0.02, 0.12
"""Of the smoothed distribution of lengths whose modes are kinds."""
VALLEY, LEAST_SHARE, FEWEST_IN_MODE = 0.5, 0.02, 5
"""A mode stands above the valleys beside it by this factor, and holds that many jumps."""
OVERDISPERSED = 0.01
FEWEST = 10
"""Jumps of a kind from which on it has an activation energy."""
FARTHEST_EV = 10.0
"""Beyond any activation energy."""


@dataclass(frozen=True)
class Jumped:
    """Jumps at one temperature.

    Attributes:
        names: of the sorts of sites; one empty name where sites have none.
        origin, target: sort of the sites of each jump, (J,).
        length_a: (J,).
        block, ion: block of time and ion (of all stretches) of each jump, (J,).
        time_ps: that ions spent on each sort of sites, (blocks, sorts).
        ions: number of ions, of all stretches.
        sites: number of sites of each sort, of all stretches.
        ways: (W, 3): sort and sort of a pair of sites, and their distance, from each site to those around it.
    """

    names: tuple[str, ...]
    origin: Indices
    target: Indices
    length_a: Floats
    block: Indices
    ion: Indices
    time_ps: Floats
    ions: int
    sites: Floats
    ways: Floats


@dataclass(frozen=True)
class JumpKind:
    """Jumps between two sorts of sites with lengths between `low` and `high`, Å.

    Attributes:
        usual: of these lengths, those that count as ways from a site. Two jumps seen as one are within
            `high`, but as long are no ways.
    """

    origin: int
    target: int
    low: float
    high: float
    usual: tuple[float, float] = (0.0, np.inf)

    def of(self, jumped: Jumped) -> NDArray[np.bool_]:
        """Which jumps are of this kind."""
        inside = (jumped.length_a >= self.low) & (jumped.length_a < self.high)
        return inside & (jumped.origin == self.origin) & (jumped.target == self.target)

    def ways(self, jumped: Jumped) -> float:
        """Ways of this kind that start from a site of its sort, in the mean."""
        a, b, length = jumped.ways.T
        low, high = max(self.low, self.usual[0]), min(self.high, self.usual[1])
        inside = (length >= low) & (length < high) & (a == self.origin) & (b == self.target)
        return float(inside.sum() / max(jumped.sites[self.origin], 1))


@dataclass(frozen=True)
class Rate:
    """Of one kind at one temperature.

    Attributes:
        count: jumps.
        time_ps: in which ions could start one.
        length_a: mean length; NaN without a jump.
        ways: that start from a site.
        dispersion: variance of counts over their mean, where that is more than 1.
        rate_ps: jumps over time.
    """

    kind: JumpKind
    count: int
    time_ps: float
    length_a: float
    ways: float
    dispersion: float
    rate_ps: Value


def jumped(found: Visits, names: tuple[str, ...]) -> Jumped:
    """Jumps of all stretches; `names` of the sites or none."""
    sorts = tuple(dict.fromkeys(names)) or ("",)
    parts = [each.jumps for each in found.stretches]
    first = np.cumsum([0, *(each.ions for each in found.stretches)])
    total = found.frames
    length = [_lengths(each.jumps.origin, each.jumps.target, each.sites) for each in found.stretches]
    reach = max((float(each.max()) for each in length if len(each)), default=0.0) + 3 * WIDTH_A
    sort = [_sorts(each.sites, sorts, names) for each in found.stretches]
    time = np.zeros((BLOCKS, len(sorts)))
    number = np.zeros(len(sorts))
    ways = []
    for each, which in zip(found.stretches, sort):
        np.add.at(time.T, which, each.seen.T * found.interval_ps)
        number += np.bincount(which, minlength=len(sorts))
        ways.append(_ways(each.sites, which, reach))
    block = [block_of(each.before + each.jumps.arrived, total) for each in found.stretches]
    return Jumped(
        sorts,
        np.concatenate([which[each.origin] for which, each in zip(sort, parts)]),
        np.concatenate([which[each.target] for which, each in zip(sort, parts)]),
        np.concatenate(length),
        np.concatenate(block),
        np.concatenate([start + each.ion for start, each in zip(first, parts)]),
        time,
        int(first[-1]),
        number,
        np.concatenate(ways),
    )


def _sorts(sites: Sites, sorts: tuple[str, ...], names: tuple[str, ...]) -> Indices:
    return np.array([sorts.index(name) for name in names] or [0] * len(sites), dtype=np.intp)


def _lengths(origin: Indices, target: Indices, sites: Sites) -> Floats:
    apart = sites.fractions[target] - sites.fractions[origin]
    apart -= np.round(apart)
    return np.asarray(np.linalg.norm(apart @ sites.cell, axis=1))


def _ways(sites: Sites, sort: Indices, reach: float) -> Floats:
    """From each site to all images of sites within reach."""
    images = (sites.fractions[None] + SHIFTS[:, None]).reshape(-1, 3) @ sites.cell
    home = sites.fractions @ sites.cell
    near = cKDTree(home).sparse_distance_matrix(cKDTree(images), reach, output_type="coo_matrix")
    apart = near.data > 0
    a, b = near.row[apart], near.col[apart] % len(sites)
    return np.column_stack([sort[a], sort[b], near.data[apart]])


def modes(lengths: Floats) -> list[float]:
    """Edges of the modes of a distribution of lengths, one more than modes.

    >>> several = np.repeat([2.0, 2.3, 3.5], [50, 40, 30]) + 0.05 * np.sin(np.arange(120.0))
    >>> edges = modes(several)
    >>> len(edges), bool(2.5 < edges[1] < 3.4)  # 2.0 and 2.3 Å are one
    (3, True)
    """
    if not len(lengths):
        return []
    low, high = float(lengths.min()) - 5 * WIDTH_A, float(lengths.max()) + 5 * WIDTH_A
    counts, edges = np.histogram(lengths, int((high - low) / BIN_A), (low, high))
    curve = ndimage.gaussian_filter1d(counts.astype(float), WIDTH_A / BIN_A, mode="constant")
    peaks = np.flatnonzero((curve[1:-1] > curve[:-2]) & (curve[1:-1] >= curve[2:])) + 1
    kept = [int(peaks[0])] if len(peaks) else []
    cuts: list[int] = []
    for peak in map(int, peaks[1:]):
        valley = kept[-1] + int(curve[kept[-1] : peak].argmin())
        if curve[valley] < VALLEY * min(curve[kept[-1]], curve[peak]):
            kept.append(peak)
            cuts.append(valley)
        elif curve[peak] > curve[kept[-1]]:
            kept[-1] = peak
    return [float(lengths.min()) - BIN_A, *_populated(counts, cuts, edges), float(lengths.max()) + BIN_A]


def _populated(counts: NDArray[np.intp], cuts: list[int], edges: Floats) -> list[float]:
    """Cuts without those beside a mode that holds too few."""
    least = max(FEWEST_IN_MODE, LEAST_SHARE * float(counts.sum()))
    used: list[float] = []
    begin = 0
    for cut in cuts:
        if counts[begin:cut].sum() >= least:
            if counts[cut:].sum() < least:
                break
            used.append(float(edges[cut]))
            begin = cut
    return used


def kinds(several: Sequence[Jumped]) -> list[JumpKind]:
    """Kinds of the jumps at all temperatures together, those with names in the order of these."""
    sorts = range(len(several[0].names))
    found: list[JumpKind] = []
    for a in sorts:
        for b in sorts:
            lengths = [
                each.length_a[
                    ((each.origin == a) & (each.target == b)) | ((each.origin == b) & (each.target == a))
                ]
                for each in several
            ]
            both = np.concatenate(lengths)
            edges = modes(both)
            found += [
                JumpKind(a, b, low, high, _usual(both[(both >= low) & (both < high)]))
                for low, high in zip(edges[:-1], edges[1:])
            ]
    return found


def _usual(lengths: Floats) -> tuple[float, float]:
    """Without a share at either end that would be no mode of its own."""
    low, high = np.quantile(lengths, (LEAST_SHARE, 1 - LEAST_SHARE))
    return float(low) - WIDTH_A, float(high) + WIDTH_A


def rate(kind: JumpKind, jumped: Jumped) -> Rate:
    """Number and rate of the jumps of a kind."""
    chosen = kind.of(jumped)
    count, times = int(chosen.sum()), jumped.time_ps[:, kind.origin]
    time = float(times.sum())
    by_block = np.bincount(jumped.block[chosen], minlength=BLOCKS).astype(float)
    by_ion = np.bincount(jumped.ion[chosen], minlength=jumped.ions).astype(float)
    scatter = max(_dispersion(by_block, times), _dispersion(by_ion, np.ones(jumped.ions)))
    length = float(jumped.length_a[chosen].mean()) if count else float("nan")
    return Rate(
        kind,
        count,
        time,
        length,
        kind.ways(jumped),
        scatter,
        poisson_rate(count, time, scatter) if time else Value(0.0, 0.0, float("inf"), float("inf")),
    )


def _dispersion(counts: Floats, times: Floats) -> float:
    """Variance over mean of counts; 1 where it is not more at a probability of 1 %.

    >>> _dispersion(np.array([4.0, 5.0, 6.0]), np.ones(3)), _dispersion(np.array([0.0, 30.0]), np.ones(2))
    (1.0, 30.0)
    """
    used = times > 0
    total, freedom = counts[used].sum(), int(used.sum()) - 1
    if not total or freedom < 1:
        return 1.0
    expected = total * times[used] / times[used].sum()
    square = float(((counts[used] - expected) ** 2 / expected).sum())
    return max(square / freedom, 1.0) if special.chdtrc(freedom, square) < OVERDISPERSED else 1.0


def barrier_of_one(found: Rate, attempt_thz: Value, temperature_k: float) -> Value | None:
    """ΔF = kT ln(ν z/Γ), eV; None without a jump or a way."""
    rate_thz, z = found.rate_ps, found.ways
    if not found.count or not z:
        return None
    kt = BOLTZMANN_EV_K * temperature_k
    middle = kt * np.log(attempt_thz.value * z / rate_thz.value)
    up = kt * np.hypot(np.log(attempt_thz.high / attempt_thz.value), np.log(rate_thz.value / rate_thz.low))
    down = kt * np.hypot(np.log(attempt_thz.value / attempt_thz.low), np.log(rate_thz.high / rate_thz.value))
    return Value(float(middle), float(middle - down), float(middle + up), float((up + down) / 2 / Z / middle))


def _root(function: Callable[[float], float], start: float, end: float) -> float | None:
    """Where the function is zero; None if it has one sign at both ends."""
    if function(start) * function(end) > 0:
        return None
    return float(optimize.brentq(function, start, end))


def activation(temperatures_k: Floats, rates: Sequence[Rate]) -> tuple[Value, Value] | None:
    """Activation energy (eV) and prefactor (1/ps) of Γ = A exp(−E/kT), most likely for the counts.

    The interval of E is that of its profile likelihood; from three temperatures on it also allows for the
    scatter of the counts about the line. None with jumps at fewer than two temperatures, or fewer than 10,
    and where E or an end of its interval is beyond 10 eV: then the counts do not determine it.
    """
    x = 1.0 / (BOLTZMANN_EV_K * np.asarray(temperatures_k, dtype=float))
    counts = np.array([each.count for each in rates], dtype=float)
    times = np.array([each.time_ps for each in rates])
    seen = times > 0
    x, counts, times = x[seen], counts[seen], times[seen]
    if len(np.unique(x[counts > 0])) < 2 or counts.sum() < FEWEST:
        return None
    total, mean = counts.sum(), float(counts @ x / counts.sum())

    def share(energy: float) -> Floats:
        logs = np.log(times) - energy * (x - mean)
        grown = np.exp(logs - logs.max())
        return np.asarray(grown / grown.sum())

    def likelihood(energy: float) -> float:
        logs = np.log(times) - energy * (x - mean)
        return -float(total * special.logsumexp(logs))

    middle = _root(lambda energy: float(share(energy) @ x) - mean, -FARTHEST_EV, FARTHEST_EV)
    if middle is None:
        return None
    expected = total * share(middle)
    allowed = Z**2 * max(each.dispersion for each in rates)
    if freedom := len(x) - 2:
        scatter = float(((counts - expected) ** 2 / expected).sum()) / freedom
        allowed = max(allowed, scatter * float(special.stdtrit(freedom, 0.5 + LEVEL / 2)) ** 2)
    top = likelihood(middle)

    def below(energy: float) -> float:
        return 2 * (top - likelihood(energy)) - allowed

    low, high = (_root(below, middle, middle + side) for side in (-FARTHEST_EV, FARTHEST_EV))
    if low is None or high is None:
        return None
    variance = 1 / total + mean**2 / float(expected @ (x - mean) ** 2)
    half = float(np.sqrt(allowed * variance))
    prefactor = total / float(np.exp(special.logsumexp(np.log(times) - middle * x)))
    relative = (high - low) / 2 / Z / abs(middle) if middle else float("inf")
    ends = (prefactor * float(np.exp(-half)), prefactor * float(np.exp(half)))
    return Value(middle, low, high, relative), Value(prefactor, *ends, half / Z)
