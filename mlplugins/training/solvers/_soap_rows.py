"""Design matrix of a SOAP-GAP: energies, forces and virials as linear functions of the weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mlplugins.models.soap_gap import Model
from mlplugins.structures.batch import Batch

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
        self._unpacked: dict[tuple[int, int], list[Tensor]] = {}
        self.width = self.n_many + self.n_pairs * features.pairs.shape[1]

    @torch.no_grad()
    def energies(self, batch: Batch) -> Tensor:
        """(S, width): rows of the total energies."""
        return _sum(self.atoms(batch), batch.system, batch.n_systems)

    @torch.no_grad()
    def atoms(self, batch: Batch) -> Tensor:
        """(N, width): φ of every atom."""
        model, n = self.model, batch.species.shape[0]
        p = model.features(batch.species, batch.centers, batch.neighbors, batch.vectors, n)
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
        c = model.expansion(batch.species, batch.centers, batch.neighbors, batch.vectors, n)
        p = model.spectrum(c)
        length = torch.linalg.vector_norm(p, dim=1)
        p = p / length.unsqueeze(1)
        edges = _Edges(batch, model)
        own = model.spectrum.unpack(p)  # (N, l_max + 1, channels, channels)
        # ∂|p|²/∂c = 4 |p| (own c): the part of ∂p/∂c along p, which normalisation takes away
        along = torch.cat([own[:, k] @ x for k, x in enumerate(c)], dim=2).transpose(1, 2)
        for index, (first, last) in enumerate(self.features.columns):
            points = self.features.points[index]
            atoms = torch.nonzero(batch.species == index).squeeze(1)
            if len(atoms) == 0 or len(points) == 0:
                continue
            f = torch.zeros(3, n, len(points), dtype=p.dtype)
            w = torch.zeros(batch.n_systems, 6, len(points), dtype=p.dtype)
            s = p[atoms] @ points.t()
            factor = 2.0 * model.zeta * s ** (model.zeta - 1) / length[atoms].unsqueeze(1)
            for k, atom in enumerate(atoms.tolist()):
                toward = [x[atom].t() for x in c]
                for kind, part in edges.parts(atom):
                    dc = edges.coefficients(part)  # (3 e, (l_max + 1)² n_max)
                    ns = slice(kind * edges.n_max, (kind + 1) * edges.n_max)
                    g = dc @ self._slopes(index, kind, toward)
                    g.addr_(dc @ along[atom, :, ns].reshape(-1), s[k], alpha=-1)
                    g *= factor[k]
                    edges.add(atom, part, g.reshape(3, -1, len(points)), f, w)
            whitening = self.features.whitening[index]
            forces[:, :, first:last] += (f @ whitening).transpose(0, 1)
            virials[:, :, first:last] += w @ whitening

    def _slopes(self, index: int, kind: int, c: list[Tensor]) -> Tensor:
        """½ ∂(p_i · p̂_m)/∂c_i for the channels of one kind of neighbour: ((l_max + 1)² n_max, M)."""
        matrices = self._matrices(index, kind)
        size = matrices[0].shape[1]
        out = torch.empty(sum(len(x) for x in c), size, dtype=matrices[0].dtype)
        row = 0
        for x, matrix in zip(c, matrices):
            torch.mm(x, matrix, out=out[row : row + len(x)])
            row += len(x)
        return out.reshape(-1, len(self.features.points[index]))

    def _matrices(self, index: int, kind: int) -> list[Tensor]:
        """Sparse points as matrices of every degree, [(channels, n_max · M)]."""
        if (index, kind) not in self._unpacked:
            n_max = self.model.expansion.n_max
            full = self.model.spectrum.unpack(self.features.points[index])  # (M, l_max + 1, u, v)
            full = full[:, :, kind * n_max : (kind + 1) * n_max].permute(1, 3, 2, 0)
            self._unpacked[index, kind] = list(full.reshape(*full.shape[:2], -1).contiguous())
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
    """∂c_i/∂v_e of all edges, and what follows for forces and virials once ∂/∂c_i is known."""

    def __init__(self, batch: Batch, model: Model) -> None:
        self.n_max, self.n_species, self.l_max = model.expansion.n_max, model.n_species, model.expansion.l_max
        group = batch.centers * self.n_species + batch.species[batch.neighbors]
        order = torch.argsort(group, stable=True)
        count = torch.bincount(group, minlength=len(batch.species) * self.n_species)
        self.vectors, self.neighbors = batch.vectors[order], batch.neighbors[order]
        self.system = batch.system.tolist()
        self.stressed = (batch.volume > 0).tolist()
        self.end, self.count = torch.cumsum(count, 0).tolist(), count.tolist()
        expansion = model.expansion
        self.r, self.y = expansion.edges(self.vectors)
        distance = torch.linalg.vector_norm(self.vectors, dim=1)
        slope = torch.func.jvp(expansion.radial, (distance,), (torch.ones_like(distance),))[1]
        self.dr = slope / distance.unsqueeze(1)  # times v

        def harmonics(v: Tensor) -> Tensor:
            return model.expansion.harmonics(v / torch.linalg.vector_norm(v, dim=1, keepdim=True))

        self.dy = []
        for axis in range(3):  # every edge has its own vector, so three tangents do
            tangent = torch.zeros_like(self.vectors)
            tangent[:, axis] = 1.0
            self.dy.append(torch.func.jvp(harmonics, (self.vectors,), (tangent,))[1])

    def parts(self, atom: int) -> Iterator[tuple[int, slice]]:
        """Element of the neighbours, and their edges."""
        for kind in range(self.n_species):
            group = atom * self.n_species + kind
            if self.count[group]:
                yield kind, slice(self.end[group] - self.count[group], self.end[group])

    def coefficients(self, part: slice) -> Tensor:
        """∂c/∂v: (3 e, (l_max + 1)² n_max)."""
        e = part.stop - part.start
        out = torch.empty(3, e, (self.l_max + 1) ** 2, self.n_max, dtype=self.vectors.dtype)
        y, v = self.y[part], self.vectors[part]
        dy = torch.stack([slope[part] for slope in self.dy])
        for degree in range(self.l_max + 1):
            ns = slice(degree * self.n_max, (degree + 1) * self.n_max)
            ms = slice(degree * degree, (degree + 1) ** 2)
            outer = y[:, ms].unsqueeze(2) * self.dr[part, ns].unsqueeze(1)  # (e, m, n)
            torch.mul(v.t()[:, :, None, None], outer, out=out[:, :, ms])
            out[:, :, ms].addcmul_(dy[:, :, ms].unsqueeze(3), self.r[part, ns].unsqueeze(1))
        return out.reshape(3 * e, -1)

    def add(self, atom: int, part: slice, g: Tensor, forces: Tensor, virials: Tensor) -> None:
        """F_i += Σ_{centre i} g_e − Σ_{neighbour i} g_e and Σ_e v_e ⊗ g_e, for g (3, e, M)."""
        forces[:, atom] += g.sum(dim=1)
        forces.index_add_(1, self.neighbors[part], g, alpha=-1)
        system = self.system[atom]
        if self.stressed[system]:
            # symmetric by itself once summed over all edges
            for k, (a, b) in enumerate(VOIGT):
                virials[system, k] += self.vectors[part, a] @ g[b]


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
