"""Element data (through `ase.data`), for rooms that must not know ASE."""

from __future__ import annotations

from ase.data import atomic_numbers, covalent_radii

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
