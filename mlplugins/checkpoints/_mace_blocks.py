"""Weights of mace-torch's non-linear blocks, and its embeddings of charge and spin (for `_mace_weights`).

The embeddings add the same vector to the features of every atom, which depends on the charge and the spin of
the structure only: with both fixed it is a part of the elements' own vectors, and the model an ordinary one.
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
from mlplugins.nn.state import StateEmbedding, StateNetwork, StateTable
from mlplugins.structures.state import CHARGE, SPIN, is_multiplicity

INPUTS = {"total_charge": CHARGE, "total_spin": SPIN}
"""mace-torch's names, and ours. Of a structure that says nothing both packages take 0 and 1."""


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


def state_inputs(specs: Mapping[str, Any], fixed: Mapping[str, float]) -> dict[str, list[int]]:
    """Charge and spin as inputs of our model (`Hyperparameters.state`), those that are fixed left out.

    Raises:
        BadInput: a fixed one that the model does not have or know, or an embedding of something else.
    """
    for name, value in fixed.items():
        if name not in specs:
            option = name.removeprefix("total_")
            raise BadInput(
                f"MACE: {option} {value:g} is given, but the model has no embedding of it "
                f"({', '.join(specs) or 'it has none'}); leave --{option} out"
            )
        if INPUTS[name] == SPIN and not is_multiplicity(value):
            raise BadInput(
                f"MACE: {name} {value:g}: expected the multiplicity 2S + 1, a whole number from 1 (singlet) "
                "on, as mace-torch's own models count it; one that was trained with 2S is not known as such"
            )
    other = [name for name in specs if name not in INPUTS]
    if other:
        raise BadInput(
            f"MACE: 'embedding_specs' has {', '.join(other)}; this package reads models with embeddings of "
            f"{' and '.join(INPUTS)}"
        )
    for name, spec in specs.items():
        if spec["per"] != "graph" or spec["type"] not in ("categorical", "continuous"):
            raise BadInput(f"MACE: 'embedding_specs' {name}: {spec}; expected numbers of a whole structure")
        if spec["type"] == "continuous" and spec["in_dim"] != 1:
            raise BadInput(f"MACE: 'embedding_specs' {name}: in_dim {spec['in_dim']}; expected one number")
        low, high = _range(spec)
        value = fixed.get(name, low)
        if not low <= value <= high or (math.isfinite(low) and value != round(value)):
            raise BadInput(f"MACE: {name} {value:g}: the model knows whole numbers from {low:g} to {high:g}")
    return {INPUTS[name]: _numbers(spec) for name, spec in specs.items() if name not in fixed}


def _range(spec: Mapping[str, Any]) -> tuple[float, float]:
    numbers = _numbers(spec)
    return (-math.inf, math.inf) if len(numbers) == 1 else (float(numbers[0]), float(numbers[1]))


def _numbers(spec: Mapping[str, Any]) -> list[int]:
    if spec["type"] == "continuous":
        return [int(spec["emb_dim"])]
    lowest = -int(spec.get("offset", 0))
    return [lowest, lowest + int(spec["num_classes"]) - 1]


def fill_state(
    state: StateEmbedding, specs: Mapping[str, Any], source: Source, fixed: Mapping[str, float]
) -> None:
    """The weights of the embeddings, times their part of the projection behind them; of the fixed ones the
    vector that they add."""
    project = source.take("joint_embedding.project.0.weight").to(torch.float64)
    first = 0
    parts = iter(state.parts)
    for name, spec in specs.items():
        prefix = f"joint_embedding.embedders.{name}"
        w = project[:, first : first + int(spec["emb_dim"])]
        first += w.shape[1]
        made = _of_one(name, spec, w.shape[0]) if name in fixed else next(parts)
        if isinstance(made, StateTable):
            made.weight.copy_(source.take(f"{prefix}.weight").to(w) @ w.T)
        else:
            network = cast(StateNetwork, made)
            network.first.weight.copy_(source.take(f"{prefix}.0.weight"))
            network.second.weight.copy_(w @ source.take(f"{prefix}.2.weight").to(w))
            bias = spec.get("use_bias", True)
            network.first.bias.copy_(source.take(f"{prefix}.0.bias") if bias else torch.zeros(()))
            network.second.bias.copy_(w @ source.take(f"{prefix}.2.bias").to(w) if bias else torch.zeros(()))
        if name in fixed:
            state.constant.add_(made(torch.tensor([fixed[name]], dtype=torch.float64))[0])


def _of_one(name: str, spec: Mapping[str, Any], width: int) -> nn.Module:
    """An embedding whose value is fixed."""
    numbers = _numbers(spec)
    if len(numbers) == 1:
        return StateNetwork(numbers[0], width)
    return StateTable(INPUTS[name], numbers[0], numbers[1], width)


def embedding_readout(source: Source, width: int, n_heads: int, head: int) -> Tensor:
    """Weights (width,) of the energies that are read out of the elements' vectors, eV."""
    weight = source.take("embedding_readout.linear.weight", width * n_heads).view(width, n_heads)
    return weight[:, head] / math.sqrt(width)
