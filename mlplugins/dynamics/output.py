"""Host output files: last lines, last step of a table, cutting trajectories back to a restart point."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

TAIL_BYTES = 65536

Frames = Callable[[Path], Iterator[tuple[int, int]]]


def tail(path: Path, size: int = TAIL_BYTES) -> str:
    """The end of a text file, empty if there is no file."""
    try:
        with path.open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - size))
            return stream.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""


def last_lines(path: Path, count: int) -> list[str]:
    """The last non-empty lines of a text file."""
    return [line.rstrip() for line in tail(path).splitlines() if line.strip()][-count:]


def last_table_step(path: Path) -> int:
    """First column of the last complete line that holds numbers only (a thermo or property table), else 0."""
    text = tail(path)
    for line in reversed(text[: text.rfind("\n") + 1].splitlines()):
        if is_row(line):
            return int(float(line.split()[0]))
    return 0


def is_row(line: str) -> bool:
    """Whether a line is a row of a table: three numbers or more, nothing else."""
    words = line.split()
    return len(words) > 2 and all(map(_is_number, words))


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def table(path: Path) -> NDArray[np.float64]:
    """The rows of numbers of a table, (rows, columns); a last line without its end is left out."""
    text = path.read_text(encoding="utf-8")
    rows = [line.split() for line in text[: text.rfind("\n") + 1].splitlines()]
    return np.array([[float(w) for w in row] for row in rows if row and all(map(_is_number, row))])


def largest(path: Path, column: int) -> float:
    """Largest value of a column among the last rows of a table; NaN counts as infinite, no rows as 0."""
    text = tail(path)
    lines = text[: text.rfind("\n") + 1].splitlines()[len(text) >= TAIL_BYTES :]  # the first may be cut
    values = [float(line.split()[column]) for line in lines if is_row(line)]
    return max((value if value == value else np.inf for value in values), default=0.0)


def cut_table(path: Path, before: int) -> None:
    """Remove from a table the rows whose first column is `before` or more, and a last row cut short."""
    if not path.is_file():
        return
    keep = 0
    with path.open("rb") as stream:
        while (line := stream.readline()).endswith(b"\n"):
            word = line.split()[0].decode() if line.split() else "#"
            if _is_number(word) and float(word) >= before:
                break
            keep = stream.tell()
    os.truncate(path, keep)


def cut_frames(path: Path, whole_frames: Frames, before: int) -> None:
    """Remove from a trajectory the frames of step `before` and later, and a last frame that is not whole.

    Args:
        path: the trajectory; nothing is done if it does not exist.
        whole_frames: gives step and end (in bytes) of every whole frame of a file, in order.
        before: first step that will be written again.
    """
    if not path.is_file():
        return
    keep = 0
    for step, end in whole_frames(path):
        if step >= before:
            break
        keep = end
    if keep < path.stat().st_size:
        os.truncate(path, keep)


def integer(line: bytes) -> int:
    """The number of a whole line that holds nothing else, else -1."""
    return int(line) if line.strip().isdigit() and line.endswith(b"\n") else -1


def skip(stream: BinaryIO, lines: int) -> bool:
    """Skip lines; returns whether all of them were there."""
    return all(stream.readline().endswith(b"\n") for _ in range(lines))
