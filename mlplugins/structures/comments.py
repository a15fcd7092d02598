"""The grammar of comment lines in xyz files: pairs `key=value` of extended xyz, and i-PI's cell and units.

One owner for data sets (`extxyz`, which writes them anew for ASE) and trajectories (readers of `analysis`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from ase.geometry import cellpar_to_cell
from numpy.typing import NDArray

from mlplugins.errors import BadInput

KEYWORDS = {"lattice": "Lattice", "properties": "Properties", "pbc": "pbc"}
"""Keywords that other programs write in any case, as ASE spells them."""

TRUE, FALSE = ("t", "true", "1"), ("f", "false", "0")
IPI_POSITIONS = ("positions", "x_centroid", "x_centroid_even", "x_centroid_odd", "x")

_QUOTED = r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'|\{[^}]*\}|\[(?:[^\[\]]|\[[^\[\]]*\])*\]'
_PAIR = re.compile(rf"([^\s=\"']+)(?:\s*=\s*({_QUOTED})|\s*=\s*([^\s=]+)(?=\s|$)|=(\S*))")
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eEdD][-+]?\d+)?")
_IPI_CELL = re.compile(r"CELL[(\[{](abcABC|H|GENH)[)\]}]:\s*((?:[-+.\deE]+(?:\s+|$))+)")
_IPI_UNIT = re.compile(r"(\w+)\{([^}\s]*)\}")


class Pair(NamedTuple):
    """`key=value` and the text it was found in; the value as it stands, with its quotes or brackets."""

    match: re.Match[str]
    key: str
    value: str


def pairs(text: str) -> list[Pair]:
    """All pairs of a comment line, in order.

    >>> [(key, value) for _, key, value in pairs('Lattice="9 0 0" pbc=[T, T, F] step = 4')]
    [('Lattice', '"9 0 0"'), ('pbc', '[T, T, F]'), ('step', '4')]
    """
    return [Pair(m, m[1], m[2] or m[3] or m[4] or "") for m in _PAIR.finditer(text)]


def bare(value: str) -> str:
    """A value without the quotes or brackets around it.

    >>> bare("[[1, 2], [3, 4]]"), bare('"T T F"')
    (' 1, 2 ,  3, 4 ', 'T T F')
    """
    if value[:1] not in tuple("\"'{["):
        return value
    return value[1:-1].replace("[", " ").replace("]", " ") if value[0] == "[" else value[1:-1]


def numbers(text: str) -> list[str]:
    """The words of a value that are numbers.

    >>> numbers('"1 -2.5e3 T"')
    ['1', '-2.5e3']
    """
    return _NUMBER.findall(text)


def is_number(word: str) -> bool:
    """Whether a word is a number."""
    return _NUMBER.fullmatch(word) is not None


def floats(text: str, name: str, where: str) -> NDArray[np.float64]:
    """The numbers of a value, separated by blanks or commas.

    Raises:
        BadInput: none, a word, or a number that is not finite.
    """
    try:
        values = np.array([float(word) for word in text.replace(",", " ").split()])
    except ValueError as error:
        raise BadInput(f"{where}: {name} '{text[:80]}': {error}; expected numbers") from error
    if not values.size or not np.isfinite(values).all():
        raise BadInput(f"{where}: {name} '{text[:80]}'; expected finite numbers")
    return values


def periodic(text: str, where: str) -> tuple[bool, bool, bool]:
    """Periodic directions from `pbc`.

    >>> periodic("T T F", "here"), periodic("1", "here"), periodic("TTF", "here")
    ((True, True, False), (True, True, True), (True, True, False))

    Raises:
        BadInput: anything else than one or three flags.
    """
    words = [word.lower() for word in text.replace(",", " ").split()]
    if len(words) == 1 and re.fullmatch("[tf]{3}", words[0]):
        words = list(words[0])
    flags = [word in TRUE for word in words] * (3 if len(words) == 1 else 1)
    if len(flags) != 3 or not all(word in (*TRUE, *FALSE) for word in words):
        raise BadInput(f"{where}: pbc '{text[:40]}'; expected three of T and F")
    return flags[0], flags[1], flags[2]


class IpiCell(NamedTuple):
    """i-PI's cell.

    Attributes:
        vectors: (3, 3), as rows, in the unit that the line names.
        text: what stands in the line.
        rest: the line after it.
    """

    vectors: NDArray[np.float64]
    text: str
    rest: str


def ipi_cell(text: str, where: str) -> IpiCell | None:
    """The cell of i-PI's comment line; None if it is not one of i-PI's.

    Raises:
        BadInput: a cell of too few numbers, or one that does not exist.
    """
    found = _IPI_CELL.search(text)
    if found is None:
        return None
    kind, values = found[1], floats(found[2], "cell", where)
    if kind == "abcABC" and len(values) == 6:
        vectors = _from_angles(values, found[2].split(), where)
    elif kind in ("H", "GENH") and len(values) == 9:
        vectors = values.reshape(3, 3).T  # i-PI has the vectors as columns
    else:
        raise BadInput(
            f"{where}: cannot read the cell in '{text[:80]}' ({len(values)} numbers); expected 6 (abcABC) "
            "or 9 (H, GENH)"
        )
    return IpiCell(vectors, found[0], text[found.end() :])


def _from_angles(values: NDArray[np.float64], words: Sequence[str], where: str) -> NDArray[np.float64]:
    lengths, angles = values[:3], values[3:]
    if not ((lengths > 0).all() and (angles > 0).all() and (angles < 180).all()):
        raise BadInput(
            f"{where}: cell of lengths {' '.join(words[:3])} and angles {' '.join(words[3:])}; expected "
            "lengths above zero and angles between 0 and 180 degrees"
        )
    x, y, z = np.cos(np.radians(angles))
    if not 1 + 2 * x * y * z - x * x - y * y - z * z > 1e-9:  # (volume / a b c)²
        raise BadInput(f"{where}: no cell has the angles {' '.join(words[3:])}; the file is damaged")
    return np.array(cellpar_to_cell(values))


def ipi_units(text: str) -> dict[str, str]:
    """Units that i-PI prints after the cell, by what they are of.

    >>> ipi_units("positions{angstrom}  cell{atomic_unit}")
    {'positions': 'angstrom', 'cell': 'atomic_unit'}
    """
    return dict(_IPI_UNIT.findall(text))
