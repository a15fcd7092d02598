"""Predictions for which i-PI has no field of its own: entries of its extras."""

from __future__ import annotations

import re
from typing import Any

from metatomic.torch import unit_conversion_factor

from mlplugins.quantities import QUANTITIES, Results


def in_atomic_units(results: Results) -> dict[str, Any]:
    """Quantities beside energy, forces and stress by their keys: flat lists (tensors row by row), in a.u.

    >>> import numpy as np
    >>> in_atomic_units(Results(-1.0, np.zeros((1, 3))))
    {}
    """
    extras: dict[str, Any] = {}
    for name, value in (results.more or {}).items():
        quantity = QUANTITIES[name]
        if quantity.ipi is not None:
            atomic = re.sub(r"\bA\b", "Bohr", quantity.unit).replace("eV", "Hartree")
            extras[quantity.ipi] = (value * unit_conversion_factor(quantity.unit, atomic)).ravel().tolist()
    return extras
