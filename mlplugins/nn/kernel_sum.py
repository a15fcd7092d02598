"""A kernel regression over training points with its gradient, for exported models."""

from typing import List, Tuple

import torch
from torch import Tensor, nn

from mlplugins import ops
from mlplugins.nn.modes import HasNativeOps
from mlplugins.ops import reference


class Sum(nn.Module):
    """The sums in plain torch."""

    def forward(
        self, q: Tensor, packed: Tensor, values: Tensor, kernel: str, sigma: float
    ) -> Tuple[Tensor, Tensor]:
        return reference.kernel_sum(q, packed, values, kernel, sigma)

    def molecules(
        self, positions: Tensor, tables: List[Tensor], kernel: str, sigma: float
    ) -> Tuple[Tensor, Tensor, Tensor]:
        return reference.molecular_kernel(positions, tables, kernel, sigma)


class NativeSum(Sum):
    """The same through the ops `mlplugins::kernel_sum` and `mlplugins::molecular_kernel`."""

    def __init__(self) -> None:
        super().__init__()
        ops.load()

    def forward(
        self, q: Tensor, packed: Tensor, values: Tensor, kernel: str, sigma: float
    ) -> Tuple[Tensor, Tensor]:
        energy, gradient = torch.ops.mlplugins.kernel_sum(q, packed, values, kernel, sigma)
        return energy, gradient

    def molecules(
        self, positions: Tensor, tables: List[Tensor], kernel: str, sigma: float
    ) -> Tuple[Tensor, Tensor, Tensor]:
        energy, gradient, farthest = torch.ops.mlplugins.molecular_kernel(positions, tables, kernel, sigma)
        return energy, gradient, farthest


class KernelSum(HasNativeOps, nn.Module):
    """f(q) = Σ_i [a_i (k_i − 1) + b_i · ∂k_i/∂x_i] and ∇f, see `mlplugins.ops.reference.kernel_sum`.

    Args:
        kernel: `gaussian` or `matern52`.
        sigma: its length scale.
    """

    packed: Tensor
    values: Tensor

    def __init__(self, kernel: str, sigma: float) -> None:
        super().__init__()
        self.kernel, self.sigma = kernel, sigma
        self.register_buffer("packed", torch.zeros(0, 0, 1, 8, dtype=torch.float64), persistent=False)
        self.register_buffer("values", torch.zeros(0, dtype=torch.float64), persistent=False)
        self.sum: Sum = Sum()

    def use_native_ops(self) -> None:
        """Compute with the op of the native library."""
        self.sum = NativeSum()

    @torch.jit.unused
    def fill(self, points: Tensor, values: Tensor, slopes: Tensor) -> None:
        """Set the points (M, P), a (M,) or (0,), and b (M, P) or (0, P)."""
        self.packed = reference.pack_points(points, slopes)
        self.values = nn.functional.pad(values, (0, -len(values) % reference.POINTS))

    def forward(self, q: Tensor) -> Tuple[Tensor, Tensor]:
        """f (Q,) and ∇f (Q, P) at q (Q, P)."""
        energy, gradient = self.sum(q, self.packed, self.values, self.kernel, self.sigma)
        return energy, gradient

    def molecules(
        self, positions: Tensor, scale: Tensor, shift: Tensor, pairs: Tensor
    ) -> Tuple[Tensor, Tensor, Tensor]:
        """f (S,), ∂f/∂r (S, n, 3) and the largest distance, see `ops.reference.molecular_kernel`."""
        tables = [scale, shift, pairs, self.packed, self.values]
        energy, gradient, farthest = self.sum.molecules(positions, tables, self.kernel, self.sigma)
        return energy, gradient, farthest
