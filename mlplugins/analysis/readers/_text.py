"""Shared by the trajectory readers: the frame, opening (compressed) files, tables of numbers with an
element column."""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json

from mlplugins.analysis.unpacking import unpacker
from mlplugins.errors import BadInput
from mlplugins.units import ASE_TIME_PER_FS

Floats = NDArray[np.float64]
CHUNK_BYTES = 1 << 17
NEWLINE = 10
DECIMAL = b"0123456789.+-eE,"
SMALLEST_ROW = 2
"""Bytes of a column: a digit and what separates it from the next."""
MOST_PACKED = 10_000
"""Text that shrinks more than this is no table of positions."""


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
        velocities: (N, 3), Å/fs, if the file holds them; not in every frame, unless asked for.
        velocity_units: what their unit may be in that which was taken, where the file does not say it.
        clock: a time whose unit the file does not state.
        kinetic: kinetic energy of each atom (N,), eV, if the file holds velocities; not in every frame.
        masses: of each atom (N,), u, if the file holds them; in its first frame only.
        charges: of each atom (N,), e, likewise.
        wrapped: what the format says of the positions: True; False (unwrapped, or image flags);
            None (nothing).
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
    velocity_units: tuple[float, ...] = (1.0,)
    clock: float | None = None
    kinetic: Floats | None = None
    masses: Floats | None = None
    charges: Floats | None = None
    wrapped: bool | None = None


@dataclass
class ReadOptions:
    """What a reader may need besides the file, and where it reports what it left out.

    Attributes:
        type_map: element of each LAMMPS type, in order.
        warnings: the reader appends here what it dropped.
        raw: the file being read, for the progress; None if the reader does not say.
        topology: file with the elements, for formats that hold positions only.
        velocities: whether velocities are wanted too.
    """

    type_map: tuple[str, ...] = ()
    warnings: list[str] = field(default_factory=list)
    raw: IO[bytes] | None = None
    topology: Path | None = None
    velocities: bool = False


class Truncated(Exception):
    """The file ends inside a frame (a killed run); the text says where.

    Attributes:
        more: whether another frame begins right there (a run that was appended).
    """

    def __init__(self, text: str, more: bool = False) -> None:
        super().__init__(text)
        self.more = more


@contextmanager
def open_bytes(path: Path, options: ReadOptions) -> Iterator[IO[bytes]]:
    """Open a file for reading, unpacked by what its first bytes say, not by its name."""
    with open(path, "rb") as raw:
        unpack = unpacker(raw)
        options.raw = raw
        try:
            with unpack(raw) if unpack else nullcontext(raw) as stream:
                yield stream
        finally:
            options.raw = None


def head(path: Path, size: int = 8192) -> bytes:
    """The first bytes of a file, unpacked."""
    try:
        with open_bytes(path, ReadOptions()) as stream:
            return stream.read(size)
    except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise BadInput(f"{path}: cannot be read ({error})") from error


def require_room(atoms: int, columns: int, path: Path, where: str) -> None:
    """Refuse an announced number of atoms before memory is asked for.

    Raises:
        BadInput: no atoms, or more than a file of that size can hold.
    """
    with open(path, "rb") as raw:
        most = path.stat().st_size * (MOST_PACKED if unpacker(raw) else 1)
    if not 0 < atoms * columns * SMALLEST_ROW <= most + columns * SMALLEST_ROW:
        raise BadInput(
            f"{where}: announces {atoms:.6g} atoms of {columns} columns, which a file of "
            f"{path.stat().st_size} bytes cannot hold; the file is damaged"
        )


class Lines:
    """The lines of a (compressed) file, taken many at a time; a broken compressed stream ends it.

    Args:
        stream: opened for reading bytes.
        path: named in messages.
    """

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        self._stream, self._path = stream, path
        self._held = b""
        self._ends: NDArray[np.intp] = np.zeros(1, dtype=np.intp)  # where line i of what is held begins
        self._line = 0
        self._broken = False

    def take(self, count: int, where: str) -> bytes:
        """The next `count` whole lines as one block; a shorter file is `Truncated`."""
        while len(self._ends) - 1 - self._line < count:
            if not self._more():
                raise Truncated(where)
        begin, end = self._ends[self._line], self._ends[self._line + count]
        self._line += count
        return self._held[begin:end]

    def one(self, where: str) -> bytes:
        """The next line, b"" at the end of the file; the last one may lack its newline."""
        while len(self._ends) - 1 == self._line:
            if not self._more():
                if self._broken:
                    raise Truncated(where)
                rest, self._held = self._held[self._ends[self._line] :], b""
                self._ends, self._line = np.zeros(1, dtype=np.intp), 0
                return rest
        begin, end = self._ends[self._line : self._line + 2]
        self._line += 1
        return self._held[begin:end]

    def between_frames(self) -> bytes:
        """The next line that is not blank, b"" at the end of the file."""
        while (line := self.one("ends between two frames")) and not line.strip():
            pass
        return line

    def back(self, size: int) -> None:
        """Give back the last `size` bytes of what was taken last; they may begin inside a line."""
        at = self._ends[self._line] - size
        self._line = int(np.searchsorted(self._ends, at, side="right")) - 1
        self._ends[self._line] = at

    def _more(self) -> bool:
        """Read on, at least as much as is held, and find the lines of it; whether there was more."""
        begin = self._ends[self._line]
        pieces = [self._held[begin:]]
        wanted = max(CHUNK_BYTES, len(pieces[0]))
        while wanted > 0 and (piece := self._read(wanted)):
            pieces.append(piece)
            wanted -= len(piece)
        if len(pieces) == 1:
            return False
        self._held = b"".join(pieces)
        ends = np.flatnonzero(np.frombuffer(self._held, dtype=np.uint8) == NEWLINE) + 1
        self._ends, self._line = np.concatenate([[0], ends]), 0
        return True

    def _read(self, size: int) -> bytes:
        try:
            return b"" if self._broken else self._stream.read1(size)  # type: ignore[attr-defined]
        except EOFError:  # a compressed file cut short: what came before is good
            self._broken = True
            return b""
        except (OSError, zlib.error, lzma.LZMAError) as error:
            raise BadInput(f"{self._path}: damaged ({error}); expected a whole compressed file") from error


