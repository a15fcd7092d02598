"""Design matrix of a SOAP-GAP: energies, forces and virials as linear functions of the weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mlplugins.models.base import energy_derivatives
from mlplugins.models.soap_gap import Model
from mlplugins.structures.batch import Batch

EDGES_AT_ONCE = 512
"""Edges whose slopes are held at a time."""

VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))


@dataclass(frozen=True)
class Features:
    """The basis in which the weights have a unit normal prior.

    Attributes:
        points: sparse points of every element, (M_s, D).
        whitening: (M_s, R_s) of every element: φ = k W, with W Wᵀ = δ² K⁻¹ … so that E_i = φ_i · w.
        pairs: (B, R_2), the same of the pair term; R_2 = 0 without.
    """

    points: list[Tensor]
    whitening: list[Tensor]
    pairs: Tensor

    @property
    def columns(self) -> list[tuple[int, int]]:
        """First and last column of every element."""
        ends = torch.cumsum(torch.tensor([0] + [w.shape[1] for w in self.whitening]), 0).tolist()
        return list(zip(ends[:-1], ends[1:]))


class Rows:
    """φ of atoms, and the rows of energies, forces and virials that follow from it.

    Args:
        model: gives descriptors; its weights are not used.
        features: the basis.
    """

    def __init__(self, model: Model, features: Features) -> None:
        self.model, self.features = model, features
        self.n_many = features.columns[-1][1] if features.whitening else 0
        n_species = model.n_species
        self.n_pairs = n_species * (n_species + 1) // 2 if model.n_two_body > 0 else 0
        self._unpacked: dict[tuple[int, int], Tensor] = {}
        self.width = self.n_many + self.n_pairs * features.pairs.shape[1]

    @torch.no_grad()
    def energies(self, batch: Batch) -> Tensor:
        """(S, width): rows of the total energies."""
        return _sum(self.atoms(batch), batch.system, batch.n_systems)

    @torch.no_grad()
    def atoms(self, batch: Batch) -> Tensor:
        """(N, width): φ of every atom."""
        model, n = self.model, batch.species.shape[0]
        p = model.features(batch.graph())
        phi = torch.zeros(n, self.width, dtype=p.dtype)
        for index, (first, last) in enumerate(self.features.columns):
            rows = torch.nonzero(batch.species == index).squeeze(1)
            phi[rows, first:last] = (
                model.kernel(p[rows], self.features.points[index]) @ self.features.whitening[index]
            )
        if self.n_pairs:
            r = torch.linalg.vector_norm(batch.vectors, dim=1)
            phi[:, self.n_many :] += self._pair_rows(batch, 0.5 * model.pair_basis(r), batch.centers, n)
        return phi

    def forces(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(3N, width) rows of the forces, and (6S, width) rows of Σ_e v ⊗ ∂E/∂v (Voigt order)."""
        n = batch.species.shape[0]
        forces = torch.zeros(n, 3, self.width, dtype=torch.float64)
        virials = torch.zeros(batch.n_systems, 6, self.width, dtype=torch.float64)
        with torch.no_grad():
            self._many_body(batch, forces, virials)
            if self.n_pairs:
                self._two_body(batch, forces, virials)
        return forces.reshape(3 * n, self.width), virials.reshape(-1, self.width)

    def _many_body(self, batch: Batch, forces: Tensor, virials: Tensor) -> None:
        model, n = self.model, batch.species.shape[0]
        c = model.expansion(batch.graph())
        p = model.spectrum(c)
        length = torch.linalg.vector_norm(p, dim=1, keepdim=True)
        p = p / length
        # normalisation takes away the part of ∂p/∂v along p
        own = model.spectrum.unpack(p)  # (N, l_max + 1, channels, channels)
        edges = _Edges(batch, model, c)
        stressed = batch.has("stress")[batch.system]
        for index, (first, last) in enumerate(self.features.columns):
            points = self.features.points[index]
            s = p @ points.t()
            factor = 2.0 * model.zeta * s ** (model.zeta - 1) / length
            f = torch.zeros(n, 3, len(points), dtype=p.dtype)
            w = torch.zeros(batch.n_systems, 6, len(points), dtype=p.dtype)
            for kind in range(model.n_species):
                for part in edges.parts(index, kind):
                    i = batch.centers[part]
                    dp = edges.slopes(part, kind)  # (e, 3, u · channels)
                    g = dp @ self._matrix(index, kind)
                    along = own[:, :, edges.channels(kind)].flatten(1)[i]
                    g -= (dp @ along.unsqueeze(2)) * s[i].unsqueeze(1)
                    g *= factor[i].unsqueeze(1)
                    f.index_add_(0, i, g)
                    f.index_add_(0, batch.neighbors[part], g, alpha=-1)
                    if bool(stressed[i].any()):
                        self._strain(batch, part, g, w)
            whitening = self.features.whitening[index]
            forces[:, :, first:last] += f @ whitening
            virials[:, :, first:last] += w @ whitening

    def _strain(self, batch: Batch, part: Tensor, g: Tensor, w: Tensor) -> None:
        """Add Σ_e v_e ⊗ g_e; symmetric by itself once summed over all edges."""
        system = batch.system[batch.centers[part]]
        for k, (a, b) in enumerate(VOIGT):
            w[:, k].index_add_(0, system, batch.vectors[part, a : a + 1] * g[:, b])

    def _matrix(self, index: int, kind: int) -> Tensor:
        """Sparse points as (u · channels, M): u the channels of one kind of neighbour, of every degree."""
        if (index, kind) not in self._unpacked:
            n_max = self.model.expansion.n_max
            full = self.model.spectrum.unpack(self.features.points[index])  # (M, l_max + 1, u, v)
            part = full[:, :, kind * n_max : (kind + 1) * n_max].flatten(1)
            self._unpacked[index, kind] = part.t().contiguous()
        return self._unpacked[index, kind]

    def _two_body(self, batch: Batch, forces: Tensor, virials: Tensor) -> None:
        r = torch.linalg.vector_norm(batch.vectors, dim=1)
        slope = torch.func.jvp(self.model.pair_basis, (r,), (torch.ones_like(r),))[1]
        direction = batch.vectors / r.unsqueeze(1)
        for axis in range(3):
            g = 0.5 * slope * direction[:, axis : axis + 1]  # (E, B)
            rows = self._pair_rows(batch, g, batch.centers, len(forces))
            rows -= self._pair_rows(batch, g, batch.neighbors, len(forces))
            forces[:, axis, self.n_many :] += rows
        system = batch.system[batch.centers]
        for k, (a, b) in enumerate(VOIGT):
            g = 0.5 * slope * (batch.vectors[:, a] * direction[:, b]).unsqueeze(1)
            virials[:, k, self.n_many :] += self._pair_rows(batch, g, system, batch.n_systems)

    def _pair_rows(self, batch: Batch, basis: Tensor, target: Tensor, n: int) -> Tensor:
        """Sum of pair functions (E, B) by `target` and kind of pair, whitened: (n, n_pairs · R_2)."""
        kind = self.model.pair_index[batch.species[batch.centers], batch.species[batch.neighbors]]
        summed = _sum(basis, target * self.n_pairs + kind, n * self.n_pairs)
        return (summed @ self.features.pairs).reshape(n, -1)


