"""Charge and spin multiplicity of a structure: inputs of models that were trained with them."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np

from mlplugins.errors import BadInput

CHARGE, SPIN = "charge", "spin_multiplicity"
"""As metatomic names these inputs."""

NAMES = {
    CHARGE: ("charge", "total_charge", "tot_charge", "net_charge"),
    SPIN: ("spin_multiplicity", "spin", "total_spin", "multiplicity"),
}
"""Entries of `atoms.info` that say them. `spin` is the multiplicity, as in mace-torch and OMol25."""

UNITS = {CHARGE: "e", SPIN: ""}

OPTIONS = {CHARGE: "charge", SPIN: "spin"}
"""As options of commands, keywords of the pair style and of the driver."""


WHOLE = 0.02
"""How far sums of charges may be from whole numbers."""


class ElectronicState(NamedTuple):
    """Of a structure that says nothing: neutral, a singlet.

    Attributes:
        charge: total charge, e.
        spin_multiplicity: 2S + 1.
    """

    charge: float = 0.0
    spin_multiplicity: float = 1.0


def input_of(entry: str) -> str | None:
    """Which input an entry of `info` says; None: neither.

    >>> input_of("total_charge"), input_of("head")
    ('charge', None)
    """
    return next((name for name, keys in NAMES.items() if entry in keys), None)


def row(info: Mapping[str, Any]) -> list[float]:
    """Charge and spin multiplicity as numbers for a model; NaN where they cannot be told, which is refused
    where a model takes them."""
    try:
        return list(of(info))
    except BadInput:
        return [math.nan, math.nan]


def entries(info: Mapping[str, Any]) -> dict[str, Any]:
    """The part of an `info` that says charge and spin.

    >>> entries({"charge": -1, "step": 7})
    {'charge': -1}
    """
    return {key: info[key] for keys in NAMES.values() for key in keys if key in info} if info else {}


def keywords(info: Mapping[str, Any], taken: Collection[str]) -> dict[str, float]:
    """Charge and spin of a structure as keywords of engines, for a model that takes these inputs.

    >>> keywords({"charge": -1, "spin": 2}, ["charge"])
    {'charge': -1.0}
    """
    values = {name: stated(info, name) for name in NAMES if name in taken}
    return {OPTIONS[name]: value for name, value in values.items() if value is not None}


def stated(info: Mapping[str, Any], name: str) -> float | None:
    """Charge or spin multiplicity of a structure by its `info`; None if it does not say.

    >>> stated({"spin": 2}, "spin_multiplicity"), stated({"spin": 2}, "charge")
    (2.0, None)

    Raises:
        BadInput: not a number, or two entries that contradict each other.
    """
    found = {key: info[key] for key in NAMES[name] if key in info}
    values = {key: _number(key, value) for key, value in found.items()}
    if len(set(values.values())) > 1:
        said = ", ".join(f"{key} {value:g}" for key, value in values.items())
        raise BadInput(f"{said}: expected one {name.replace('_', ' ')}, remove the wrong one")
    return next(iter(values.values()), None)


def unsaid(atoms: Any, taken: Collection[str] = (CHARGE, SPIN)) -> str:
    """A sentence on a charge or spin that atoms add up to and `info` does not say; "" where there is none.

    ASE's calculators of quantum chemistry take the sums of the initial charges and moments, others `info`.

    >>> from ase import Atoms
    >>> unsaid(Atoms("OH", charges=[-0.9, -0.1]))[:61]
    'the initial charges of the atoms add up to -1, and its info d'
    >>> unsaid(Atoms("OH", charges=[-0.4, 0.4])), unsaid(Atoms("OH", charges=[-1, 0], info={"charge": 0}))
    ('', '')
    """
    for name, column, rest in ((CHARGE, "initial_charges", 0), (SPIN, "initial_magmoms", 1)):
        values, (key, *others) = atoms.arrays.get(column), NAMES[name]
        if name not in taken or values is None or values.ndim > 1 or {key, *others} & set(atoms.info):
            continue
        total = float(values.sum())
        if round(total) != 0 and abs(total - round(total)) < WHOLE:
            said = round(total) if name == CHARGE else abs(round(total)) + rest
            words = column.replace("_", " ").replace("magmoms", "moments")
            return (
                f"the {words} of the atoms add up to {total:g}, and its info does not say '{key}': set "
                f"atoms.info['{key}'] = {said}, or {rest} if that is meant"
            )
    return ""


def of(info: Mapping[str, Any], where: str = "structure") -> ElectronicState:
    """Charge and spin multiplicity of a structure, 0 and 1 where its `info` does not say.

    >>> of({"charge": -1}), of({})
    (ElectronicState(charge=-1.0, spin_multiplicity=1.0), ElectronicState(charge=0.0, spin_multiplicity=1.0))

    Raises:
        BadInput: not a number, or two entries that contradict each other; names the structure (`where`).
    """
    try:
        values = {name: stated(info, name) for name in NAMES}
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from error
    return ElectronicState(**{name: value for name, value in values.items() if value is not None})


def ranges(inputs: Mapping[str, tuple[float, float]]) -> dict[str, list[float | None]]:
    """Lowest and highest value of each input for JSON: None where there is none.

    >>> ranges({"charge": (-2.0, 2.0), "spin_multiplicity": (-math.inf, math.inf)})
    {'charge': [-2.0, 2.0], 'spin_multiplicity': [None, None]}
    """
    return {name: [x if math.isfinite(x) else None for x in ends] for name, ends in inputs.items()}


def is_multiplicity(value: float) -> bool:
    """Whether it can be 2S + 1.

    >>> is_multiplicity(2), is_multiplicity(0), is_multiplicity(1.5)
    (True, False, False)
    """
    return value >= 1 and value == round(value)


def outside(state: ElectronicState, known: Mapping[str, tuple[float, float]]) -> str:
    """Why a model with these inputs (lowest and highest value each) cannot take a structure; "" if it can.

    >>> outside(ElectronicState(charge=-3.0), {"charge": (-2.0, 2.0)})
    'its charge is -3, and the model knows whole numbers from -2 to 2'
    >>> outside(ElectronicState(charge=-3.0), {"charge": (-math.inf, math.inf)})
    ''
    """
    for name, (low, high) in known.items():
        value = getattr(state, name)
        if name == SPIN and not is_multiplicity(value):
            return (
                f"its spin is {value:g}: expected the multiplicity 2S + 1, a whole number from 1 (singlet) on"
            )
        if not low <= value <= high or (math.isfinite(low) and value != round(value)):
            words = name.replace("_", " ")
            return f"its {words} is {value:g}, and the model knows whole numbers from {low:g} to {high:g}"
    return ""


def _number(name: str, value: Any) -> float:
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "iuf" or not np.isfinite(array).all():
        raise BadInput(f"{name}: expected one number for the structure, got {str(value)[:60]!r}")
    return float(array.reshape(()))
