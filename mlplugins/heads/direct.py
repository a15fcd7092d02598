"""Direct forces: vectors along the edges, in the place of the gradients of an energy.

    g_e = s (a_e v̂_e + b_e)

with the scalars a_e and vectors b_e of `PairFunctions`. Forces and stress follow from g_e as from ∂E/∂v_e
(`models.base.edge_sums`): what one atom gains the other loses, so that the net force is zero however the
atoms are divided among processes. The pair terms a_e leave the angular momentum alone as well; the terms b_e,
without which forces out of the plane of a flat molecule are hard to represent, do not.
"""

from dataclasses import dataclass
from typing import Dict

import torch
from torch import Tensor, nn

from mlplugins.heads import LabelSizes, Trunk
from mlplugins.heads._pairs import PairFunctions
from mlplugins.structures.graph import Graph


@dataclass(frozen=True)
class Hyperparameters:
    """Hyper-parameters.

    Attributes:
        channels: channels k of every degree.
        num_basis: Bessel functions.
        width: hidden width of the network that gates the features.
        vectors: with the terms b_e; without them the net torque is zero, too.
    """

    channels: int = 16
    num_basis: int = 8
    width: int = 32
    vectors: bool = True


class Head(nn.Module):
    """A vector for every edge.

    Raises:
        BadInput: a hyper-parameter that is not positive.
    """

    scale: Tensor

    def __init__(self, name: str, trunk: Trunk, hyperparameters: Hyperparameters) -> None:
        super().__init__()
        h = hyperparameters
        self.pairs = PairFunctions(name, trunk, (h.channels, h.num_basis, h.width), h.vectors)
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))

    @torch.jit.unused
    def initialise(self, sizes: LabelSizes) -> None:
        self.scale.fill_(sizes.rms[0])

    def forward(self, graph: Graph, found: Dict[str, Tensor]) -> Tensor:
        a, b = self.pairs(graph, found)
        directions = graph.vectors / torch.linalg.vector_norm(graph.vectors, dim=1, keepdim=True)
        return self.scale * (a.unsqueeze(1) * directions + b)
