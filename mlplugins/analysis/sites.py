"""Sites of the mobile ions, hops between them, residence times.

Sites are given, or found as the maxima of the ions' smoothed density in the (mean) cell. An ion belongs to a
site once it comes within its core, 0.4 of the distance to the nearest other site, and stays assigned until it
enters another core: crossings of a boundary that turn back are no hops. The residence time of a site is the
time spent there over the number of departures, the maximum-likelihood estimate for exponential waiting times;
that of periods cut off by the ends of the trajectory is included. A hop back to where the ion came from
lowers the correlation factor f = D*/(Γ ⟨a²⟩/6). Compare R. de Klerk, E. van der Maas, M. Wagemaker, ACS
Appl. Energy Mater. 1, 3230 (2018), whose assignment by radius is similar.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, stats
from scipy.spatial import cKDTree

from mlplugins.analysis.value import LEVEL, Value
from mlplugins.errors import BadInput
from mlplugins.units import CM2_S_PER_A2_PS

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]
States = NDArray[np.int32]
VOXEL_A = 0.3
SMEARING_A = 0.4
LEAST_OCCUPANCY = 0.05
CORE = 0.4
CLOSEST_A = 0.1
LEAST_SHARE = 0.45
"""Of all ion positions within the cores of the sites found: below 0.3 in a gas or a sampled liquid, 0.5
to 0.7 in Li6PS5Cl at 500 K."""
MOST_VOXELS = 4_000_000
NOWHERE = -1
SHIFTS = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
"""The cell and its neighbours."""


@dataclass(frozen=True)
class Sites:
    """Positions in fractions of the cell (S, 3), and the cell (rows, Å)."""

    fractions: Floats
    cell: Floats

    def __len__(self) -> int:
        return len(self.fractions)


@dataclass(frozen=True)
class Hops:
    """Jumps between sites.

    Attributes:
        sites: number of sites; `occupancy`: mean number of ions on each.
        count: hops in all; `reversed_`: those straight back to the site before.
        rate_per_ps: hops per ion and time, with its Poisson interval.
        residence_ps: mean time on a site before a hop.
        length_a: mean hop distance; `lengths` all of them.
        jump_diffusion_cm2_s: Γ ⟨a²⟩/6, D of uncorrelated hops.
        pairs: (from, to, number) of the ten commonest.
        time_ps: time of all ions together that was seen.
    """

    sites: int
    occupancy: Floats
    count: int
    reversed_: int
    rate_per_ps: Value
    residence_ps: Value
    length_a: float
    lengths: Floats
    jump_diffusion_cm2_s: Value
    pairs: tuple[tuple[int, int, int], ...]
    time_ps: float

    def as_json(self) -> dict[str, object]:
        """The `hops` entry of a run."""
        return {
            "n_sites": self.sites,
            "occupancy": self.occupancy.tolist(),
            "n_hops": self.count,
            "n_hops_back": self.reversed_,
            "rate_per_ion_ps": self.rate_per_ps.as_json(),
            "residence_time_ps": self.residence_ps.as_json(),
            "mean_hop_length_A": self.length_a,
            "D_jump_cm2_s": self.jump_diffusion_cm2_s.as_json(),
            "commonest_pairs": [list(pair) for pair in self.pairs],
        }


def read_sites(path: Path) -> tuple[Floats, tuple[str, ...]]:
    """Fractional coordinates (S, 3), one site per line, and the names in a fourth column (empty without).

    Raises:
        BadInput: no such file, or not three numbers per line, or names on some lines only.
    """
    if not path.is_file():
        raise BadInput(f"no such file of sites: '{path}'")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    rows = [words for line in lines if (words := line.partition("#")[0].split())]
    widths = sorted({len(words) for words in rows})
    if widths not in ([3], [4]) or len(rows) < 2:
        shown = " and ".join(map(str, widths)) or "0"
        raise BadInput(
            f"{path}: {shown} columns, {len(rows)} lines; expected at least two lines of three fractional "
            "coordinates, with or without a name after each"
        )
    try:
        table = np.array([[float(word) for word in words[:3]] for words in rows])
    except ValueError as error:
        raise BadInput(f"{path}: {error}; expected three fractional coordinates per line") from error
    if not ((table >= -1) & (table <= 2)).all():
        raise BadInput(
            f"{path}: a coordinate of {table.flat[np.abs(table - 0.5).argmax()]:g}; expected fractions of "
            "the cell, between −1 and 2, not Å"
        )
    return table % 1.0, tuple(words[3] for words in rows if len(words) == 4)


def find_sites(positions: Floats, cell: Floats) -> Sites:
    """Maxima of the density of the ions, farther apart than 1 Å, each holding at least 0.05 ions.

    Args:
        positions: unwrapped positions, drift removed (frames, ions, 3), Å.
        cell: lattice vectors as rows, Å.

    Raises:
        BadInput: fewer than two maxima hold enough ions, or the ions are not in their cores (a liquid).
    """
    fractions = (positions.reshape(-1, 3) @ np.linalg.inv(cell)) % 1.0
    lengths = np.linalg.norm(cell, axis=1)
    voxel = max(VOXEL_A, float(abs(np.linalg.det(cell)) / MOST_VOXELS) ** (1 / 3))
    shape = np.maximum(np.round(lengths / voxel).astype(int), 4)
    density, _ = np.histogramdd(fractions, bins=shape, range=[(0, 1)] * 3)
    smooth = ndimage.gaussian_filter(density, SMEARING_A / (lengths / shape), mode="wrap")
    apart = np.maximum(np.round(2.0 / (lengths / shape)).astype(int), 3)
    highest = ndimage.maximum_filter(smooth, size=apart, mode="wrap")
    peaks = np.argwhere((smooth == highest) & (smooth > 0))
    sites = Sites((peaks + 0.5) / shape, cell)
    if len(sites) == 0:
        raise BadInput("no sites found: no density of mobile ions")
    nearest, _ = _nearest(fractions, sites)
    occupancy = np.bincount(nearest, minlength=len(sites)) / len(positions)
    kept = Sites(sites.fractions[occupancy >= LEAST_OCCUPANCY], cell)
    if len(kept) < 2:
        raise BadInput("no sites found: the density of the mobile ions has no separate maxima (a liquid?)")
    kept = _centred(fractions, kept)
    nearest, distance = _nearest(fractions, kept)
    share = float((distance < _cores(kept)[nearest]).mean())
    if share < LEAST_SHARE:
        raise BadInput(
            f"no sites found: the mobile ions are within the cores of density maxima only {100 * share:.0f} "
            f"% of the time (expected {100 * LEAST_SHARE:.0f} %; a liquid?); give them with --sites"
        )
    return kept


def _centred(fractions: Floats, sites: Sites) -> Sites:
    """Move every site to the mean position of the ions nearest to it."""
    nearest, _ = _nearest(fractions, sites)
    offset = fractions - sites.fractions[nearest]
    offset -= np.round(offset)
    counts = np.maximum(np.bincount(nearest, minlength=len(sites)), 1)
    moves = np.stack([np.bincount(nearest, offset[:, axis], len(sites)) for axis in range(3)], axis=1)
    return Sites((sites.fractions + moves / counts[:, None]) % 1.0, sites.cell)


def _nearest(fractions: Floats, sites: Sites) -> tuple[Indices, Floats]:
    """Nearest site of each point (periodic, any cell) and its distance in Å."""
    images = (sites.fractions[None] + SHIFTS[:, None]).reshape(-1, 3)
    near = np.all((images > -0.5) & (images < 1.5), axis=1)
    found = cKDTree(images[near] @ sites.cell).query((fractions % 1.0) @ sites.cell)
    distance, index = np.asarray(found[0]), np.asarray(found[1])
    return np.flatnonzero(near)[index] % len(sites), distance


def _cores(sites: Sites) -> Floats:
    """Core radius of each site: a part of the distance to the nearest other one, Å."""
    images = (sites.fractions[None] + SHIFTS[:, None]).reshape(-1, 3) @ sites.cell
    found = cKDTree(images).query(sites.fractions @ sites.cell, k=2)
    apart = np.asarray(found[0])[:, 1]
    if apart.min() < CLOSEST_A:
        first = int(apart.argmin()) + 1
        raise BadInput(f"site {first} and another are {apart.min():.2g} Å apart; expected each site once")
    return CORE * apart


@dataclass(frozen=True)
class Followed:
    """Ions followed from core to core: arrays (frames, ions).

    Attributes:
        states: site of the ion, that whose core it was in last; −1 until it first enters one.
        last: frame in which it was in a core last; −1 before.
        nearest: the nearest site.
        offsets: vector from the nearest site (frames, ions, 3), Å.
    """

    states: States
    last: Indices
    nearest: Indices
    offsets: Floats


def follow(positions: Floats, sites: Sites) -> Followed:
    """Follow ions whose positions (frames, ions, 3), Å, are unwrapped or not."""
    shape = positions.shape[:2]
    fractions = positions.reshape(-1, 3) @ np.linalg.inv(sites.cell)
    nearest, distance = _nearest(fractions, sites)
    apart = fractions - sites.fractions[nearest]
    apart -= np.round(apart)
    inside = (distance < _cores(sites)[nearest]).reshape(shape)
    last = np.maximum.accumulate(np.where(inside, np.arange(shape[0])[:, None], -1), axis=0)
    nearest = nearest.reshape(shape)
    filled = np.take_along_axis(nearest, np.maximum(last, 0), axis=0)
    states = np.where(last >= 0, filled, NOWHERE).astype(np.int32)
    return Followed(states, last, nearest, (apart @ sites.cell).reshape(positions.shape))


def hop_statistics(states: States, sites: Sites, interval_fs: float) -> Hops:
    """Hops, rates and residence times from the assignment of one stretch without a gap."""
    frame_ps = interval_fs / 1000.0
    events = [_of_ion(states[:, ion]) for ion in range(states.shape[1])]
    moves = [pair for ion in events for pair in zip(ion[:-1], ion[1:])]
    back = sum(a == c for ion in events for a, c in zip(ion[:-2], ion[2:]))
    time_ps = float((states != NOWHERE).sum()) * frame_ps
    if time_ps == 0:
        raise BadInput(
            f"no ion ever comes near one of the {len(sites)} sites; expected fractions of the cell"
        )
    valid = states[states != NOWHERE]
    return _hops(
        len(sites),
        np.bincount(valid, minlength=len(sites)) / len(states),
        int(back),
        time_ps,
        _lengths(moves, sites),
        tuple((int(a), int(b), number) for (a, b), number in Counter(moves).most_common(10)),
    )


def pooled(parts: Sequence[Hops]) -> Hops:
    """Hops of several stretches or runs together; sites, occupancy and pairs are those of the longest one."""
    first = max(parts, key=lambda part: part.time_ps)
    return _hops(
        first.sites,
        first.occupancy,
        sum(part.reversed_ for part in parts),
        sum(part.time_ps for part in parts),
        np.concatenate([part.lengths for part in parts]),
        first.pairs,
    )


def _hops(
    sites: int,
    occupancy: Floats,
    back: int,
    time_ps: float,
    lengths: Floats,
    pairs: tuple[tuple[int, int, int], ...],
) -> Hops:
    """Rates from the number of hops and the time in which they were seen."""
    count = len(lengths)
    rate = poisson_rate(count, time_ps)
    residence = Value(
        1 / rate.value if rate.value else float("inf"),
        1 / rate.high,
        1 / rate.low if rate.low else float("inf"),
        rate.relative_error,
    )
    square = float((lengths**2).mean()) if count else 0.0
    return Hops(
        sites=sites,
        occupancy=occupancy,
        count=count,
        reversed_=back,
        rate_per_ps=rate,
        residence_ps=residence,
        length_a=float(lengths.mean()) if count else 0.0,
        lengths=lengths,
        jump_diffusion_cm2_s=rate.scaled(square / 6 * CM2_S_PER_A2_PS),
        pairs=pairs,
        time_ps=time_ps,
    )


def _of_ion(states: States) -> list[int]:
    """Sites one after the other, without repeats."""
    known = states[states != NOWHERE]
    if known.size == 0:
        return []
    return [int(known[0]), *known[1:][np.diff(known) != 0].tolist()]


def _lengths(moves: Sequence[tuple[int, int]], sites: Sites) -> Floats:
    if not moves:
        return np.zeros(0)
    first, second = np.array(moves).T
    apart = sites.fractions[second] - sites.fractions[first]
    apart -= np.round(apart)
    return np.linalg.norm(apart @ sites.cell, axis=1)


def poisson_rate(count: int, time: float, dispersion: float = 1.0) -> Value:
    """Events per time with the exact 95 % interval of a Poisson count (F. Garwood, Biometrika 28, 437, 1936).

    Args:
        count: events.
        time: in which they were seen.
        dispersion: variance of counts over their mean, where that is not 1: the interval is that of
            count/dispersion independent events.

    >>> poisson_rate(0, 10.0).high < 0.4
    True
    """
    tail = (1 - LEVEL) / 2
    independent = count / dispersion
    low = float(stats.chi2.ppf(tail, 2 * independent)) / 2 if count else 0.0
    high = float(stats.chi2.ppf(1 - tail, 2 * independent + 2)) / 2
    error = 1 / np.sqrt(independent) if count else float("inf")
    scale = dispersion / time
    return Value(count / time, low * scale, high * scale, float(error))
