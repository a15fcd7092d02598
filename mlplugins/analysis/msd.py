"""Mean squared displacements over all time origins: by FFT for every lag, and in time blocks for the errors.

With r the displacement of an ion, the MSD at lag m is ⟨|r(k+m) − r(k)|²⟩ over all origins k and ions. The
collective (charge) MSD is that of P = Σ r / √N, so that it equals the tracer MSD for ions that move
independently. The FFT form needs O(F log F) operations: V. Calandrini et al., Collection SFN 12, 201
(2011).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import fft

Floats = NDArray[np.float64]
Segments = Sequence[tuple[int, int]]
CHUNK_BYTES = 64_000_000
CACHE_BYTES = 2_000_000


def mean_squared_displacement(displacements: Floats, segments: Segments | None = None) -> Floats:
    """MSD of each axis for all lags, over all time origins and ions, by FFT.

    Args:
        displacements: unwrapped (frames, ions, 3), Å.
        segments: [start, stop) of each stretch without a gap; pairs of frames never cross a gap.

    Returns:
        (lags, 3) in Å², lag 0 first; the number of lags is the length of the longest segment.

    >>> steady = np.arange(5.0)[:, None, None] * np.array([1.0, 0.0, 2.0])
    >>> np.round(mean_squared_displacement(steady), 12)[:3].tolist()
    [[0.0, 0.0, 0.0], [1.0, 0.0, 4.0], [4.0, 0.0, 16.0]]
    """
    frames, ions, _ = displacements.shape
    stretches = list(segments) if segments is not None else [(0, frames)]
    longest = max(stop - start for start, stop in stretches)
    sums = np.zeros((longest, 3))
    pairs = np.zeros(longest)
    for start, stop in stretches:
        length = stop - start
        size = max(1, CHUNK_BYTES // (64 * length))
        for first in range(0, ions, size):
            part = displacements[start:stop, first : first + size]
            sums[:length] += _summed_squares(part)
        pairs[:length] += (length - np.arange(length)) * ions
    return sums / pairs[:, None]


def _summed_squares(part: Floats) -> Floats:
    """Σ over origins and ions of (r(k+m) − r(k))², per axis: (frames, 3)."""
    frames = len(part)
    size = fft.next_fast_len(2 * frames, real=True)
    result = np.empty((frames, 3))
    for axis in range(3):
        # a shift of the origin changes nothing but the round-off
        path = (part[:, :, axis] - part[:, :, axis].mean(axis=0)).T
        spectrum = fft.rfft(path, size, axis=1)
        power = (spectrum.real**2 + spectrum.imag**2).sum(axis=0)
        correlation = fft.irfft(power, size)[:frames]
        squares = (path**2).sum(axis=0)
        ahead = np.cumsum(squares[::-1])[::-1]  # Σ_{k ≥ m} r²(k)
        behind = np.cumsum(squares)[::-1]  # Σ_{k < F − m} r²(k)
        result[:, axis] = ahead + behind - 2 * correlation
    result[0] = 0.0
    return np.maximum(result, 0.0)


def collective_displacement(displacements: Floats) -> Floats:
    """P(t) = Σ r / √N of N equal charges (frames, 1, 3): the path whose MSD gives the conductivity.

    >>> together = np.ones((2, 4, 3)) * np.array([0.0, 1.0])[:, None, None]
    >>> collective_displacement(together)[1, 0].tolist()
    [2.0, 2.0, 2.0]
    """
    ions = displacements.shape[1]
    return displacements.sum(axis=1, keepdims=True) / np.sqrt(ions)


def block_msd(displacements: Floats, segment: tuple[int, int], lags: NDArray[np.intp], blocks: int) -> Floats:
    """MSD of each ion and axis in consecutive blocks of time origins.

    For each lag the origins of the segment are cut into `blocks` equal parts, so every block holds all lags.

    Returns:
        (lags, blocks, ions, 3) in Å².

    >>> steady = np.arange(9.0)[:, None, None] * np.ones(3)
    >>> block_msd(steady, (0, 9), np.array([1, 2]), 2)[:, :, 0, 0].tolist()
    [[1.0, 1.0], [4.0, 4.0]]
    """
    start, stop = segment
    ions = displacements.shape[1]
    result = np.empty((len(lags), blocks, ions, 3))
    size = max(1, CACHE_BYTES // (24 * (stop - start)))
    for first in range(0, ions, size):
        part = displacements[start:stop, first : first + size]
        paths = np.ascontiguousarray(part.reshape(len(part), -1).T)  # (ions · 3, frames)
        for row, lag in enumerate(lags):
            moved = paths[:, lag:] - paths[:, : len(part) - lag]
            edges = np.linspace(0, moved.shape[1], blocks + 1).astype(np.intp)
            for block, (a, b) in enumerate(zip(edges[:-1], edges[1:])):
                piece = moved[:, a:b]
                sums = np.einsum("it,it->i", piece, piece) / (b - a)
                result[row, block, first : first + size] = sums.reshape(-1, 3)
    return result


def block_products(paths: Floats, segment: tuple[int, int], lags: NDArray[np.intp], blocks: int) -> Floats:
    """⟨Σ_g Δx_ag Δx_bg⟩ over time origins, in consecutive blocks of them: what tensors and L_ij are made of.

    Args:
        paths: (frames, K, G): K components whose products are wanted, summed over G.
        segment: [start, stop) without a gap.
        lags: in frames.
        blocks: number of blocks.

    Returns:
        (lags, blocks, K, K).

    >>> steady = np.arange(9.0)[:, None, None] * np.array([[1.0], [2.0]])
    >>> block_products(steady, (0, 9), np.array([2]), 1)[0, 0].tolist()
    [[4.0, 8.0], [8.0, 16.0]]
    """
    start, stop = segment
    _, components, summed = paths.shape
    result = np.zeros((len(lags), blocks, components, components))
    size = max(1, CACHE_BYTES // (8 * components * (stop - start)))
    for first in range(0, summed, size):
        part = np.ascontiguousarray(paths[start:stop, :, first : first + size].transpose(1, 2, 0))
        for row, lag in enumerate(lags):
            moved = part[:, :, lag:] - part[:, :, : part.shape[2] - lag]
            edges = np.linspace(0, moved.shape[2], blocks + 1).astype(np.intp)
            for block, (a, b) in enumerate(zip(edges[:-1], edges[1:])):
                piece = moved[:, :, a:b].reshape(components, -1)
                result[row, block] += piece @ piece.T / (b - a)
    return result
