"""Files of a learning loop: whole or not there."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ase.io
from ase import Atoms

from mlplugins import files
from mlplugins.errors import BadInput


def write_frames(path: Path, frames: Sequence[Atoms]) -> None:
    """Write frames as extended XYZ; an empty file for none."""
    stream = io.StringIO()
    if frames:
        ase.io.write(stream, list(frames), format="extxyz")
    files.write_bytes(path, stream.getvalue().encode(), lasting=True)


def read_frames(path: Path) -> list[Atoms]:
    """Read them again."""
    if path.stat().st_size == 0:
        return []
    found = ase.io.read(path, index=":", format="extxyz")
    return found if isinstance(found, list) else [found]


def read_json(path: Path) -> Any:
    """Read a record.

    Raises:
        BadInput: it is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadInput(f"'{path}' is damaged: not JSON ({error}); remove it to have it made again") from error
