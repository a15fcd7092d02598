"""Bayesian linear regression by orthogonal triangularisation, rows arriving in blocks; no normal equations.

With rows A, targets y, noise σ and unit prior on w the factorisation [A/σ y/σ; I 0] = Q [R z; 0 ρ] gives
w = R⁻¹ z, the posterior covariance R⁻¹ R⁻ᵀ, and the log evidence −ρ²/2 − Σ log R_kk − n log σ − (n/2) log 2π.
Blocks are triangularised one after the other (TSQR), so memory stays at a few (T + 1)² numbers however many
rows there are; every kind of target keeps its own triangle, so that σ can change afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from scipy.linalg import lapack
from torch import Tensor


class Triangle:
    """Triangular factor of all rows [A y] seen so far.

    >>> triangle = Triangle(1)
    >>> rows = torch.tensor([[3.0], [4.0], [0.0]], dtype=torch.float64)
    >>> triangle.add(rows, torch.zeros(3, dtype=torch.float64))
    >>> round(abs(float(triangle.factor()[0, 0])), 12)
    5.0
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self.n_rows = 0
        self._factor = torch.zeros(0, width + 1, dtype=torch.float64)
        self._waiting: list[Tensor] = []
        self._n_waiting = 0

    def add(self, rows: Tensor, targets: Tensor) -> None:
        """Rows (m, width) and their targets (m,)."""
        self._waiting.append(torch.cat([rows, targets.reshape(-1, 1)], dim=1))
        self._n_waiting += len(rows)
        self.n_rows += len(rows)
        if self._n_waiting >= 3 * (self.width + 1):
            self.factor()

    def factor(self) -> Tensor:
        """(≤ width + 1, width + 1), upper triangular."""
        if self._waiting:
            stack = torch.cat([self._factor, *self._waiting])
            self._waiting, self._n_waiting = [], 0
            self._factor = torch.linalg.qr(stack, mode="r").R if len(stack) > self.width + 1 else stack
        return self._factor

    def rmse(self, w: Tensor) -> float:
        """√⟨(A w − y)²⟩ over the rows; NaN without rows.

        |[A y] v| = |R v| for every vector v.
        """
        if self.n_rows == 0:
            return math.nan
        v = torch.cat([w, w.new_tensor([-1.0])])
        return float(torch.linalg.vector_norm(self.factor() @ v)) / math.sqrt(self.n_rows)


@dataclass(frozen=True)
class Posterior:
    """Of the weights.

    Attributes:
        mean: (T,).
        factor: R, (T, T): the covariance is R⁻¹ R⁻ᵀ.
        log_evidence: of the targets.
        misfit: ρ², the weighted squares of all residuals and of the weights.
        n: number of targets.
    """

    mean: Tensor
    factor: Tensor
    log_evidence: float
    misfit: float
    n: int

    @property
    def condition(self) -> float:
        """Of R, estimated in the 1-norm."""
        reciprocal, _ = lapack.dtrcon(self.factor.numpy(), norm="1", uplo="U")
        return 1.0 / max(float(reciprocal), 1e-300)


class Grams:
    """Products of the triangles, for many posteriors of the same rows at a tenth of the cost of `solve`.

    Squares lose half the digits: good for a search, not for the weights of a model or their covariance.

    >>> triangle = Triangle(1)
    >>> one = torch.ones(4, 1, dtype=torch.float64)
    >>> triangle.add(one, 5.0 * one[:, 0])
    >>> float(Grams([{"forces": triangle}]).solve({"forces": 2.0}).mean.round(decimals=12))
    2.5
    """

    def __init__(self, parts: Sequence[Mapping[str, Triangle]]) -> None:
        self.parts = parts
        self.products = {kind: _square([part[kind] for part in parts]) for kind in parts[0]}
        self.n_rows = {kind: sum(part[kind].n_rows for part in parts) for kind in parts[0]}

    def solve(self, noise: Mapping[str, float]) -> Posterior:
        """As `solve`."""
        total = torch.zeros_like(next(iter(self.products.values())))
        for kind, product in self.products.items():
            total.add_(product, alpha=noise[kind] ** -2)
        width = len(total) - 1
        total.diagonal()[:width] += 1.0
        factor, info = torch.linalg.cholesky_ex(total[:width, :width], upper=True)
        if int(info):
            return solve({kind: [part[kind] for part in self.parts] for kind in self.n_rows}, noise)
        z = torch.linalg.solve_triangular(factor.t(), total[:width, width:], upper=False)
        rho = max(float(total[width, width] - z.square().sum()), 0.0)
        return _posterior(factor, z, rho, {kind: (n, noise[kind]) for kind, n in self.n_rows.items()})


