"""Members of a committee side by side in one network: all their channels in the same rows, none of which mix.

One convolution over wide rows costs less than several over narrow ones, so that the energies of all members
cost little more than half of what they cost one after the other. The linear maps are block diagonal.
"""

import copy
from typing import List, Optional, Sequence, cast

import torch
from torch import Tensor, nn

from mlplugins.models import nequip
from mlplugins.models.base import Potential
from mlplugins.nn.gate import split
from mlplugins.nn.irreps import o3
from mlplugins.nn.last_layer import LastLayer
from mlplugins.nn.linear import Linear
from mlplugins.nn.radial import RadialMLP

WIDEST = 64
"""Scalar channels of all members together; wider rows gain nothing, and the zeros of the maps cost."""


def stacked(terms: Sequence[Potential]) -> Optional[nequip.Model]:
    """The network whose last features are those of the members, one after the other; None where there is
    none: other families than nequip, other shapes, parts that see all channels, too many of these.

    Args:
        terms: folded for inference, with radial tables.
    """
    members = [term for term in terms if type(term) is nequip.Model]
    if len(members) < len(terms) or not all(map(_is_plain, members)):
        return None
    if len({_shape(member) for member in members}) > 1:
        return None
    layers = [[_interaction(member, k) for member in members] for k in range(members[0].n_layers)]
    if len(members) * max(part.irreps_out.count(o3.Irrep("0e")) for part, *_ in layers) > WIDEST:
        return None
    wide = copy.deepcopy(members[0])
    wide.embedding = nn.Parameter(torch.cat([m.embedding.detach() for m in members], dim=1), False)
    wide.interactions = nn.ModuleList([_side_by_side(parts, wide) for parts in layers])
    wide.average_neighbors.fill_(1.0)  # of each member, in its weights
    wide.exchange_width *= len(members)
    last = layers[-1][0].irreps_out.dim * len(members)
    wide.readout = RadialMLP([last, 1]).requires_grad_(False)  # not used
    wide.last_layer = LastLayer()
    wide.feature_width = 0
    return wide.to(members[0].embedding.dtype).eval()


def _interaction(member: nequip.Model, layer: int) -> nequip.Interaction:
    return cast(nequip.Interaction, member.interactions[layer])


def _is_plain(member: nequip.Model) -> bool:
    """Whether all of it is folded and keeps its channels to itself."""
    maps = [module for module in member.modules() if isinstance(module, Linear)]
    return (
        member.table_cutoff > 0.0
        and member.transform is None
        and member.repulsion is None
        and not member.heads
        and member.average_neighbors.dim() == 0
        and all(type(each) is Linear and each.folded and each.bias is None for each in maps)
        and all(_interaction(member, k).layer_norm is None for k in range(member.n_layers))
    )


def _shape(member: nequip.Model) -> tuple[object, ...]:
    """What members have to have in common."""
    parts = [_interaction(member, k) for k in range(member.n_layers)]
    numbers = (member.table_cutoff, member.cutoff, member.geometry.l_max, member.geometry.solid)
    kinds = [(str(p.irreps_in), str(p.gate.irreps_in), p.self_connection.per_species) for p in parts]
    knots = [tuple(p.convolution.radial.matrices()[0].shape) for p in parts]
    return (*numbers, *map(str, kinds), *knots, tuple(member.embedding.shape), member.embedding.dtype)


def _side_by_side(parts: List[nequip.Interaction], wide: nequip.Model) -> nequip.Interaction:
    """One interaction block of all members."""
    first, n = parts[0], len(parts)
    per_species = first.self_connection.per_species
    n_species = wide.embedding.shape[0]
    given = nequip.Hyperparameters(
        l_max=wide.geometry.l_max, radial_mlp=[], self_connection="species" if per_species else "linear"
    )
    block = nequip.Interaction(_times(first.irreps_in, n), _times(first.irreps_out, n), n_species, given)
    block.requires_grad_(False)
    gates = len(split(first.gate.irreps_out)[0]) if first.gate.n_gates else -1
    pairs = [
        (block.linear_up, [p.linear_up for p in parts], [1.0] * n, -1),
        (block.linear_down, [p.linear_down for p in parts], [1.0 / p.divisor for p in parts], gates),
        (block.self_connection, [p.self_connection for p in parts], [1.0] * n, gates),
    ]
    for whole, maps, scales, gate_block in pairs:
        for target, weight in enumerate(whole.weights):
            columns = first.gate.gate_sizes if target == gate_block else [maps[0].weights[target].shape[2]]
            matrices = [each.weights[target].detach() * s for each, s in zip(maps, scales)]
            weight.data = _diagonal(matrices, _rows(maps[0], target), columns)
        whole.folded = True
    sizes = [int(row[4]) for row in first.convolution.paths]  # channels of every path
    tables = [part.convolution.radial.matrices()[0].split(sizes, dim=2) for part in parts]
    knots = torch.cat([each[k] for k in range(len(sizes)) for each in tables], dim=2)
    block.convolution.use_radial_table(knots)
    return block


def _times(irreps: o3.Irreps, n: int) -> o3.Irreps:
    return o3.Irreps([(n * mul, ir) for mul, ir in irreps])


def _rows(each: Linear, target: int) -> List[int]:
    """Channels of the input blocks that enter one block of results, in order."""
    return [channels for _, _, _, channels, matrix, _ in each.numbered_terms() if matrix == target]


def _diagonal(matrices: Sequence[Tensor], rows: Sequence[int], columns: Sequence[int]) -> Tensor:
    """Matrices (S, R, C) as one (S, M R, M C), in every block of rows and columns one after the other."""
    n = len(matrices)
    species, height, width = matrices[0].shape
    found = matrices[0].new_zeros(species, n * height, n * width)
    r = 0
    for size in rows:
        c = 0
        for span in columns:
            for m, matrix in enumerate(matrices):
                top, left = n * r + m * size, n * c + m * span
                found[:, top : top + size, left : left + span] = matrix[:, r : r + size, c : c + span]
            c += span
        r += size
    return found
