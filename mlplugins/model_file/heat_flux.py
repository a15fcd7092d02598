"""The heat flux of a model whose energy depends on the vectors of its edges, exact for message passing.

With atomic energies U_i, velocities v, edges e = (c → n) with vectors x_e and g_{i,e} = ∂U_i/∂x_e:

    J = Σ_i (½ m_i v_i² + U_i) v_i + Σ_i Σ_j (r_i − r_j) (∂U_i/∂r_j · v_j)
      = convective + Σ_e A_e · (v_n − v_c) − Σ_e x_e (G_e · v_n),
    G_e = Σ_i g_{i,e},    A_e^α = Σ_i (r_i − r_c)^α g_{i,e}

(Hardy, J. Chem. Phys. 76, 622 (1982); positions unfolded; of semi-local models Langer, Frank and Knoop, Phys.
Rev. B 108, L100302 (2023)). A_e says how far from its edge the atoms are whose energy the edge changes: zero
for one layer. Of the features h_n that a layer sends, let a = ∂Σ_i U_i/∂h_n be the adjoint and
A^α = Σ_i (r_i − r_n)^α ∂U_i/∂h_n its first moment. What flows back along an edge from c, a_e, moves by x_e:
to the moment at n it adds A_c^α − x_e^α a_e. The moments are thus one more backward pass for each α, into
which −x_e^α a_e enters at the copy h_e that every edge of every layer gets:

    Σ_e A_e^α · (v_n − v_c) = Σ_e (v_n − v_c) · ∂/∂x_e Σ_messages (−x^α a)_fixed · h_e.

All derivatives are first ones, and no position appears but the edges' own vectors: it holds in a folded cell.
Where a convolution is all that reads h, its backward pass sums −x_e^α a_e for every node
(`mlplugins::message_moments`); elsewhere the exchange makes the copies h_e (`mlplugins::message_copies`).
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
    found = _by_moments(energies, graph, messages)
    if found is None:
        found = _by_copies(energies, graph)
    x, v_neighbor = graph.vectors.detach().double(), velocities.index_select(0, graph.neighbors)
    flux = torch.zeros(3, dtype=torch.float64, device=x.device)
    if found.gradients is not None:
        flux -= (found.gradients.double() * v_neighbor).sum(dim=1) @ x
    w = v_neighbor - velocities.index_select(0, graph.centers)
    for axis in range(3 if found.sent else 0):
        (moment,) = torch.autograd.grad(
            found.sent, graph.vectors, found.moved(axis), retain_graph=True, allow_unused=True
        )
        flux[axis] += 0.0 if moment is None else (moment.double() * w).sum()
    return found.energies.detach(), flux


class _Found(NamedTuple):
    """Energies, their gradients G (E, 3), what was sent, and for each axis what goes back into it: −x^α a."""

    energies: Tensor
    gradients: Tensor | None
    sent: list[Tensor]
    moved: Callable[[int], list[Tensor]]


def _by_moments(energies: Callable[[Graph], Tensor], graph: Graph, messages: bool) -> _Found | None:
    """Sent are the features of nodes (N, D); None on GPUs, and where not only a convolution reads them."""
    if messages and not graph.vectors.is_cpu:
        return None
    op = torch.ops.mlplugins.message_moments
    op([graph.centers, graph.neighbors, graph.vectors.detach()])
    g = None
    try:
        u = energies(graph)
        if u.requires_grad:
            (g,) = torch.autograd.grad(u.sum(), graph.vectors, retain_graph=messages, allow_unused=True)
    finally:
        noted = op([])
    if not messages or not u.requires_grad:
        return _Found(u, g, [], lambda axis: [])
    moments = noted[1::2]
    if not noted or any(moment.dim() != 3 for moment in moments):
        return None
    return _Found(u, g, noted[::2], lambda axis: [moment[axis] for moment in moments])


def _by_copies(energies: Callable[[Graph], Tensor], graph: Graph) -> _Found:
    """Sent are copies (E, D) for every edge."""
    copies: list[Tensor] = []
    with _copied(graph, copies) as split:
        u = energies(split)
    copies = [each for each in copies if each.requires_grad]
    g, *back = torch.autograd.grad(
        u.sum(), [graph.vectors, *copies], retain_graph=len(copies) > 0, allow_unused=True
    )
    sent = [(copy, a) for copy, a in zip(copies, back) if a is not None]
    x = graph.vectors.detach()

    def moved(axis: int) -> list[Tensor]:
        return [-x[:, axis : axis + 1].to(a.dtype) * a for _, a in sent]

    return _Found(u, g, [copy for copy, _ in sent], moved)


@contextmanager
def _copied(graph: Graph, copies: list[Tensor]) -> Iterator[Graph]:
    """The graph in which the neighbour of every edge is a copy of its own, for the time of its evaluation;
    `copies` are the features (E, D) that were sent along edges, of every layer."""
    n, n_edges, device = graph.n_centers, graph.neighbors.shape[0], graph.neighbors.device
    torch.ops.mlplugins.message_copies(graph.neighbors, n)
    try:
        yield graph._replace(
            species=torch.cat([graph.species, graph.species.index_select(0, graph.neighbors)]),
            neighbors=torch.arange(n, n + n_edges, device=device),
            system=torch.cat([graph.system, graph.system.index_select(0, graph.neighbors)]),
        )
    finally:
        copies += torch.ops.mlplugins.message_copies(None, 0)
