"""Weights of a model.pt of 0.1.0 (formats 1 to 3), which contains them only in folded form.

The modules come out of the restricted unpickler as records, and what was folded for inference is undone here
(to round-off); weights that were rounded to float32 stay rounded.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mlplugins.checkpoints import unpickle
from mlplugins.checkpoints.unpickle import Stub
from mlplugins.errors import BadInput
from mlplugins.models.base import Potential
from mlplugins.nn.contraction import PathWeights, SymmetricContraction
from mlplugins.nn.linear import Linear
from mlplugins.nn.radial import RadialMLP, gain

RECORDS = ("__torch__.", "torch.jit._pickle.")
TABLES = (
    "the radial networks of this file were replaced by tables, which cannot be trained; name the "
    "file without tables, or the checkpoint it was made from"
)


def fill(potential: Potential, path: Path) -> None:
    """Give `potential` the weights of the file, and their precision; no code of the file is run.

    Raises:
        BadInput: radial tables, or weights that do not fit.
    """
    content = unpickle.load(path, lambda name: name.startswith(RECORDS))
    with torch.no_grad():
        dtype = _fill(potential, content.state["module"].state["potential"], "")
    potential.to(dtype)


def _fill(module: nn.Module, stored: Stub, prefix: str) -> torch.dtype:
    """Copy weights and buffers, undo the folding; returns the precision of the file."""
    if stored.name.rpartition(".")[2] in ("RadialTable", "NoBasis", "ScaledDistance"):
        raise BadInput(TABLES)
    state: dict[str, Any] = stored.state
    dtype = torch.float64
    if isinstance(module, SymmetricContraction):
        _unfold(module, state["coefficients"], state["monomials"])
        return state["coefficients"].dtype
    for name in [*module._parameters, *module._buffers]:
        own = getattr(module, name)
        if own is None or name in module._non_persistent_buffers_set:
            continue
        if own.shape != state[name].shape:
            raise BadInput(
                f"'{prefix}{name}' has shape {tuple(state[name].shape)}, this version of the family expects "
                f"{tuple(own.shape)}"
            )
        own.copy_(state[name])
        dtype = state[name].dtype if state[name].is_floating_point() else dtype
    for name, child in module.named_children():
        if child.state_dict():
            found = _fill(child, state[name], f"{prefix}{name}.")
            dtype = found if found != torch.float64 else dtype
    if isinstance(module, Linear):
        for weight in module.weights:
            weight.mul_(math.sqrt(max(weight.shape[1], 1)))
    elif isinstance(module, RadialMLP):
        for index, weight in enumerate(module.weights):
            weight.div_(gain(index, weight.shape[0], module.silu_norm))
    return dtype


def _unfold(module: SymmetricContraction, coefficients: Tensor, monomials: Tensor) -> None:
    """The weights that give these coefficients (S, M, C) of the monomials (M, 4).

    Raises:
        BadInput: coefficients that the bases here do not span.
    """
    place = {tuple(row): index for index, row in enumerate(monomials.tolist())}
    c = coefficients.to(torch.float64)
    for path in module.paths:
        if not isinstance(path, PathWeights):
            raise TypeError(f"{path} is not one of {PathWeights}")
        rows = [place.pop(tuple(row), -1) for row in path.monomials.tolist()]
        wanted = c[:, rows] * (torch.tensor(rows) >= 0)[:, None]  # (S, m, C)
        inverse = torch.linalg.pinv(path.basis.to(torch.float64).t())  # (η, m)
        weight = torch.matmul(inverse, wanted)
        error = (torch.matmul(path.basis.t().to(weight), weight) - wanted).abs().max()
        if float(error) > 1e-5 * max(float(wanted.abs().max()), 1e-30):
            raise BadInput(f"symmetric contraction: coefficients of another basis ({float(error):.1e})")
        path.weight.data = weight.to(path.weight)
    if place and bool((c[:, list(place.values())] != 0).any()):
        raise BadInput("symmetric contraction: coefficients of monomials that the bases here do not have")
