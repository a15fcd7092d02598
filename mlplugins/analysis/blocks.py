"""Displacements of the runs of one temperature, and their MSD in blocks of time, which errors come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlplugins.analysis.msd import block_msd, collective_displacement
from mlplugins.units import FS_PER_PS

Floats = NDArray[np.float64]
Lags = NDArray[np.intp]
MIN_BLOCKS = 5
MAX_BLOCKS = 20


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
        share = max(1, int(np.ceil(count * length / lengths.sum() - 1e-9)))
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


def time_variance(blocks: Floats, weights: Floats) -> float:
    """Variance of the weighted mean of blocks."""
    mean = weights @ blocks
    count = len(blocks)
    return float((weights**2 @ (blocks - mean) ** 2) * count / max(count - 1, 1))


def ion_variance(cells: Floats, data: BlockMsd) -> float:
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
        variance = time_variance(squares.mean(axis=1), data.weights) + ion_variance(squares, data)
        errors.append(np.sqrt(variance))
    time: Floats = lags.astype(np.float64) * float(paths.interval_fs / FS_PER_PS)
    return time, data.mean, np.array(errors)


def collective_paths(paths: Paths) -> Paths:
    """Σ r / √N of every run as the path of one walker."""
    summed = [collective_displacement(run) for run in paths.displacements]
    return Paths(summed, paths.segments, paths.interval_fs)
