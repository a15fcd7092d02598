"""Rates of each kind of jump, and its activation energy: of several temperatures, or by transition-state
theory from one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mlplugins.analysis.jump_kinds import (
    FEWEST,
    Jumped,
    JumpKind,
    Rate,
    activation,
    barrier_of_one,
    jumped,
    kinds,
    rate,
)
from mlplugins.analysis.markup import Cell, table
from mlplugins.analysis.numbers import DASH, measured, parts, span, unit_of
from mlplugins.analysis.observables.base import Cite, Observable
from mlplugins.analysis.result import RunResult
from mlplugins.analysis.sample import Sample
from mlplugins.analysis.value import Value
from mlplugins.analysis.written import csv_table, ends
from mlplugins.units import BOLTZMANN_EV_K

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FEWEST_SHOWN = 2
"""Kinds that the lines on the terminal and the figure show at least."""
SHOWN = 6


@dataclass(frozen=True)
class JumpRates:
    """Jumps of one temperature with their kinds, or why there are none.

    Attributes:
        rates: of each kind of this temperature.
        attempt_thz: frequency that barriers of single temperatures are relative to.
        barriers: by transition-state theory.
    """

    jumped: Jumped | None
    rates: tuple[Rate, ...]
    attempt_thz: Value | None
    barriers: tuple[Value | None, ...]
    reason: str = ""


class RatesOfJumps(Observable[JumpRates]):
    """Kinds are found at each temperature, and for the activation energies at all together."""

    order = 82
    keys = ("jump_kinds",)
    summary_keys = ("jump_activation",)
    files = ("jumps.csv",)
    references = {
        "garwood": "F. Garwood, Biometrika 28, 437 (1936), 10.1093/biomet/28.3-4.437.",
        "vineyard": "G. H. Vineyard, J. Phys. Chem. Solids 3, 121 (1957), 10.1016/0022-3697(57)90059-8.",
    }

    def compute(self, sample: Sample, notes: list[str]) -> JumpRates | None:
        """None where no sites are known, which the hops say."""
        found = sample.visits
        if not found.stretches:
            return None
        if not found.resolved:
            return JumpRates(None, (), None, (), found.unresolved())
        data = jumped(found, sample.settings.site_names)
        if not found.count:
            longest = 3 / float(data.time_ps.sum())
            reason = f"no jump between {int(data.sites.sum())} sites: fewer than {longest:.2g} per ion and ps"
            return JumpRates(data, (), sample.vibrations.attempt_thz, (), reason)
        return _of(data, kinds([data]), sample.vibrations.attempt_thz, sample.temperature_k)

    def doubts(self, found: JumpRates | None, sample: Sample) -> list[str]:
        """Sites so close that the distribution of ions which vibrate about both has one maximum."""
        amplitude = sample.vibrations.amplitude_a
        if found is None or found.jumped is None or not len(found.jumped.ways) or amplitude is None:
            return []
        apart = float(found.jumped.ways[:, 2].min())
        if apart >= 2 * amplitude.value:
            return []
        return [
            f"sites {apart:.2g} Å apart, closer than twice the amplitude of vibrations "
            f"({amplitude.value:.2g} Å along an axis), are one: jumps between them are vibrations; expected "
            "one site in their place"
        ]

    def as_json(self, found: JumpRates) -> dict[str, object]:
        """Every kind of this temperature."""
        each = [
            {
                **_named(one.kind, found.jumped, one.length_a),
                "n_jumps": one.count,
                "ways_per_site": one.ways,
                "dispersion": one.dispersion,
                "rate_ps": one.rate_ps.as_json(),
                "barrier_tst_eV": barrier.as_json() if barrier else None,
            }
            for one, barrier in zip(found.rates, found.barriers)
        ]
        return {"jump_kinds": {"kinds": each, "reason": found.reason or None}}

    def summary(self, found: Sequence[tuple[RunResult, JumpRates]]) -> dict[str, object]:
        """Activation energy of each kind."""
        entries = []
        for joint in _joint(found):
            energy, prefactor = joint.law or (None, None)
            entries.append(
                {
                    **_named(joint.kind, joint.jumped, joint.length_a),
                    "T_K": [run.temperature_k for run in joint.runs],
                    "n_jumps": [one.count for one in joint.rates],
                    "Ea_eV": energy.as_json() if energy else None,
                    "prefactor_ps": prefactor.as_json() if prefactor else None,
                }
            )
        return {"jump_activation": entries}

    def tables(self, found: Sequence[tuple[RunResult, JumpRates]]) -> dict[str, str]:
        """A line for each kind at each temperature, the kinds those of all temperatures together."""
        head = ["T_K", "from", "to", "length_A", "n_jumps", "time_ps", "ways_per_site", "dispersion"]
        head += [
            f"{name}{end}" for name in ("rate_ps", "barrier_tst_eV", "Ea_eV") for end in ("", "_low", "_high")
        ]
        lines = []
        for joint in _joint(found):
            for run, one, barrier in zip(joint.runs, joint.rates, joint.barriers):
                named = _named(joint.kind, joint.jumped, joint.length_a).values()
                numbers = (f"{value:.6g}" for value in (one.count, one.time_ps, one.ways, one.dispersion))
                cells = [*ends(one.rate_ps), *ends(barrier), *ends(joint.law[0] if joint.law else None)]
                lines.append([f"{run.temperature_k:g}", *named, *numbers, *cells])
        return {"jumps.csv": csv_table(head, lines)}

    def section(self, found: Sequence[tuple[RunResult, JumpRates]]) -> list[str]:
        """Rates of all temperatures by kind, and activation energies."""
        texts = ["<h2>Rates of jumps</h2>"]
        joint = _joint(found)
        if joint:
            texts.append(_rates_table(joint))
            if len(joint[0].runs) > 1:
                texts.append(_energies_table(joint))
        texts += [f"<p>{run.temperature_k:g} K: {each.reason}.</p>" for run, each in found if each.reason]
        return texts

    def figures(self, found: Sequence[tuple[RunResult, JumpRates]]) -> dict[str, Figure]:
        """Rates against 1/T, from two temperatures on."""
        joint = [each for each in _joint(found) if len(each.runs) > 1]
        return {"jump_rates": _figure(joint[:SHOWN])} if joint else {}

    def sentence(self, found: Sequence[tuple[RunResult, JumpRates]], cite: Cite) -> str:
        """Intervals, fits, and what a barrier of one temperature is."""
        if not any(each.rates for _, each in found):
            return ""
        text = (
            f"Rates of jumps have exact Poisson intervals {cite('garwood')}, of fewer jumps where counts "
            "scatter more than Poisson between blocks of time or ions; "
        )
        if len(found) > 1:
            text += "activation energies maximise the Poisson likelihood of the counts at all temperatures; "
        return text + (
            "barriers of one temperature are kT ln(νz/Γ) of transition-state theory with the attempt "
            f"frequency ν and z ways {cite('vineyard')}."
        )

    def lines(self, run: RunResult, found: JumpRates) -> list[str]:
        """The commonest kinds, or why there is none."""
        head = f"{run.temperature_k:g} K: "
        if found.reason:
            return [f"{head}no jump rates: {found.reason}"]
        order = sorted(zip(found.rates, found.barriers), key=lambda pair: -pair[0].count)
        return [
            f"{head}{one.count} jumps {_name(one.kind, found.jumped, one.length_a)}: "
            f"{measured(one.rate_ps, 'ps⁻¹')}"
            + (f", barrier {measured(barrier, 'eV')} (TST, one temperature)" if barrier else "")
            for one, barrier in order[:FEWEST_SHOWN]
        ]


@dataclass(frozen=True)
class _Joint:
    """One kind at all temperatures."""

    kind: JumpKind
    jumped: Jumped
    runs: Sequence[RunResult]
    rates: Sequence[Rate]
    barriers: Sequence[Value | None]
    law: tuple[Value, Value] | None

    @property
    def length_a(self) -> float:
        """Mean length of all jumps of the kind."""
        seen = [one for one in self.rates if one.count]
        if not seen:
            return float("nan")
        return float(np.average([one.length_a for one in seen], weights=[one.count for one in seen]))


def _of(data: Jumped, found: Sequence[JumpKind], attempt: Value | None, temperature_k: float) -> JumpRates:
    rates = tuple(rate(kind, data) for kind in found)
    barriers = tuple(
        barrier_of_one(one, attempt, temperature_k) if attempt is not None and one.count >= FEWEST else None
        for one in rates
    )
    return JumpRates(data, rates, attempt, barriers)


def _joint(found: Sequence[tuple[RunResult, JumpRates]]) -> list[_Joint]:
    """Kinds of all temperatures together, the commonest first."""
    known = [(run, each, each.jumped) for run, each in found if each.jumped is not None]
    if not known:
        return []
    runs = [run for run, _, _ in known]
    joint = kinds([data for _, _, data in known])
    columns = [_of(data, joint, each.attempt_thz, run.temperature_k) for run, each, data in known]
    temperatures = np.array([run.temperature_k for run in runs])
    made = [
        _Joint(kind, known[0][2], runs, rates, barriers, activation(temperatures, rates))
        for kind, rates, barriers in zip(
            joint, zip(*(each.rates for each in columns)), zip(*(each.barriers for each in columns))
        )
    ]
    return sorted(made, key=lambda each: -sum(one.count for one in each.rates))


def _named(kind: JumpKind, data: Jumped | None, length_a: float) -> dict[str, object]:
    names = data.names if data is not None else ("",)
    return {"from": names[kind.origin], "to": names[kind.target], "length_A": round(length_a, 4)}


def _name(kind: JumpKind, data: Jumped | None, length_a: float) -> str:
    names = data.names if data is not None else ("",)
    between = f"{names[kind.origin]} → {names[kind.target]}, " if any(names) else "of "
    return f"{between}{length_a:.2f} Å"


def _rates_table(joint: Sequence[_Joint]) -> str:
    unit = unit_of((one.rate_ps for each in joint for one in each.rates if one.count), "ps⁻¹")
    header = [
        "kind",
        "T (K)",
        "jumps",
        "ways per site",
        unit.heads("rate"),
        "dispersion",
        "barrier, TST (eV)",
    ]
    rows: list[list[Cell]] = [
        [
            _name(each.kind, each.jumped, each.length_a),
            f"{run.temperature_k:g}",
            str(one.count),
            f"{one.ways:.2g}",
            parts(one.rate_ps, unit),
            f"{one.dispersion:.2g}",
            parts(barrier),
        ]
        for each in joint
        for run, one, barrier in zip(each.runs, each.rates, each.barriers)
    ]
    caption = (
        "Rates of jumps by kind: per ion on a site where it can start, exact Poisson intervals of jumps over "
        "dispersion; barrier of one temperature: kT ln(νz/Γ) with the attempt frequency ν and z ways per "
        f"site, from {FEWEST} jumps on."
    )
    return table(header, rows, caption)


def _energies_table(joint: Sequence[_Joint]) -> str:
    prefactors = [each.law[1] for each in joint if each.law]
    unit = unit_of(prefactors, "ps⁻¹")
    rows: list[list[Cell]] = [
        [
            _name(each.kind, each.jumped, each.length_a),
            str(sum(one.count for one in each.rates)),
            *((parts(each.law[0]), parts(each.law[1], unit)) if each.law else (DASH, DASH)),
        ]
        for each in joint
    ]
    caption = "Activation energies: most likely Γ = A exp(−Ea/kT) for the counts at all temperatures."
    return table(["kind", "jumps", "Ea (eV)", unit.heads("A")], rows, caption)


def _figure(joint: Sequence[_Joint]) -> Figure:
    """Rates with their intervals and the fitted lines."""
    from mlplugins import plotting

    caption = (
        "Rates of jumps by kind (length; per ion on a site where they can start) against inverse "
        "temperature. Bars: 95 % intervals; lines: most likely Arrhenius laws of the counts."
    )
    figure = plotting.canvas(1.3 * plotting.COLUMN, 3.0, caption)
    axes: Any = figure.subplots()
    for each, color, marker in zip(joint, plotting.CYCLE, plotting.MARKERS):
        known = [(run.temperature_k, one.rate_ps) for run, one in zip(each.runs, each.rates) if one.count]
        if not known:
            continue
        x = np.array([1000 / t for t, _ in known])
        middle, low, high = np.array([(v.value, v.low, v.high) for _, v in known]).T
        label = _name(each.kind, each.jumped, each.length_a).removeprefix("of ")
        if each.law:
            label += f": $E_a$ = {span(each.law[0])} eV"
            line = np.linspace(x.min(), x.max(), 50)
            law = each.law[1].value * np.exp(-each.law[0].value * line / (1000 * BOLTZMANN_EV_K))
            axes.plot(line, law, color=color, lw=1.0)
        bars = [middle - low, high - middle]
        axes.errorbar(x, middle, bars, fmt=marker, color=color, ls="none", capsize=2, lw=0.9, label=label)
    axes.set(yscale="log", xlabel="1000/T (K⁻¹)", ylabel="rate (ps⁻¹)")
    axes.legend(loc="best")
    plotting.finish(axes)
    return figure


OBSERVABLE = RatesOfJumps()