class _Edges:
    """½ ∂p_i/∂v_e of edges e = (i, j): the half with ∂c in the first factor, p being symmetric."""

    def __init__(self, batch: Batch, model: Model, c: list[Tensor]) -> None:
        expansion = model.expansion
        self.n_max, self.l_max, self.c = expansion.n_max, expansion.l_max, c
        self.centers = batch.centers
        self.kinds = batch.species[batch.centers], batch.species[batch.neighbors]
        self.vectors = batch.vectors
        self.r, self.y = expansion.edges(self.vectors)
        distance = torch.linalg.vector_norm(self.vectors, dim=1)
        slope = torch.func.jvp(expansion.radial, (distance,), (torch.ones_like(distance),))[1]
        self.dr = slope / distance.unsqueeze(1)  # times v

        def harmonics(v: Tensor) -> Tensor:
            return expansion.harmonics(v / torch.linalg.vector_norm(v, dim=1, keepdim=True))

        slopes = []
        for axis in range(3):  # every edge has its own vector, so three tangents do
            tangent = torch.zeros_like(self.vectors)
            tangent[:, axis] = 1.0
            slopes.append(torch.func.jvp(harmonics, (self.vectors,), (tangent,))[1])
        self.dy = torch.stack(slopes, dim=1)  # (E, 3, (l_max + 1)²)

    def channels(self, kind: int) -> slice:
        """Of neighbours of one element."""
        return slice(kind * self.n_max, (kind + 1) * self.n_max)

    def parts(self, index: int, kind: int) -> Sequence[Tensor]:
        """Edges from one element to another, few at a time."""
        edges = torch.nonzero((self.kinds[0] == index) & (self.kinds[1] == kind)).squeeze(1)
        return edges.split(EDGES_AT_ONCE) if len(edges) else []

    def slopes(self, part: Tensor, kind: int) -> Tensor:
        """Σ_m (∂c_um/∂v) c_vm for the channels u of `kind`: (e, 3, (l_max + 1) · n_max · channels)."""
        r, dr = (x[part].reshape(len(part), 1, -1, self.n_max, 1) for x in (self.r, self.dr))
        v, y, dy = (
            self.vectors[part][:, :, None, None],
            self.y[part][:, None, None],
            self.dy[part].unsqueeze(2),
        )
        i = self.centers[part]
        found = []
        for degree in range(self.l_max + 1):
            m = slice(degree * degree, (degree + 1) ** 2)
            dc = (v * dr[:, :, degree]) * y[..., m] + r[:, :, degree] * dy[..., m]  # (e, 3, n_max, 2l + 1)
            product = torch.bmm(dc.flatten(1, 2), self.c[degree][i].transpose(1, 2))
            found.append(product.reshape(len(part), 3, -1))
        return torch.cat(found, dim=2)


