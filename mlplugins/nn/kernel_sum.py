"""A kernel regression over training points with its gradient, for exported models."""

from typing import Tuple

import torch
from torch import Tensor, nn

from mlplugins import ops
from mlplugins.ops import reference


class Sum(nn.Module):
    """The sum over the points in plain torch."""

    def forward(
        self, q: Tensor, packed: Tensor, values: Tensor, kernel: str, sigma: float
    ) -> Tuple[Tensor, Tensor]:
        return reference.kernel_sum(q, packed, values, kernel, sigma)


class NativeSum(nn.Module):
    """The same through the op `mlplugins::kernel_sum`, on the CPU."""

    def __init__(self) -> None:
        super().__init__()
        ops.load()

    def forward(
        self, q: Tensor, packed: Tensor, values: Tensor, kernel: str, sigma: float
    ) -> Tuple[Tensor, Tensor]:
        if q.device.type != "cpu":
            return reference.kernel_sum(q, packed, values, kernel, sigma)
        energy, gradient = torch.ops.mlplugins.kernel_sum(q, packed, values, kernel, sigma)
        return energy, gradient


class KernelSum(nn.Module):
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
        self.sum: nn.Module = Sum()

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
