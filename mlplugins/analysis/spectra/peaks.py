"""Peaks of a spectrum: where they are, and the intensity between the minima beside them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.signal import find_peaks

from mlplugins.analysis.readers._text import Floats

LEAST, ERRORS = 0.02, 2.0
"""Prominence of a peak: of the highest one, and in standard errors."""


@dataclass(frozen=True)
class Peak:
    """One peak.

    Attributes:
        position, low, high: cm⁻¹: the maximum, and the minima between which the intensity is counted.
        height: of the curve.
        intensity, error: integral between the minima, and its standard error.
    """

    position: float
    low: float
    high: float
    height: float
    intensity: float
    error: float

    def as_json(self) -> dict[str, float]:
        """For JSON."""
        return {
            "position_cm-1": self.position,
            "low_cm-1": self.low,
            "high_cm-1": self.high,
            "height": self.height,
            "intensity": self.intensity,
            "error": self.error,
        }


def peaks(
    per_cm: Floats, curve: Floats, blocks: Floats, step: Floats, shown: tuple[float, float]
) -> list[Peak]:
    """Those that stand out of the noise, in the order of their wave numbers.

    Args:
        per_cm: (F,), even.
        curve: (F,), their mean.
        blocks: (B, F).
        step: (F,) weights of an integral over wave numbers.
        shown: range of peaks and of their intensities.

    >>> x = np.linspace(0, 100, 1001)
    >>> y = np.exp(-((x - 30) ** 2) / 8) + 0.5 * np.exp(-((x - 70.03) ** 2) / 8)
    >>> found = peaks(x, y, np.stack([y, y]), np.full(1001, 0.1), (0.0, 100.0))
    >>> [(round(p.position, 2), round(p.intensity, 3)) for p in found]
    [(30.0, 5.013), (70.03, 2.507)]
    """
    if len(blocks) > 1:
        error = np.std(blocks, axis=0, ddof=1) / np.sqrt(len(blocks))
    else:
        error = np.zeros_like(curve)
    inside = (per_cm >= shown[0]) & (per_cm <= shown[1])
    if not inside.any():
        return []
    least = np.maximum(LEAST * curve[inside].max(), ERRORS * error)
    found, about = find_peaks(curve, prominence=0.0)
    found = found[(about["prominences"] > least[found]) & inside[found]]
    first, last = np.flatnonzero(inside)[[0, -1]]
    ends = [int(first), *(k + int(np.argmin(curve[k:m])) for k, m in zip(found[:-1], found[1:])), int(last)]
    results = []
    for number, k in enumerate(found):
        low, high = ends[number], ends[number + 1]
        weights = step[low : high + 1].copy()
        if low > 0:
            weights[0] /= 2
        if high < len(curve) - 1:
            weights[-1] /= 2
        left, middle, right = np.log(np.maximum(curve[k - 1 : k + 2], 1e-300))
        shift = 0.5 * (left - right) / (left - 2 * middle + right)
        parts = blocks[:, low : high + 1] @ weights
        scatter = float(np.std(parts, ddof=1) / np.sqrt(len(parts))) if len(parts) > 1 else float("nan")
        results.append(
            Peak(
                float(per_cm[k] + shift * (per_cm[1] - per_cm[0])),
                float(per_cm[low]),
                float(per_cm[high]),
                float(curve[k]),
                float(curve[low : high + 1] @ weights),
                scatter,
            )
        )
    return results
