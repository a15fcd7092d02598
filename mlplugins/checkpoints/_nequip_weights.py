"""Weights of nequip ≥ 0.7 models for the family `nequip` (the files are read in `checkpoints.nequip`).

| nequip (e3nn)                                  | here                                                  |
|------------------------------------------------|-------------------------------------------------------|
| irreps merged, one weight matrix each          | one per block (scalars, gates, every path)            |
| self-connection: weights × type embedding      | one matrix per element, none (zero) in the first layer |
| Wigner 3j of the e3nn it was trained with      | those of ours: −1 goes into the path's radial weights |
| 2/r_c before the Bessel functions              | √(2/r_c): the rest in the first radial layer          |
| gain √2 after every silu                       | silu of unit second moment                            |
| shift of every element                         | composition baseline, added in float64                |
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from mlplugins.checkpoints._e3nn import (
    TensorPath,
    channel_order,
    coupling_sign,
    fill_linears,
    linear_matrices,
    merged_gate_input,
    n_weights,
    paths,
    paths_of,
    unread,
)
from mlplugins.errors import BadInput
from mlplugins.models import nequip
from mlplugins.nn.irreps import o3
from mlplugins.nn.radial import SILU_NORM

CONSTANTS = re.compile(
    r"(\.output_mask|\.tp\.weight|equivariant_nonlin\.mul\.weight|_w3j_\d_\d_\d|_rmax_recip|_empty|\.alpha"
    r"|\.norm_const|spharm\..*|factor\..*)$"
)
"""Entries of a state that hold no weights."""
GAIN = math.sqrt(2.0)
"""What nequip's perceptrons multiply after an activation."""


SCREENING_A = 0.46850
"""Length of the screening as nequip takes it from LAMMPS, Å."""


class LayerIrreps(NamedTuple):
    """Irreps into and out of an interaction block, and of the harmonics of its convolution."""

    irreps_in: o3.Irreps
    irreps_out: o3.Irreps
    harmonics: o3.Irreps


class Weights:
    """A state dictionary below the sequence of nequip's modules, every entry asked for by name, in float64.

    Args:
        state: name → tensor, without the common prefix.
        rows: which elements are kept.
        same_signs: Clebsch–Gordan coefficients that are not in the state have our sign.
        layers: irreps of every layer in nequip's order, where they are not ours.
        one_hot: self-connections take the one-hot elements, not their embedding.
    """

    def __init__(
        self,
        state: Mapping[str, Tensor],
        rows: Sequence[int],
        same_signs: bool,
        layers: Sequence[LayerIrreps] = (),
        one_hot: bool = False,
    ) -> None:
        self.layers = list(layers)
        self.one_hot = one_hot
        self.state = dict(state)
        self.rows = list(rows)
        self.same_signs = same_signs
        self.taken: set[str] = set()

    def get(self, name: str, *shape: int) -> Tensor:
        """A weight of this shape (−1: any length)."""
        if name not in self.state:
            raise BadInput(f"nequip: no weight '{name}'; the configuration does not fit the weights")
        weight = self.state[name].detach().to(torch.float64)
        fits = weight.numel() % math.prod(abs(n) for n in shape) == 0
        if not fits or (-1 not in shape and weight.numel() != math.prod(shape)):
            raise BadInput(f"nequip: '{name}' has shape {tuple(weight.shape)}, expected {shape}")
        self.taken.add(name)
        return weight.reshape(shape)

    def sign(self, prefix: str, path: TensorPath) -> int:
        """−1 if the path's Clebsch–Gordan coefficients have the opposite sign of ours."""
        degrees = (path.ir_in.l, path.degree, path.ir_out.l)
        if 0 in degrees:
            return 1  # e3nn multiplies and contracts directly
        name = f"{prefix}tp_scatter.tp._compiled_main_left_right._w3j_{'_'.join(map(str, degrees))}"
        if name in self.state:
            sign = coupling_sign(self.state[name], *degrees)
            if sign == 0:
                raise BadInput(
                    f"nequip: '{name}' is neither ours nor its opposite: unknown convention of e3nn"
                )
            return sign
        if sum(degrees) % 2 and not self.same_signs:  # even sums never changed
            raise BadInput(
                f"nequip: the file holds no Clebsch–Gordan coefficients for {degrees}, and the e3nn that "
                "wrote it may have had other signs; convert the checkpoint (.ckpt) instead"
            )
        return 1

    def matrices(
        self, name: str, irreps_in: o3.Irreps, irreps_out: o3.Irreps, n: int = 0
    ) -> dict[o3.Irrep, Tensor]:
        """A linear map between merged irreps; one for each of `n` features of the nodes, if any."""
        flat = self.get(name, n_weights(irreps_in, irreps_out, n))
        return linear_matrices(flat, irreps_in, irreps_out, n)

    def finish(self) -> None:
        """Refuse entries that were not used."""
        rest = [name for name in unread(self.state, CONSTANTS) if name not in self.taken]
        if rest:
            raise BadInput(f"nequip: entries without a place in this architecture: {', '.join(rest)}")


