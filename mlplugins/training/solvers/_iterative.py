"""Preconditioned conjugate gradients: systems whose matrix is never stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, cholesky, solve_triangular

from mlplugins.errors import RunFailed

Array = NDArray[np.float64]
Product = Callable[[Array], Array]

JITTER = 1e-12
"""Relative to the largest diagonal element of the landmarks' matrix."""


class Solved(NamedTuple):
    """Solution, iterations, and |y − K c| / |y| computed anew."""

    solution: Array
    iterations: int
    residual: float


def conjugate_gradients(
    product: Product, precondition: Product, y: Array, tolerance: float, most: int
) -> Solved:
    """Solve K c = y for a symmetric positive definite K.

    Args:
        product: v → K v.
        precondition: v → P⁻¹ v, an approximation of K⁻¹ v.
        y: right-hand side.
        tolerance: of the residual, relative to y.
        most: iterations.

    >>> k = np.diag([1.0, 2.0, 4.0])
    >>> conjugate_gradients(k.dot, lambda v: v, np.ones(3), 1e-12, 10).solution.round(6).tolist()
    [1.0, 0.5, 0.25]

    Raises:
        RunFailed: not converged.
    """
    solution = np.zeros_like(y)
    if not y.any():
        return Solved(solution, 0, 0.0)
    residual = y.copy()
    z = precondition(residual)
    direction, rho = z.copy(), float(residual @ z)
    scale = float(np.linalg.norm(y))
    for iteration in range(1, most + 1):
        image = product(direction)
        step = rho / float(direction @ image)
        solution += step * direction
        residual -= step * image
        if float(np.linalg.norm(residual)) <= tolerance * scale:
            return Solved(solution, iteration, float(np.linalg.norm(y - product(solution))) / scale)
        z = precondition(residual)
        rho, previous = float(residual @ z), rho
        direction = z + (rho / previous) * direction
    raise RunFailed(
        f"conjugate gradients: residual {float(np.linalg.norm(residual)) / scale:.1e} after {most} "
        "iterations, expected "
        f"{tolerance:.1e}; raise training.iterations, landmarks, regularisation or tolerance"
    )


def nystrom(columns: Array, chosen: NDArray[np.int64], regularisation: Array) -> Product:
    """P⁻¹ of P = D + Z Zᵀ with Z Zᵀ = K_nm K_mm⁻¹ K_mn, by the Woodbury identity.

    Args:
        columns: (n, m) columns of K; overwritten.
        chosen: (m,) rows of the landmarks, in the order of the columns.
        regularisation: (n,) D.
    """
    own = columns[chosen]
    own = 0.5 * (own + own.T)
    own[np.diag_indices_from(own)] += JITTER * float(own.diagonal().max())
    root = cholesky(own, lower=True)
    z = solve_triangular(root, columns.T, lower=True, overwrite_b=True).T  # (n, m)
    scaled = z / regularisation[:, None]
    inner = z.T @ scaled
    inner[np.diag_indices_from(inner)] += 1.0
    factor = cho_factor(inner, lower=True, overwrite_a=True)

    def inverse(v: Array) -> Array:
        w = v / regularisation
        return w - scaled @ cho_solve(factor, z.T @ w)

    return inverse
