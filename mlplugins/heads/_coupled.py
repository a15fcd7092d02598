"""Adiabatic energies: eigenvalues of a small symmetric matrix of energies, whose surfaces may cross.

    H = Σ_i h_i,    H v_k = λ_k v_k,    e_k,i = v_kᵀ h_i v_k / v_kᵀ v_k,    Σ_i e_k,i = λ_k

with a matrix h_i of every atom. Eigenvalues have the cusps of crossings and avoided crossings, which a smooth
function of the positions lacks. Vectors are made differentiable by their first order in H, with 1/(λ_k − λ_j)
→ d/(d² + ε²): gradients of λ_k are exact with any ε, second derivatives where gaps are large beside ε, and
all are finite where energies are equal.
"""

from typing import List

import torch
from torch import Tensor

from mlplugins.structures.graph import Graph


def adiabatic(matrices: Tensor, graph: Graph, epsilon: float = 1e-3) -> Tensor:
    """Shares of the atoms in the eigenvalues of the sum over the atoms of each structure, lowest first.

    >>> nobody = torch.zeros(0, dtype=torch.long)
    >>> graph = Graph(torch.tensor([0, 0]), nobody, nobody, torch.zeros(0, 3), torch.tensor([0, 0]), 2)
    >>> h = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 2.0], [2.0, 0.0]]], dtype=torch.float64)
    >>> [round(x, 12) for x in adiabatic(h, graph).sum(dim=0).tolist()]
    [-1.0, 3.0]

    Args:
        matrices: (n_centers, states, states), symmetric, eV.
        graph: its atoms and structures; all atoms of a structure must be there.
        epsilon: ε, eV.

    Returns:
        (n_centers, states), eV.

    Raises:
        RuntimeError: other processes, or images of a cell, hold atoms beside these.
    """
    n, n_states = matrices.shape[0], matrices.shape[1]
    if 0 < n < graph.species.shape[0]:
        raise RuntimeError(
            "coupled energies are of all atoms together: expected one process that holds all of them "
            "(LAMMPS: one rank, mode fold)"
        )
    if n == 0:
        return matrices.sum(dim=2)
    h = matrices.to(torch.float64)
    n_systems = int(graph.system.max()) + 1
    total = torch.zeros(n_systems, n_states, n_states, dtype=h.dtype, device=h.device)
    total = total.index_add(0, graph.system, h)
    values, vectors = torch.linalg.eigh(total.detach())
    change = vectors.transpose(1, 2) @ (total - total.detach()) @ vectors  # zero, but for its gradient
    gaps = values.unsqueeze(1) - values.unsqueeze(2)  # λ_k − λ_j at [j, k]
    vectors = vectors + vectors @ (change * gaps / (gaps * gaps + epsilon * epsilon))
    own = vectors.index_select(0, graph.system)  # (n, a, k)
    shares = (own * (h @ own)).sum(dim=1) / own.square().sum(dim=1)
    return shares.to(matrices.dtype)


def symmetric(rows: List[Tensor]) -> Tensor:
    """Symmetric matrices (n, states, states) of the rows of their lower triangles, (n, 1), (n, 2), …

    >>> symmetric([torch.tensor([[1.0]]), torch.tensor([[2.0, 3.0]])]).tolist()
    [[[1.0, 2.0], [2.0, 3.0]]]
    """
    n, size = rows[0].shape[0], len(rows)
    whole: List[Tensor] = []
    for a in range(size):
        for b in range(size):
            whole.append(rows[max(a, b)][:, min(a, b)])
    return torch.stack(whole, dim=1).reshape(n, size, size)
