"""Labels under unusual names: `REF_energy`, `dft_forces`, `energy_pbe`, `virials`, …

A label that nobody named and that is not there under its usual name is taken from the one that is called like
it, if there is exactly one. Between two, nobody but the user can choose, and neither is taken.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from mlplugins.quantities import Label, Quantity

WORDS = {"energy": "energy", "forces": "force", "stress": "stress", "virial": "virial"}
"""What the names of labels hold, by option, in the singular: the other quantities have no usual names."""

OTHER_MEANINGS = re.compile(
    "per|atoms?|atomic|site|local|kinetic|formation|cohesive|binding|adsorption|interaction|hull|zero|zpe"
    "|dispersion|vdw|d2|d3|d4|correct(ed|ion)|delta|difference|shift|scale|baseline|fermi|band|homo|lumo"
    "|uncert(ainty)?|std|sigma|var(iance)?|err(or)?|rmse|mae|dev|tol(erance)?|cut(off)?|weights?|gradient"
    "|pred(icted|ictions?)?|models?|mace|mlplugins|nequip|allegro|sevenn(et)?|deepmd|gap|ace|ml|nn|mlip"
    "|units?|mean|average|min|max|norm"
)
"""Words in a name that make it another quantity, another unit, or a prediction."""

_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")


def recognised(quantity: Quantity, labels: Mapping[str, Any], n_atoms: int) -> dict[str, str]:
    """The key of a quantity in a frame by option, if exactly one label is called like it; else empty.

    >>> from mlplugins.quantities import QUANTITIES
    >>> recognised(QUANTITIES["energy"], {"REF_energy": -1.0, "energy_per_atom": -0.5}, 2)
    {'energy': 'REF_energy'}
    >>> recognised(QUANTITIES["energy"], {"energy_pbe": -1.0, "energy_xtb": -2.0}, 2)
    {}
    """
    found = [
        (label.option, name)
        for label in quantity.labels
        for name in labels
        if _is_called(label, name) and _fits(quantity, labels[name], n_atoms)
    ]
    return dict(found) if len(found) == 1 else {}


def _is_called(label: Label, name: str) -> bool:
    words = [word.lower() for word in _WORD.findall(name)]
    singular = {word if word == "stress" else word.removesuffix("s") for word in words}
    meant = WORDS.get(label.option)
    return meant in singular and not any(map(OTHER_MEANINGS.fullmatch, words))


def _fits(quantity: Quantity, value: Any, n_atoms: int) -> bool:
    try:
        array = np.asarray(value)
    except ValueError:  # rows of different lengths
        return False
    if array.dtype.kind not in "fi":
        return False
    if quantity.symmetric:  # of six numbers the order is not known
        return array.shape in ((9,), (3, 3))
    return array.shape == quantity.full_shape(n_atoms)