def repulsion(model: Model, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Energies (S,), forces (N, 3) and V σ (S, 6) of the fixed short-range repulsion."""
    n = len(batch.species)
    if model.repulsion is None:
        zero = torch.zeros(batch.n_systems, dtype=torch.float64)
        return (
            zero,
            torch.zeros(n, 3, dtype=torch.float64),
            torch.zeros(batch.n_systems, 6, dtype=torch.float64),
        )
    with torch.enable_grad():
        graph = batch.graph(batch.vectors.detach().clone().requires_grad_())
        e = model.repulsion(graph, torch.linalg.vector_norm(graph.vectors, dim=1))
        forces, virial = energy_derivatives(e, graph, batch.n_systems)
    energy = torch.zeros(batch.n_systems, dtype=e.dtype).index_add(0, batch.system, e.detach())
    return energy, forces.detach(), torch.stack([virial[:, a, b] for a, b in VOIGT], dim=1).detach()


def _sum(rows: Tensor, index: Tensor, n: int) -> Tensor:
    return torch.zeros(n, rows.shape[1], dtype=rows.dtype).index_add_(0, index, rows)


def whiten(kernel: Tensor, scale: float, jitter: float = 1e-10) -> Tensor:
    """W (M, R) with W Wᵀ = scale² K⁻¹ on the eigenvectors of K above jitter · the largest eigenvalue.

    >>> w = whiten(torch.tensor([[1.0, 0.5], [0.5, 1.0]], dtype=torch.float64), 1.0)
    >>> torch.allclose(w @ w.T, torch.linalg.inv(torch.tensor([[1.0, 0.5], [0.5, 1.0]], dtype=torch.float64)))
    True
    """
    if len(kernel) == 0:
        return torch.zeros(0, 0, dtype=kernel.dtype)
    values, vectors = torch.linalg.eigh(kernel)
    kept = values > jitter * float(values[-1])
    return scale * vectors[:, kept] / torch.sqrt(values[kept])
