"""Exchange of node features between the domains of LAMMPS."""

import torch
from torch import Tensor, nn

from mlplugins import ops


class GhostExchange(nn.Module):
    """Ghost rows of node features take their owners' values (identity outside LAMMPS' exchange mode)."""

    def __init__(self) -> None:
        super().__init__()
        ops.load()

    def forward(self, h: Tensor) -> Tensor:
        return torch.ops.mlplugins.ghost_exchange(h)
