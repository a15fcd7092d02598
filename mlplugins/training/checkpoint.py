"""Writing and resuming `checkpoint.ckpt`: atomic, safe to load, refused if it belongs to another run."""

from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path
from typing import Any

import torch

from mlplugins.errors import BadInput, RunFailed

FORMAT = 1
"""Version of the file; `mlplugins.checkpoints.native` reads it."""

MAY_CHANGE = {
    "training.epochs",
    "training.max_minutes",
    "training.early_stopping",
    "training.checkpoint_seconds",
    "training.accelerator",
    "training.devices",
    "training.num_nodes",
    "data.train",
    "data.validation",
    "data.test",
    "base.checkpoint",
    "base.data",
    "finetune.data",
    "finetune.structures",
    "export.dtype",
    "export.portable",
}
"""Keys that may differ when a run is continued (that the data are the same is told by their hash)."""


def save(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint atomically: whatever happens, `path` is the old file or the new one.

    Raises:
        RunFailed: the disk is full or not writable; the old checkpoint is intact.
    """
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **content}, buffer)
    write_atomically(path, buffer.getvalue())


def write_atomically(path: Path, data: bytes) -> None:
    """Replace `path` by `data` in one step, flushed to the disk before."""
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        state = "the previous file is intact" if path.exists() else "nothing was written"
        raise RunFailed(
            f"cannot write {path}: {error.strerror or error} ({len(data) / 1e6:.1f} MB needed); {state}. "
            "Make room and run the same command again to continue"
        ) from error


def load(path: Path) -> dict[str, Any] | None:
    """Content of a checkpoint, None if there is none.

    Raises:
        BadInput: not a checkpoint of mlplugins, truncated, or of a newer version.
    """
    if not path.exists():
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises anything from RuntimeError to UnpicklingError
        raise BadInput(
            f"{path}: not a readable checkpoint ({type(error).__name__}); move it away or use --restart"
        ) from error
    if not isinstance(content, dict) or "format" not in content:
        raise BadInput(f"{path}: not a checkpoint of mlplugins; choose another output folder (-o)")
    if content["format"] > FORMAT:
        raise BadInput(
            f"{path}: checkpoint format {content['format']}, this mlplugins reads up to {FORMAT}; upgrade it"
        )
    return content


def require_same_run(
    path: Path, content: dict[str, Any], configuration: dict, sha256: dict[str, str]
) -> None:
    """Refuse to continue a run of another configuration or other data.

    Raises:
        BadInput: naming the keys that differ and what to do.
    """
    old, new = _flat(content["configuration"]), _flat(configuration)
    keys = sorted((old.keys() | new.keys()) - MAY_CHANGE)
    changed = [f"{k}: {old.get(k)} → {new.get(k)}" for k in keys if old.get(k) != new.get(k)]
    names = sorted(content["sha256"].keys() | sha256.keys())
    changed += [f"{n} data" for n in names if n != "test" and content["sha256"].get(n) != sha256.get(n)]
    if changed:
        raise BadInput(
            f"{path} belongs to another run ({'; '.join(changed)}): choose another output folder (-o), "
            "or --restart to begin anew here (the old checkpoint is kept as checkpoint.old.ckpt)"
        )


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
