"""Lowest path through a periodic landscape that closes on its own image.

A path percolates along a cell vector if it ends at an image of its start that is displaced along it,
whatever else it is displaced by. Of all such paths the lowest is sought: that whose highest point is
lowest. Voxels are taken in by rising energy; whether those taken in connect to an image of themselves is
seen from the loops of the graph of their parts in one cell, whose edges are the contacts through its faces
(compare J. Machta et al., Phys. Rev. E 54, 1332 (1996)). Voxels are neighbours through their faces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]
MOST_LOG = 60.0
"""Resistances of voxels are told apart up to a factor of exp(60)."""


@dataclass(frozen=True)
class Bottleneck:
    """Where the lowest percolating path is highest.

    Attributes:
        level: energy of that voxel.
        voxel: its indices.
        winding: cells by which a path through it is displaced.
    """

    level: float
    voxel: tuple[int, int, int]
    winding: tuple[int, int, int]


def bottlenecks(energy: Floats) -> list[Bottleneck | None]:
    """For each of the three axes; None where no path of finite energy percolates.

    >>> x = np.cos(2 * np.pi * np.arange(8) / 8)
    >>> found = bottlenecks(x[:, None, None] + 2 * x[None, :, None] + np.zeros((1, 1, 8)))
    >>> [round(each.level, 9) for each in found]
    [-1.0, 1.0, -3.0]
    """
    finite = np.flatnonzero(np.isfinite(energy.ravel()))
    order = finite[np.argsort(energy.ravel()[finite], kind="stable")]
    rank = np.full(energy.size, energy.size, dtype=np.intp)
    rank[order] = np.arange(len(order))
    ranked = rank.reshape(energy.shape)

    @cache
    def found(number: int) -> list[tuple[int, int, int]]:
        return windings(ranked < number)

    result: list[Bottleneck | None] = []
    for axis in range(3):
        low, high = 0, len(order)
        if not any(each[axis] for each in found(high)):
            result.append(None)
            continue
        while high - low > 1:
            middle = (low + high) // 2
            if any(each[axis] for each in found(middle)):
                high = middle
            else:
                low = middle
        voxel = np.unravel_index(order[high - 1], energy.shape)
        winding = min((each for each in found(high) if each[axis]), key=lambda each: _size(each, axis))
        result.append(Bottleneck(float(energy[voxel]), _triple(voxel), winding))
    return result


def _size(winding: tuple[int, int, int], axis: int) -> tuple[int, int]:
    return abs(winding[axis]), sum(map(abs, winding))


def _triple(numbers: Sequence[object]) -> tuple[int, int, int]:
    a, b, c = (int(number) for number in numbers)  # type: ignore[call-overload]
    return a, b, c


def windings(inside: NDArray[np.bool_]) -> list[tuple[int, int, int]]:
    """Displacements, in cells, of loops through the voxels that are `inside`; empty if none percolates.

    Every percolating part shows up, not with each of its loops, but with enough of them to span all.
    """
    label = np.asarray(ndimage.label(inside)[0], dtype=np.intp)
    edges: dict[int, list[tuple[int, tuple[int, int, int]]]] = {}
    for axis in range(3):
        ends = np.stack([label.take(-1, axis).ravel(), label.take(0, axis).ravel()])
        touching: Indices = ends[:, (ends > 0).all(axis=0)]
        for last, first in np.unique(touching, axis=1).T.tolist():
            shift = [0, 0, 0]
            shift[axis] = 1
            edges.setdefault(last, []).append((first, _triple(shift)))
            edges.setdefault(first, []).append((last, _triple([-each for each in shift])))
    loops: dict[tuple[int, int, int], None] = {}
    place: dict[int, tuple[int, int, int]] = {}
    for root in edges:
        if root in place:
            continue
        place[root] = (0, 0, 0)
        waiting = [root]
        while waiting:
            here = waiting.pop()
            for there, shift_ in edges[here]:
                at = _triple([a + b for a, b in zip(place[here], shift_)])
                if there not in place:
                    place[there] = at
                    waiting.append(there)
                elif place[there] != at:
                    loops[_triple([a - b for a, b in zip(at, place[there])])] = None
    return list(loops)


def path(energy: Floats, found: Bottleneck, axis: int, spacing: Floats) -> Indices | None:
    """The way of least resistance Σ exp(energy) from the bottleneck to its image, no higher than it.

    Args:
        energy: in kT.
        found: the bottleneck.
        axis: along which its winding counts.
        spacing: lengths of the edges of a voxel.

    Returns:
        Voxels (P, 3) one after the other, from the first to its image, not folded back into the cell.
    """
    period = 2 * abs(found.winding[axis])  # to the image it is as far one way as the other
    tiles = [1, 1, 1]
    tiles[axis] = period
    low = np.tile(energy <= found.level, tiles)
    number = np.full(low.shape, -1, dtype=np.intp)
    number[low] = np.arange(int(low.sum()))
    resistance = np.exp(np.tile(np.maximum(energy - found.level, -MOST_LOG), tiles))
    starts, stops, weights = [], [], []
    for direction in range(3):
        neighbour = np.roll(number, -1, direction)
        both = low & (neighbour >= 0)
        starts.append(number[both])
        stops.append(neighbour[both])
        weights.append(0.5 * spacing[direction] * (resistance + np.roll(resistance, -1, direction))[both])
    count = int(low.sum())
    joined = (np.concatenate(starts), np.concatenate(stops))
    graph = coo_array((np.concatenate(weights), joined), shape=(count, count)).tocsr()
    image = list(found.voxel)
    image[axis] += energy.shape[axis] * period // 2
    begin, end = int(number[found.voxel]), int(number[tuple(image)])
    _, before = dijkstra(graph, directed=False, indices=[begin], return_predecessors=True)
    if before[0, end] < 0:
        return None
    walked = [end]
    while walked[-1] != begin:
        walked.append(int(before[0, walked[-1]]))
    voxels = np.argwhere(low)[walked[::-1]]
    return _unfolded(voxels, np.array(low.shape))


def _unfolded(voxels: Indices, shape: Indices) -> Indices:
    """Steps of one voxel instead of jumps across the cell."""
    steps = np.diff(voxels, axis=0)
    steps = steps - np.sign(steps) * shape * (np.abs(steps) > 1)
    return np.concatenate([voxels[:1], voxels[0] + np.cumsum(steps, axis=0)])
