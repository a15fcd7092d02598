"""The heat flux of a model whose energy depends on the vectors of its edges, exact for message passing.

With atomic energies U_i, velocities v, edges e = (c → n) with vectors x_e and g_{i,e} = ∂U_i/∂x_e:

    J = Σ_i (½ m_i v_i² + U_i) v_i + Σ_i Σ_j (r_i − r_j) (∂U_i/∂r_j · v_j)
      = convective + Σ_e A_e · (v_n − v_c) − Σ_e x_e (G_e · v_n),
    G_e = Σ_i g_{i,e},    A_e^α = Σ_i (r_i − r_c)^α g_{i,e}

(Hardy, J. Chem. Phys. 76, 622 (1982); positions unfolded; of semi-local models Langer, Frank and Knoop, Phys.
Rev. B 108, L100302 (2023)). A_e says how far from its edge the atoms are whose energy the edge changes: zero
for one layer. What flows back along a message from n to c moves by x_e, so that with every gradient along
a message multiplied by s_e = 1 − κ · x_e, G_e(κ) has the derivative dG_e/dκ^α = A_e^α at κ = 0:

    Σ_e A_e^α · (v_n − v_c) = ∂/∂κ^α Σ_e G_e(κ) · (v_n − v_c).

One double backward pass, in which no position appears but the edges' own vectors: it holds in a folded cell.
For it every edge gets a copy of its neighbour's features from the exchange (`mlplugins::message_copies`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from mlplugins.model_file.structure import Array
from mlplugins.structures.graph import Graph


class HeatFlux(NamedTuple):
    """J of one structure, not divided by its volume: eV Å over the unit of time of the velocities.

    Attributes:
        potential: (3,), Σ_ij (r_i − r_j) (∂U_i/∂r_j · v_j).
        convective: (3,), Σ_i (½ m_i v_i² + U_i) v_i.
    """

    potential: Array
    convective: Array

    @property
    def total(self) -> Array:
        """(3,), their sum."""
        return self.potential + self.convective


def potential_flux(
    energies: Callable[[Graph], Tensor], graph: Graph, velocities: Tensor, messages: bool
) -> tuple[Tensor, Tensor]:
    """Atomic energies (N,) and the potential part of J, (3,), Å times their unit times that of velocities.

    Args:
        energies: of the atoms of a graph.
        graph: without ghosts, all of one structure; its vectors need gradients.
        velocities: (N, 3).
        messages: whether there are features that the model exchanges between layers.
    """
    x, v_neighbor = graph.vectors.detach().double(), velocities.index_select(0, graph.neighbors)
    kappa = torch.zeros(3, dtype=torch.float64, device=x.device, requires_grad=messages)
    if messages:
        with _copies(graph, (1.0 - x @ kappa).to(graph.vectors.dtype)) as split:
            u = energies(split)
    else:
        u = energies(graph)
    if not u.requires_grad:  # no edges
        return u, kappa.detach()
    (g,) = torch.autograd.grad(u.sum(), graph.vectors, create_graph=messages, allow_unused=True)
    if g is None:
        return u, kappa.detach()
    along = (g.detach().double() * v_neighbor).sum(dim=1)
    flux = -(along @ x)
    if messages and g.requires_grad:
        w = v_neighbor - velocities.index_select(0, graph.centers)
        (moment,) = torch.autograd.grad((g.double() * w).sum(), kappa, allow_unused=True)
        flux = flux if moment is None else flux + moment
    return u.detach(), flux


@contextmanager
def _copies(graph: Graph, factors: Tensor) -> Iterator[Graph]:
    """The graph in which the neighbour of every edge is a copy of its own, for the time of its evaluation."""
    n, n_edges, device = graph.n_centers, graph.neighbors.shape[0], graph.neighbors.device
    torch.ops.mlplugins.message_copies(graph.neighbors, factors, n)
    try:
        yield graph._replace(
            species=torch.cat([graph.species, graph.species.index_select(0, graph.neighbors)]),
            neighbors=torch.arange(n, n + n_edges, device=device),
            system=torch.cat([graph.system, graph.system.index_select(0, graph.neighbors)]),
        )
    finally:
        torch.ops.mlplugins.message_copies(None, None, 0)