def leave_out(
    found: Posterior, group: Mapping[str, Triangle], noise: Mapping[str, float]
) -> tuple[Tensor, Tensor] | None:
    """Mean and triangular factor of the posterior without some rows A that it was found with.

    With M = A R⁻¹ / σ (its squares are leverages) and C = 1 − MᵀM the precision is Rᵀ C R, and the mean moves
    by R⁻¹ C⁻¹ Mᵀ (A w − y) / σ: C is well conditioned however badly R is. None where it is not, which is
    where nothing but these rows decides some weights.

    >>> one = Triangle(1)
    >>> one.add(torch.ones(4, 1, dtype=torch.float64), 5.0 * torch.ones(4, dtype=torch.float64))
    >>> two = Triangle(1)
    >>> two.add(torch.ones(4, 1, dtype=torch.float64), torch.zeros(4, dtype=torch.float64))
    >>> both = solve({"forces": [one, two]}, {"forces": 2.0})
    >>> mean, factor = leave_out(both, {"forces": two}, {"forces": 2.0})
    >>> float(mean.round(decimals=12)), float(factor.square().round(decimals=12))
    (2.5, 2.0)
    """
    rows = torch.cat([t.factor() / noise[kind] for kind, t in group.items() if t.n_rows])
    m = torch.linalg.solve_triangular(found.factor, rows[:, :-1], upper=True, left=False)
    kept = torch.eye(m.shape[1], dtype=m.dtype).addmm_(m.t(), m, alpha=-1.0)
    factor, info = torch.linalg.cholesky_ex(kept, upper=True)
    if int(info):
        return None
    residual = rows @ torch.cat([found.mean, found.mean.new_tensor([-1.0])])
    change = torch.cholesky_solve((m.t() @ residual).unsqueeze(1), factor, upper=True)
    change = torch.linalg.solve_triangular(found.factor, change, upper=True)
    return found.mean + change[:, 0], factor @ found.factor


def _square(several: Sequence[Triangle]) -> Tensor:
    total = torch.zeros(several[0].width + 1, several[0].width + 1, dtype=torch.float64)
    for triangle in several:
        factor = triangle.factor()
        total.addmm_(factor.t(), factor)
    return total


def solve(parts: Mapping[str, list[Triangle]], noise: Mapping[str, float]) -> Posterior:
    """Posterior of the weights given the triangles of every kind of target and its noise.

    >>> triangle = Triangle(1)
    >>> one = torch.ones(4, 1, dtype=torch.float64)
    >>> triangle.add(one, 5.0 * one[:, 0])
    >>> float(solve({"forces": [triangle]}, {"forces": 2.0}).mean.round(decimals=12))
    2.5
    """
    triangles = [(t, noise[kind]) for kind, several in parts.items() for t in several if t.n_rows]
    width = next(t.width for several in parts.values() for t in several)
    prior = torch.cat([torch.eye(width), torch.zeros(width, 1)], dim=1).to(torch.float64)
    stack = torch.cat([*(t.factor() / sigma for t, sigma in triangles), prior])
    r = torch.linalg.qr(stack, mode="r").R
    factor, z, rho = r[:width, :width], r[:width, width:], float(r[width, width]) if len(r) > width else 0.0
    rows = {kind: (sum(t.n_rows for t in several), noise[kind]) for kind, several in parts.items()}
    return _posterior(factor, z, rho * rho, rows)


def _posterior(factor: Tensor, z: Tensor, misfit: float, rows: Mapping[str, tuple[int, float]]) -> Posterior:
    n = sum(count for count, _ in rows.values())
    evidence = -0.5 * misfit - float(factor.diagonal().abs().log().sum()) - 0.5 * n * math.log(2 * math.pi)
    evidence -= sum(count * math.log(sigma) for count, sigma in rows.values())
    mean = torch.linalg.solve_triangular(factor, z, upper=True)[:, 0]
    return Posterior(mean, factor, evidence, misfit, n)
