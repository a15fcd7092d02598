"""Elements of a POSCAR of VASP 4, which has no line for them: ASE takes words of its title."""

from __future__ import annotations

import re
from itertools import islice

from ase.data import chemical_symbols
from ase.formula import Formula
from ase.io.formats import open_with_compression

from mlplugins.errors import BadInput

WORDS = set(chemical_symbols) & set(["I", "In", "As", "At", "No", "Am", "He", "Be", "Os", "Co"])
"""Symbols that are words or abbreviations beside other words."""
MADE = 95
"""Atomic numbers from here on: of elements that are no material."""


def require_elements(path: str) -> None:
    """Refuse titles whose words are elements by chance.

    Raises:
        BadInput: a file without a line of elements, whose title is more than the names of as many elements.
    """
    with open_with_compression(path, "r") as lines:
        start = [*islice(lines, 6), *[""] * 6][:6]
    counts = start[5].partition("!")[0].split()
    if not counts or not counts[0].isdigit():
        return
    words = re.findall(r"[A-Za-z][A-Za-z0-9]*", start[0])
    symbols = [symbol for word in words for symbol in _symbols(word)]
    if not symbols:
        return  # ASE then looks for a POTCAR or OUTCAR, or fails
    others = [word for word in words if not _symbols(word)]
    doubtful = (WORDS if others else set()) | set(chemical_symbols[MADE:])
    if len(symbols) == len(counts) and not doubtful & set(symbols):
        return
    raise BadInput(
        f"{path}: no line of elements (VASP 4), and the title '{start[0].strip()[:60]}' names "
        f"{' '.join(dict.fromkeys(symbols))} for {len(counts)} kinds of atoms, perhaps by chance: write the "
        "elements above their numbers, as VASP 5 does"
    )


def _symbols(word: str) -> list[str]:
    """What ASE takes of a word.

    >>> _symbols("Li6PS5Cl"), _symbols("bulk")
    (['Li', 'P', 'S', 'Cl'], [])
    """
    try:
        return list(Formula(re.sub(r"[0-9]", "", word)))
    except ValueError:
        return []
