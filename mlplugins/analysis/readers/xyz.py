"""xyz trajectories: i-PI's (cell and units in the comment line) and extended xyz as ASE and others
write it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_masses, atomic_numbers
from numpy.typing import NDArray

from mlplugins.analysis.readers._comment import Comment, parse
from mlplugins.analysis.readers._text import (
    Floats,
    Frame,
    Lines,
    ReadOptions,
    Table,
    Truncated,
    of_momenta,
    require_room,
    whole_frames,
)
from mlplugins.analysis.witnesses import sampled
from mlplugins.errors import BadInput
from mlplugins.units import A_FS_PER_ATOMIC_VELOCITY, ASE_TIME_PER_FS, FS_PER_PS

NAME = "xyz (i-PI or extended)"
MOST_DIGITS = 18
"""Of a number of atoms."""
VELOCITY_UNITS = (1.0, 1 / FS_PER_PS, ASE_TIME_PER_FS, A_FS_PER_ATOMIC_VELOCITY)
"""Å/fs in the units of columns that programs call vel or velo."""
NEXT_FRAME = re.compile(rb"(?:^|\n)( *\d+ *\n)")  # a line with nothing but a count


def matches(path: Path, head: bytes) -> bool:
    """Whether the first line is a number of atoms and the fourth column of the third line a number."""
    lines = head.splitlines()
    if len(lines) < 3 or not lines[0].strip().isdigit():
        return False
    return len(lines[2].split()) >= 4


def read(path: Path, options: ReadOptions) -> Iterator[Frame]:
    """Yield the frames; lengths are converted to Å from the units that i-PI prints in the comment line."""
    reader = _XyzReader(path)
    yield from whole_frames(path, options, reader.frame)


class _XyzReader:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.number = 0
        self._size = (0, 0)
        self._masses: Floats = np.array([])
        self._tables: dict[tuple[int, int, int], Table] = {}

    def frame(self, lines: Lines) -> Frame | None:
        if not (line := lines.between_frames()):
            return None
        self.number += 1
        where = f"{self.path}, frame {self.number}"
        if not line.endswith(b"\n"):
            raise Truncated(f"ends inside frame {self.number}")
        if not line.strip().isdigit() or len(line.strip()) > MOST_DIGITS:
            raise BadInput(
                f"{where}: expected the number of atoms, found '{line[:60].decode('utf-8', 'replace')}'"
            )
        count = int(line)
        text = lines.take(1, f"ends inside frame {self.number}").decode("utf-8", "replace").strip()
        comment = parse(text, where)
        if (count, comment.columns) != self._size:
            require_room(count, comment.columns, self.path, where)
            self._size = (count, comment.columns)
        block = lines.take(count, f"ends inside frame {self.number}")
        if (next_frame := NEXT_FRAME.search(block)) is not None:
            lines.back(len(block) - next_frame.start(1))
            raise Truncated(f"frame {self.number} is cut by the next one", more=True)
        more = [name for name in comment.also if self._is_wanted(name)]
        first = [comment.also[name] for name in more]
        columns = [k + axis for k, name in zip(first, more) for axis in range(1 if name == "masses" else 3)]
        found = self._table(comment).parse(block, count, where, columns)
        return Frame(
            symbols=found.names,
            positions=found.values.T * comment.length,
            cell=comment.cell,
            periodic=comment.periodic,
            step=comment.step,
            time_fs=comment.time_fs,
            clock=comment.clock,
            bead=comment.bead,
            origin=comment.origin,
            **(self._motion(more, found.more, found.names) if more else {}),
        )

    def _is_wanted(self, name: str) -> bool:
        return self.number == 1 if name == "masses" else sampled(self.number)

    def _motion(self, names: list[str], rows: Floats, symbols: NDArray[np.str_]) -> dict[str, Any]:
        """Fields of the frame from further columns; velocities that are not momenta state no unit."""
        found: dict[str, Any] = {}
        for name in names:
            if name == "masses":
                self._masses, rows = rows[0], rows[1:]
                found["masses"] = self._masses
            else:
                values, rows = rows[:3].T, rows[3:]
                found[name] = values
        if (momenta := found.pop("momenta", None)) is None:
            return found | {"velocity_units": VELOCITY_UNITS}
        standard = [atomic_masses[atomic_numbers.get(str(name), 0)] for name in symbols]
        own = len(self._masses) == len(symbols)
        return found | of_momenta(momenta, self._masses if own else np.array(standard))

    def _table(self, comment: Comment) -> Table:
        key = (comment.columns, comment.name_column, comment.position_column)
        if key not in self._tables:
            first = comment.position_column
            self._tables[key] = Table(comment.columns, range(first, first + 3), comment.name_column)
        return self._tables[key]
