"""Thermal conductivity against temperature, of one system or several.

Runs of a system belong to one temperature if their means differ by at most 5 %. Two laws are fitted to the
κ of a system, weighted by the errors of ln κ: a power law κ = κ₀ (T₀/T)ⁿ from three temperatures on, and
κ = a/T (n = 1: phonons that scatter each other in a classical crystal well above its Debye temperature),
with the probability of a χ² as large as that of its points. Intervals are those of the errors of the points,
times √(χ²/degrees of freedom) where that is above one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import special

from mlplugins.analysis import conduction
from mlplugins.analysis.arrhenius import SCATTER_PROBABILITY
from mlplugins.analysis.cepstrum import Floats
from mlplugins.analysis.conduction import Conduction, Settings
from mlplugins.analysis.heat_series import Series
from mlplugins.analysis.value import LEVEL, Value
from mlplugins.errors import BadInput

FEWEST = 3
"""Temperatures of a power law: two have no scatter."""
Z = float(special.ndtri(0.5 + LEVEL / 2))


@dataclass(frozen=True)
class KappaLaw:
    """κ = κ₀ (T₀/T)ⁿ, a weighted straight line of ln κ on ln T.

    Attributes:
        exponent: n with its 95 % interval.
        center_k: T₀, the weighted mean of ln T.
        at_center: κ₀, W/(m K).
        spread: Σ w (ln T − ln T₀)² with the weights w = 1/error².
        scale: of standard errors, for half of a 95 % interval.
        probability: of a χ² as large, if the points lie on the law.

    >>> law = KappaLaw.fit(np.array([300.0, 600.0, 900.0]), np.array([6.0, 3.0, 2.0]), np.full(3, 0.05))
    >>> round(law.exponent.value, 6), law.predict(np.array([450.0]))[0].round(6).tolist()
    (1.0, [4.0])
    """

    exponent: Value
    center_k: float
    at_center: Value
    spread: float
    scale: float
    probability: float

    @staticmethod
    def fit(temperatures_k: Floats, kappa: Floats, errors: Floats) -> KappaLaw:
        """Of three temperatures or more; `errors` are standard errors of ln κ."""
        x, y, weight = np.log(temperatures_k), np.log(kappa), errors**-2.0
        center, middle = (float(np.average(each, weights=weight)) for each in (x, y))
        spread = float((weight * (x - center) ** 2).sum())
        slope = float((weight * (x - center) * (y - middle)).sum() / spread)
        chi_square = float((weight * (y - middle - slope * (x - center)) ** 2).sum())
        scale, probability = _scale(chi_square, len(x) - 2)
        half, error = scale / np.sqrt(spread), 1.0 / np.sqrt(weight.sum())
        exponent = Value(-slope, -slope - half, -slope + half, half / Z / abs(slope) if slope else np.inf)
        level = _value(middle, error, scale)
        return KappaLaw(exponent, float(np.exp(center)), level, spread, scale, probability)

    def predict(self, temperatures_k: Floats) -> tuple[Floats, Floats, Floats]:
        """κ of the law, and its 95 % confidence band."""
        x = np.log(np.asarray(temperatures_k, dtype=float) / self.center_k)
        middle = np.log(self.at_center.value) - self.exponent.value * x
        half = self.scale * np.sqrt(
            (np.log(self.at_center.high / self.at_center.value) / self.scale) ** 2 + x**2 / self.spread
        )
        return np.exp(middle), np.exp(middle - half), np.exp(middle + half)


@dataclass(frozen=True)
class Inverse:
    """κ = a/T.

    Attributes:
        factor: a, W/m.
        probability: of a χ² as large as found, if κ is proportional to 1/T.
    """

    factor: Value
    probability: float

    @staticmethod
    def fit(temperatures_k: Floats, kappa: Floats, errors: Floats) -> Inverse:
        """Of two temperatures or more.

        >>> law = Inverse.fit(np.array([300.0, 600.0]), np.array([6.0, 3.0]), np.full(2, 0.1))
        >>> round(law.factor.value), law.factor.low < 1800 < law.factor.high, round(law.probability, 6)
        (1800, True, 1.0)
        """
        y, weight = np.log(kappa * temperatures_k), errors**-2.0
        middle = float(np.average(y, weights=weight))
        scale, probability = _scale(float((weight * (y - middle) ** 2).sum()), len(y) - 1)
        return Inverse(_value(middle, 1.0 / np.sqrt(weight.sum()), scale), probability)


def _scale(chi_square: float, freedom: int) -> tuple[float, float]:
    """Half of a 95 % interval over the standard error, and the probability of such a χ²."""
    return Z * max(1.0, float(np.sqrt(chi_square / freedom))), float(special.chdtrc(freedom, chi_square))


def _value(log: float, error: float, scale: float) -> Value:
    middle, factor = float(np.exp(log)), float(np.exp(scale * error))
    return Value(middle, middle / factor, middle * factor, scale * error / Z)


@dataclass(frozen=True)
class KappaOfSystem:
    """κ of one system.

    Attributes:
        name: "" if the runs of one system were given without a name.
        points: of every temperature, cold to hot.
        power: None below three temperatures.
        inverse: None of one temperature.
    """

    name: str
    points: tuple[Conduction, ...]
    power: KappaLaw | None
    inverse: Inverse | None

    @property
    def warnings(self) -> tuple[str, ...]:
        """Of all temperatures, with their names, and of the law."""
        found = [f"{self.label(each)}: {text}" for each in self.points for text in each.warnings]
        if self.power is not None and self.power.probability < SCATTER_PROBABILITY:
            found.append(
                f"{self.name or 'κ(T)'}: the points scatter about the power law more than their errors "
                f"(probability {self.power.probability:.1g}): perhaps a phase change; the intervals are "
                "widened accordingly"
            )
        return tuple(found)

    def label(self, point: Conduction) -> str:
        """Name and temperature of a point."""
        return f"{self.name} {point.temperature_k:.4g} K".strip()

    def as_json(self) -> dict[str, object]:
        """An entry of `systems` of `--json`."""
        power, inverse = self.power, self.inverse
        return {
            "name": self.name,
            "points": [point.as_json() for point in self.points],
            "power_law": power
            and {
                "exponent": power.exponent.as_json(),
                "T0_K": power.center_k,
                "kappa_T0_W_mK": power.at_center.as_json(),
                "probability": power.probability,
            },
            "inverse": inverse
            and {"kappa_T_W_m": inverse.factor.as_json(), "probability": inverse.probability},
        }


@dataclass(frozen=True)
class Conductions:
    """κ of several temperatures, systems, or both."""

    systems: tuple[KappaOfSystem, ...]

    @property
    def single(self) -> Conduction | None:
        """The only state, if there is one."""
        return self.systems[0].points[0] if len(self.systems) == len(self.systems[0].points) == 1 else None

    @property
    def warnings(self) -> tuple[str, ...]:
        """Of all systems."""
        if self.single is not None:
            return self.single.warnings
        return tuple(text for system in self.systems for text in system.warnings)

    def as_json(self) -> dict[str, object]:
        """The result of `--json`; that of a `Conduction` if there is one state."""
        if self.single is not None:
            return self.single.as_json()
        return {"systems": [system.as_json() for system in self.systems], "warnings": list(self.warnings)}


def conductions(systems: Mapping[str, Sequence[Path | str]], settings: Settings) -> Conductions:
    """κ of the runs of these systems, at every temperature that they were made at.

    Raises:
        BadInput: as `conduction`; a file that two systems name.
    """
    _require_apart(systems)
    return Conductions(tuple(_system(name, paths, settings) for name, paths in systems.items()))


def _system(name: str, paths: Sequence[Path | str], settings: Settings) -> KappaOfSystem:
    states = by_temperature(conduction.read(paths, settings), settings)
    points = sorted((conduction.of_series(each, settings) for each in states), key=lambda p: p.temperature_k)
    columns = [(p.temperature_k, p.kappa.value, p.kappa.relative_error) for p in points]
    t, kappa, errors = np.array(columns).T
    return KappaOfSystem(
        name,
        tuple(points),
        KappaLaw.fit(t, kappa, errors) if len(t) >= FEWEST else None,
        Inverse.fit(t, kappa, errors) if len(t) > 1 else None,
    )


def _require_apart(systems: Mapping[str, Sequence[Path | str]]) -> None:
    if not systems:
        raise BadInput("expected one system or more, got none")
    owner: dict[Path, str] = {}
    for name, paths in systems.items():
        if "/" in name or name.startswith("."):
            raise BadInput(f"system '{name}': expected a name that a folder can have")
        for path in paths:
            place = Path(path).resolve()
            if place in owner:
                both = f"'{owner[place]}' and '{name}'" if owner[place] != name else "the same runs"
                raise BadInput(f"{path} is named twice, for {both}: expected every run once")
            owner[place] = name


def by_temperature(series: Sequence[Series], settings: Settings) -> list[list[Series]]:
    """The series of each temperature, from cold to hot; all together if one temperature is given, or if a
    file has none (which is then asked for)."""
    means = [each.mean("Temp") for each in series]
    if settings.temperature_k is not None or None in means:
        return [list(series)]
    ordered = sorted(zip(means, series, strict=True), key=lambda pair: float(pair[0] or 0.0))
    groups: list[list[Series]] = []
    before = -np.inf
    for mean, each in ordered:
        if mean - before > conduction.SAME_TEMPERATURE * mean:  # type: ignore[operator]
            groups.append([])
        groups[-1].append(each)
        before = mean  # type: ignore[assignment]
    return groups
