"""Options of the i-PI driver."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from mlplugins.engines.ipi.program import SKIN
from mlplugins.errors import BadInput
from mlplugins.structures import state as states

SWITCHES = {
    "committee_forces": "true or false",
    "baseline": "on or off",
    "non_conservative": "on or off",
    "bec": "on or off",
    "energies": "on or off",
    "force_uncertainty": "on or off",
}
"""Options that are on or off, and the words for it."""


@dataclass(frozen=True)
class Options:
    """Options of the driver, given as `-o key=value,…` or in `<parameters>`.

    Attributes:
        model: file, or several joined by `+` for a committee (`a.pt+b.pt`).
        template: any structure file that ASE reads: the elements, in i-PI's order, and the periodicity.
        device: `cpu`, `cuda`, `cuda:1`, …
        skin: the neighbour list is reused until an atom has moved by half of this, Å; 0 switches it off.
        pbc: `true`, `false`, or `template`: as the template says; if it has no cell, as i-PI's cell says.
        variant: which energy of a model that has several (`pbe` of `energy/pbe`).
        committee_forces: also send each model's forces and virial, which i-PI's weighted baseline needs.
        order: `check`: refuse a first structure that is the template with its atoms in another order;
            `trust`: do not compare them.
        baseline: whether energies include the composition energies (`on`, `off`).
        charge: of the structure, e, for a model that takes it; default: as the template says, else 0.
        spin: its spin multiplicity 2S + 1; default: as the template says, else 1.
        non_conservative: forces and virial are those that the model predicts directly (`on`, `off`): for the
            inner steps of multiple time steps.
        bec: also send the Born effective charges, derivatives of the dipole (`on`, `off`), at the price of
            three more backward passes and 9N numbers of text each step: for i-PI's driven dynamics.
        energies: also send all energies of a model that has several (`on`, `off`), Hartree.
        force_uncertainty: also send the predicted standard deviations of the forces (`on`, `off`), at the
            price of `probes` backward passes each step.
        probes: of these; 0: exactly.
        stop_above: uncertainty on an atom above which the driver ends, and i-PI with it: the model deviation
            or the predicted uncertainty of its force, eV/Å, or else that of its energy, eV.
        keep_above: above it the frame is written to kept.extxyz.
        watch_interval: steps between looks.
        first_step: that of the first structure, in uncertainty.dat.
        beads: structures of one step.
    """

    model: str
    template: str
    device: str = "cpu"
    skin: float = SKIN
    pbc: bool | str = "template"
    committee_forces: bool = False
    variant: str | None = None
    order: str = "check"
    baseline: bool | str = True
    charge: float | None = None
    spin: float | None = None
    non_conservative: bool | str = False
    bec: bool | str = False
    energies: bool | str = False
    force_uncertainty: bool | str = False
    probes: int = 8
    stop_above: float | None = None
    keep_above: float | None = None
    watch_interval: int = 10
    first_step: int = 0
    beads: int = 1


LIMITS = ("stop_above", "keep_above")

LEAST = {"probes": 0, "watch_interval": 1, "first_step": 0, "beads": 1}
"""Options that are whole numbers, and the smallest."""


def checked(options: Options) -> Options:
    """The same, with the types that `Options` states; `-o` and `<parameters>` may give words for them."""
    flags = {"true": True, "false": False, "on": True, "off": False}
    pbc = flags.get(str(options.pbc).lower(), options.pbc)
    if not isinstance(pbc, bool) and pbc != "template":
        raise BadInput(f"pbc: expected true, false or template, got '{options.pbc}'")
    switches: dict[str, Any] = {}
    for name, words in SWITCHES.items():
        given = getattr(options, name)
        if str(given).lower() not in flags:
            raise BadInput(f"{name}: expected {words}, got '{given}'")
        switches[name] = flags[str(given).lower()]
    if options.order not in ("check", "trust"):
        raise BadInput(f"order: expected check or trust, got '{options.order}'")
    try:
        skin = float(options.skin)
    except (TypeError, ValueError) as error:
        raise BadInput(f"skin: expected a length in Å, got '{options.skin}'") from error
    of_whole = {name: getattr(options, name) for name in (*states.OPTIONS.values(), *LIMITS)}
    whole = {name: _number(name, value) for name, value in of_whole.items() if value is not None}
    texts: Any = {name: str(getattr(options, name)) for name in ("model", "template", "device")} | whole
    for name in LIMITS:
        if name in whole and not whole[name] > 0:
            raise BadInput(f"{name}: expected a positive number, got '{whole[name]:g}'")
    counts: Any = {name: _count(name, getattr(options, name)) for name in LEAST}
    return replace(options, **texts, skin=skin, pbc=pbc, **switches, **counts)


def _count(name: str, value: Any) -> int:
    number = _number(name, value)
    if number != int(number) or number < LEAST[name]:
        raise BadInput(f"{name}: expected a whole number from {LEAST[name]} on, got '{value}'")
    return int(number)


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise BadInput(f"{name}: expected a number, got '{value}'") from error
