"""Second derivatives of the energy with respect to positions, by differentiating the backward pass."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mlplugins.structures.graph import Graph


def hessian(energies: Callable[[Graph], Tensor], graph: Graph) -> Tensor:
    """∂²E/∂r_ia ∂r_jb, (3N, 3N), symmetric, in the unit of E over Å².

    With x_e = r_n − r_c and G_e = ∂E/∂x_e, ∂E/∂r_ia = Σ_e G_e · ∂x_e/∂r_ia is differentiated once more, one
    pass for each of the 3N coordinates.

    Args:
        energies: of the atoms of a graph.
        graph: without ghosts, of one structure; its vectors need gradients.
    """
    n = graph.n_centers
    rows = graph.vectors.new_zeros(3 * n, n, 3)
    u = energies(graph).sum()
    if not u.requires_grad:  # no edges
        return rows.reshape(3 * n, 3 * n)
    (g,) = torch.autograd.grad(u, graph.vectors, create_graph=True, allow_unused=True)
    if g is None or not g.requires_grad:
        return rows.reshape(3 * n, 3 * n)
    of_atoms = torch.zeros_like(rows[0]).index_add(0, graph.neighbors, g).index_add(0, graph.centers, -g)
    for row, derivative in zip(rows, of_atoms.reshape(-1), strict=True):
        (y,) = torch.autograd.grad(derivative, graph.vectors, retain_graph=True)
        row.index_add_(0, graph.neighbors, y).index_add_(0, graph.centers, -y)
    whole = rows.reshape(3 * n, 3 * n).double()
    return 0.5 * (whole + whole.T)
