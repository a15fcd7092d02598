"""Slopes of displacement products with time, as matrices: the diffusion tensor and the parts of L_ij."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import special

from mlplugins.analysis.blocks import MIN_BLOCKS, Paths, block_share, time_variance
from mlplugins.analysis.diffusion import Diffusion, Fit
from mlplugins.analysis.msd import block_products
from mlplugins.analysis.value import LEVEL, Value
from mlplugins.units import CM2_S_PER_A2_FS

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class MatrixSlope:
    """d⟨Δx_a Δx_b⟩/dt in Å² per frame with the standard errors of blocks of time.

    Attributes:
        value, error: (K, K).
        per_block: (blocks, K, K).
        weights: of the blocks.
        brownian: relative variance of the slope of one walker with these lags.
        curvature: relative variance by curvature that the lags do not exclude.
        ions, skew: as in `Fit`.
    """

    value: Floats
    error: Floats
    per_block: Floats
    weights: Floats
    brownian: float
    curvature: float
    ions: float
    skew: float

    def entry(self, row: int, column: int, unit: float) -> Value:
        """One element with its 95 % interval, symmetric (off-diagonal elements may be negative)."""
        t = float(special.stdtrit(max(len(self.weights) - 1, 1), 0.5 + LEVEL / 2))
        value = float(self.value[row, column]) * unit
        half = float(np.hypot(self.error[row, column] * unit * t, 1.96 * self.curvature**0.5 * value))
        relative = float(self.error[row, column]) * abs(unit / value) if value else float("inf")
        return Value(value, value - half, value + half, relative)


def spanned(slopes: Sequence[MatrixSlope], row: int, column: int, unit: float) -> Value:
    """One element of the first, with an interval that includes those of all."""
    parts = [slope.entry(row, column, unit) for slope in slopes]
    return replace(
        parts[0],
        low=min(part.low for part in parts),
        high=max(part.high for part in parts),
        relative_error=max(part.relative_error for part in parts),
    )


def slope_matrix(products: Sequence[Floats], paths: Paths, fit: Fit, widened: bool = False) -> MatrixSlope:
    """Slope of every element of ⟨Σ_g Δx_ag Δx_bg⟩, by the lags and weights that `diffusion` took for the MSD.

    Args:
        products: (frames, K, G) of each run.
        paths: the runs' segments and spacing (their displacements are not used).
        fit: lags and weights.
        widened: for blocks that overlap by their lags, as D* of several ions is.
    """
    lags, line = fit.lags, fit.line
    parts, weights = [], []
    for run, segment, share, weight in block_share(paths, lags, fit.blocks):
        parts.append(block_products(products[run], segment, lags, share))
        weights += [weight] * share
    blocks = np.concatenate(parts, axis=1)  # (lags, blocks, K, K)
    shares = np.array(weights) / sum(weights)
    per_block = np.einsum("m,mbij->bij", line.weights, blocks)
    value = np.einsum("b,bij->ij", shares, per_block)
    flat = per_block.reshape(len(shares), -1)
    wider = (1 + fit.overlap) / 2 if widened else 1.0
    error = np.sqrt([wider * time_variance(column, shares) for column in flat.T]).reshape(value.shape)
    frames = sum(stop - start for _, (start, stop) in paths.stretches(int(lags[-1]) + MIN_BLOCKS))
    brownian = fit.relative_variance * paths.longest / frames
    return MatrixSlope(value, error, per_block, shares, brownian, fit.curvature, fit.ions, fit.skew)


@dataclass(frozen=True)
class DiffusionTensor:
    """Self-diffusion tensor D_ab = ½ d⟨Δr_a Δr_b⟩/dt in the axes of the trajectory, cm²/s.

    Attributes:
        entries: xx, yy, zz, yz, xz, xy with 95 % intervals.
        principal: eigenvalues, largest first.
        directions: unit vectors of the eigenvalues, as rows.
    """

    entries: tuple[Value, ...]
    principal: tuple[float, float, float]
    directions: Floats

    def as_json(self) -> dict[str, object]:
        """Voigt order: xx, yy, zz, yz, xz, xy."""
        return {
            "voigt": [value.as_json() for value in self.entries],
            "principal": list(self.principal),
            "directions": self.directions.tolist(),
        }


VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))


def diffusion_tensor(paths: Paths, result: Diffusion) -> DiffusionTensor:
    """The full tensor of the self-diffusion coefficient; its trace is 3 D*.

    The diagonal is that of `result`, with its errors; those of the other elements come from blocks of time.
    """
    products = [run.transpose(0, 2, 1) for run in paths.displacements]
    ions = paths.displacements[0].shape[1]
    slopes = [slope_matrix(products, paths, fit, widened=ions > 1) for fit in result.fits]
    unit = CM2_S_PER_A2_FS / paths.interval_fs / 2 / ions
    entries = (*result.axes, *(spanned(slopes, a, b, unit) for a, b in VOIGT[3:]))
    values, vectors = np.linalg.eigh(slopes[0].value * unit)
    x, y, z = (float(value) for value in values[::-1])
    return DiffusionTensor(entries, (x, y, z), vectors.T[::-1].copy())
