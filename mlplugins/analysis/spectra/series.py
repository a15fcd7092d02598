"""Series of dipoles, polarizabilities or anything else, piece by piece: i-PI's extras, LAMMPS' `fix "
 "ave/time`,
CSV, numpy."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlplugins.analysis import twice
from mlplugins.analysis.readers._text import ReadOptions, decimals, head, open_bytes
from mlplugins.errors import BadInput, nearest

Floats = NDArray[np.float64]
Steps = NDArray[np.int64]
PIECE_BYTES = 1 << 20
STEP_NAMES = ("Step", "TimeStep", "step", "timestep")
EXTRAS = re.compile(rb"^ *#EXTRAS\w*(?:\(\d+\))?\(([^)]*)\)# Step: +(\d+).*$", re.MULTILINE)
"""Above the numbers of each frame in i-PI."""
SHOWN = 12
SIZES = {"dipole": 3, "polarizability": 9}
"""Numbers of an extra, where several stand in one line."""


class Chunk(NamedTuple):
    """A stretch of a series.

    Attributes:
        values: (n, C).
        steps: (n,) MD steps, if the file has them.
    """

    values: Floats
    steps: Steps | None


@dataclass(frozen=True)
class NumberFile:
    """One file of numbers.

    Attributes:
        path: the file.
        kind: `extras`, `ave/time`, `csv` or `numpy`.
        columns: names of the columns of `chunks`.
        unit: of dipoles and polarizabilities by the file's kind: `atomic`, `e*A` (LAMMPS); None: not known.
        step: index of the column of MD steps.
        rows: of numbers in a frame, of which each is a bead (i-PI's extras_component_raw).
        warnings: what was dropped is appended here.
    """

    path: Path
    kind: str
    columns: tuple[str, ...]
    unit: str | None
    step: int | None
    rows: int
    warnings: list[str]

    def chunks(self) -> Iterator[Chunk]:
        """All of the file.

        Raises:
            BadInput: damaged lines, numbers that are not finite.
        """
        first = 0
        for chunk in {"extras": self._extras, "numpy": self._array}.get(self.kind, self._lines)():
            finite = np.atleast_1d(np.isfinite(chunk.values).all(axis=1))
            if not finite.all():
                raise BadInput(f"{self.path}: sample {first + int(np.argmin(finite))} is not finite")
            first += len(finite)
            yield chunk

    def _array(self) -> Iterator[Chunk]:
        array = np.load(self.path, mmap_mode="r", allow_pickle=False)
        per = max(1, PIECE_BYTES // (8 * len(self.columns)))
        for start in range(0, len(array), per):
            values = np.array(array[start : start + per], dtype=np.float64)
            yield Chunk(values.reshape(len(values), -1), None)

    def _extras(self) -> Iterator[Chunk]:
        """FrameSeries of a line with the step and one or several lines of numbers."""
        rest, size = b"", self.rows * len(self.columns)
        for piece, last in self._marked():
            text = rest + piece
            heads = list(EXTRAS.finditer(text))
            if not last and heads:  # the last frame may go on in the next piece
                text, rest = text[: heads[-1].start()], text[heads[-1].start() :]
                heads = heads[:-1]
            elif not last:
                rest = text
                continue
            if heads:
                yield self._frames(text, heads, size, last)

    def _frames(self, text: bytes, heads: list[re.Match[bytes]], size: int, last: bool) -> Chunk:
        steps = np.array([int(found[2]) for found in heads], dtype=np.int64)
        words = EXTRAS.sub(b"", text).split()
        if len(words) != size * len(steps):
            ends = [*(found.start() for found in heads[1:]), len(text)]
            for number, (found, end) in enumerate(zip(heads, ends)):
                count = len(text[found.end() : end].split())
                if count != size and not (last and number == len(heads) - 1 and count < size):
                    raise BadInput(
                        f"{self.path}, step {steps[number]}: {count} numbers, expected {size} as in the "
                        "first frame"
                    )
            steps, words = steps[:-1], words[: size * (len(steps) - 1)]
            self.warnings.append(f"{self.path}: the last frame is incomplete (a killed run?): left out")
        values = _parsed(words, self.path).reshape(len(steps), self.rows, len(self.columns))
        return Chunk(values.mean(axis=1), steps)

    def _lines(self) -> Iterator[Chunk]:
        """Rows of as many numbers as there are names."""
        width, begun = len(self.columns) + (self.step is not None), self.kind != "csv"
        for piece, _ in self._marked():
            text = re.sub(rb"(?m)^ *#.*\n?", b"", piece)
            if not begun:
                begun, text = True, text.partition(b"\n")[2]
            words = text.replace(b",", b" ").split()
            if len(words) != width * text.count(b"\n"):
                lines = [line.replace(b",", b" ").split() for line in text.splitlines() if line.strip()]
                for line in lines:
                    if len(line) != width:
                        shown = b" ".join(line)[:40].decode("utf-8", "replace")
                        raise BadInput(
                            f"{self.path}: a line of {len(line)} columns ('{shown}'), expected {width}"
                        )
            table = _parsed(words, self.path).reshape(-1, width)
            if self.step is None:
                yield Chunk(table, None)
            else:
                steps = np.rint(table[:, self.step]).astype(np.int64)
                yield Chunk(np.delete(table, self.step, axis=1), steps)

    def _marked(self) -> Iterator[tuple[bytes, bool]]:
        """Whole lines, many at a time, and whether they are the last."""
        with open_bytes(self.path, ReadOptions()) as stream:
            rest = b""
            while piece := stream.read(PIECE_BYTES):
                text = rest + piece
                cut = text.rfind(b"\n") + 1
                rest = text[cut:]
                if cut:
                    yield text[:cut], False
            if rest.strip():  # a number may have been cut
                self.warnings.append(f"{self.path}: ends inside a line (a killed run?), which was left out")
            yield b"", True


def open_table(path: Path) -> NumberFile | None:
    """The table in a file; None if it is none (a trajectory).

    Raises:
        BadInput: no file, empty, not an array of numbers.
    """
    if not path.is_file():
        raise BadInput(f"no such file: '{path}'")
    if path.suffix == ".npy":
        return _numpy(path)
    start = head(path, 1 << 16)
    if not start.strip():
        raise BadInput(f"{path}: the file is empty")
    if (first := EXTRAS.match(start)) is not None:
        return _extras(path, start, first)
    lines = start.decode("utf-8", "replace").splitlines()
    if lines[0].startswith("# Time-averaged data"):
        return _named(path, "ave/time", lines[1].lstrip("# ").split(), "e*A")
    names = lines[0].lstrip("# ").replace(",", " ").split()
    numbers_below = len(lines) > 1 and _all_numbers(lines[1].replace(",", " ").split(), len(names))
    if names and numbers_below and not _all_numbers(names, len(names)):
        return _named(path, "csv" if not lines[0].startswith("#") else "table", names, None)
    return None


def picked(table: NumberFile, columns: Sequence[str], counts: Sequence[int], what: str) -> list[int]:
    """Indices of the columns that are wanted.

    Args:
        table: the file.
        columns: names; none: the only vector `…[1]`, `…[2]`, … of a number of components among `counts`, or
            all columns if there are so many.
        counts: numbers of columns that make sense; empty: any.
        what: is sought.

    Raises:
        BadInput: no such columns, several vectors, another number of them.
    """
    names = list(columns)
    if not names:
        vectors: dict[str, list[str]] = {}
        for name in table.columns:
            if found := re.fullmatch(r"(.+)\[\d+\]", name):
                vectors.setdefault(found[1], []).append(name)
        fitting = [group for group in vectors.values() if not counts or len(group) in counts]
        called = [group for stem, group in vectors.items() if stem == what and group in fitting]
        fitting = called or fitting
        if not fitting and (not counts or len(table.columns) in counts):
            fitting = [list(table.columns)]
        if len(fitting) != 1:
            many = " or ".join(map(str, counts))
            raise BadInput(
                f"{table.path}: expected one {what} of {many} columns, got {_listed(table.columns)}: name "
                "them with --columns"
            )
        names = fitting[0]
    twice.require_other_names(table.path, names)
    for name in names:
        if name not in table.columns:
            raise BadInput(f"{table.path}: no column '{name}': {nearest(name, table.columns)}")
    if counts and len(names) not in counts:
        many = " or ".join(map(str, counts))
        raise BadInput(f"{table.path}: {len(names)} columns of the {what}, expected {many}")
    return [table.columns.index(name) for name in names]


def _listed(columns: Sequence[str]) -> str:
    """Names, the first of many."""
    shown = ", ".join(columns[:SHOWN])
    return shown if len(columns) <= SHOWN else f"{shown}, … ({len(columns)} in all)"


def _numpy(path: Path) -> NumberFile:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise BadInput(f"{path}: not an array of numpy ({error})") from error
    if array.ndim < 2 or not np.issubdtype(array.dtype, np.floating) or not array.size:
        raise BadInput(f"{path}: expected an array of numbers (samples, components), got {array.shape}")
    width = int(np.prod(array.shape[1:]))
    return NumberFile(path, "numpy", tuple(f"x[{k + 1}]" for k in range(width)), None, None, 1, [])


def _extras(path: Path, start: bytes, found: re.Match[bytes]) -> NumberFile:
    names = [name.strip() for name in found[1].decode().split(",")]
    second = EXTRAS.search(start, found.end())
    lines = [line.split() for line in start[found.end() : second and second.start()].splitlines()]
    lines = [line for line in lines if line]
    if names == ["raw"] or not lines or len({len(line) for line in lines}) != 1:
        raise BadInput(
            f"{path}: no numbers in the first frame of the extras {', '.join(names)}: write them with "
            '<trajectory filename="mu" extra_type="dipole"> extras </trajectory>'
        )
    width, rows = len(lines[0]), len(lines)
    matrix = rows % 3 == 0 and names == ["polarizability"] and width == 3
    if matrix:  # row by row
        width, rows = 9, rows // 3
    sizes = [width] if len(names) == 1 else [SIZES.get(name, 0) for name in names]
    if sum(sizes) != width or 0 in sizes:
        raise BadInput(
            f"{path}: {width} numbers of {', '.join(names)}: only dipole (3) and polarizability (9) can "
            "stand "
            "in one line; write the others to files of their own"
        )
    columns = tuple(f"{name}[{k + 1}]" for name, size in zip(names, sizes) for k in range(size))
    return NumberFile(path, "extras", columns, "atomic", None, rows, [])


def _named(path: Path, kind: str, names: Sequence[str], unit: str | None) -> NumberFile:
    step = next((k for k, name in enumerate(names) if name in STEP_NAMES), None)
    columns = tuple(name for k, name in enumerate(names) if k != step)
    return NumberFile(path, kind, columns, unit, step, 1, [])


def _all_numbers(words: Sequence[str], count: int) -> bool:
    try:
        return len([float(word) for word in words]) == count
    except ValueError:
        return False


def _parsed(words: list[bytes], path: Path) -> Floats:
    try:
        return decimals(words) if words else np.zeros(0)
    except ValueError as error:
        raise BadInput(f"{path}: {error}; expected numbers") from error
