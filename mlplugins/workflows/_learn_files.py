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

DONE = ("round.json", "final.json", "control.json")
"""Written last: a step is complete."""
SELECTED = "selected.extxyz"
COUNT = "frames_in_file"


def write_frames(path: Path, frames: Sequence[Atoms]) -> None:
    """Write frames as extended XYZ; an empty file for none. The first says how many there are."""
    stream = io.StringIO()
    if frames:
        first = frames[0].copy()
        first.calc = frames[0].calc
        first.info[COUNT] = len(frames)
        ase.io.write(stream, [first, *frames[1:]], format="extxyz")
    files.write_bytes(path, stream.getvalue().encode(), lasting=True)


def read_frames(path: Path, count: int | None = None) -> list[Atoms]:
    """Read them again.

    Args:
        path: the file.
        count: how many a record says that there are.

    Raises:
        BadInput: they are damaged, or gone.
    """
    try:
        found = ase.io.read(path, index=":", format="extxyz") if path.stat().st_size else []
    except Exception as error:  # of text that is no frame any more readers raise anything
        raise _damaged(path, error) from error
    frames = found if isinstance(found, list) else [found]
    said = frames[0].info.pop(COUNT, None) if frames else None  # a file may end after any frame
    count = said if count is None else count
    if count is not None and len(frames) != count:
        raise _damaged(path, ValueError(f"{len(frames)} frames, expected {count}"))
    return frames


def read_json(path: Path) -> Any:
    """Read a record.

    Raises:
        BadInput: it is damaged, or gone.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> BadInput:
    """What is wrong with a file, and which have to go with it, as they say that its step is done."""
    state = "is missing" if isinstance(error, FileNotFoundError) else f"is damaged ({error})"
    marks = [path.with_suffix(".json"), *(path.parent / name for name in DONE), path.parent.parent / DONE[0]]
    gone = [str(mark) for mark in dict.fromkeys([path, *marks]) if mark.is_file()]
    then = "it is made again from the labels and the other files, which stay"
    return BadInput(
        f"'{path}' {state}: remove {', '.join(gone)}, and {then}" if gone else f"'{path}' {state}"
    )
