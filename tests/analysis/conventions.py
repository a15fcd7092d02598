"""Definitions of D and σ that other tools use, on the same displacements, to compare like with like.

pymatgen-analysis-diffusion: `smoothed=False` fits the displacement from the first frame alone; "constant"
averages over the first `average_frames` origins; "max" averages over all origins, takes about 200 lags from
1 ps to N/`min_observations` of the run, and weights with 1/t. None of the three accounts for the correlation
of the points, and no error of theirs holds. S. P. Ong et al., Energy Environ. Sci. 6, 148 (2013).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlplugins.errors import BadInput, nearest
from mlplugins.units import CM2_S_PER_A2_FS, FS_PER_PS

Floats = NDArray[np.float64]
SMOOTHINGS = ("max", "constant", "none")
LAGS = 200
SMALLEST = 1e-15
"""Slope (Å²/fs) that a falling line is set to."""


@dataclass(frozen=True)
class PymatgenDiffusion:
    """D, its axes and the charge D in cm²/s; the Haven ratio is their quotient."""

    tracer: float
    axes: tuple[float, float, float]
    charge: float

    @property
    def haven(self) -> float:
        """D/D_charge."""
        return self.tracer / self.charge


def pymatgen_diffusion(
    ions: Floats,
    interval_fs: float,
    smoothing: str = "max",
    min_observations: int = 30,
    average_frames: int = 1000,
) -> PymatgenDiffusion:
    """D and charge D as pymatgen-analysis-diffusion defines them.

    Args:
        ions: displacements of the mobile ions (frames, ions, 3) from the first frame, Å, less the plain
            (unweighted) mean displacement of the framework.
        interval_fs: time between frames, fs.
        smoothing: `max`, `constant` or `none`.
        min_observations, average_frames: see above.

    >>> steady = np.arange(400.0)[:, None, None] * np.ones((1, 2, 3))
    >>> pymatgen_diffusion(steady[:3], 10.0, "none").tracer > 0
    True
    """
    frames, count, _ = ions.shape
    if smoothing not in SMOOTHINGS:
        raise BadInput(f"unknown smoothing '{smoothing}': {nearest(smoothing, SMOOTHINGS)}")
    first = round(FS_PER_PS / interval_fs)
    last = min(count * frames // min_observations, frames)
    lags = {
        "none": np.arange(frames),
        "constant": np.arange(max(frames - average_frames, 0)),
        "max": np.arange(first, last, max((last - first) // LAGS, 1)),
    }[smoothing]
    if len(lags) < 2:
        raise BadInput(f"{frames} frames are too few for smoothing '{smoothing}'")
    axes, charge = np.empty((len(lags), 3)), np.empty(len(lags))
    for row, lag in enumerate(lags):
        if smoothing == "none":
            moved = ions[lag : lag + 1]
        elif smoothing == "constant":
            moved = ions[lag : lag + average_frames] - ions[:average_frames]
        else:
            moved = ions[lag:] - ions[: frames - lag]
        axes[row] = (moved**2).mean(axis=(0, 1))
        charge[row] = (moved.sum(axis=1) ** 2).sum(axis=1).mean() / count
    time = lags * interval_fs
    weights = time**-0.5 if smoothing == "max" else np.ones(len(lags))
    slopes = [
        max(float(np.polyfit(time, curve, 1, w=weights)[0]), SMALLEST)
        for curve in (axes.sum(axis=1), *axes.T, charge)
    ]
    tracer, x, y, z, both = (slope * CM2_S_PER_A2_FS / 6 for slope in slopes)
    return PymatgenDiffusion(tracer, (3 * x, 3 * y, 3 * z), both)
