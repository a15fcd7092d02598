"""Spectral densities of long series in one pass: windowed segments, averaged, and their scatter over blocks.

A segment of N samples, times Hann's window w = sin²(πn/N), overlaps the next one by half (P. Welch, IEEE
Trans. Audio Electroacoust. 15, 70 (1967)). A line of any series becomes one of full width 1.44/(N Δt) at half
of its height. Memory holds one segment and the blocks, whatever the length.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

Floats = NDArray[np.float64]
HANN_WIDTH = 1.440593
"""Full width at half height of Hann's line, in 1/(N Δt)."""
PADDING = 4
"""Points of the spectrum per independent frequency, so that lines are drawn round."""
MOST_BLOCKS = 64
"""Blocks that are held; when there are more, neighbours are joined."""
AT_ONCE = 1 << 22
"""Numbers in one Fourier transform."""


@dataclass(frozen=True)
class Density:
    """Spectral densities of one run.

    Attributes:
        mean: (G, F) of all its segments, the square of the series' unit times the unit of time, two-sided:
            S(f) = ∫⟨x(0)·x(t)⟩ e^(−2πift) dt.
        blocks: (B, G, F), the means of equal stretches of time, in their order.
        segments: averaged in `mean`.
        per_block: segments in each block.
    """

    mean: Floats
    blocks: Floats
    segments: int
    per_block: int


class Periodogram:
    """Takes a series piece by piece.

    Args:
        samples: N of a segment, even.
        interval: between samples.
        groups: (C,) of each column the group whose densities are added up.
        centred: take its mean off each segment.

    >>> time = np.arange(4096.0)
    >>> found = Periodogram(512, 1.0, np.zeros(1, dtype=int))
    >>> found.add(np.cos(2 * np.pi * time / 16)[:, None])
    >>> density = found.finish()
    >>> float(round(found.frequency[density.mean[0].argmax()], 6)), density.segments
    (0.0625, 15)
    >>> float(round(2 * found.integral(density.mean)[0], 6))  # of f and −f: the mean square
    0.5
    """

    def __init__(
        self, samples: int, interval: float, groups: NDArray[np.intp], centred: bool = False
    ) -> None:
        self.interval = interval
        self._order = np.argsort(groups, kind="stable")
        self._starts = np.flatnonzero(np.diff(groups[self._order], prepend=-1))
        self._window = np.sin(np.pi * np.arange(samples) / samples) ** 2
        self._scale = interval / float(self._window @ self._window)
        self._padded = int(fft.next_fast_len(PADDING * samples, real=True))
        self._held = np.empty((samples, len(groups)))
        self._filled = 0
        self._centred = centred
        self.frequency: Floats = np.arange(self._padded // 2 + 1) / (self._padded * interval)
        self._shape = (len(self._starts), len(self.frequency))
        self._blocks: list[Floats] = []
        self._per_block = 1
        self._open = np.zeros(self._shape)
        self._in_open = 0
        self._segments = 0

    def add(self, values: Floats) -> None:
        """The next samples (n, C)."""
        taken = 0
        while taken < len(values):
            room = min(len(self._held) - self._filled, len(values) - taken)
            self._held[self._filled : self._filled + room] = values[taken : taken + room]
            self._filled += room
            taken += room
            if self._filled == len(self._held):
                self._store(self._density())
                half = len(self._held) // 2
                self._held[:half] = self._held[half:]
                self._filled = half

    def finish(self) -> Density | None:
        """The result; None of a series shorter than a segment."""
        if not self._segments:
            return None
        total = np.sum(self._blocks, axis=0) + self._open if self._blocks else self._open
        blocks = np.array(self._blocks).reshape(-1, *self._shape) / self._per_block
        return Density(total / self._segments, blocks, self._segments, self._per_block)

    def integral(self, density: Floats) -> Floats:
        """Over all positive frequencies, of (…, F)."""
        return density @ self.weights

    @property
    def weights(self) -> Floats:
        """(F,) of the trapezoidal rule, exact here (Parseval)."""
        weights = np.full(len(self.frequency), self.frequency[1])
        weights[0] /= 2
        if self._padded % 2 == 0:
            weights[-1] /= 2
        return weights

    def _density(self) -> Floats:
        """Of the samples held, (G, F)."""
        found = np.empty(self._shape)
        ends = [*self._starts[1:], len(self._order)]
        together = max(1, AT_ONCE // self._padded)
        for group, (start, stop) in enumerate(zip(self._starts, ends)):
            power = np.zeros(self._shape[1])
            for first in range(start, stop, together):
                columns = self._order[first : min(first + together, stop)]
                part = self._held[:, columns].T
                if self._centred:
                    part = part - (part @ self._window / self._window.sum())[:, None]
                waves = fft.rfft(part * self._window, self._padded, axis=1)
                power += np.einsum("cf,cf->f", waves.real, waves.real)
                power += np.einsum("cf,cf->f", waves.imag, waves.imag)
            found[group] = self._scale * power
        return found

    def _store(self, density: Floats) -> None:
        self._segments += 1
        self._open += density
        self._in_open += 1
        if self._in_open < self._per_block:
            return
        self._blocks.append(self._open)
        self._open, self._in_open = np.zeros(self._shape), 0
        if len(self._blocks) == MOST_BLOCKS:
            self._blocks = [a + b for a, b in zip(self._blocks[::2], self._blocks[1::2])]
            self._per_block *= 2
