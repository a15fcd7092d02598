"""Writing and resuming `checkpoint.ckpt`: atomic, safe to load, refused if it belongs to another run."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from mlplugins import files
from mlplugins.checkpoints import native
from mlplugins.checkpoints.native import FORMAT
from mlplugins.errors import BadInput, RunFailed
from mlplugins.quantities import QUANTITIES

MAY_CHANGE = {
    "training.epochs",
    "training.max_minutes",
    "training.early_stopping",
    "training.checkpoint_seconds",
    "training.accelerator",
    "training.devices",
    "training.num_nodes",
    "training.loggers",
    "data.train",
    "data.validation",
    "data.test",
    "base.checkpoint",
    "base.data",
    "finetune.data",
    "finetune.structures",
    "export.dtype",
    "export.portable",
    "export.radial_tables",
    "export.authors",
    "export.licence",
    "export.cite",
}
"""Keys that may differ when a run is continued (that the data are the same is told by their hash)."""


def save(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint atomically: whatever happens, `path` is the old file or the new one.

    Raises:
        RunFailed: the disk is full or not writable; the old checkpoint is intact.
    """
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **content}, buffer)
    try:
        files.write_bytes(path, buffer.getvalue(), lasting=True)
    except RunFailed as error:
        raise RunFailed(f"{error}. Make room and run the same command again to continue") from error


def load(path: Path) -> dict[str, Any] | None:
    """Content of a checkpoint, None if there is none.

    Raises:
        BadInput: not a checkpoint of mlplugins, damaged, or of a newer version.
    """
    if not path.exists():
        return None
    try:
        return native.load(path)
    except BadInput as error:
        remedy = "move it away, choose another output folder (-o), or use --restart"
        raise BadInput(f"{error}; {remedy}") from error


def require_same_run(
    path: Path, content: dict[str, Any], configuration: dict, sha256: dict[str, str]
) -> None:
    """Refuse to continue a run of another configuration or other data.

    Raises:
        BadInput: naming the keys that differ and what to do.
    """
    old, new = _weighted(content["configuration"]), _weighted(configuration)
    stage = content.get("state", {}).get("counters", {}).get("stage", 0)
    # files of several energies are a mapping
    every = sorted(k for k in old.keys() | new.keys() if ".".join(k.split(".")[:2]) not in MAY_CHANGE)
    keys = [key for key in every if not _ahead(key, stage)]
    changed = [f"{k}: {old.get(k)} → {new.get(k)}" for k in keys if old.get(k) != new.get(k)]
    names = sorted(content["sha256"].keys() | sha256.keys())
    changed += [f"{n} data" for n in names if n != "test" and content["sha256"].get(n) != sha256.get(n)]
    if changed:
        raise BadInput(
            f"{path} belongs to another run ({'; '.join(changed)}): choose another output folder (-o), "
            "or --restart to begin anew here (the old checkpoint is kept as checkpoint.old.ckpt)"
        )


def _ahead(key: str, stage: int) -> bool:
    """Whether a key is of a stage that has not begun, or says when the current one ends."""
    section, name, *rest = [*key.split("."), ""]
    if (section, name) != ("training", "stages") or len(rest) < 3:
        return False
    number = int(rest[0])
    return number > stage or (number == stage and rest[1] in ("epochs", "early_stopping"))


def is_same(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether two configurations ask for the same, wherever the data lie (which their hashes tell apart)."""
    places = {"data.train", "data.validation", "data.test"}
    one, other = _weighted(old), _weighted(new)
    names = {k for k in one.keys() | other.keys() if ".".join(k.split(".")[:2]) not in places}
    return all(one.get(k) == other.get(k) for k in names)


def _weighted(configuration: dict[str, Any]) -> dict[str, Any]:
    """Flat, with the weights of quantities that were not yet in the table when it was written."""
    found = _flat(configuration)
    if "training.loss.energy" not in found:  # solvers have none
        return found
    return {f"training.loss.{name}": quantity.loss for name, quantity in QUANTITIES.items()} | found


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            value = {str(number): item for number, item in enumerate(value)}
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
