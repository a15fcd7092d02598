"""Smooth overlap of atomic positions: neighbour densities, their expansion, and the power spectrum.

ρ_i^a(r) = Σ_{j of species a} f(r_ij) exp(−|r − r_ij|² / 2σ²), expanded in orthonormal radial functions g_n
and real spherical harmonics, gives coefficients c_{anlm}; the power spectrum
p_{an,a'n',l} = Σ_m c_{anlm} c_{a'n'lm} / √(2l + 1) does not change under rotation or inversion
(Bartók, Kondor, Csányi, Phys. Rev. B 87, 184115 (2013), eqs. 22–34).
"""

import math
from typing import Callable, List

import numpy as np
import torch
from numpy.polynomial import Legendre
from scipy.special import spherical_in
from torch import Tensor, nn

from mlplugins.structures.graph import Graph

FIT_ERROR = 1e-6
"""Largest deviation of a radial polynomial from its integral, relative to the largest integral."""


class Harmonics(nn.Module):
    """Orthonormal real spherical harmonics of unit vectors, (E, 3) → (E, (l_max + 1)²), m from −l to l.

    Y_lm = Q_l^|m|(z) · Re or Im (x + iy)^|m|, with Q_l^m = N_lm d^m P_l / dz^m: two small matrix products.

    >>> y = Harmonics(2)(torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64))
    >>> torch.allclose(y[0, [0, 2, 6]] ** 2 * 4 * math.pi, torch.tensor([1.0, 3.0, 5.0], dtype=torch.float64))
    True
    """

    polar: Tensor
    azimuthal: Tensor

    def __init__(self, l_max: int) -> None:
        super().__init__()
        self.l_max = int(l_max)
        size = (l_max + 1) ** 2
        polar = torch.zeros(l_max + 1, size, dtype=torch.float64)
        azimuthal = torch.zeros(2 * l_max + 1, size, dtype=torch.float64)
        for degree in range(l_max + 1):
            for order in range(degree + 1):
                norm = (2 * degree + 1) / (4 * math.pi)
                norm *= math.factorial(degree - order) / math.factorial(degree + order)
                norm = math.sqrt(norm * (1 if order == 0 else 2))
                series = Legendre.basis(degree).deriv(order) if order else Legendre.basis(degree)
                powers = torch.from_numpy(np.asarray(series.convert(kind=np.polynomial.Polynomial).coef))
                for sign in (1,) if order == 0 else (-1, 1):
                    column = degree * degree + degree + sign * order
                    polar[: len(powers), column] = norm * powers
                    azimuthal[order if sign > 0 else l_max + order, column] = 1.0
        self.register_buffer("polar", polar, persistent=False)
        self.register_buffer("azimuthal", azimuthal, persistent=False)

    def forward(self, directions: Tensor) -> Tensor:
        x, y, z = directions[:, 0], directions[:, 1], directions[:, 2]
        one = torch.ones_like(z)
        powers, cosines, sines = [one], [one], [torch.zeros_like(z)]
        for _ in range(self.l_max):
            c, s = cosines[-1], sines[-1]
            powers.append(powers[-1] * z)
            cosines.append(x * c - y * s)
            sines.append(x * s + y * c)
        return (torch.stack(powers, dim=1) @ self.polar) * (
            torch.stack(cosines + sines[1:], dim=1) @ self.azimuthal
        )


class RadialIntegrals(nn.Module):
    """R_nl(r) = f(r) u(r) 4π ∫ g_n(s) exp(−(s² + r²)/2σ²) i_l(s r/σ²) s² ds, (E,) → (E, (l_max + 1) n_max).

    g_n are Gaussian-type functions s^n exp(−s²/2b_n²), b_n = r_c max(√n, 1)/n_max, orthonormalised; i_l is
    the modified spherical Bessel function. The integrals are smooth: each is one Chebyshev polynomial in r,
    which *is* the model's radial function. f falls from 1 to 0 within the last `transition` Å (quintic, C²).

    Args:
        cutoff: r_c, Å.
        n_max: radial functions.
        l_max: highest degree.
        sigma: width of the atomic Gaussians, Å.
        transition: width of the fall of f, Å.
        scale, exponent: u(r) = 1/(1 + (r/scale)^exponent), less weight for far neighbours; exponent 0: none.

    Attributes:
        polynomials: (B, (l_max + 1) n_max), degree-major.
        origin: (n_max,) c_{n00} of an atom at the centre.
    """

    polynomials: Tensor
    origin: Tensor

    def __init__(
        self,
        cutoff: float,
        n_max: int,
        l_max: int,
        sigma: float,
        transition: float,
        scale: float = 2.0,
        exponent: int = 0,
    ) -> None:
        super().__init__()
        self.cutoff = float(cutoff)
        self.transition = float(transition)
        table = _Integrals(cutoff, n_max, l_max, sigma)

        def weighted(r: np.ndarray) -> np.ndarray:
            weight = 1.0 / (1.0 + (r / scale) ** exponent) if exponent > 0 else np.ones_like(r)
            return table(r) * weight[:, None]

        # orthonormal harmonics: Y_00 = 1/√(4π)
        origin = torch.from_numpy(weighted(np.zeros(1))[0, :n_max] / math.sqrt(4 * math.pi))
        self.register_buffer("polynomials", torch.from_numpy(_chebyshev(weighted, cutoff)), persistent=False)
        self.register_buffer("origin", origin, persistent=False)

    def forward(self, r: Tensor) -> Tensor:
        x = 2.0 * r / self.cutoff - 1.0
        terms = [torch.ones_like(x), x]
        for _ in range(self.polynomials.shape[0] - 2):
            terms.append(2.0 * x * terms[-1] - terms[-2])
        envelope = smooth_step((self.cutoff - r) / self.transition)
        return (torch.stack(terms, dim=1) * envelope.unsqueeze(1)) @ self.polynomials


