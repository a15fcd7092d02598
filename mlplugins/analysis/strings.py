"""Jumps that belong together: an ion takes the place that another one leaves.

Two jumps of different ions are linked if one ends at the site where the other began and not more than a
window lies between them (their times, from the last frame at the origin to the first at the target, overlap
or are that close). Linked jumps form strings; a jump without a link is single. Independent ions are linked
by chance, too: how often, is counted after the jumps of each ion were moved in time by an amount of its
own. GEMDAT (R. de Klerk, E. van der Maas, M. Wagemaker, ACS Appl. Energy Mater. 1, 3230 (2018)) links any
two jumps that begin or end within 1 Å of each other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mlplugins.analysis.jackknife import BLOCKS, additive, block_of, jackknife
from mlplugins.analysis.value import Value
from mlplugins.analysis.visits import Jumps, Visits

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]
SHUFFLES = 10
MOST_LINKS = 20
"""Linked jumps of one jump in each direction beyond which no more are looked for."""


@dataclass(frozen=True)
class Strings:
    """How jumps belong together.

    Attributes:
        jumps: number of all.
        window_ps: between jumps that are linked.
        share: of all jumps, those linked to another.
        by_chance: the same of ions that jump independently of each other.
        sizes: number of strings of 1, 2, 3, … jumps.
    """

    jumps: int
    window_ps: float
    share: Value
    by_chance: float
    sizes: tuple[int, ...]


def strings(found: Visits, window: int, seed: int = 0) -> Strings:
    """Link the jumps of all stretches.

    Args:
        found: visits with jumps.
        window: frames that may lie between two linked jumps.
        seed: of the moves in time.
    """
    random = np.random.default_rng(seed)
    sums = np.zeros((BLOCKS, 2))
    sizes: list[Indices] = []
    chance = 0
    for each in found.stretches:
        jumps = each.jumps
        label = _strings(jumps, window)
        size = np.bincount(label)
        sizes.append(size)
        block = block_of(each.before + jumps.arrived, found.frames)
        sums[:, 0] += np.bincount(block, size[label] > 1, BLOCKS)
        sums[:, 1] += np.bincount(block, minlength=BLOCKS)
        for _ in range(SHUFFLES):
            moved = _moved(jumps, each.frames, each.ions, random)
            label = _strings(moved, window)
            chance += int((np.bincount(label)[label] > 1).sum())
    every = np.concatenate(sizes)
    count = int(every.sum())
    share = additive(*jackknife(sums, lambda total: total[0] / total[1] if total[1] else 0.0))
    bounded = Value(share.value, max(share.low, 0.0), min(share.high, 1.0), share.relative_error)
    numbers = np.bincount(every[every > 0])[1:]
    return Strings(
        count, window * found.interval_ps, bounded, chance / SHUFFLES / count, tuple(map(int, numbers))
    )


def _moved(jumps: Jumps, frames: int, ions: int, random: np.random.Generator) -> Jumps:
    """The jumps of each ion at other times, beyond the end at the beginning."""
    shift = random.integers(0, frames, ions)[jumps.ion]
    arrived = (jumps.arrived + shift) % frames
    return Jumps(jumps.ion, jumps.origin, jumps.target, arrived - (jumps.arrived - jumps.left), arrived)


def _strings(jumps: Jumps, window: int) -> Indices:
    """String of each jump."""
    first, second = _links(jumps, window)
    count = len(jumps)
    graph = coo_array((np.ones(len(first)), (first, second)), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.intp)


def _links(jumps: Jumps, window: int) -> tuple[Indices, Indices]:
    """Pairs (jump into a site, jump of another ion out of it) within the window."""
    order = np.lexsort((jumps.arrived, jumps.origin))
    span = int(jumps.arrived.max(initial=0)) - int(jumps.left.min(initial=0)) + 2 * window + 2
    base = int(jumps.left.min(initial=0)) - window
    leaving = jumps.origin[order] * span + (jumps.arrived[order] - base)
    # the first to leave the site whose way does not end too long before this one's begins
    place = np.searchsorted(leaving, jumps.target * span + (jumps.left - window - base))
    pairs: list[tuple[Indices, Indices]] = []
    open_ = np.arange(len(jumps))
    for step in range(MOST_LINKS):
        open_ = open_[place[open_] + step < len(jumps)]
        other = order[place[open_] + step]
        same = jumps.origin[other] == jumps.target[open_]
        open_, other = open_[same], other[same]
        if not len(open_):
            break
        near = jumps.left[other] - jumps.arrived[open_] <= window
        near &= jumps.ion[other] != jumps.ion[open_]
        pairs.append((open_[near], other[near]))
    if not pairs:
        return np.zeros(0, dtype=np.intp), np.zeros(0, dtype=np.intp)
    return np.concatenate([a for a, _ in pairs]), np.concatenate([b for _, b in pairs])
