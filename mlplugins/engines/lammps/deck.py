"""Commands of a LAMMPS deck that every use of a model begins with."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from mlplugins.errors import BadInput

DATA, DECK = "data.lmp", "in.lmp"


def deck_head(
    model: Path | str, elements: Sequence[str], boundary: str, keywords: str = "", data: str = DATA
) -> list[str]:
    """First commands of a deck: units, structure and potential.

    Args:
        model: model file.
        elements: symbols in type order.
        boundary: e.g. `p p p`.
        keywords: of the pair style, e.g. `device cpu mode fold`.
        data: data file.

    >>> deck_head("model.pt", ["Li", "S"], "p p p")[-1]
    'pair_coeff * * Li S'
    """
    return [
        "units metal",
        "atom_style atomic",
        f"boundary {boundary}",
        f"read_data {data}",
        f"pair_style mlplugins {quoted(model)} {keywords}".rstrip(),
        f"pair_coeff * * {' '.join(elements)}",
    ]


def quoted(path: Path | str) -> str:
    """A path as one word of a LAMMPS deck.

    >>> quoted("my models/a.pt")
    '"my models/a.pt"'
    """
    text = str(path)
    if not re.search(r"[\s#&$\"']", text):
        return text
    if '"' in text or "$" in text:
        raise BadInput(f"LAMMPS cannot read a path with a quote or a dollar sign: {text}")
    return f'"{text}"'