def smooth_step(t: Tensor) -> Tensor:
    """0 for t ≤ 0, 1 for t ≥ 1, t³ (10 − 15 t + 6 t²) between."""
    t = t.clamp(0.0, 1.0)
    return t * t * t * (10.0 - t * (15.0 - 6.0 * t))


class Expansion(nn.Module):
    """Coefficients of the neighbour densities: graph → [(n_centers, S·n_max, 2l + 1) for l = 0 … l_max].

    Args:
        n_species: S; every element has its own density.
        radial: R_nl.
        n_max, l_max: of `radial`.
    """

    def __init__(self, n_species: int, radial: RadialIntegrals, n_max: int, l_max: int) -> None:
        super().__init__()
        self.n_species, self.n_max, self.l_max = int(n_species), int(n_max), int(l_max)
        self.sizes: List[int] = [2 * degree + 1 for degree in range(l_max + 1)]
        self.radial = radial
        self.harmonics = Harmonics(l_max)

    def edges(self, vectors: Tensor) -> List[Tensor]:
        """R_nl (E, (l_max + 1) n_max) and Y_lm (E, (l_max + 1)²)."""
        r = torch.linalg.vector_norm(vectors, dim=1)
        return [self.radial(r), self.harmonics(vectors / r.unsqueeze(1))]

    def forward(self, graph: Graph) -> List[Tensor]:
        species, centers, n_centers = graph.species, graph.centers, graph.n_centers
        radial, harmonics = self.edges(graph.vectors)
        n_groups = n_centers * self.n_species
        group = centers
        order = torch.arange(centers.shape[0], device=centers.device)
        if self.n_species > 1:
            group = centers * self.n_species + species.index_select(0, graph.neighbors)
            group, order = torch.sort(group, stable=True)
        count = torch.bincount(group, minlength=n_groups)  # (n_groups,)
        width = int(count.max()) if n_groups > 0 else 0
        # the neighbours of one species around one centre fill the first rows of a slot of equal width
        row = torch.arange(centers.shape[0], device=centers.device)
        row = row - (torch.cumsum(count, 0) - count).index_select(0, group) + group * width
        row = torch.empty_like(row).index_copy_(0, order, row)
        # split, not slices: their gradients are joined by one copy
        r = _padded(radial, row, n_groups, width).transpose(1, 2).split(self.n_max, dim=1)
        y = _padded(harmonics, row, n_groups, width).split_with_sizes(self.sizes, dim=2)
        own = torch.arange(n_centers, device=centers.device) * self.n_species + species[:n_centers]
        coefficients: List[Tensor] = []
        for degree in range(self.l_max + 1):
            c = torch.bmm(r[degree], y[degree])
            if degree == 0:
                origin = self.radial.origin.reshape(1, -1, 1).expand(n_centers, -1, 1)
                c = c.index_add(0, own, origin.to(c.dtype))
            coefficients.append(c.reshape(n_centers, self.n_species * self.n_max, 2 * degree + 1))
        return coefficients


def _padded(x: Tensor, row: Tensor, n_groups: int, width: int) -> Tensor:
    full = torch.zeros(n_groups * width, x.shape[1], dtype=x.dtype, device=x.device)
    return full.index_copy(0, row, x).reshape(n_groups, width, x.shape[1])


