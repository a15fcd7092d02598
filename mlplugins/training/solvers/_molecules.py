"""Descriptors of molecules with their derivatives, and kernel matrices of energies and forces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlplugins.errors import BadInput
from mlplugins.models.molecular_kernel import kernel_and_slope, kernel_curvature
from mlplugins.structures.dataset import Structure


@dataclass(frozen=True)
class Points:
    """N frames of one molecule of n atoms, P pairs, m internal coordinates.

    Only 3n − 6 of the 3n force components of a frame are independent (no net force, no torque), so that the
    system is solved for these: `basis` spans the rows of ∂x/∂r.

    Attributes:
        x: (N, P) shifted descriptors.
        jacobian: (N, P, m) derivatives of the descriptor along the internal coordinates.
        basis: (N, 3n, m) orthonormal internal coordinates.
    """

    x: Tensor
    jacobian: Tensor
    basis: Tensor

    def __len__(self) -> int:
        return int(self.x.shape[0])

    @property
    def coordinates(self) -> int:
        return int(self.basis.shape[2])

    def take(self, index: NDArray[np.int64] | slice) -> Points:
        """Some of the frames."""
        return Points(self.x[index], self.jacobian[index], self.basis[index])


def require_molecule(frames: Sequence[Structure], test: Sequence[Structure], mixed: bool = False) -> None:
    """Refuse what is not one molecule (any molecules, if `mixed`) in vacuum.

    Raises:
        BadInput: another composition or order of atoms, periodic frames, one atom.
    """
    first = frames[0]
    for s in [*frames, *test]:
        if s.pbc.any():
            raise BadInput(
                f"{s.origin}: periodic, but a molecular kernel describes one molecule in vacuum: set pbc to "
                "F, or choose a local family such as soap-gap"
            )
        if not mixed and (len(s) != len(first) or (s.numbers != first.numbers).any()):
            raise BadInput(
                f"{s.origin}: {s.to_atoms().symbols}, but {first.origin} is {first.to_atoms().symbols}: a "
                "molecular kernel learns one molecule with its atoms in one order; sort the atoms, or choose "
                "family krr-cm with descriptor sorted-coulomb-matrix (energies only)"
            )
    if not mixed and len(first) < 2:
        raise BadInput(f"{first.origin}: one atom has no distances to learn from; expected a molecule")


class Kernel(NamedTuple):
    """Kernel name, length scale and permutations (K, P) of the pairs."""

    name: str
    sigma: float
    pairs: Tensor


def points(structures: Sequence[Structure], scale: Tensor, shift: Tensor) -> Points:
    """Descriptors c_p/r_p − shift_p with their derivatives."""
    r = torch.tensor(np.stack([s.positions for s in structures]))  # (N, n, 3)
    n = r.shape[1]
    i, j = torch.triu_indices(n, n, 1)
    v = r[:, i] - r[:, j]  # (N, P, 3)
    distance = torch.linalg.vector_norm(v, dim=2)
    gradient = -scale[:, None] * v / distance[:, :, None] ** 3  # ∂x_p/∂r_i = −∂x_p/∂r_j
    full = torch.zeros(len(structures), len(i), n, 3, dtype=r.dtype)
    rows = torch.arange(len(i))
    full[:, rows, i] = gradient
    full[:, rows, j] = -gradient
    full = full.reshape(len(structures), len(i), 3 * n)
    m = min(len(i), max(1, 3 * n - 6))
    basis = torch.linalg.svd(full, full_matrices=False).Vh[:, :m].transpose(1, 2).contiguous()
    return Points(scale / distance - shift, full @ basis, basis)


def size(count: int, coordinates: int, targets: str) -> int:
    """Number of unknowns of `count` frames."""
    return count * ("energies" in targets) + count * coordinates * ("forces" in targets)


def matrix(p: Points, kernel: Kernel, targets: str, out: NDArray[np.float64]) -> None:
    """Fill the upper triangle of the kernel matrix of energies (first), then gradients along the internal
    coordinates.

    Args:
        p: N frames.
        kernel: Gaussian or Matérn; the Laplacian for energies only.
        targets: `energies`, `forces` or `energies+forces`.
        out: (n, n) C-contiguous.
    """
    n, m = len(p), p.coordinates
    target = torch.from_numpy(out)
    energies, forces = "energies" in targets, "forces" in targets
    offset = n if energies else 0
    for i in range(n):
        blocks = _row(p, i, kernel, forces)
        if energies:
            target[i, i:n] = blocks[0]
        if not forces:
            continue
        first = offset + i * m
        value_slope, slope_value, slopes = blocks[1:]
        target[first : first + m, first:] = slopes.permute(1, 0, 2).reshape(m, -1)
        if energies:
            target[i, first:] = value_slope.reshape(-1)
            target[i:n, first : first + m] = slope_value


def columns(
    p: Points, frames: NDArray[np.int64], kernel: Kernel, targets: str
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Columns (n, m) of the kernel matrix that belong to some frames, and the place of each column, (m,)."""
    n, m = len(p), p.coordinates
    energies, forces = "energies" in targets, "forces" in targets
    found: list[Tensor] = []
    places: list[int] = []
    for i in frames.tolist():
        blocks = _row(p, i, kernel, forces, 0)
        if energies:
            found.append(
                torch.cat([blocks[0][None], blocks[1].reshape(1, -1)], 1) if forces else blocks[0][None]
            )
            places.append(i)
        if forces:
            slopes = blocks[3].permute(1, 0, 2).reshape(m, -1)
            found.append(torch.cat([blocks[2].t(), slopes], 1) if energies else slopes)
            first = (n if energies else 0) + i * m
            places += range(first, first + m)
    return np.ascontiguousarray(torch.cat(found).numpy().T), np.array(places, dtype=np.int64)


def _row(p: Points, i: int, kernel: Kernel, forces: bool, first: int | None = None) -> tuple[Tensor, ...]:
    """Covariances of frame i with the J frames j ≥ i (or from `first` on): values (J,), value–slope (J, m),
    slope–value (J, m), slopes (J, m, m).

    The permutations act on frame i: k(x_i, x_j) = Σ_P k₀(P x_i, x_j), as descriptors of equivalent pairs
        have one scale.
    """
    start = i if first is None else first
    copies = p.x[i][kernel.pairs]  # (K, P)
    delta = copies - p.x[start:, None]  # (J, K, P)
    if kernel.name == "laplacian":
        return (torch.exp(-delta.abs().sum(2) / kernel.sigma).sum(1),)
    s = delta.square().sum(2)
    less_one, slope = kernel_and_slope(kernel.name, kernel.sigma, s)
    values = (less_one + 1.0).sum(1)
    if not forces:
        return (values,)
    own = p.jacobian[i][kernel.pairs]  # (K, P, m)
    others = p.jacobian[start:]  # (J, P, m)
    v = torch.bmm(delta, others)  # (J, K, m)
    u = torch.bmm(delta.transpose(0, 1), own).transpose(0, 1)  # (J, K, m)
    value_slope = torch.einsum("jk,jkm->jm", -2.0 * slope, v)
    slope_value = torch.einsum("jk,jkm->jm", 2.0 * slope, u)
    curvature = kernel_curvature(kernel.name, kernel.sigma, s)
    slopes = torch.bmm((-4.0 * curvature.unsqueeze(2) * u).transpose(1, 2), v)
    mixed = ((-2.0 * slope) @ own.reshape(len(own), -1)).reshape(-1, own.shape[1], own.shape[2])  # (J, P, m)
    return values, value_slope, slope_value, slopes + torch.bmm(mixed.transpose(1, 2), others)
