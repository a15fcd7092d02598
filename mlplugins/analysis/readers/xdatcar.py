"""VASP XDATCAR, also compressed, with a fixed or a changing cell."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlplugins.analysis.readers._text import (
    Floats,
    Frame,
    Lines,
    ReadOptions,
    Table,
    Truncated,
    open_bytes,
)
from mlplugins.errors import BadInput

NAME = "VASP XDATCAR"


def matches(path: Path, head: bytes) -> bool:
    """Whether the file is an XDATCAR, by its eighth line."""
    lines = head.splitlines()
    return len(lines) >= 8 and lines[7].strip().lower().startswith((b"direct", b"cartesian"))


def read(path: Path, options: ReadOptions) -> Iterator[Frame]:
    """Yield the frames; an XDATCAR holds no step numbers and no time."""
    with open_bytes(path, options) as stream:
        try:
            yield from _frames(Lines(stream, path), path)
        except Truncated as cut:
            options.warnings.append(
                f"{path}: {cut}; that frame is incomplete (a killed run?) and was dropped"
            )


def _frames(lines: Lines, path: Path) -> Iterator[Frame]:
    symbols: NDArray[np.str_] = np.array([], dtype=str)
    cell: Floats = np.zeros((3, 3))
    table = Table(3, [0, 1, 2], None)
    number = 0
    while line := lines.one("ends inside a frame"):
        if not line.strip():
            continue
        words = line.split()
        if words[0].lower().startswith((b"direct", b"cartesian")) and symbols.size:
            number += 1
            block = lines.take(len(symbols), f"ends inside frame {number}")
            values = table.parse(block, len(symbols), f"{path}, frame {number}").values.T
            direct = words[0].lower().startswith(b"direct")
            yield Frame(symbols=symbols, positions=values @ cell if direct else values, cell=cell)
        else:
            symbols, cell = _header(lines, path)


def _header(lines: Lines, path: Path) -> tuple[NDArray[np.str_], Floats]:
    """Read what follows the title: scale, three vectors, elements, counts."""
    text = lines.take(6, "ends inside a header").decode("utf-8", "replace").splitlines()
    try:
        scale = float(text[0])
        vectors = np.array([[float(word) for word in line.split()[:3]] for line in text[1:4]])
        names = [word.split("_")[0].split("/")[0] for word in text[4].split()]
        counts = [int(word) for word in text[5].split()]
    except ValueError as error:
        raise BadInput(
            f"{path}: cannot read the header ({error}); expected scale, three vectors, elements and counts, "
            "as VASP 5 and later write them"
        ) from error
    if len(names) != len(counts) or vectors.shape != (3, 3):
        raise BadInput(
            f"{path}: header with {len(names)} elements, {len(counts)} counts; expected as many of each"
        )
    # a negative scale is the volume of the cell
    factor = scale if scale > 0 else (-scale / abs(np.linalg.det(vectors))) ** (1 / 3)
    return np.repeat(np.array(names), counts), vectors * factor
