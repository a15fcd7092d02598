"""Low-rank updates of linear maps: W + (α/r) A B (Hu et al., LoRA, arXiv 2106.09685, section 4.1)."""

from typing import Iterator, Tuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from mlplugins.errors import BadInput
from mlplugins.nn.linear import Linear
from mlplugins.nn.radial import RadialMLP


class LowRank(nn.Module):
    """W ↦ W + (α/r) A B with A (…, a, r) and B (…, r, b) for W (…, a, b); B starts at zero.

    The rank is at most min(a, b); maps with weights per element get factors per element.

    >>> update = LowRank(torch.zeros(1, 6, 4), rank=2, alpha=2.0)
    >>> update.a.shape, update.b.shape
    (torch.Size([1, 6, 2]), torch.Size([1, 2, 4]))
    """

    def __init__(self, weight: Tensor, rank: int, alpha: float) -> None:
        super().__init__()
        rows, columns = weight.shape[-2:]
        self.scale = alpha / rank
        rank = min(rank, rows, columns)
        lead = list(weight.shape[:-2])
        self.a = nn.Parameter(torch.randn([*lead, rows, rank], dtype=weight.dtype, device=weight.device))
        self.b = nn.Parameter(torch.zeros([*lead, rank, columns], dtype=weight.dtype, device=weight.device))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.scale * torch.matmul(self.a, self.b)


def attach(model: nn.Module, rank: int, alpha: float) -> None:
    """Give every linear map and every radial and readout network of `model` a low-rank update.

    What is trained are the factors alone: all other parameters are frozen.

    Raises:
        BadInput: rank below 1, or nothing to update.
    """
    if rank < 1:
        raise BadInput(f"lora: the rank must be 1 or more, got {rank}")
    model.requires_grad_(False)
    found = list(_weights(model))
    if not found:
        raise BadInput("lora: the model has no linear maps; choose another strategy")
    for weights, name in found:
        weight = getattr(weights, name)
        parametrize.register_parametrization(weights, name, LowRank(weight, rank, alpha))


def merge(model: nn.Module) -> None:
    """Replace every W by W + (α/r) A B: the model has its own architecture again."""
    found = list(_weights(model))
    for weights, name in found:
        if parametrize.is_parametrized(weights, name):
            parametrize.remove_parametrizations(weights, name)
    for weights, _ in found:
        for name in sorted(weights._parameters, key=int):  # TorchScript goes by this order
            weights._parameters[name] = weights._parameters.pop(name)


def _weights(model: nn.Module) -> Iterator[Tuple[nn.Module, str]]:
    """Lists of weights and the name of each weight in them; empty matrices left out."""
    for module in model.modules():
        if isinstance(module, Linear | RadialMLP):
            for index in range(len(module.weights)):
                if module.weights[index].numel() > 0:
                    yield module.weights, str(index)
