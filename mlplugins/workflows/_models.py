"""A model from any file that holds its weights."""

from __future__ import annotations

from pathlib import Path

from mlplugins import checkpoints, files
from mlplugins.checkpoints import exported, native
from mlplugins.checkpoints.native import Checkpoint
from mlplugins.model_file.archive import read_archive


def read(path: Path, elements: list[str] | None = None) -> tuple[Checkpoint, str, bool]:
    """The model, the precision in which it computes, whether its file is portable.

    Args:
        path: model.pt, folder of a run, checkpoint of `train`, or one that `convert` reads.
        elements: symbols in the order in which the model is to have them; not of a checkpoint of `train`.
    """
    path = files.in_folder(path, "model.pt")
    if checkpoints.is_native(path):
        found = native.read(path)
        return found, str(found.details["configuration"]["training"]["dtype"]), False
    found = checkpoints.read(path, elements)
    entries = read_archive(path).entries if exported.recognises(path) else None
    if entries is None:
        return found, "float32", False
    return found, entries.dtype or "float32", bool(entries.record.get("portable"))
