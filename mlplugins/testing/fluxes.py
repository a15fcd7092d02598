"""Fluxes whose conductivity is known: sums of Ornstein–Uhlenbeck processes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

WARM_UP = 20
"""Correlation times that are thrown away."""


def ornstein_uhlenbeck(
    generator: np.random.Generator, shape: tuple[int, int], parts: Sequence[tuple[float, float]]
) -> NDArray[np.float64]:
    """Sums of processes with ⟨x(0)x(t)⟩ = Σ a exp(−t/τ), sampled at whole times.

    Args:
        generator: of random numbers.
        shape: samples and components, which are independent.
        parts: (τ, a).
    """
    n, components = shape
    total = np.zeros((n, components))
    for tau, variance in parts:
        kept = np.exp(-1 / tau)
        start = int(WARM_UP * tau) + 1
        kicks = generator.normal(size=(n + start, components)) * np.sqrt(variance * (1 - kept**2))
        total += lfilter([1.0], [1.0, -kept], kicks, axis=0)[start:]
    return total


def density_at_zero(parts: Sequence[tuple[float, float]]) -> float:
    """Σ_t ⟨x(0)x(t)⟩ over all times, the spectral density at f = 0.

    >>> round(density_at_zero([(1e-3, 2.0)]), 6)
    2.0
    """
    return float(sum(a * (1 + np.exp(-1 / tau)) / (1 - np.exp(-1 / tau)) for tau, a in parts))
