"""Weights of networks built with e3nn, rearranged for the blocks of `nn` (shared by several readers).

e3nn merges equal irreps and holds one flat weight per module; here every block has its own matrix. Matrices
are matched by irrep, and the channels within an irrep by path or gate, so no common order is assumed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from mlplugins.errors import BadInput
from mlplugins.models import nequip
from mlplugins.nn.convolution import Convolution
from mlplugins.nn.gate import Gate, split
from mlplugins.nn.irreps import o3
from mlplugins.nn.linear import Linear


class TensorPath(NamedTuple):
    """A path of a convolution: input irrep ⊗ harmonic of `degree` → output irrep, and its channels."""

    ir_in: o3.Irrep
    degree: int
    ir_out: o3.Irrep
    channels: int

    @property
    def sort_key(self) -> tuple[int, int]:
        """Order of the output irreps when e3nn sorts them."""
        return self.ir_out.l, self.ir_out.p


def paths(irreps_in: o3.Irreps, harmonics: o3.Irreps, kept: Iterable[o3.Irrep]) -> list[TensorPath]:
    """Paths into the irreps `kept`, in the order in which e3nn networks list their instructions."""
    kept = set(kept)
    return [
        TensorPath(ir_in, degree, ir_out, channels)
        for channels, ir_in in irreps_in
        for degree, (_, harmonic) in enumerate(harmonics)
        for ir_out in ir_in * harmonic
        if ir_out in kept
    ]


def paths_of(convolution: Convolution, irreps_in: o3.Irreps) -> list[TensorPath]:
    """The paths of one of our convolutions, in its order."""
    return [
        TensorPath(irreps_in[block].ir, degree, ir_out, channels)
        for (block, degree), (channels, ir_out) in zip(convolution.sources, convolution.irreps_out)
    ]


def channel_order(theirs: list[TensorPath], ours: list[TensorPath]) -> Tensor:
    """Index into the channels of the paths `theirs`, concatenated, that gives those of `ours`.

    Raises:
        BadInput: one of our paths is not among theirs.
    """
    start, offset = {}, 0
    for path in theirs:
        start[path] = offset
        offset += path.channels
    missing = [path for path in ours if path not in start]
    if missing:
        path = missing[0]
        raise BadInput(f"the path {path.ir_in} ⊗ Y{path.degree} → {path.ir_out} is not in the checkpoint")
    index = [torch.arange(start[path], start[path] + path.channels) for path in ours]
    return torch.cat(index) if index else torch.zeros(0, dtype=torch.long)


def merged_gate_input(irreps: o3.Irreps) -> o3.Irreps:
    """What e3nn's Gate takes to produce `irreps`: scalars, gates and gated, sorted and merged."""
    scalars = o3.Irreps([(mul, ir) for mul, ir in irreps if ir.l == 0])
    gated = o3.Irreps([(mul, ir) for mul, ir in irreps if ir.l > 0])
    gates = o3.Irreps([(mul, (0, 1)) for mul, _ in gated])
    return (scalars + gates + gated).sort().irreps.simplify()


def gate_columns(gate: Gate, irreps: o3.Irreps) -> list[tuple[o3.Irrep, Tensor]]:
    """For every block of our gate's input: its irrep, and its channels within e3nn's merged irrep.

    Args:
        gate: ours.
        irreps: output of e3nn's gate, in its order.
    """
    scalars, gated = split(gate.irreps_out)
    start, offset = {}, irreps.count(o3.Irrep("0e"))
    for mul, ir in irreps:
        if ir.l > 0:
            start[ir] = offset
            offset += mul
    columns = [(ir, torch.arange(mul)) for mul, ir in scalars]
    if len(gated) > 0:
        gates = [torch.arange(start[ir], start[ir] + mul) for mul, ir in gated]
        columns.append((o3.Irrep("0e"), torch.cat(gates)))
    return columns + [(ir, torch.arange(mul)) for mul, ir in gated]


