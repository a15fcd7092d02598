"""What the trajectory readers share: the frame, opening (compressed) files, tables of numbers with "
"an element column."""

from __future__ import annotations

import bz2
import gzip
import lzma
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from mlplugins.errors import BadInput

Floats = NDArray[np.float64]
COMPRESSED: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}


@dataclass(frozen=True)
class Frame:
    """One frame as the file has it.

    Attributes:
        symbols: element of each atom (N,), in an order that is the same in all frames.
        positions: Cartesian positions (N, 3), Å, wrapped or not.
        cell: lattice vectors as rows (3, 3), Å; zeros without a cell.
        images: cell image of each atom (N, 3) so that positions + images @ cell is unwrapped; None if not
            known.
        periodic: periodic directions (3,).
        step: MD step number, if the file holds it.
        time_fs: time, if the file holds it.
        bead: path-integral bead, if the file holds it.
        origin: corner of the cell (3,), Å; None is zero.
        velocities: (N, 3), Å/fs, if the file holds them and their unit is known.
    """

    symbols: NDArray[np.str_]
    positions: Floats
    cell: Floats
    images: Floats | None = None
    periodic: tuple[bool, bool, bool] = (True, True, True)
    step: int | None = None
    time_fs: float | None = None
    bead: int | None = None
    origin: Floats | None = None
    velocities: Floats | None = None


@dataclass
class ReadOptions:
    """What a reader may need besides the file, and where it tells what it left out.

    Attributes:
        type_map: element of each LAMMPS type, in order.
        warnings: the reader appends here what it dropped.
        raw: the file being read, for the progress; None if the reader does not say.
        topology: file with the elements, for formats that hold positions only.
    """

    type_map: tuple[str, ...] = ()
    warnings: list[str] = field(default_factory=list)
    raw: IO[bytes] | None = None
    topology: Path | None = None


class Truncated(Exception):
    """The file ends inside a frame (a killed run); the text says where."""


@contextmanager
def open_bytes(path: Path, options: ReadOptions) -> Iterator[IO[bytes]]:
    """Open a file for reading, unpacking gzip, bzip2 and xz by their first bytes, not by the name."""
    with open(path, "rb") as raw:
        opener = COMPRESSED.get(raw.read(2))
        raw.seek(0)
        options.raw = raw
        try:
            yield cast("IO[bytes]", opener(raw, "rb")) if opener else raw
        finally:
            options.raw = None


def head(path: Path, size: int = 8192) -> bytes:
    """The first bytes of a file, unpacked."""
    try:
        with open_bytes(path, ReadOptions()) as stream:
            return stream.read(size)
    except (EOFError, OSError, lzma.LZMAError) as error:
        raise BadInput(f"{path}: cannot be read ({error})") from error


def read_lines(stream: IO[bytes], count: int, where: str) -> bytes:
    """Read `count` whole lines as one block; a shorter file is `Truncated`."""
    try:
        lines = list(islice(stream, count))
    except EOFError as error:  # a compressed file cut short
        raise Truncated(where) from error
    if len(lines) < count or (lines and not lines[-1].endswith(b"\n")):
        # a complete last line may lack its newline; a cut one cannot be told from it by length alone
        raise Truncated(where)
    return b"".join(lines)


def read_line(stream: IO[bytes], where: str) -> bytes:
    """Read one line, b"" at the end of the file; a broken compressed stream is `Truncated`."""
    try:
        return stream.readline()
    except EOFError as error:
        raise Truncated(where) from error


class Table:
    """Reads blocks of white-space separated columns, of which one may hold names (elements).

    Args:
        columns: number of columns.
        numbers: indices of the columns wanted as numbers.
        names: index of the column of names, or None.

    >>> table = Table(columns=4, numbers=[1, 2, 3], names=0)
    >>> values, names = table.parse(b"Li 0 0.5 1\\n S 1 1e-1 2\\n", 2, "here")
    >>> values.tolist(), names.tolist()
    ([[0.0, 0.5, 1.0], [1.0, 0.1, 2.0]], ['Li', 'S'])
    """

    def __init__(self, columns: int, numbers: Sequence[int], names: int | None) -> None:
        self.columns = columns
        self.numbers = list(numbers)
        self.names = names
        self._known: list[bytes] = []
        self._labels: NDArray[np.str_] = np.array([], dtype=str)

    def parse(self, block: bytes, rows: int, where: str) -> tuple[Floats, NDArray[np.str_]]:
        """Return the numbers (rows, len(numbers)) and the names (rows,), empty without a column of names."""
        table = self._fast(block, rows)
        if table is None:
            return self._slow(block, rows, where)
        if self.names is None:
            return table[:, self.numbers], self._labels
        return table[:, self.numbers], self._labels[table[:, self.names].astype(int)]

    def _fast(self, block: bytes, rows: int) -> Floats | None:
        if self.names is not None:
            if not self._known:
                return None
            block = b" " + block.replace(b"\n", b" \n ")
            for index, name in enumerate(self._known):
                block = block.replace(b" " + name + b" ", b" %d " % index)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                flat = np.fromstring(block, dtype=np.float64, sep=" ")
            except (DeprecationWarning, ValueError):
                return None
        return flat.reshape(rows, self.columns) if flat.size == rows * self.columns else None

    def _slow(self, block: bytes, rows: int, where: str) -> tuple[Floats, NDArray[np.str_]]:
        tokens = block.split()
        if len(tokens) != rows * self.columns:
            raise BadInput(
                f"{where}: expected {rows} lines of {self.columns} columns, found {len(tokens)} values in "
                f"{rows} lines; the file is damaged"
            )
        grid = np.array(tokens).reshape(rows, self.columns)
        try:
            values = grid[:, self.numbers].astype(np.float64)
        except ValueError as error:
            raise BadInput(f"{where}: {error}; expected numbers") from error
        if self.names is None:
            return values, self._labels
        found = grid[:, self.names]
        self._known = sorted(set(self._known) | {bytes(name) for name in found})
        self._labels = np.array([name.decode("utf-8") for name in self._known])
        return values, found.astype(str)
