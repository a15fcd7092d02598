"""Symmetric positive definite systems, solved in the memory of the matrix itself."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import blas, lapack

from mlplugins.errors import BadInput, RunFailed

Array = NDArray[np.float64]

EPSILON = float(np.finfo(np.float64).eps)
BLOCK = 2048
CONTROL_GROUP = Path("/sys/fs/cgroup")
MAX_JITTER = 1e-4
"""Largest jitter that is tried, in units of the largest diagonal element."""


@dataclass(frozen=True)
class CholeskyFactor:
    """Cholesky factorisation.

    Attributes:
        jitter: added to the diagonal beyond the regularisation, 0 if none was needed.
        condition: estimated condition number (1-norm) of the regularised matrix.
        log_determinant: of the regularised matrix.
        residual: |y − K c| / |y| of the last solution, of the regularised matrix.
        solution: c.
    """

    jitter: float
    condition: float
    log_determinant: float
    residual: float
    solution: Array


def memory_bytes(n: int) -> int:
    """Memory of the matrix of n unknowns and of what its assembly needs beside it."""
    return 8 * n * n + 8 * n * 4 * BLOCK // 16


def available_bytes() -> int:
    """Memory available to this process: of the machine and of its control group (version 2)."""
    try:
        fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text("ascii").splitlines())
        free = int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):  # not Linux: all there is
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        lines = (CONTROL_GROUP / "memory.stat").read_text("ascii").splitlines()
        cached = int(dict(line.split() for line in lines)["inactive_file"])
        most, used = ((CONTROL_GROUP / f"memory.{name}").read_text("ascii") for name in ("max", "current"))
        return min(free, int(most) - int(used) + cached)
    except (OSError, KeyError, ValueError):  # no such group, or max = "max"
        return free


def mirror(matrix: Array) -> None:
    """Copy the upper triangle to the lower one, block by block."""
    n = len(matrix)
    for start in range(0, n, BLOCK):
        stop = min(start + BLOCK, n)
        for other in range(start, n, BLOCK):
            end = min(other + BLOCK, n)
            block = matrix[start:stop, other:end]
            if start == other:
                block[:] = np.triu(block) + np.triu(block, 1).T
            else:
                matrix[other:end, start:stop] = block.T


def solve(matrix: Array, diagonal: Array, regularisation: Array, y: Array) -> CholeskyFactor:
    """Solve (K + diag(λ)) c = y by Cholesky factorisation in the lower triangle of `matrix`.

    Where the matrix is not positive definite to working precision, a jitter is added to the diagonal: from
    ten times the machine precision, tenfold each time. One step of iterative refinement follows.

    Args:
        matrix: (n, n) C-contiguous; its strict upper triangle holds K and is kept, the rest is overwritten.
        diagonal: (n,) of K.
        regularisation: (n,) λ.
        y: (n,).

    Raises:
        BadInput: not positive definite with the largest jitter.
    """
    largest = float(diagonal.max())
    jitter, factor = 0.0, None
    while factor is None:
        total = diagonal + regularisation + jitter
        norm = _reset(matrix, total)
        found, info = lapack.dpotrf(matrix.T, lower=0, clean=0, overwrite_a=1)
        if info == 0:
            factor = found
        elif jitter >= MAX_JITTER * largest:
            raise BadInput(
                f"the kernel matrix ({len(matrix)} unknowns) is not positive definite even with a jitter of "
                f"{jitter:.1e}: "
                "duplicate or nearly equal frames, or a length scale far too long; thin the data, shorten "
                "model.sigma "
                "or raise training.regularisation"
            )
        else:
            jitter = max(10 * jitter, 10 * EPSILON * largest)
    solution = _substitute(factor, y)
    rest = y - _product(matrix, total, solution)
    solution = solution + _substitute(factor, rest)
    rest = y - _product(matrix, total, solution)
    reciprocal, _ = lapack.dpocon(factor, norm, uplo="U")
    scale = float(np.linalg.norm(y)) or 1.0
    return CholeskyFactor(
        jitter=jitter,
        condition=1.0 / max(float(reciprocal), 1e-300),
        log_determinant=2.0 * float(np.log(np.diagonal(factor)).sum()),
        residual=float(np.linalg.norm(rest)) / scale,
        solution=solution,
    )


def _reset(matrix: Array, diagonal: Array) -> float:
    """Lower triangle and diagonal as before the factorisation; returns the 1-norm."""
    mirror(matrix)
    np.fill_diagonal(matrix, diagonal)
    return max(float(np.abs(matrix[s : s + BLOCK]).sum(axis=1).max()) for s in range(0, len(matrix), BLOCK))


def _substitute(factor: Array, y: Array) -> Array:
    solution, info = lapack.dpotrs(factor, y, lower=0)
    if info != 0:
        raise RunFailed(f"LAPACK dpotrs failed with info {info}")
    return np.asarray(solution).reshape(y.shape)


def _product(matrix: Array, diagonal: Array, vector: Array) -> Array:
    """K v from the strict upper triangle (the lower one of the transpose) and the diagonal."""
    product: Array = blas.dsymv(1.0, matrix.T, vector, lower=1)
    return product + (diagonal - np.diagonal(matrix)) * vector
