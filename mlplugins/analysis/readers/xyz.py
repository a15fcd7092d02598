"""xyz trajectories: i-PI's (cell and units in the comment line) and extended xyz as ASE and others
write it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from mlplugins.analysis.readers._comment import Comment, parse
from mlplugins.analysis.readers._text import (
    Frame,
    Lines,
    ReadOptions,
    Table,
    Truncated,
    require_room,
    whole_frames,
)
from mlplugins.errors import BadInput

NAME = "xyz (i-PI or extended)"
MOST_DIGITS = 18
"""Of a number of atoms."""
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
        found = self._table(comment).parse(block, count, where)
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
        )

    def _table(self, comment: Comment) -> Table:
        key = (comment.columns, comment.name_column, comment.position_column)
        if key not in self._tables:
            first = comment.position_column
            self._tables[key] = Table(comment.columns, range(first, first + 3), comment.name_column)
        return self._tables[key]
