"""Contents of a model.pt, read from its archive without running the program inside."""

from __future__ import annotations

import json
import math
import re
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlplugins.checkpoints import unpickle
from mlplugins.checkpoints.unpickle import Stub, TensorShape
from mlplugins.errors import BadInput
from mlplugins.model_file.archive import Archive, is_ours, read_archive


@dataclass(frozen=True)
class Contents:
    """A model file, its modules as records.

    Attributes:
        archive: its metadata.
        capabilities: of metatomic: outputs, atomic types, units, precision, devices.
        cutoff: of the longest neighbour list, Å.
        interaction_range: Å.
        module: qualified name of the class inside metatomic's wrapper.
        n_parameters: number of parameters.
    """

    archive: Archive
    capabilities: dict[str, Any]
    cutoff: float
    interaction_range: float
    module: str
    n_parameters: int

    @property
    def ours(self) -> bool:
        """Whether the module is one of mlplugins, and no wrapper around one."""
        return self.archive.entries is not None and is_ours(self.module)


def read(path: Path) -> Contents:
    """Read a model file.

    Raises:
        BadInput: missing, damaged, or not a metatomic model.
    """
    archive = read_archive(path)
    path = archive.path
    try:
        top = unpickle.load(path, lambda name: True, shapes=True)
        capabilities = json.loads(top.state["_capabilities"].state)
        lists = [json.loads(item.state) for item in top.state["_requested_neighbor_lists"].arguments[0]]
        inner = top.state["module"]
        angstrom = _angstrom(capabilities["length_unit"])
        cutoffs = [_real(each["cutoff"]) * _angstrom(each["length_unit"]) for each in lists]
        with zipfile.ZipFile(path) as file:
            return Contents(
                archive=archive,
                capabilities=capabilities,
                cutoff=max(cutoffs, default=0.0),
                interaction_range=_real(capabilities["interaction_range"]) * angstrom,
                module=inner.name,
                n_parameters=_n_parameters(inner, file, {}),
            )
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(
            f"'{path}' is not an intact metatomic model ({type(error).__name__}: {error})"
        ) from error


def _angstrom(unit: str) -> float:
    if unit.lower() in ("", "angstrom"):
        return 1.0
    from metatomic.torch import unit_conversion_factor

    return float(unit_conversion_factor(unit, "angstrom"))


def _real(bits: Any) -> float:
    """metatomic stores a double as the integer that has the same bits."""
    value = float(struct.unpack("<d", struct.pack("<q", bits))[0]) if isinstance(bits, int) else float(bits)
    if math.isnan(value):
        raise ValueError("a length that is not a number")
    return value


def _n_parameters(module: Stub, file: zipfile.ZipFile, classes: dict[str, list[str]]) -> int:
    """Parameters of a module and those inside it; the source of each class lists their names."""
    if not isinstance(module.state, dict):
        return 0
    if module.name not in classes:
        classes[module.name] = _parameter_names(module.name, file)
    total = 0
    for name, value in module.state.items():
        if isinstance(value, TensorShape):
            total += math.prod(value.size) if name in classes[module.name] else 0
        elif isinstance(value, Stub):
            total += _n_parameters(value, file, classes)
    return total


def _parameter_names(qualified: str, file: zipfile.ZipFile) -> list[str]:
    place, _, name = qualified.rpartition(".")
    entry = f"{file.namelist()[0].partition('/')[0]}/code/{place.replace('.', '/')}.py"
    if entry not in file.namelist():
        return []
    found = re.search(
        rf"^class {re.escape(name)}\(Module\):\s+__parameters__ = \[(.*?)\]",
        file.read(entry).decode(),
        re.M | re.S,
    )
    return re.findall(r'"([^"]+)"', found.group(1)) if found else []
