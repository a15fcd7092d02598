"""Files `model.pt` of this package → the family they hold, with weights that can be trained again.

In such a file the weights are folded for inference (see `Potential.freeze`); what was folded is undone here.
The modules come out of the restricted unpickler as records, the programs inside are left alone. Weights that
were rounded to float32 stay rounded; radial tables cannot be undone and are refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from ase.data import chemical_symbols
from torch import Tensor, nn

from mlplugins import models
from mlplugins.checkpoints import _record, unpickle
from mlplugins.checkpoints.native import Checkpoint
from mlplugins.checkpoints.unpickle import Stub
from mlplugins.config import hyperparameters
from mlplugins.errors import BadInput
from mlplugins.models._bounded import like_its_file
from mlplugins.models.base import Potential
from mlplugins.nn.contraction import SymmetricContraction

METADATA = "extra/model-metadata"
FAMILY = "mlplugins::family"
RECORDS = ("__torch__.", "torch.jit._pickle.")
OF_THE_FILE = ("elements", "baseline_eV", "portable")
"""Entries of the record that an exported file states anew."""


def recognises(path: Path | str) -> bool:
    """Whether the file is a metatomic model that this package wrote."""
    try:
        return FAMILY in _metadata(Path(path))["extra"]
    except Exception:  # not one, or damaged
        return False


def read(path: Path | str, elements: list[str] | None = None) -> Checkpoint:
    """Read a model; no code in the file is run.

    Args:
        path: the `model.pt`.
        elements: keep only these (symbols); default: all that the model knows.

    Returns:
        The model in the precision of the file, with what the file records.

    Raises:
        BadInput: truncated, radial tables, a family solved in closed form, weights that do not fit this
            version's family, or an unknown element.
    """
    path = Path(path)
    with _record.intact(path, "model.pt"):
        extra = _metadata(path)["extra"]
        record = json.loads(extra["mlplugins::metadata"])
        family, known = models.family(extra[FAMILY]), list(record["elements"])
        if family.solver is not None:
            raise BadInput(f"'{extra[FAMILY]}' is solved in closed form: its file holds no weights to train")
        parameters = hyperparameters(family.Hyperparameters, record["hyperparameters"], f"{path}: model")
        with torch.random.fork_rng(devices=[]):
            with like_its_file(path):
                potential: Potential = family.Model(known, parameters)
            content = unpickle.load(path, lambda name: name.startswith(RECORDS))
            with torch.no_grad():
                dtype = _fill(potential, content.state["module"].state["potential"], "")
            symbols, rows = _record.kept(known, elements)
            if symbols != known:
                potential = _with_rows(family, parameters, potential, (known, symbols, rows))
        details = {key: value for key, value in record.items() if key not in OF_THE_FILE}
        count = sum(p.numel() for p in potential.parameters())
        source = _record.source("mlplugins", path, None)
        return Checkpoint(
            potential=potential.to(dtype).eval(),
            family=extra[FAMILY],
            elements=symbols,
            baseline=[float(record["baseline_eV"][row]) for row in rows],
            details={"source": source, **details, "n_parameters": count},
            references=list(_metadata(path)["references"]["architecture"]),
        )


def _metadata(path: Path) -> Any:
    return json.loads(unpickle.text(path, METADATA))


def _fill(module: nn.Module, stored: Stub, prefix: str) -> torch.dtype:
    """Copy weights and buffers, undo the folding; returns the precision of the file."""
    if stored.name.rpartition(".")[2] in ("RadialTable", "NoBasis", "ScaledDistance"):
        raise BadInput(
            "the radial networks of this file were replaced by tables, which cannot be trained; name the "
            "file without tables, or the checkpoint it was made from"
        )
    state: dict[str, Any] = stored.state
    dtype = torch.float64
    if isinstance(module, SymmetricContraction):
        module.unfold(state["coefficients"], state["monomials"])
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
    thaw = getattr(module, "thaw", None)
    if callable(thaw):
        thaw()
    return dtype


def _with_rows(
    family: Any, parameters: Any, potential: Potential, elements: tuple[list[str], list[str], list[int]]
) -> Potential:
    """The model of some of its elements: their rows along every axis whose length is the number of elements.

    Args:
        family, parameters: what it was built from.
        potential: the whole model.
        elements: the known ones, those to keep, and their places among the known ones.
    """
    known, symbols, rows = elements
    another = next(symbol for symbol in chemical_symbols[1:] if symbol not in known)
    longer = family.Model([*known, another], parameters).state_dict()
    part: Potential = family.Model(symbols, parameters)
    state: dict[str, Tensor] = {}
    for name, value in potential.state_dict().items():
        for axis, (length, other) in enumerate(zip(value.shape, longer[name].shape)):
            if length != other:
                value = value.index_select(axis, torch.tensor(rows))
        state[name] = value
    part.load_state_dict(state)
    return part
