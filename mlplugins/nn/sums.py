"""Sums of equivariant linear maps with constant weights, as one op: what inference makes of linear maps."""

import math
from typing import Any, List, Optional, Protocol, Sequence, Tuple

import torch
from torch import Tensor, nn

from mlplugins import ops
from mlplugins.ops.reference import STRIP


class Map(Protocol):
    """What a sum needs of a `mlplugins.nn.linear.Linear`."""

    irreps_in: Any
    irreps_out: Any
    weights: Any
    bias: Any
    per_species: bool

    def numbered_terms(self) -> List[List[int]]: ...


class LinearSum(nn.Module):
    """y = Σ_k s_k L_k(x_k) of linear maps with the same blocks of results.

    Matrices and their transposes are packed once and for all. Gradients with respect to x, of any order, are
    sums of the same kind; the weights are constants.

    Args:
        maps: one folded map per input.
        scales: s_k, by default 1.

    >>> from mlplugins.nn.irreps import o3
    >>> from mlplugins.nn.linear import Linear
    >>> one, two = (Linear(o3.Irreps(f"{n}x0e"), o3.Irreps("2x0e")) for n in (3, 4))
    >>> one.fold(), two.fold()
    (None, None)
    >>> x, z, species = torch.ones(5, 3).double(), torch.ones(5, 4).double(), torch.zeros(5).long()
    >>> y = one(x, species) + two(z, species)
    >>> torch.allclose(LinearSum([one, two])([x, z], species), y)
    True
    """

    weights: Tensor
    transposed: Tensor
    bias: Optional[Tensor]
    plan: List[int]
    back: List[int]

    def __init__(self, maps: Sequence[Map], scales: Sequence[float] = ()) -> None:
        super().__init__()
        ops.load()
        packed = _Packed(maps, scales or [1.0] * len(maps))
        self.plan, self.back = packed.plan, packed.back
        like = maps[0].weights[0].detach()
        for name, matrices in (("weights", packed.matrices), ("transposed", packed.transposed)):
            self.register_buffer(name, torch.cat(matrices) if matrices else like.new_zeros(0))
        biases = [each.bias.detach() for each in maps if each.bias is not None]
        self.register_buffer("bias", torch.stack(biases).sum(dim=0) if biases else None)

    def forward(self, x: List[Tensor], species: Tensor) -> Tensor:
        weights = [self.weights, self.transposed]
        y = torch.ops.mlplugins.linear_sums(x, species, weights, self.plan, self.back)[0]
        bias = self.bias
        if bias is not None:
            y = y + bias
        return y


class _Packed:
    """The plan of the sum and of its gradient, and their matrices (`mlplugins.ops.reference.linear_sums`)."""

    def __init__(self, maps: Sequence[Map], scales: Sequence[float]) -> None:
        outputs = _blocks(maps[0].irreps_out)
        into: List[List[List[int]]] = [[] for _ in outputs]  # sources of each block
        from_: List[List[List[List[int]]]] = [[[] for _ in _blocks(each.irreps_in)] for each in maps]
        self.matrices: List[Tensor] = []
        self.transposed: List[Tensor] = []
        size = back_size = 0
        target_of = {offset: k for k, (offset, _, _) in enumerate(outputs)}
        for index, (each, scale) in enumerate(zip(maps, scales, strict=True)):
            source_of = {offset: k for k, (offset, _, _) in enumerate(_blocks(each.irreps_in))}
            for source, target, _, channels, matrix, row in each.numbered_terms():
                w = (
                    each.weights[matrix].detach()[:, row : row + channels] * scale
                )  # (S or 1, channels, columns)
                block = outputs[target_of[target]]
                if w.shape[2] != block[2]:
                    raise ValueError("the maps of a sum have different blocks of results")
                forward, backward = _panels(w), _panels(w.transpose(1, 2))
                stride = (forward.shape[1], backward.shape[1]) if each.per_species else (0, 0)
                into[target_of[target]].append([index, source, channels, size, stride[0]])
                from_[index][source_of[source]].append([0, target, block[2], back_size, stride[1]])
                self.matrices.append(forward.reshape(-1))
                self.transposed.append(backward.reshape(-1))
                size, back_size = size + forward.numel(), back_size + backward.numel()
        self.plan = _numbers([maps[0].irreps_out.dim], [(0, *b) for b in outputs], into)
        inputs = [(k, *b) for k, each in enumerate(maps) for b in _blocks(each.irreps_in)]
        gathered = [sources for each in from_ for sources in each]
        self.back = _numbers([each.irreps_in.dim for each in maps], inputs, gathered)


def _blocks(irreps) -> List[Tuple[int, int, int]]:  # type: ignore[no-untyped-def]
    """Offset, 2l + 1 and channels of the blocks that are not empty."""
    found, offset = [], 0
    for channels, ir in irreps:
        if channels > 0:
            found.append((offset, ir.dim, channels))
        offset += channels * ir.dim
    return found


def _numbers(
    widths: List[int], targets: List[Tuple[int, int, int, int]], sources: List[List[List[int]]]
) -> List[int]:
    numbers = [len(widths), *widths]
    for target, given in zip(targets, sources, strict=True):
        numbers += [*target, len(given), *(number for source in given for number in source)]
    return numbers


def _panels(w: Tensor) -> Tensor:
    """Matrices (S, rows, columns) as (S, ⌈columns / STRIP⌉ · rows · STRIP), filled up with zeros."""
    n, rows, columns = w.shape
    strips = math.ceil(columns / STRIP)
    padded = w.new_zeros(n, rows, strips * STRIP)
    padded[:, :, :columns] = w
    return padded.reshape(n, rows, strips, STRIP).transpose(1, 2).reshape(n, -1)
