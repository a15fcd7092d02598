"""Element data (through `ase.data`), for rooms that must not know ASE."""

from __future__ import annotations

from collections.abc import Iterable

from ase.data import atomic_numbers, chemical_symbols, covalent_radii

from mlplugins.errors import BadInput


def atomic_number(symbol: str) -> int:
    """Atomic number of a chemical symbol.

    >>> atomic_number("Li")
    3
    >>> atomic_number("Lj")
    Traceback (most recent call last):
    ...
    mlplugins.errors.BadInput: unknown element 'Lj'
    """
    if symbol not in atomic_numbers or symbol == "X":
        raise BadInput(f"unknown element '{symbol}'")
    return int(atomic_numbers[symbol])


def covalent_radius(symbol: str) -> float:
    """Covalent radius in Å (Cordero et al., Dalton Trans. 2832 (2008)).

    >>> covalent_radius("S")
    1.05
    """
    return float(covalent_radii[atomic_number(symbol)])


def symbol(number: int) -> str:
    """Chemical symbol of an atomic number; `type 200` for a number that is none.

    >>> symbol(3), symbol(200)
    ('Li', 'type 200')
    """
    return str(chemical_symbols[number]) if 0 <= number < len(chemical_symbols) else f"type {number}"


def require_known(found: Iterable[str | int], known: Iterable[str], before: str, after: str) -> None:
    """Refuse elements that are not among `known`.

    Args:
        found: symbols or atomic numbers.
        known: symbols.
        before, after: text of the error around the symbols that are not known.

    Raises:
        BadInput: with that text.

    >>> require_known(["Li", "Kr", "S"], ["Li", "P", "S"], "frame 0 holds ", ", the model does not")
    Traceback (most recent call last):
    ...
    mlplugins.errors.BadInput: frame 0 holds Kr, the model does not
    """
    symbols = {item if isinstance(item, str) else symbol(int(item)) for item in set(found)}
    unknown = sorted(symbols - set(known))
    if unknown:
        raise BadInput(f"{before}{', '.join(unknown)}{after}")
