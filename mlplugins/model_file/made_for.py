"""Charge and spin that a model without these inputs is made for, by its record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlplugins.structures.state import CHARGE, SPIN, stated

MADE_FOR = {"total_charge": CHARGE, "total_spin": SPIN}
"""What a model without these inputs may be of, by name in its record: total charge, e, and spin multiplicity
2S + 1."""


def conditions(details: Mapping[str, Any]) -> dict[str, float]:
    """Charge and spin that a model is of, by its record: its own, or those of its base.

    >>> conditions({"finetune": {"base": {"format": "mace", "total_charge": -1.0, "total_spin": 2.0}}})
    {'total_charge': -1.0, 'total_spin': 2.0}
    >>> conditions({"source": {"format": "nequip"}})
    {}
    """
    source = {**((details.get("finetune") or {}).get("base") or {}), **(details.get("source") or {})}
    return {name: float(source[name]) for name in MADE_FOR if name in source}


def contradiction(details: Mapping[str, Any], info: Mapping[str, Any]) -> str:
    """How the charge or spin of a structure differs from that of a model; "" if it does not, or says none.

    >>> contradiction({"source": {"total_charge": -1.0}}, {"charge": 0})[:46]
    'its charge is 0, and the model is of charge -1'
    """
    for name, own in conditions(details).items():
        short = name.removeprefix("total_")
        given = stated(info, MADE_FOR[name])
        if given is not None and given != own:
            step = " and fine-tune that" if details.get("finetune") else ""
            return (
                f"its {short} is {given:g}, and the model is of {short} {own:g}: convert the checkpoint "
                f"without `--{short}`, which keeps it an input{step}"
            )
    return ""
