"""A model from any file that holds its weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlplugins import checkpoints, files
from mlplugins.checkpoints import exported, native
from mlplugins.checkpoints.native import Checkpoint
from mlplugins.model_file.archive import read_archive
from mlplugins.model_file.card import RADIAL
from mlplugins.model_file.radial import DEFAULT, RadialFunctions, RadialTables


@dataclass(frozen=True)
class FileKind:
    """How a file computes.

    Attributes:
        dtype: precision.
        portable: free of our ops.
        tables: in place of radial networks.
    """

    dtype: str = "float32"
    portable: bool = False
    tables: RadialTables = DEFAULT


def read(path: Path, elements: list[str] | None = None) -> tuple[Checkpoint, FileKind]:
    """The model, and how its file computes.

    Args:
        path: model.pt, folder of a run, checkpoint of `train`, or one that `convert` reads.
        elements: symbols in the order in which the model is to have them; not of a checkpoint of `train`.
    """
    path = files.in_folder(path, "model.pt")
    if checkpoints.is_native(path):
        found = native.read(path)
        return found, FileKind(str(found.details["configuration"]["training"]["dtype"]))
    found = checkpoints.read(path, elements)
    entries = read_archive(path).entries if exported.recognises(path) else None
    if entries is None:
        return found, FileKind()
    radial = RadialFunctions.of(entries.record.get(RADIAL))
    tables = radial.asked if radial else DEFAULT
    return found, FileKind(entries.dtype or "float32", bool(entries.record.get("portable")), tables)
