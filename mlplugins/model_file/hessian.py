"""Second derivatives of the energy with respect to positions, by differentiating the backward pass."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mlplugins.model_file.pushing import pushed
from mlplugins.structures.graph import Graph

EDGES = 20_000
"""Of all copies of the structure together, at most. More saves no time and takes memory."""


def hessian(energies: Callable[[Graph], Tensor], graph: Graph) -> Tensor:
    """∂²E/∂r_ia ∂r_jb, (3N, 3N), symmetric, in the unit of E over Å².

    With x_e = r_n − r_c and G_e = ∂E/∂x_e, ∂E/∂r_ia = Σ_e G_e · ∂x_e/∂r_ia is differentiated once more. One
    graph holds several copies of the structure; each pass differentiates another component of the gradient
    in each of them, so that small structures do not wait for the many small operations of a model.

    Args:
        energies: of the atoms of a graph.
        graph: without ghosts, of one structure.
    """
    n, n_edges = graph.n_centers, graph.vectors.shape[0]
    whole = torch.zeros(3 * n, 3 * n, dtype=torch.float64, device=graph.vectors.device)
    copies = max(1, min(3 * n, EDGES // max(n_edges, 1)))
    copies = -(-3 * n // -(-3 * n // copies))  # as many passes, of equal numbers of copies
    found = pushed(energies, graph, _copied, copies) if n_edges else None
    if found is not None:
        return 0.5 * (found + found.T)
    many = _copied(graph, copies)
    u = energies(many).sum()
    if not u.requires_grad:  # no edges
        return whole
    (g,) = torch.autograd.grad(u, many.vectors, create_graph=True, allow_unused=True)
    if g is None or not g.requires_grad:
        return whole
    for rows in torch.arange(3 * n, device=whole.device).split(copies):
        along = g.new_zeros(copies, 3 * n)
        along[torch.arange(len(rows)), rows] = 1.0
        along = along.reshape(copies * n, 3)  # a direction in the space of positions for each copy
        direction = along.index_select(0, many.neighbors) - along.index_select(0, many.centers)
        (y,) = torch.autograd.grad(g, many.vectors, direction, retain_graph=True)
        moved = torch.zeros_like(along).index_add(0, many.neighbors, y).index_add(0, many.centers, -y)
        whole[rows] = moved.reshape(copies, 3 * n)[: len(rows)].double()
    return 0.5 * (whole + whole.T)


def _copied(graph: Graph, copies: int) -> Graph:
    """Copies of the structure beside one another; the vectors of their edges need gradients."""
    n = graph.n_centers
    shift = torch.arange(copies, device=graph.centers.device).unsqueeze(1)
    return Graph(
        graph.species.repeat(copies),
        (graph.centers + n * shift).reshape(-1),
        (graph.neighbors + n * shift).reshape(-1),
        graph.vectors.detach().repeat(copies, 1).requires_grad_(),
        (graph.system + shift).reshape(-1),
        copies * n,
        None if graph.state is None else graph.state.repeat(copies, 1),
    )
