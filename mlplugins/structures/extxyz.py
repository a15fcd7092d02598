"""Comment lines of extended xyz, corrected before ASE reads them.

ASE 3.29 knows `Lattice`, `Properties` and `pbc` in this spelling only and reads a frame whose keyword is
spelled otherwise without its cell or its columns; the reserved names `stress` and `virial` it reads with
nine numbers only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from ase import Atoms
from ase.io.formats import UnknownFileTypeError, filetype

from mlplugins.errors import BadInput
from mlplugins.structures import comments, foreign

TENSORS = ("stress", "virial")
LONGEST_CELL_A = 500.0
"""i-PI has no structures without a cell: longer cells stand for none (Å)."""

_CELL_LIKE = re.compile(
    r"^(?:unit_?|super_?)?(?:cell|box|lattice)(?:_?(?:vectors?|matrix|parameters|lengths))?$", re.IGNORECASE
)


def read(path: Path | str, index: int | str) -> Atoms | list[Atoms]:
    """`ase.io.read` of any format, with the comment lines of extended xyz corrected.

    Raises:
        BadInput: see `corrected` and `foreign.read`; whatever else ASE's readers raise is left as it is.
    """
    with _prepared(str(path), str(index)) as plain:
        return foreign.read(plain, index)


@contextmanager
def _prepared(path: str, index: str) -> Iterator[str]:
    """The file, or a corrected copy of it if wanted frames are extended xyz that ASE would misread."""
    changed = dict(_corrections(path, _last(index))) if _is_extxyz(path) else {}
    if not changed:
        yield path
        return
    with TemporaryDirectory() as folder:
        copy = Path(folder) / Path(path).with_suffix(".extxyz").name
        with open(path, encoding="utf-8") as source, copy.open("w", encoding="utf-8") as target:
            target.writelines(changed.get(number, line) for number, line in enumerate(source))
        yield str(copy)


def _last(index: str) -> float:
    """Number of the last frame that a slice can name; infinite if it counts from the end.

    >>> _last("3"), _last("-1"), _last("2:9:3"), _last(":")
    (3, inf, 8, inf)
    """
    first, _, rest = index.partition(":")
    stop = rest.partition(":")[0] if ":" in index else str(int(first) + 1)
    counted = stop.isdigit() and not index.startswith("-") and "-" not in rest and int(stop) > 0
    return int(stop) - 1 if counted else math.inf


def corrected(comment: str, where: str) -> str:
    """A comment line as ASE reads it.

    Raises:
        BadInput: a damaged cell of i-PI, or units of it other than Å; a cell under a name that ASE does not
            know; flags that are none; a tensor of neither six nor nine numbers.

    >>> corrected('lattice="2 0 0 0 2 0 0 0 2" properties=species:S:1:pos:R:3 stress="1 2 3 4 5 6"', "a.xyz")
    'Lattice="2 0 0 0 2 0 0 0 2" Properties=species:S:1:pos:R:3 stress="1 6 5 6 2 4 5 4 3"'
    """
    cell = comments.ipi_cell(comment, where)
    if cell is not None:
        return _from_ipi(comment, cell, where)
    found = comments.pairs(comment)
    names = {key for _, key, _ in found}
    pieces, end = [], 0
    for match, key, value in found:
        pieces += [comment[end : match.start()], _pair(key, value, match.group(), names, where)]
        end = match.end()
    return "".join([*pieces, comment[end:]])


def _pair(key: str, value: str, text: str, names: set[str], where: str) -> str:
    name = comments.KEYWORDS.get(key.lower(), key)
    if name != key and name in names:
        return text  # the right spelling is there as well
    if name in TENSORS:
        return _tensor(name, value, text, (names, where))
    if name == "pbc":
        flags = comments.periodic(comments.bare(value), where)
        return f'pbc="{" ".join("FT"[flag] for flag in flags)}"'
    numbers = comments.numbers(value)
    if name == "Lattice":
        if len(numbers) != 9:
            raise BadInput(f"{where}: {key}: expected 9 numbers (ax ay az bx by bz cx cy cz), got {value}")
        plain = text == f"{key}={value}" and name == key and value[0] in "\"'"
        return text if plain else f'Lattice="{" ".join(numbers)}"'
    lost = (
        _CELL_LIKE.match(key)
        and len(numbers) in (3, 6, 9)
        and re.fullmatch(r"[-+.\deE,;\s\[\]{}()\"']+", value)
    )
    if lost and not {k.lower() for k in names} & {"lattice"}:
        raise BadInput(
            f"{where}: the comment line holds '{key}' but no 'Lattice', so the frame would be read without "
            f"its cell: write Lattice=\"ax ay az bx by bz cx cy cz\" (Å), or remove '{key}' of a molecule"
        )
    return f"{name}={value}" if name != key or text != f"{key}={value}" else text


def _tensor(name: str, value: str, text: str, line: tuple[set[str], str]) -> str:
    names, where = line
    words = [word for word in re.split(r"[\s,;\[\]{}()\"']+", value.replace("_JSON", "")) if word]
    if not words or all(word.lower() in ("none", "null") for word in words):
        return ""
    if "Properties" not in names and not any(map(comments.is_number, words)):
        return ""  # words in the title of a plain xyz, which ASE would take for a tensor
    if len(words) == 9:
        return f'{name}="{" ".join(words)}"' if "_JSON" in value or "[[" in value else text
    if len(words) != 6:
        raise BadInput(f"{where}: {name}: expected 6 (xx yy zz yz xz xy) or 9 numbers, got {len(words)}")
    xx, yy, zz, yz, xz, xy = words
    return f'{name}="{" ".join((xx, xy, xz, xy, yy, yz, xz, yz, zz))}"'


def _from_ipi(comment: str, cell: comments.IpiCell, where: str) -> str:
    """i-PI's comment line with the cell as `Lattice`."""
    units = comments.ipi_units(cell.rest)
    wrong = [
        f"{name}{{{unit}}}"
        for name, unit in units.items()
        if unit != "angstrom" or name not in ("cell", *comments.IPI_POSITIONS)
    ]
    if wrong or len(units) != 2 or "cell" not in units:
        raise BadInput(
            f"{where}: i-PI's comment line says {', '.join(wrong) or 'no units (atomic units)'}, expected "
            "positions{angstrom} cell{angstrom}: ask i-PI for them (units and cell_units of its <trajectory>)"
        )
    if np.linalg.norm(cell.vectors, axis=1).max() > LONGEST_CELL_A:
        return comment
    return f'Lattice="{" ".join(f"{x:.12g}" for x in cell.vectors.ravel())}" pbc="T T T"\n'


def _is_extxyz(path: str) -> bool:
    try:
        return filetype(path) in ("extxyz", "xyz")
    except (UnknownFileTypeError, OSError, UnicodeDecodeError, ValueError):
        return False


def _corrections(path: str, last: float) -> Iterator[tuple[int, str]]:
    """Line numbers and new text of the comment lines that change, up to frame `last`."""
    with open(path, encoding="utf-8", errors="replace") as stream:
        number = frame = 0
        for line in stream:
            if line[:3] == "VEC":
                number += 1
                continue
            if frame > last or not line.strip().isdigit():
                return  # enough, the end, or a file that ASE will refuse
            comment, n_atoms = next(stream, ""), int(line)
            new = corrected(comment, f"{path}, frame {frame}")
            if new != comment:
                yield number + 1, new
            skipped = sum(1 for _ in islice(stream, n_atoms))
            number, frame = number + 2 + skipped, frame + 1