def fill(model: nequip.Model, weights: Weights, average_neighbors: Tensor) -> list[float]:
    """Copy all weights into the model; returns the shift of every element, eV.

    Args:
        model: of this architecture.
        weights: of nequip's.
        average_neighbors: (), or one for every element of the model.
    """
    embedding = weights.get("type_embed.embed_module.weight", -1, model.embedding.shape[1])
    n_types = embedding.shape[0]
    embedding = embedding[weights.rows]
    model.embedding.copy_(embedding)
    n_basis = model.basis.roots.numel()
    model.basis.roots.copy_(weights.get("bessel_encode.bessel_weights", n_basis) * math.pi)
    model.average_neighbors.copy_(average_neighbors)
    harmonics = o3.Irreps.spherical_harmonics(model.geometry.l_max)
    types = torch.eye(n_types, dtype=torch.float64)[weights.rows] if weights.one_hot else embedding
    for t, module in enumerate(model.interactions):
        interaction = cast(nequip.Interaction, module)
        prefix = f"layer{t}_convnet.conv."
        own = LayerIrreps(interaction.irreps_in, interaction.irreps_out, harmonics)
        layer = weights.layers[t] if weights.layers else own
        theirs = _fill_linears(interaction, weights, prefix, types, layer)
        _fill_radial(interaction, weights, prefix, theirs)
        interaction.convolution.radial.weights[0].mul_(math.sqrt(2.0 / model.cutoff))
    shapes = [tuple(weight.shape) for weight in model.readout.weights]
    matrices = _perceptron(weights, "per_atom_energy_readout.mlp_module.mlp.", shapes)
    for weight, matrix in zip(model.readout.weights, matrices):
        weight.copy_(matrix)
    prefix = "per_type_energy_scale_shift."
    scale, shift = (
        weights.get(f"{prefix}{name}", -1).expand(n_types)[weights.rows]
        if weights.state[f"{prefix}{name}"].numel()
        else torch.full((len(weights.rows),), default, dtype=torch.float64)
        for name, default in (("scales", 1.0), ("shifts", 0.0))
    )
    weights.taken |= {f"{prefix}scales", f"{prefix}shifts"}
    model.energy_scale.copy_(scale)
    if model.repulsion is not None:
        _fill_repulsion(model, model.repulsion, weights, n_types)
    weights.finish()
    return cast("list[float]", shift.tolist())


def _fill_repulsion(model: nequip.Model, zbl: nn.Module, weights: Weights, n_types: int) -> None:
    """ZBL that ends at the cutoff of the pair."""
    z = weights.get("pair_potential.atomic_numbers", n_types)[weights.rows]
    half = weights.get("pair_potential._qqr2exesquare", 1)  # of the energy of a pair, for either atom
    buffers = dict(zbl.named_buffers())
    buffers["charge_product"].copy_(2.0 * half * z[:, None] * z[None, :])
    buffers["screening_length"].copy_(SCREENING_A / (z[:, None] ** 0.23 + z[None, :] ** 0.23))
    stretch = torch.ones(()) if model.transform is None else model.transform.stretch
    buffers["range"].copy_(model.cutoff / stretch)


def _fill_linears(
    interaction: nequip.Interaction, weights: Weights, prefix: str, types: Tensor, layer: LayerIrreps
) -> list[TensorPath]:
    """The linear maps; returns nequip's paths in the order of its radial weights.

    Args:
        interaction: ours.
        weights: theirs, below `prefix`.
        prefix: of the layer.
        types: (elements, features) what the self-connection takes of every element.
        layer: its irreps, in nequip's order.
    """
    irreps_in, irreps_out, harmonics = layer
    merged = merged_gate_input(irreps_out)
    theirs = paths(irreps_in, harmonics, {ir for _, ir in merged})
    by_output = sorted(theirs, key=lambda path: path.sort_key)
    middle = o3.Irreps([(path.channels, path.ir_out) for path in by_output]).simplify()
    matrices = {
        "linear_up": weights.matrices(f"{prefix}linear_1.weight", irreps_in, irreps_in),
        "linear_down": weights.matrices(f"{prefix}linear_2.weight", middle, merged),
    }
    if f"{prefix}sc.weight" in weights.state:
        n = types.shape[1]
        products = weights.matrices(f"{prefix}sc.weight", irreps_in, merged, n)
        matrices["self_connection"] = {
            ir: torch.einsum("st,tab->sab", types, product) for ir, product in products.items()
        }
    else:
        matrices["self_connection"] = {
            ir: torch.zeros(len(types), a, b, dtype=torch.float64)
            for a, ir in irreps_in
            for b, other in merged
            if ir == other
        }
    fill_linears(interaction, (irreps_in, irreps_out), by_output, matrices)
    return theirs


def _fill_radial(
    interaction: nequip.Interaction, weights: Weights, prefix: str, theirs: list[TensorPath]
) -> None:
    radial = interaction.convolution.radial
    shapes = [tuple(weight.shape) for weight in radial.weights]
    shapes[-1] = (shapes[-1][0], sum(path.channels for path in theirs))  # may have more than we need
    *hidden, last = _perceptron(weights, f"{prefix}edge_mlp.mlp.", shapes)
    for weight, matrix in zip(radial.weights, hidden):
        weight.copy_(matrix)
    signs = [torch.full((path.channels,), weights.sign(prefix, path)) for path in theirs]
    ours = paths_of(interaction.convolution, interaction.irreps_in)
    radial.weights[-1].copy_((last * torch.cat(signs))[:, channel_order(theirs, ours)])


def _perceptron(weights: Weights, prefix: str, shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """Matrices of a perceptron, for our gains."""
    matrices = []
    for k, shape in enumerate(shapes):
        home = weights.get(f"{prefix}{2 * k}.weight", *shape)
        alpha = weights.state.get(f"{prefix}{2 * k}.alpha")  # packages hold it
        expected = (1.0 if k == 0 else GAIN) / math.sqrt(shape[0])
        if alpha is not None and abs(float(alpha) - expected) > 1e-6:
            raise BadInput(f"nequip: the gain '{prefix}{2 * k}.alpha' is {float(alpha)}, expected {expected}")
        matrices.append(home if k == 0 else home * (GAIN / SILU_NORM))
    return matrices