def whole_frames(path: Path, options: ReadOptions, frame: Callable[[Lines], Frame | None]) -> Iterator[Frame]:
    """What `frame` makes of the lines of a file until it returns None; one that is cut short is dropped."""
    with open_bytes(path, options) as stream:
        lines = Lines(stream, path)
        while True:
            try:
                found = frame(lines)
            except Truncated as cut:
                options.warnings.append(
                    f"{path}: {cut}; that frame is incomplete (a killed run?) and was dropped"
                )
                if not cut.more:
                    return
                continue
            if found is None:
                return
            yield found


class Table:
    """Reads blocks of white-space separated columns, of which one may hold names (elements).

    Columns that are the same from block to block (ids, names) are compared as text and not parsed again.

    Args:
        columns: number of columns.
        numbers: indices of the columns wanted as numbers.
        names: index of the column of names, or None.
        ids: index of a column of numbers that seldom changes, or None.

    >>> table = Table(columns=4, numbers=[1, 2, 3], names=0)
    >>> block = table.parse(b"Li 0 0.5 1\\n S 1 1e-1 2\\n", 2, "here")
    >>> block.values.tolist(), block.names.tolist()
    ([[0.0, 1.0], [0.5, 0.1], [1.0, 2.0]], ['Li', 'S'])
    """

    def __init__(
        self, columns: int, numbers: Sequence[int], names: int | None, ids: int | None = None
    ) -> None:
        self.columns = columns
        self.numbers = list(numbers)
        self._names = _Repeated(names, lambda words: np.array(b"\n".join(words).decode("utf-8").split("\n")))
        self._ids = _Repeated(ids, decimals)

    def parse(self, block: bytes, rows: int, where: str, more: Sequence[int] = ()) -> Block:
        """Read one block of `rows` lines, and for once `more` columns of numbers."""
        words = block.split()
        if len(words) != rows * self.columns:
            raise BadInput(
                f"{where}: expected {rows} lines of {self.columns} columns, found {len(words)} values in "
                f"{rows} lines; the file is damaged"
            )
        columns = [*self.numbers, *more]
        wanted = list(chain.from_iterable(words[column :: self.columns] for column in columns))
        try:
            values = decimals(wanted).reshape(len(columns), rows)
            ids = self._ids.of(words, self.columns)
            names = self._names.of(words, self.columns)
        except ValueError as error:
            raise BadInput(f"{where}: {error}; expected numbers, and names in UTF-8") from error
        own = len(self.numbers)
        return Block(values[:own], names, ids, values[own:])


@dataclass(frozen=True)
class Block:
    """What `Table` read: numbers (columns, rows), names and ids (rows,), empty where there are none."""

    values: Floats
    names: NDArray[np.str_]
    ids: Floats
    more: Floats


class _Repeated:
    """A column that is read again only if its text has changed; the same array then comes back."""

    def __init__(self, column: int | None, read: Callable[[list[bytes]], NDArray[Any]]) -> None:
        self._column, self._read = column, read
        self._words: list[bytes] = []
        self._array: NDArray[Any] = np.array([])

    def of(self, words: list[bytes], columns: int) -> NDArray[Any]:
        if self._column is not None and (found := words[self._column :: columns]) != self._words:
            self._words, self._array = found, self._read(found)
        return self._array


def of_momenta(momenta: Floats, masses: Floats) -> dict[str, Floats]:
    """Velocities (N, 3), Å/fs, and kinetic energies (N,), eV, of momenta in ASE's units, √(u eV)."""
    velocities = momenta / masses[:, None]
    kinetic = np.asarray(0.5 * (momenta * velocities).sum(axis=1))
    return {"velocities": velocities * ASE_TIME_PER_FS, "kinetic": kinetic}


def decimals(words: list[bytes]) -> Floats:
    """float64 of decimal numbers, correctly rounded.

    A JSON parser reads a list of numbers several times as fast as numpy reads text; what JSON does not know
    (nan, +1, .5) goes the slow way.
    """
    text = b",".join(words)
    if not text.translate(None, DECIMAL):
        try:
            found = from_json(b"[" + text + b"]")
            if len(found) == len(words):
                return np.fromiter(found, np.float64, len(words))
        except ValueError:
            pass
    return np.array([float(word) for word in words])
