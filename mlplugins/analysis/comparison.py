"""What a report compares its numbers with: measured values, and the results of other reports."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlplugins.analysis.arrhenius import ROOM_K, ArrheniusResult
from mlplugins.analysis.result import RunResult
from mlplugins.analysis.value import UNDETERMINED, UNKNOWN, Value
from mlplugins.errors import BadInput

SAME_K = 0.5
"""Temperatures that differ by less are one."""


@dataclass(frozen=True)
class Measured:
    """One measured value; σ in mS/cm, D in cm²/s, either may be absent."""

    temperature_k: float
    sigma_ms_cm: float | None
    d_cm2_s: float | None
    label: str


@dataclass(frozen=True)
class Point:
    """One temperature of another report, in the units of `RunResult`."""

    temperature_k: float
    d_cm2_s: Value
    sigma_tracer: Value | None
    sigma_collective: Value | None


@dataclass(frozen=True)
class OtherSystem:
    """Another report."""

    label: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Comparison:
    """All that a report's own numbers stand beside."""

    measured: Sequence[Measured] = ()
    systems: Sequence[OtherSystem] = ()

    def __bool__(self) -> bool:
        return bool(self.measured or self.systems)


def read_system(path: Path, label: str | None = None) -> OtherSystem:
    """The results.json of another report.

    Args:
        path: file, or the folder that holds it.
        label: in figures; the species and the name of the folder if none is given.

    Raises:
        BadInput: no such file, or another kind of file.
    """
    file = path / "results.json" if path.is_dir() else path
    if not file.is_file():
        raise BadInput(f"compare: no such file: '{path}'; expected the results.json of another report")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        points = tuple(_point(run) for run in content["runs"])
        name = label or f"{content['species']}, {file.resolve().parent.name}"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"compare: '{file}' is not the results.json of a report") from error
    if not points:
        raise BadInput(f"compare: '{file}' holds no temperature")
    return OtherSystem(name, points)


def _point(run: Mapping[str, Any]) -> Point:
    return Point(
        float(run["T_K"]),
        as_value(run["D_cm2_s"]),
        *(
            as_value(run[name], UNKNOWN if "collective" in name else UNDETERMINED) if run[name] else None
            for name in ("sigma_tracer_mS_cm", "sigma_collective_mS_cm")
        ),
    )


def as_value(entry: Mapping[str, float | None], limit: float = UNDETERMINED) -> Value:
    """A value of results.json; null is NaN, or infinity at the upper end. What is undetermined stays so.

    >>> as_value({"value": 2.0, "low": 1.0, "high": 4.0}).high
    4.0
    >>> as_value({"value": 2.0, "low": 0.02, "high": 4.0, "determined": False}).determined
    False
    """
    if entry.get("determined", True) is False:
        limit = UNKNOWN
    number, low, high = (
        math.nan if entry[name] is None else float(entry[name] or 0.0) for name in ("value", "low", "high")
    )
    return Value(number, low, math.inf if math.isnan(high) else high, math.nan, limit)


@dataclass(frozen=True)
class Beside:
    """A measured value with what was computed for its temperature; None where that is not known.

    Attributes:
        source: `run`, or `line` for the Arrhenius line with its prediction band.
    """

    measured: Measured
    source: str
    d_cm2_s: Value | None
    sigma_tracer: Value | None
    sigma_collective: Value | None


def compared(
    measured: Sequence[Measured], runs: Sequence[RunResult], law: ArrheniusResult | None
) -> list[Beside]:
    """Each measured value beside the run at its temperature or, without one, the Arrhenius lines."""
    rows = []
    for each in measured:
        near = [run for run in runs if abs(run.temperature_k - each.temperature_k) < SAME_K]
        if near:
            run = near[0]
            found = (run.diffusion.tracer, run.sigma_tracer, run.sigma_collective)
            rows.append(Beside(each, "run", *found))
        elif law is not None:
            d = law.law.at(each.temperature_k)
            sigma = None
            if law.room_sigma is not None:  # σ T / D does not depend on the temperature
                sigma = d.scaled(law.room_sigma.value / law.room_d.value * ROOM_K / each.temperature_k)
            both = law.collective
            charge = both.at(each.temperature_k).scaled(1 / each.temperature_k) if both else None
            rows.append(Beside(each, "line", d, sigma, charge))
        else:
            rows.append(Beside(each, "none", None, None, None))
    return rows