def linear_matrices(
    flat: Tensor, irreps_in: o3.Irreps, irreps_out: o3.Irreps, n_species: int = 0
) -> dict[o3.Irrep, Tensor]:
    """Matrices (species or 1, channels in, channels out) of every irrep, normalised as `nn.linear.Linear`.

    Args:
        flat: weight of an e3nn Linear between merged irreps, or, with `n_species` > 0, of the
            FullyConnectedTensorProduct with the one-hot species.
        irreps_in, irreps_out: of that module.
        n_species: elements of the one-hot encoding.
    """
    n = max(n_species, 1)
    shapes = [(ir, a, b) for a, ir in irreps_in for b, other in irreps_out if ir == other]
    parts = flat.reshape(-1).split([a * n * b for _, a, b in shapes])
    return {
        ir: part.reshape(a, n, b).transpose(0, 1) / math.sqrt(n) for (ir, a, b), part in zip(shapes, parts)
    }


def n_weights(irreps_in: o3.Irreps, irreps_out: o3.Irreps, n_species: int = 0) -> int:
    """Length of the flat weight that `linear_matrices` expects."""
    n = max(n_species, 1)
    return sum(a * n * b for a, ir in irreps_in for b, other in irreps_out if ir == other)


def fill_linear(linear: Linear, blocks: list[Tensor | None]) -> None:
    """Copy one matrix per output block; None where nothing reaches the block."""
    for weight, block in zip(linear.weights, blocks, strict=True):
        if block is not None:
            if weight.shape != block.shape:
                raise BadInput(
                    f"a linear layer of shape {tuple(block.shape)}, expected {tuple(weight.shape)}"
                )
            weight.copy_(block)
        elif weight.numel() > 0:
            raise BadInput(f"no weights for a linear layer of shape {tuple(weight.shape)}")


def fill_linears(
    interaction: nequip.Interaction,
    irreps: tuple[o3.Irreps, o3.Irreps],
    theirs: list[TensorPath],
    matrices: dict[str, dict[o3.Irrep, Tensor]],
) -> None:
    """The three linear maps of an interaction block.

    Args:
        interaction: ours.
        irreps: of the block's input (theirs) and of the gate's output (theirs).
        theirs: paths of their convolution, in the order of its output channels.
        matrices: `linear_matrices` of `linear_up`, `linear_down`, `self_connection`.
    """
    columns = gate_columns(interaction.gate, irreps[1])
    ours = paths_of(interaction.convolution, interaction.irreps_in)
    up, down, shortcut = (matrices[name] for name in ("linear_up", "linear_down", "self_connection"))
    rows = {
        ir: channel_order([p for p in theirs if p.ir_out == ir], [p for p in ours if p.ir_out == ir])
        for ir in down
    }
    fill_linear(interaction.linear_up, [up.get(ir) for _, ir in interaction.irreps_in])
    fill_linear(
        interaction.linear_down,
        [down[ir][:, rows[ir]][:, :, index] if ir in down else None for ir, index in columns],
    )
    fill_linear(
        interaction.self_connection,
        [shortcut[ir][:, :, index] if ir in shortcut else None for ir, index in columns],
    )


def coupling_sign(stored: Tensor, l1: int, l2: int, l3: int) -> int:
    """1 or −1 if Clebsch–Gordan coefficients of a checkpoint are ours or their opposite, else 0.

    e3nn changed the sign of (1,2,2) (2,1,2) (2,2,1) (1,3,3) (3,1,3) (3,3,1) between its releases.

    >>> coupling_sign(-o3.wigner_3j(1, 2, 2), 1, 2, 2)
    -1
    """
    ours = o3.wigner_3j(l1, l2, l3, dtype=torch.float64)
    if stored.shape == ours.shape:
        for sign in (1, -1):
            if torch.allclose(sign * stored.to(torch.float64), ours, rtol=0, atol=1e-6):
                return sign
    return 0


def unread(state: Mapping[str, Tensor], constants: re.Pattern[str]) -> list[str]:
    """Entries of a state that act on the model and are not among its constants: e3nn's linear maps without a
    bias have an empty one.
    """
    return [
        name
        for name, value in state.items()
        if not constants.search(name) and not (name.endswith(".bias") and not value.any())
    ]
