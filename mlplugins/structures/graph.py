"""A structure as a model sees it: atoms, and directed edges between neighbours, as plain tensors."""

# no postponed annotations here: TorchScript reads the types of the fields
from typing import NamedTuple, Optional

from torch import Tensor


class Graph(NamedTuple):
    """N nodes and E edges of one or more structures.

    TorchScript has no `_replace`: write `Graph(graph.species, …)` with all fields. A loaded program takes any
    tuple of the same fields.

    Attributes:
        species: (N,) int64, index into the model's element list.
        centers: (E,) int64, edge e points from centre i …; ascending.
        neighbors: (E,) int64, … to neighbour j.
        vectors: (E, 3), r_j − r_i + shift, Å.
        system: (N,) int64, which structure a node belongs to.
        n_centers: nodes from here on are ghosts: no edges of their own, no energy.
        state: (S, 2), charge (e) and spin multiplicity of each structure; None: 0 and 1 for all.
    """

    species: Tensor
    centers: Tensor
    neighbors: Tensor
    vectors: Tensor
    system: Tensor
    n_centers: int
    state: Optional[Tensor] = None
