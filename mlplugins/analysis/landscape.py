"""Free energy −kT ln ρ of the mobile ions on a grid, and the barriers of its lowest percolating paths.

The density ρ is that of all positions on a grid of at most 0.2 Å (coarser in very large cells), smoothed by
a Gaussian of width 0.15 Å. Smoothing rounds sites and saddles off: barriers are taken at two widths and
extrapolated to none, linearly in the variance, which leaves 1 % of a barrier of 5 kT between sites 3 Å
apart. Where ions were seen too seldom for a path to percolate, wider Gaussians are tried, up to 0.42 Å: the
barrier is then a lower limit. A barrier is that between the bottleneck of the path and its lowest point;
its error comes from blocks of time, with the place of both held fixed. The place was chosen for the density
seen there: as the better of two, a bottleneck seen n times is 0.56 kT/√n too low (the mean of the larger of
two normal deviates; of eight 1.4), within the interval. To choose it in one half of the time and measure it
in the other errs as much the other way, as half of the data misses the saddle, and scatters more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mlplugins.analysis.blocks import Paths
from mlplugins.analysis.jackknife import BLOCKS, additive, block_of, jackknife
from mlplugins.analysis.percolation import Bottleneck, bottlenecks, path
from mlplugins.analysis.run import Trajectory
from mlplugins.analysis.value import Value
from mlplugins.units import BOLTZMANN_EV_K

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]
SPACING_A, WIDTH_A, WIDTH_SPACINGS = 0.2, 0.15, 0.75
"""Edge of a voxel at most, width of the Gaussian, and that in voxels at least."""
MOST_VOXELS = 1_500_000
FEWEST_VOXELS = 4
"""Along an axis."""
WIDENINGS = (1.0, 2**0.5, 2.0, 2**1.5)
"""Of the Gaussian, where no path percolates because ions were seen too seldom."""
UNSEEN = 2.0
"""A place farther than so many widths from any position is one where no ion was."""
STAIRS = 7
"""Voxels of a path over which its stairs are smoothed before its length is taken."""
CHUNK = 1_000_000
AXES = ("a", "b", "c")


@dataclass(frozen=True)
class PathBarrier:
    """Of the lowest path along one axis.

    Attributes:
        value: eV.
        width_a: of the Gaussian, the narrowest with which a path percolates.
        winding: cells (3) by which the end of the path is displaced from its start.
        seen: independent kernel weights at the bottleneck: how often an ion was seen there.
        fractions: places of the path (P, 3), fractions of the cell, not folded back.
        distance_a: along the path (P,), from its lowest place.
        energy_ev: as smoothed, relative to that place (P,).
    """

    value: Value
    width_a: float
    winding: tuple[int, ...]
    seen: float
    fractions: Floats
    distance_a: Floats
    energy_ev: Floats


@dataclass(frozen=True)
class Landscape:
    """Free energy at one temperature.

    Attributes:
        energy_ev: relative to the lowest place (X, Y, Z); infinite where no ion was seen.
        cell: lattice vectors as rows, Å.
        width_a: of the narrowest Gaussian, which the energy was smoothed by.
        unseen_ev: lower limit of the energy of a place that no ion was seen at.
        barriers: along a, b and c; None where no path of places that were seen percolates.
    """

    energy_ev: Floats
    cell: Floats
    width_a: float
    unseen_ev: float
    barriers: tuple[PathBarrier | None, ...]

    @property
    def spacing_a(self) -> Floats:
        """Edges of a voxel (3,)."""
        return np.asarray(np.linalg.norm(self.cell, axis=1) / self.energy_ev.shape)


class Positions:
    """Positions of all ions of the runs, in fractions of the cell of each run, some frames at a time."""

    def __init__(self, runs: Sequence[Trajectory], paths: Paths, slices: Sequence[slice]) -> None:
        self._parts = []
        for run, part, segments in zip(runs, slices, paths.segments):
            if run.start is not None and run.cell is not None and run.framework_rms:
                moved = run.displacements[part]
                inverse = np.linalg.inv(run.cell)
                self._parts += [(moved[first:last], run.start, inverse) for first, last in segments]
        cells = [run.cell for run in runs if run.cell is not None]
        self.cell: Floats = cells[0] if self._parts else np.zeros((3, 3))
        self.frames = sum(len(moved) for moved, _, _ in self._parts)

    def chunks(self) -> Iterator[tuple[Floats, Indices]]:
        """(positions (n, 3) between 0 and 1, block of time of each)."""
        before = 0
        for moved, start, inverse in self._parts:
            size = max(1, CHUNK // len(start))
            for first in range(0, len(moved), size):
                rows = moved[first : first + size]
                fractions = ((rows + start).reshape(-1, 3) @ inverse) % 1.0
                frame = before + first + np.arange(len(rows))
                yield fractions, np.repeat(block_of(frame, self.frames), len(start))
            before += len(moved)


def landscape(positions: Positions, temperature_k: float) -> Landscape:
    """Density, free energy, paths and barriers."""
    cell = positions.cell
    lengths = np.linalg.norm(cell, axis=1)
    edge = max(SPACING_A, float(abs(np.linalg.det(cell)) / MOST_VOXELS) ** (1 / 3))
    shape = np.maximum(np.ceil(lengths / edge - 1e-9).astype(int), FEWEST_VOXELS)
    spacing = lengths / shape
    width = max(WIDTH_A, WIDTH_SPACINGS * float(spacing.max()))
    counts = np.zeros(int(shape.prod()))
    for fractions, _ in positions.chunks():
        index = np.minimum((fractions * shape).astype(np.intp), shape - 1)
        counts += np.bincount(np.ravel_multi_index(tuple(index.T), tuple(shape)), minlength=counts.size)
    counts = counts.reshape(tuple(shape))
    kt = BOLTZMANN_EV_K * temperature_k
    barriers: list[PathBarrier | None] = [None, None, None]
    for widening in WIDENINGS:
        energy, unseen = _energy(counts, spacing, widening * width)
        if widening == 1:
            narrowest, limit = energy, unseen
        for axis, each in enumerate(bottlenecks(energy)):
            if each is not None and barriers[axis] is None:
                barriers[axis] = _barrier(positions, energy, each, (axis, widening * width, kt))
        if None not in barriers:
            break
    return Landscape(kt * narrowest, cell, width, kt * limit, tuple(barriers))


def _energy(counts: Floats, spacing: Floats, width: float) -> tuple[Floats, float]:
    """Free energy in kT, infinite where no ion was seen, and its lower limit there."""
    density = ndimage.gaussian_filter(counts, width / spacing, mode="wrap")
    one = float(np.prod(spacing)) / (2 * np.pi * width**2) ** 1.5 * np.exp(-(UNSEEN**2) / 2)
    top = float(density.max())
    with np.errstate(divide="ignore"):
        energy = np.where(density >= one, -np.log(density / top), np.inf)
    return energy, float(np.log(top / one))


def _barrier(
    positions: Positions, energy: Floats, found: Bottleneck, how: tuple[int, float, float]
) -> PathBarrier | None:
    """Along one axis; `how`: the axis, width of the Gaussian (Å), kT (eV)."""
    axis, width, kt = how
    shape = np.array(energy.shape)
    spacing = np.linalg.norm(positions.cell, axis=1) / shape
    voxels = path(energy, found, axis, spacing)
    if voxels is None:
        return None
    along = energy[tuple((voxels % shape).T)]
    lowest = int(along.argmin())
    moved = voxels[-1] - voxels[0]  # one way or the other
    voxels = np.concatenate([voxels[lowest:-1], voxels[: lowest + 1] + moved])
    along = np.concatenate([along[lowest:-1], along[: lowest + 1]])
    points = np.array(
        [(_stationary(energy, tuple(voxel % shape)) + 0.5) / shape for voxel in (found.voxel, voxels[0])]
    )
    sums = _kernels(positions, points, (width**2, 2 * width**2))

    def height(total: Floats) -> float:
        ratio = np.log(np.maximum(total[1, :2], 1e-300) / np.maximum(total[0, :2], 1e-300))
        return kt * float(2 * ratio[0] - ratio[1])

    total = sums.sum(axis=0)
    seen = total[:, 0] ** 2 / np.maximum(total[:, 2], 1e-300)
    least = kt**2 * float((1 / np.maximum(seen, 1e-300)).sum())
    fractions = (voxels + 0.5) / shape
    steps = _steps(fractions) @ positions.cell
    value = additive(*jackknife(sums, height, least))
    return PathBarrier(
        replace(value, low=max(value.low, 0.0)),
        width,
        tuple(map(int, moved // shape)),
        float(seen[0]),
        fractions,
        np.concatenate([[0.0], np.cumsum(np.linalg.norm(steps, axis=1))]),
        kt * (along - along[0]),
    )


def _steps(places: Floats) -> Floats:
    """Steps of a path that goes on at its image, without its stairs."""
    moved, ahead = places[-1] - places[0], STAIRS // 2
    count = len(places) - 1
    turn, rest = np.divmod(np.arange(-ahead, count + ahead + 1), count)
    line = ndimage.uniform_filter1d(places[rest] + turn[:, None] * moved, STAIRS, axis=0)
    return np.diff(line[ahead : ahead + count + 1], axis=0)


def _kernels(positions: Positions, points: Floats, variances: tuple[float, float]) -> Floats:
    """Sums of both Gaussians, and of the square of the first, about each point: (blocks, points, 3)."""
    reach = 4 * np.sqrt(variances[1])
    inside = reach * np.linalg.norm(np.linalg.inv(positions.cell), axis=0)
    sums = np.zeros((BLOCKS, len(points), 3))
    for fractions, block in positions.chunks():
        for number, point in enumerate(points):
            apart = fractions - point
            apart -= np.round(apart)
            near = (np.abs(apart) < inside).all(axis=1)
            square = ((apart[near] @ positions.cell) ** 2).sum(axis=1)
            first, second = (np.exp(-square / (2 * variance)) for variance in variances)
            for column, weight in enumerate((first, second, first**2)):
                sums[:, number, column] += np.bincount(block[near], weight, BLOCKS)
    return sums


def _stationary(energy: Floats, voxel: tuple[int, ...]) -> Floats:
    """Where the energy is stationary near a voxel, by the parabola through its neighbours, in voxels."""
    index = [np.arange(place - 1, place + 2) % size for place, size in zip(voxel, energy.shape)]
    near = energy[np.ix_(*index)]
    here = np.array(voxel, dtype=float)
    if not np.isfinite(near).all():
        return here
    unit = np.eye(3, dtype=int)

    def value(*shifts: Indices) -> float:
        return float(near[tuple(np.sum(shifts, axis=0) + 1)])

    slope = np.array([(value(each) - value(-each)) / 2 for each in unit])
    bend = np.diag([value(each) + value(-each) - 2 * value(0 * each) for each in unit])
    for k, m in ((0, 1), (0, 2), (1, 2)):
        a, b = unit[[k, m]]
        corners = value(a, b) + value(-a, -b) - value(a, -b) - value(-a, b)
        bend[k, m] = bend[m, k] = corners / 4
    if abs(np.linalg.det(bend)) < 1e-12:
        return here
    step = -np.linalg.solve(bend, slope)
    return here + step if np.abs(step).max() <= 1 else here
