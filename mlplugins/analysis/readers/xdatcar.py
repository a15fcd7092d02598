"""VASP XDATCAR, also compressed, with a fixed or a changing cell."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, islice
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
    require_room,
    whole_frames,
)
from mlplugins.errors import BadInput

NAME = "VASP XDATCAR"
GROWN = re.compile(rb"(?<=\d)-")
KINDS = (b"direct", b"cartesian")
NUMBER = re.compile(rb"configuration *= *(\d{1,18})")
NEXT_FRAME = re.compile(rb"(?:^|\n)([ \t]*(?:direct|cartesian)\b)", re.IGNORECASE)


def matches(path: Path, head: bytes) -> bool:
    """Whether the file is an XDATCAR, by its eighth line."""
    lines = head.splitlines()
    return len(lines) >= 8 and lines[7].strip().lower().startswith(KINDS)


def read(path: Path, options: ReadOptions) -> Iterator[Frame]:
    """Yield the frames; an XDATCAR holds no time.

    Its frames are numbered. VASP counts MD steps, of which it may write every NBLOCK-th, other programs count
    frames: numbers that rise by more than one are steps, others may be either and are not passed on.
    """
    frames = whole_frames(path, options, _XdatcarReader(path).frame)
    start = list(islice(frames, 2))
    steps = [frame.step for frame in start if frame.step is not None]
    known = len(steps) == 2 and steps[1] > steps[0] + 1
    for frame in chain(start, frames):
        yield frame if known else replace(frame, step=None)


class _XdatcarReader:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.number = 0
        self._symbols: NDArray[np.str_] = np.array([], dtype=str)
        self._cell: Floats = np.zeros((3, 3))
        self._table = Table(3, [0, 1, 2], None)

    def frame(self, lines: Lines) -> Frame | None:
        while line := lines.between_frames():
            kind = line.strip().lower()
            if not (kind.startswith(KINDS) and self._symbols.size):
                self._symbols, self._cell = _header(lines, self.path)
                continue
            self.number += 1
            block = lines.take(len(self._symbols), f"ends inside frame {self.number}")
            if (cut := NEXT_FRAME.search(block)) is not None:
                lines.back(len(block) - cut.start(1))
                raise Truncated(f"frame {self.number} is cut by the next one", more=True)
            where = f"{self.path}, frame {self.number}"
            if len(block.split()) < 3 * len(self._symbols):  # columns of fixed width have grown together
                block = GROWN.sub(b" -", block)
            values = self._table.parse(block, len(self._symbols), where).values.T
            positions = values @ self._cell if kind.startswith(b"direct") else values
            count = NUMBER.search(kind)
            step = None if count is None else int(count[1])
            return Frame(symbols=self._symbols, positions=positions, cell=self._cell, step=step)
        return None


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
    if not (np.isfinite(vectors).all() and np.linalg.det(vectors) and np.isfinite(scale) and scale):
        raise BadInput(
            f"{path}: scale {scale:g} and vectors {vectors.tolist()} make no cell; expected finite numbers"
        )
    if min(counts) < 1:
        raise BadInput(f"{path}: header with the counts {counts}; expected whole numbers above zero")
    require_room(sum(counts), 3, path, str(path))
    # a negative scale is the volume of the cell
    factor = scale if scale > 0 else (-scale / abs(np.linalg.det(vectors))) ** (1 / 3)
    return np.repeat(np.array(names), counts), vectors * factor