class PowerSpectrum(nn.Module):
    """p_{uv,l} = w_uv Σ_m c_ulm c_vlm / √(2l + 1) for u ≤ v, w = 1 or √2 (u ≠ v): (N, n_features).

    The weights keep the scalar product of the full matrices.
    """

    packed: Tensor
    weight: Tensor

    def __init__(self, channels: int, l_max: int) -> None:
        super().__init__()
        self.channels = int(channels)
        upper = torch.triu_indices(channels, channels)
        place = upper[0] * channels + upper[1]
        weight = torch.sqrt(2.0 - (upper[0] == upper[1]).to(torch.float64))
        degrees = range(l_max + 1)
        self.n_features = len(place) * (l_max + 1)
        self.register_buffer(
            "packed", torch.cat([place + k * channels * channels for k in degrees]), persistent=False
        )
        self.register_buffer(
            "weight", torch.cat([weight / math.sqrt(2 * k + 1) for k in degrees]), persistent=False
        )

    def forward(self, coefficients: List[Tensor]) -> Tensor:
        n = coefficients[0].shape[0]
        products = [
            torch.bmm(c, c.transpose(1, 2)).reshape(n, self.channels * self.channels) for c in coefficients
        ]
        return self.pack(torch.cat(products, dim=1))

    def pack(self, full: Tensor) -> Tensor:
        """Symmetric matrices, (N, (l_max + 1) channels²), as features."""
        return full.index_select(1, self.packed) * self.weight

    @torch.jit.unused
    def unpack(self, features: Tensor) -> Tensor:
        """Symmetric matrices P, (N, l_max + 1, channels, channels), features · p = Σ P_uv c_um c_vm."""
        n, channels = features.shape[0], self.channels
        degrees = self.n_features * 2 // (channels * (channels + 1))
        full = torch.zeros(n, degrees * channels * channels, dtype=features.dtype)
        full[:, self.packed] = features * self.weight
        full = full.reshape(n, degrees, channels, channels)
        return 0.5 * (full + full.transpose(2, 3))


class _Integrals:
    """4π ∫ g_n(s) exp(−(s² + r²)/2σ²) i_l(s r/σ²) s² ds by Gauss–Legendre quadrature."""

    def __init__(self, cutoff: float, n_max: int, l_max: int, sigma: float) -> None:
        self.l_max, self.sigma = l_max, sigma
        end = cutoff + 6.0 * sigma
        nodes, weights = np.polynomial.legendre.leggauss(max(200, int(30 * end / sigma)))
        self.s, self.w = 0.5 * end * (nodes + 1.0), 0.5 * end * weights
        widths = [cutoff * max(math.sqrt(n), 1.0) / n_max for n in range(n_max)]
        raw = np.stack([self.s**n * np.exp(-0.5 * (self.s / b) ** 2) for n, b in enumerate(widths)], axis=1)
        raw = raw / np.sqrt(np.einsum("s,s,sn->n", self.w, self.s**2, raw**2))
        overlap = np.einsum("s,s,sn,sk->nk", self.w, self.s**2, raw, raw)
        values, vectors = np.linalg.eigh(overlap)
        self.g = raw @ (vectors / np.sqrt(values)) @ vectors.T

    def __call__(self, r: np.ndarray) -> np.ndarray:
        """(R,) → (R, (l_max + 1) n_max)."""
        x = self.s[None, :] * r[:, None] / self.sigma**2
        gauss = np.exp(-0.5 * ((self.s[None, :] - r[:, None]) / self.sigma) ** 2)
        rows = []
        for degree in range(self.l_max + 1):
            kernel = 4.0 * math.pi * gauss * _scaled_bessel(degree, x)
            rows.append((kernel * (self.w * self.s**2)) @ self.g)
        return np.concatenate(rows, axis=1)


def _scaled_bessel(degree: int, x: np.ndarray) -> np.ndarray:
    """e^(−x) i_l(x), also where i_l alone would overflow."""
    small = x < 300.0
    value = np.empty_like(x)
    value[small] = spherical_in(degree, x[small]) * np.exp(-x[small])
    far = x[~small]
    term, total = np.ones_like(far), np.ones_like(far)
    for k in range(1, degree + 1):
        term = -term * (degree + k) * (degree - k + 1) / (2.0 * far * k)
        total = total + term
    value[~small] = total / (2.0 * far)
    return value


def _chebyshev(function: Callable[[np.ndarray], np.ndarray], cutoff: float) -> np.ndarray:
    """Coefficients (B, columns) on [0, cutoff], the shortest that keep to `FIT_ERROR`."""
    n = 129
    x = np.cos(math.pi * (np.arange(n) + 0.5) / n)
    values = function(0.5 * cutoff * (x + 1.0))
    full = np.polynomial.chebyshev.chebfit(x, values, n - 1)
    tail = np.cumsum(np.abs(full[::-1]), axis=0)[::-1].max(axis=1) / np.abs(values).max()
    length = max(2, int(np.argmax(tail < FIT_ERROR)) or n)
    return np.ascontiguousarray(full[:length])
