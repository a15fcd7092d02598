"""Dipoles: of charges that flow between atoms, and of the atoms themselves.

    μ = −Σ_e p_e v_e + Σ_i μ_i

with the flow p_e of `heads/charges.py`, shared with that head if there is one, and tensors μ_i of
`heads/tensor.py`. Both are sums of terms of the surroundings of atoms: no origin, no choice of a cell.
"""

from dataclasses import dataclass
from typing import Dict

import torch
from torch import Tensor, nn

from mlplugins.errors import BadInput
from mlplugins.heads import LabelSizes, Trunk, charges, tensor
from mlplugins.structures.graph import Graph


@dataclass(frozen=True)
class Hyperparameters:
    """Hyper-parameters.

    Attributes:
        channels: of the flow of charges (that of the head `charges`, if there is one); 0: without it.
        num_basis: Bessel functions of the flow.
        width: hidden width of the networks.
        atomic: with dipoles of the atoms; without, the dipole is that of point charges.
        origin: the point that dipoles of charged structures are relative to, in words: a record for readers.
    """

    channels: int = 16
    num_basis: int = 8
    width: int = 32
    atomic: bool = True
    origin: str | None = None


class Head(nn.Module):
    """The share of every atom in the dipole, e·Å.

    Raises:
        BadInput: neither charges nor dipoles of atoms, no layer with features of irrep 1o, a hyper-parameter
            that is not positive.
    """

    def __init__(self, name: str, trunk: Trunk, hyperparameters: Hyperparameters) -> None:
        super().__init__()
        h = hyperparameters
        shared = trunk.heads.get("charges")
        if not h.atomic and h.channels == 0:
            raise BadInput(
                f"heads: {name}: without atomic dipoles 'channels' of charges must be positive, got 0"
            )
        options = charges.Hyperparameters(h.channels, h.num_basis, h.width)
        self.flow = (shared or charges.Head(name, trunk, options)) if h.channels != 0 else None
        self.owns_flow = shared is None
        self.atomic = tensor.Head(name, trunk, tensor.Hyperparameters(h.width)) if h.atomic else None

    @torch.jit.unused
    def initialise(self, sizes: LabelSizes) -> None:
        for part in (self.flow if self.owns_flow else None, self.atomic):
            if part is not None:
                part.initialise(sizes)  # type: ignore[operator]

    def forward(self, graph: Graph, found: Dict[str, Tensor]) -> Tensor:
        total = torch.zeros(graph.n_centers, 3, dtype=graph.vectors.dtype, device=graph.vectors.device)
        if self.flow is not None:
            p = self.flow.flow(graph, found)  # type: ignore[operator]
            total = total.index_add(0, graph.centers, -p.unsqueeze(1) * graph.vectors)
        if self.atomic is not None:
            total = total + self.atomic(graph, found)
        return total
