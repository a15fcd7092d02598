"""Charges that flow along the edges, so that they add up to the charge of the structure exactly.

    q_i = Q/N + Σ_{e: centre i} p_e − Σ_{e: neighbour i} p_e

with a flow p_e into the centre (`PairFunctions`). Q is zero for families that take no charge. Σ_i q_i r_i of
the second and third term is −Σ_e p_e v_e, which knows no origin and no cell (`heads/dipole.py`).
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
        channels: channels of every degree.
        num_basis: Bessel functions.
        width: hidden width of the network that gates the features.
    """

    channels: int = 16
    num_basis: int = 8
    width: int = 32


class Head(nn.Module):
    """A charge of every atom, e.

    Raises:
        BadInput: a hyper-parameter that is not positive.
    """

    scale: Tensor

    def __init__(self, name: str, trunk: Trunk, hyperparameters: Hyperparameters) -> None:
        super().__init__()
        h = hyperparameters
        self.pairs = PairFunctions(name, trunk, (h.channels, h.num_basis, h.width), vectors=False)
        self.takes_charge = "charge" in trunk.inputs
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))

    @torch.jit.unused
    def initialise(self, sizes: LabelSizes) -> None:
        self.scale.fill_(sizes.rms[0])

    def flow(self, graph: Graph, found: Dict[str, Tensor]) -> Tensor:
        """p_e (E,), computed once for all heads that need it."""
        if "charge_flow" not in found:
            found["charge_flow"] = self.scale * self.pairs(graph, found)[0]
        return found["charge_flow"]

    def forward(self, graph: Graph, found: Dict[str, Tensor]) -> Tensor:
        if 0 < graph.n_centers < graph.species.shape[0]:
            raise RuntimeError(
                "charges: other processes hold flows into these atoms: expected all their edges"
            )
        p = self.flow(graph, found).to(
            torch.float64
        )  # what leaves one atom reaches the other to the last digit
        q = torch.zeros(graph.species.shape[0], dtype=p.dtype, device=p.device)
        q = q.index_add(0, graph.centers, p).index_add(0, graph.neighbors, -p)
        state = graph.state
        if self.takes_charge and state is not None:
            size = torch.bincount(graph.system, minlength=state.shape[0])
            q = q + (state[:, 0].to(p.dtype) / size).index_select(0, graph.system)
        return q[: graph.n_centers]
