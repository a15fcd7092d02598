"""Weights of mace-torch's non-linear blocks, and its embeddings of charge and spin (for `_mace_weights`).

The embeddings add the same vector to the features of every atom, which depends on the charge and the spin of
the structure only: for chosen ones it is a part of the elements' own vectors, and the model an ordinary one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from mlplugins.checkpoints._mace_state import Source, columns_of_paths, fill_linear
from mlplugins.errors import BadInput
from mlplugins.models import mace
from mlplugins.nn.gate import SIGMOID_NORM
from mlplugins.nn.linear import Linear
from mlplugins.nn.radial import SILU_NORM, NormedMLP

CONDITIONS = {"total_charge": 0.0, "total_spin": 1.0}
"""Values of a structure that says nothing, also in mace-torch."""


def fill_non_linear(layer: mace.Layer, source: Source, prefix: str, norms: Sequence[float] | None) -> None:
    """The weights of a `RealAgnosticResidualNonLinearInteractionBlock`.

    Args:
        layer: ours.
        source: the state.
        prefix: of the block.
        norms: factors behind silu and sigmoid of its gate; default: ours.
    """
    block = cast(mace.NonLinearInteraction, layer.interaction)
    n, channels = source.n_elements, block.of_center.shape[1]
    for table, name in ((block.of_neighbor, "source"), (block.of_center, "target")):
        weight = source.take(f"{prefix}.{name}_embedding.weight", n * channels).view(n, channels)
        table.copy_(weight[source.rows] / math.sqrt(n))
    _normed(block.radial, source, f"{prefix}.conv_tp_weights.net")
    last = cast(nn.Linear, block.radial.layers[-1])
    last.weight.copy_(columns_of_paths(last.weight.T, block.convolution).T)
    last.bias.copy_(columns_of_paths(last.bias, block.convolution))
    _normed(block.density, source, f"{prefix}.density_fn.net")
    _gate_linear(block.linear, source, f"{prefix}.linear_1.weight")
    _gate_linear(block.linear_self, source, f"{prefix}.linear_res.weight")
    fill_linear(block.linear_out, source, f"{prefix}.linear_2.weight")
    silu, sigmoid = norms or (SILU_NORM, SIGMOID_NORM)
    for degree, weight in enumerate(block.linear_out.weights):
        weight.mul_(silu / SILU_NORM if degree == 0 else sigmoid / SIGMOID_NORM)
    block.alpha.copy_(source.take(f"{prefix}.alpha", 1).view(()))
    block.beta.copy_(source.take(f"{prefix}.beta", 1).view(()))
    fill_linear(cast(Linear, layer.residual), source, f"{prefix}.skip_tp.weight")


def _normed(network: NormedMLP, source: Source, prefix: str) -> None:
    for index, module in enumerate(network.layers):
        for name, parameter in module.named_parameters():
            home = source.take(f"{prefix}.{index}.{name}", parameter.numel())
            parameter.copy_(home.view(parameter.shape))


def _gate_linear(linear: Linear, source: Source, name: str) -> None:
    """Into a gate: mace-torch merges the scalars and the gates into one block."""
    scalars, gates, *rest = [weight[0] for weight in linear.weights]
    merged = scalars.shape[1] + gates.shape[1]
    flat = source.take(name, sum(weight.numel() for weight in linear.weights))
    size = scalars.shape[0] * merged
    block = flat[:size].view(-1, merged)
    scalars.copy_(block[:, : scalars.shape[1]])
    gates.copy_(block[:, scalars.shape[1] :])
    for weight, home in zip(rest, flat[size:].split([weight.numel() for weight in rest])):
        weight.copy_(home.view(weight.shape))


def used_conditions(specs: Mapping[str, Any] | None, conditions: Mapping[str, float]) -> dict[str, float]:
    """Charge and spin that the model takes: those given, or those of a structure that says nothing.

    Raises:
        BadInput: a condition that the model does not have, or one of the model that is neither.
    """
    has = list(specs or {})
    for name, value in conditions.items():
        if name not in has:
            option = name.removeprefix("total_")
            raise BadInput(
                f"MACE: {option} {value:g} is given, but the model has no embedding of it "
                f"({', '.join(has) or 'it has none'}); leave --{option} out"
            )
    other = [name for name in has if name not in CONDITIONS]
    if other:
        raise BadInput(
            f"MACE: 'embedding_specs' has {', '.join(other)}; this package reads models with embeddings of "
            f"{' and '.join(CONDITIONS)}"
        )
    return {name: float(conditions.get(name, CONDITIONS[name])) for name in has}


def joint_embedding(specs: Mapping[str, Any], source: Source, values: Mapping[str, float]) -> Tensor:
    """What charge and spin add to the features of every atom, (channels,)."""
    parts = []
    for name, spec in specs.items():
        prefix = f"joint_embedding.embedders.{name}"
        if spec["per"] != "graph" or spec["type"] not in ("categorical", "continuous"):
            raise BadInput(f"MACE: 'embedding_specs' {name}: {spec}; expected numbers of a whole structure")
        if spec["type"] == "categorical":
            table, offset = source.take(f"{prefix}.weight"), int(spec.get("offset", 0))
            index = values[name] + offset
            if not index.is_integer() or not 0 <= index < len(table):
                raise BadInput(
                    f"MACE: {name} {values[name]:g}: the model knows whole numbers from {-offset} to "
                    f"{len(table) - 1 - offset}"
                )
            parts.append(table[int(index)])
        else:
            x = torch.tensor([values[name]], dtype=torch.float64)
            for layer in (0, 2):
                x = torch.nn.functional.silu(x) if layer else x
                x = source.take(f"{prefix}.{layer}.weight") @ x
                if spec.get("use_bias", True):
                    x = x + source.take(f"{prefix}.{layer}.bias")
            parts.append(x)
    return torch.nn.functional.silu(source.take("joint_embedding.project.0.weight") @ torch.cat(parts))


def embedding_readout(embedding: Tensor, source: Source, n_heads: int, head: int) -> list[float]:
    """Energies of the elements that are read out of their vectors, eV."""
    n = embedding.shape[1]
    weight = source.take("embedding_readout.linear.weight", n * n_heads).view(n, n_heads)[:, head]
    energies: list[float] = (embedding @ weight / math.sqrt(n)).tolist()
    return energies
