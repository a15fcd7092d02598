"""The state of a mace-torch model, entry by entry, and its linear maps (`_mace_weights`, `_mace_blocks`)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from mlplugins.checkpoints._e3nn import unread
from mlplugins.errors import BadInput
from mlplugins.nn.convolution import Convolution
from mlplugins.nn.irreps import o3
from mlplugins.nn.linear import Linear

CONSTANTS = re.compile(
    r"(^(atomic_numbers|r_max|num_interactions)$"
    r"|bessel_fn\.(r_max|prefactor)$|cutoff_fn\.(p|r_max)$"
    r"|\.output_mask$|conv_tp\.weight$|weights(_max|_\d+)_zeroed$|_w3j_\d_\d_\d$)"
)
"""Entries of a state that hold no weights."""


class Source:
    """The state dictionary of mace-torch; every entry is taken once, in float64.

    Attributes:
        rows: which elements of the `n_elements` at home are kept.
    """

    def __init__(self, state: Mapping[str, Tensor], rows: list[int], n_elements: int) -> None:
        self.state = dict(state)
        self.rows = rows
        self.n_elements = n_elements
        self.taken: set[str] = set()
        precisions = {tensor.dtype for name, tensor in state.items() if name.endswith("linear_up.weight")}
        if precisions not in ({torch.float32}, {torch.float64}):
            raise BadInput(
                "MACE state: expected weights named 'interactions.….linear_up.weight' in float32 or float64, "
                f"found {sorted(str(precision) for precision in precisions) or 'none'}"
            )
        self.dtype: torch.dtype = precisions.pop()

    def take(self, name: str, size: int | None = None) -> Tensor:
        if name not in self.state:
            raise BadInput(f"MACE state: no entry '{name}'; the configuration does not fit the weights")
        tensor = self.state[name].detach().to("cpu", torch.float64)
        if size is not None and tensor.numel() != size:
            raise BadInput(f"MACE state: '{name}' has {tensor.numel()} values, expected {size}")
        self.taken.add(name)
        return tensor

    def finish(self) -> None:
        """Refuse entries that were not used, and coupling coefficients of another sign or scale."""
        for name, tensor in self.state.items():
            match = re.search(r"_w3j_(\d)_(\d)_(\d)$", name)
            if match:
                degrees = [int(degree) for degree in match.groups()]
                ours = o3.wigner_3j(*degrees, dtype=torch.float64)
                if not torch.allclose(tensor.to(torch.float64), ours, rtol=0, atol=1e-6):
                    raise BadInput(
                        f"MACE state: '{name}' differs from this package's Clebsch–Gordan coefficients"
                    )
        rest = [name for name in unread(self.state, CONSTANTS) if name not in self.taken]
        if rest:
            raise BadInput(f"MACE state: entries without a place in this architecture: {', '.join(rest)}")


def fill_linear(linear: Linear, source: Source, name: str) -> None:
    """Blocks of the flat weight of mace-torch: one per output irrep, fan in × channels."""
    flat = source.take(name, sum(weight.numel() for weight in linear.weights))
    start = 0
    for weight in linear.weights:
        weight.copy_(flat[start : start + weight.numel()].view(weight.shape))
        start += weight.numel()


def fill_element_map(linear: Linear, source: Source, name: str) -> None:
    """mace-torch orders channels in × elements × channels out; its norm counts the elements as fan in."""
    n = source.n_elements
    sizes = [n * weight[0].numel() for weight in linear.weights]
    for weight, block in zip(linear.weights, source.take(name, sum(sizes)).split(sizes)):
        _, n_in, n_out = weight.shape
        weight.copy_(block.view(n_in, n, n_out)[:, source.rows].transpose(0, 1) / math.sqrt(n))


def path_order(convolution: Convolution) -> list[int]:
    """Where the paths of mace-torch, sorted by output irrep, stand among ours."""
    blocks = list(convolution.irreps_out)
    return sorted(range(len(blocks)), key=lambda path: (blocks[path].ir.l, path))


def columns_of_paths(weight: Tensor, convolution: Convolution) -> Tensor:
    """Radial weights (…, Σ_paths channels) of mace-torch in the order of our paths."""
    blocks, home = list(convolution.irreps_out), path_order(convolution)
    by_path = dict(zip(home, weight.split([blocks[path].mul for path in home], dim=-1)))
    return torch.cat([by_path[path] for path in range(len(blocks))], dim=-1)
