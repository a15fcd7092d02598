"""Posterior of the last layer's weights: the variance of what is linear in them."""

import math
from typing import Any, Dict, Tuple

import torch
from torch import Tensor, nn

UNKNOWN = -1.0
"""Floor of forces whose uncertainty nobody calibrated."""


class LastLayer(nn.Module):
    """Laplace approximation of the weights w of E_i = f_i · w: cov(w) = L Lᵀ.

    var E_i = floor² + |f_i L|², and of a sum of N atoms N floor² + |Σ f_i L|² (Bigi, Chong, Ceriotti,
    Grasselli, Mach. Learn.: Sci. Technol. 5, 045018 (2024)). Without a posterior, L has no column, and
    checkpoints have no entry of it.

    >>> layer = LastLayer()
    >>> layer.set(torch.eye(2, dtype=torch.float64), 0.5)
    >>> layer(torch.tensor([[3.0, 4.0]], dtype=torch.float64))
    (tensor([0.2500], dtype=torch.float64), tensor([[3., 4.]], dtype=torch.float64))
    """

    factor: Tensor
    floor: Tensor
    force_ratio: Tensor
    force_floor: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("factor", torch.zeros(0, 0, dtype=torch.float64))  # L (T, K)
        self.register_buffer("floor", torch.zeros((), dtype=torch.float64))  # eV
        self.register_buffer("force_ratio", torch.ones((), dtype=torch.float64))
        self.register_buffer("force_floor", torch.full((), UNKNOWN, dtype=torch.float64))  # eV/Å

    @torch.jit.unused
    def set(
        self, factor: Tensor, floor: float, force_ratio: float = 1.0, force_floor: float = UNKNOWN
    ) -> None:
        """Take L, and the standard deviation of every atom that no data take away, eV; and for force
        components the scale of L over that of the energies, and their own floor, eV/Å (negative: unknown)."""
        self.factor = factor.to(self.factor)
        self.floor = torch.full_like(self.floor, floor)
        self.force_ratio = torch.full_like(self.force_ratio, force_ratio)
        self.force_floor = torch.full_like(self.force_floor, force_floor)

    @torch.jit.unused
    def forget(self) -> None:
        """Be without a posterior: it belongs to weights that are no more."""
        self.set(self.factor.new_zeros(0, 0), 0.0)

    @torch.jit.unused
    def is_known(self) -> bool:
        """Whether there is a posterior."""
        return self.factor.shape[1] > 0

    @torch.jit.export
    def probes(self, features: Tensor, count: int) -> Tensor:
        """`count` of the columns of ψ, (N, count), eV, scaled so that the squares of their gradients add up
        to the variance of a force component without its floor: exactly for all K columns (`count` of 0, or
        of K and more); of fewer in the mean over rotations of the columns (`llpr.rotated`), with a relative
        standard error of √(2/count) at most."""
        width = self.factor.shape[1]
        n = width if count <= 0 or count > width else count
        scale = self.force_ratio * math.sqrt(width / max(n, 1))
        return features @ (scale * self.factor[:, :n])

    def forward(self, features: Tensor) -> Tuple[Tensor, Tensor]:
        """Residuals (N,), eV², and ψ (N, K), eV, of features (N, T)."""
        residual = (self.floor * self.floor).expand(features.shape[0])
        if self.factor.shape[1] == 0:
            return residual, features[:, :0]
        return residual, features @ self.factor

    @torch.jit.unused
    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        if self.is_known():
            super()._save_to_state_dict(destination, prefix, keep_vars)

    @torch.jit.unused
    def _load_from_state_dict(self, state_dict: Dict[str, Tensor], prefix: str, *arguments: Any) -> None:
        factor = state_dict.get(prefix + "factor")
        self.forget()
        if factor is not None:
            self.factor = self.factor.new_zeros(factor.shape)
            for name in ("force_ratio", "force_floor"):  # absent before forces had an uncertainty
                state_dict.setdefault(prefix + name, getattr(self, name))
            super()._load_from_state_dict(state_dict, prefix, *arguments)
