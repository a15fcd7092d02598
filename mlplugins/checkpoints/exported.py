"""Files `model.pt` of this package → the family they hold, with weights that can be trained again.

The weights stand beside the program, as they were trained (files of 0.1.0: see `_exported_before_4`), also
where the program has radial tables. The program inside is left alone.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import torch
from ase.data import chemical_symbols
from torch import Tensor

from mlplugins import models
from mlplugins.checkpoints import _exported_before_4, _record, unpickle
from mlplugins.checkpoints.native import Checkpoint
from mlplugins.config import hyperparameters
from mlplugins.errors import BadInput
from mlplugins.model_file import format
from mlplugins.model_file.archive import Archive, Entries, read_archive
from mlplugins.model_file.card import RADIAL
from mlplugins.models._bounded import like_its_file
from mlplugins.models.base import Potential

METADATA = "extra/model-metadata"
OF_THE_FILE = ("elements", "baseline_eV", "baselines_eV", "portable", RADIAL)
"""Entries of the record that an exported file states anew."""


def recognises(path: Path | str) -> bool:
    """Whether the file is a metatomic model that this package wrote."""
    try:
        return format.FAMILY in json.loads(unpickle.text(Path(path), METADATA))["extra"]
    except Exception:  # not one, or damaged
        return False


def read(path: Path | str, elements: list[str] | None = None) -> Checkpoint:
    """Read a model; no code in the file is run.

    Args:
        path: the `model.pt`.
        elements: keep only these (symbols); default: all that the model knows.

    Returns:
        The model with the weights it was exported from, and what the file records.

    Raises:
        BadInput: truncated, damaged, radial tables in a file of 0.1.0, a family solved in closed form,
            weights that do not fit this version's family, or an unknown element.
    """
    path = Path(path)
    archive = read_archive(path)
    with _record.intact(path, "model.pt"):
        entries = archive.entries
        if entries is None:
            raise BadInput("mlplugins did not write this model; it is fine-tuned with the package that did")
        record, known = entries.record, list(entries.record["elements"])
        family = models.family(entries.family)
        if family.solver is not None:
            raise BadInput(f"'{entries.family}' is solved in closed form: its file holds no weights to train")
        where = f"{path}: model"
        parameters = hyperparameters(family.Hyperparameters, record["hyperparameters"], where)
        with torch.random.fork_rng(devices=[]):
            with like_its_file(path):
                potential: Potential = family.Model(known, parameters)
            if entries.format < format.FIRST_WITH_WEIGHTS:
                _exported_before_4.fill(potential, path)
            else:
                _fill(potential, archive, entries)
            symbols, rows = _record.kept(known, elements)
            of_part = _of_elements(record["hyperparameters"], symbols)
            if symbols != known:
                chosen = hyperparameters(family.Hyperparameters, of_part, where)
                potential = _with_rows(family, (parameters, chosen), potential, (known, symbols, rows))
        details = {key: value for key, value in record.items() if key not in OF_THE_FILE}
        details["hyperparameters"] = of_part
        count = sum(p.numel() for p in potential.parameters())
        source = _record.source("mlplugins", path, None)
        return Checkpoint(
            potential=potential.eval(),
            family=entries.family,
            elements=symbols,
            baseline=[float(record["baseline_eV"][row]) for row in rows],
            details={"source": source, **details, "n_parameters": count},
            references=list(archive.references["architecture"]),
            baselines={
                name: [float(energies[row]) for row in rows]
                for name, energies in record.get("baselines_eV", {}).items()
            },
        )


def _fill(potential: Potential, archive: Archive, entries: Entries) -> None:
    """The weights beside the program, in the precision they were trained in."""
    with zipfile.ZipFile(archive.path) as file:
        places = [name for name in file.namelist() if name.partition("/")[2] == format.WEIGHTS]
        if len(places) != 1:
            raise BadInput("another program wrote this file, without the weights to train; name the original")
        content = file.read(places[0])
    state: dict[str, Tensor] = torch.load(io.BytesIO(content), weights_only=True)
    potential.to(next((value.dtype for value in state.values() if value.is_floating_point()), torch.float64))
    try:
        potential.load_state_dict(state)
    except RuntimeError as error:
        raise BadInput(
            f"the weights do not fit this version's '{entries.family}': {' '.join(str(error).split())}"
        ) from error


def _of_elements(values: dict[str, Any], symbols: list[str]) -> dict[str, Any]:
    """Hyper-parameters, also of the terms of a sum, with tables of these elements only."""
    found = dict(values)
    if found.get("pair_cutoffs"):
        found["pair_cutoffs"] = {
            center: {neighbor: r for neighbor, r in row.items() if neighbor in symbols}
            for center, row in found["pair_cutoffs"].items()
            if center in symbols
        }
    for inside in ("terms", "members"):  # of a sum, of a committee
        if inside in found:
            found[inside] = [_of_elements(part, symbols) for part in found[inside]]
    return found


def _with_rows(
    family: Any,
    parameters: tuple[Any, Any],
    potential: Potential,
    elements: tuple[list[str], list[str], list[int]],
) -> Potential:
    """The model of some of its elements: their rows along every axis whose length is the number of elements.

    Args:
        family, parameters: what it was built from, and what the part is built from.
        potential: the whole model.
        elements: the known ones, those to keep, and their places among the known ones.
    """
    known, symbols, rows = elements
    another = next(symbol for symbol in chemical_symbols[1:] if symbol not in known)
    whole, chosen = parameters
    longer = family.Model([*known, another], whole).state_dict()
    part: Potential = family.Model(symbols, chosen)
    state: dict[str, Tensor] = {}
    for name, value in potential.state_dict().items():
        for axis, (length, other) in enumerate(zip(value.shape, longer.get(name, value).shape)):
            if length != other:
                value = value.index_select(axis, torch.tensor(rows))
        state[name] = value
    part.load_state_dict(state)
    return part
