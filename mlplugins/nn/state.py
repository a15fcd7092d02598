"""Embedding of the charge and spin multiplicity of a structure, added to the features of its atoms."""

from typing import Dict, List, Tuple

import torch
from torch import Tensor, nn

from mlplugins.errors import BadInput
from mlplugins.structures.graph import Graph

COLUMNS = ("charge", "spin_multiplicity")
"""Of `Graph.state`."""
DEFAULTS = (0.0, 1.0)


class StateTable(nn.Module):
    """A vector for each whole number from `lowest` to `highest`."""

    def __init__(self, name: str, lowest: int, highest: int, width: int) -> None:
        super().__init__()
        self.name, self.lowest, self.highest = name, lowest, highest
        self.weight = nn.Parameter(torch.randn(highest - lowest + 1, width, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        index = torch.round(x)
        if bool(((index != x) | (x < self.lowest) | (x > self.highest)).any()):
            raise ValueError(
                f"{self.name}: the model knows whole numbers from {self.lowest} to {self.highest}"
            )
        return self.weight.index_select(0, index.to(torch.long) - self.lowest)  # (S, width)


class StateNetwork(nn.Module):
    """A vector that depends on any number through one hidden layer."""

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(1, hidden, dtype=torch.float64)
        self.second = nn.Linear(hidden, width, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.nn.functional.silu(self.first(x.to(self.first.weight.dtype).unsqueeze(1)))
        vectors: Tensor = self.second(h)
        return vectors  # (S, width)


class StateEmbedding(nn.Module):
    """silu(c + Σ_k f_k(x_k)) of charge and spin multiplicity x_k (the joint embedding of mace-torch).

    Args:
        inputs: `charge`, `spin_multiplicity` → the lowest and highest whole number of a `StateTable`, or the
            width of a `StateNetwork`.
        width: of the vectors.
        readout: energies are read out of the vectors.

    Attributes:
        known: the lowest and the highest value of each input.

    >>> embedding = StateEmbedding({"charge": [-1, 1], "spin_multiplicity": [4]}, 3, False)
    >>> zero = torch.zeros(5, dtype=torch.long)
    >>> graph = Graph(zero, zero, zero, torch.zeros(5, 3), zero, 5, torch.tensor([[-1.0, 2.0]]))
    >>> embedding(graph).shape, embedding.known["charge"]
    (torch.Size([5, 3]), (-1.0, 1.0))

    Raises:
        BadInput: another input, or other numbers.
    """

    constant: Tensor

    def __init__(self, inputs: Dict[str, List[int]], width: int, readout: bool) -> None:
        super().__init__()
        self.columns: List[int] = []
        self.known: Dict[str, Tuple[float, float]] = {}
        parts: List[nn.Module] = []
        for name, numbers in inputs.items():
            if name not in COLUMNS or len(numbers) not in (1, 2) or numbers[-1] < [1, *numbers][-2]:
                _refuse(name, numbers)
            if len(numbers) == 1:
                parts.append(StateNetwork(numbers[0], width))
                self.known[name] = (float("-inf"), float("inf"))
            else:
                parts.append(StateTable(name, numbers[0], numbers[1], width))
                self.known[name] = (float(numbers[0]), float(numbers[1]))
            self.columns.append(COLUMNS.index(name))
        self.parts = nn.ModuleList(parts)
        self.register_buffer("constant", torch.zeros(width, dtype=torch.float64))
        self.readout = nn.Parameter(torch.zeros(width, dtype=torch.float64)) if readout else None
        self.defaults: List[float] = list(DEFAULTS)

    def forward(self, graph: Graph) -> Tensor:
        """The vector of every node's structure, (N, width)."""
        state, system = graph.state, graph.system
        if state is None:
            state = torch.tensor([self.defaults], dtype=torch.float64, device=system.device)
            system = torch.zeros_like(system)
        total = self.constant.expand(state.shape[0], -1)
        for index, part in enumerate(self.parts):
            total = total + part(state[:, self.columns[index]])
        return torch.nn.functional.silu(total).index_select(0, system)

    @torch.jit.export
    def energies(self, vectors: Tensor) -> Tensor:
        """Energies of atoms whose structures have these vectors, eV."""
        readout = self.readout
        if readout is None:
            return vectors.new_zeros(vectors.shape[0])
        return vectors @ readout


def _refuse(name: str, numbers: List[int]) -> None:
    raise BadInput(
        f"state: {name}: {numbers}; expected {' or '.join(COLUMNS)}, and the lowest and highest whole number "
        "of a table ([-4, 4]), or the width of a network ([16])"
    )
