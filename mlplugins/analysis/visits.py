"""Which sites the ions of one temperature visit, and when they go from one to another.

Everything is at about 0.1 ps per frame: what jumps are, lasts longer. Sites are given, or found in each run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlplugins.analysis import passage
from mlplugins.analysis.blocks import Paths
from mlplugins.analysis.jackknife import BLOCKS, block_of
from mlplugins.analysis.run import Trajectory
from mlplugins.analysis.sites import (
    NOWHERE,
    Followed,
    Hops,
    Sites,
    find_sites,
    follow,
    hop_statistics,
)
from mlplugins.errors import BadInput
from mlplugins.units import FS_PER_PS

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]
SPACING_FS = 100.0
FOLLOWED_AT_ONCE = 500_000
"""Ion positions."""
POINTS = 1_000_000
"""Ion positions that sites are found from: longer runs are thinned for that."""


@dataclass(frozen=True)
class Jumps:
    """Jumps of one stretch, in the order of arrival: arrays (J,).

    Attributes:
        ion: which ion.
        origin, target: sites.
        left: last frame in the core of the origin.
        arrived: first frame in the core of the target.
    """

    ion: Indices
    origin: Indices
    target: Indices
    left: Indices
    arrived: Indices

    def __len__(self) -> int:
        return len(self.ion)


@dataclass(frozen=True)
class Stretch:
    """What happened in one stretch without a gap.

    Attributes:
        before: frames of the stretches before it.
        jumps: from site to site.
        seen: frames that ions spent on each site, (blocks, S); blocks are those of all stretches together.
        spread: sums over the frames in which an ion is nearer to its site than to any other, of 1, of its
            vector from the site and of the square of that, (blocks, S, 5), Å.
    """

    sites: Sites
    hops: Hops
    passage: passage.Passage
    before: int
    frames: int
    ions: int
    jumps: Jumps
    seen: Floats
    spread: Floats


@dataclass(frozen=True)
class Visits:
    """All stretches of the runs of a temperature.

    Attributes:
        interval_ps: time between the frames that were looked at.
        failed: why runs have no sites, a reason for each that has none.
    """

    stretches: tuple[Stretch, ...]
    interval_ps: float
    failed: tuple[str, ...] = ()

    @property
    def frames(self) -> int:
        """Frames of all stretches."""
        return sum(each.frames for each in self.stretches)

    @property
    def count(self) -> int:
        """Jumps of all ions."""
        return sum(len(each.jumps) for each in self.stretches)

    @property
    def resolved(self) -> bool:
        """Whether frames are close enough for an ion not to jump unseen between two of them."""
        walked = sum(each.frames * each.ions for each in self.stretches)
        return self.count <= passage.RESOLVED * walked

    def unresolved(self) -> str:
        """That frames are too far apart, in words."""
        walked = sum(each.frames * each.ions for each in self.stretches)
        return (
            f"frames too far apart: {self.count / walked:.2g} jumps per ion and frame of "
            f"{FS_PER_PS * self.interval_ps:.4g} fs, so that many go unseen (expected at most "
            f"{passage.RESOLVED:g}); write frames more often"
        )


def every(interval_fs: float) -> int:
    """Frames per frame that is looked at."""
    return max(1, int(SPACING_FS / interval_fs))


def visits(runs: Sequence[Trajectory], slices: Sequence[slice], paths: Paths, given: Floats | None) -> Visits:
    """Follow the ions of all runs from site to site.

    Args:
        runs: as they were read.
        slices: frames of each run that `paths` has.
        paths: stretches, and the time between frames.
        given: fractional coordinates of the sites; None finds them.
    """
    step = every(paths.interval_fs)
    prepared: list[tuple[Floats, Floats, Sites]] = []
    failed: list[str] = []
    for run, part, segments in zip(runs, slices, paths.segments):
        if run.start is None or run.cell is None or not run.framework_rms:
            continue
        moved = run.displacements[part]
        rows = [moved[start:stop:step] for start, stop in segments if (stop - start) // step > 1]
        if not rows:
            failed.append(f"the run is shorter than two frames {SPACING_FS:g} fs apart")
            continue
        try:
            sites = Sites(given, run.cell) if given is not None else _found(rows, run.start, run.cell)
        except BadInput as error:
            failed.append(str(error))
            continue
        prepared += [(row, run.start, sites) for row in rows]
    total = sum(len(row) for row, _, _ in prepared)
    stretches, before = [], 0
    for row, start, sites in prepared:
        stretches.append(_stretch(row, start, sites, step * paths.interval_fs, (before, total)))
        before += len(row)
    return Visits(tuple(stretches), step * paths.interval_fs / FS_PER_PS, tuple(failed))


def _found(rows: Sequence[Floats], start: Floats, cell: Floats) -> Sites:
    thin = max(1, sum(len(row) for row in rows) * len(start) // POINTS)
    return find_sites(np.concatenate([row[::thin] for row in rows]) + start, cell)


def _stretch(row: Floats, start: Floats, sites: Sites, interval_fs: float, clock: tuple[int, int]) -> Stretch:
    """Some ions at a time."""
    before, total = clock
    frames, ions, _ = row.shape
    block = block_of(before + np.arange(frames), total)
    size = max(1, FOLLOWED_AT_ONCE // frames)
    states = np.empty((frames, ions), dtype=np.int32)
    seen, spread = np.zeros((BLOCKS, len(sites))), np.zeros((BLOCKS, len(sites), 5))
    parts = []
    for first in range(0, ions, size):
        group = slice(first, first + size)
        found = follow(row[:, group] + start[group], sites)
        states[:, group] = found.states
        parts.append(_jumps(found, first))
        _add(found, block, seen, spread)
    jumps = [np.concatenate(column) for column in zip(*parts)]
    order = np.argsort(jumps[4], kind="stable")
    return Stretch(
        sites,
        hop_statistics(states, sites, interval_fs),
        passage.passage(row, start, states, sites),
        before,
        frames,
        ions,
        Jumps(*(column[order] for column in jumps)),
        seen,
        spread,
    )


def _jumps(found: Followed, first: int) -> tuple[Indices, ...]:
    """Columns of `Jumps`."""
    states = found.states
    hopped = (states[1:] != states[:-1]) & (states[:-1] != NOWHERE)
    frame, ion = np.nonzero(hopped)
    columns = (ion + first, states[frame, ion], states[frame + 1, ion], found.last[frame, ion], frame + 1)
    return tuple(np.asarray(column, dtype=np.intp) for column in columns)


def _add(found: Followed, block: Indices, seen: Floats, spread: Floats) -> None:
    """Sums of `Stretch` over the frames of some ions."""
    number = seen.shape[1]
    place = block[:, None] * number + found.states
    on_site = found.states != NOWHERE
    seen += np.bincount(place[on_site], minlength=seen.size).reshape(seen.shape)
    near = on_site & (found.nearest == found.states)
    vectors, chosen = found.offsets[near], place[near]
    columns = [np.ones(len(vectors)), *vectors.T, (vectors**2).sum(axis=1)]
    for column, values in enumerate(columns):
        sums = np.bincount(chosen, values, minlength=seen.size)
        spread[:, :, column] += sums.reshape(seen.shape)
