"""Whether one Arrhenius line is enough: two straight regimes, and the Vogel–Fulcher–Tammann law.

Two regimes: y = a + b x + c max(x − x_b, 0) with x = 1/kT, y = ln D, continuous at the break. VFT:
ln D = ln A − B/(k (T − T0)), which is Arrhenius at T0 = 0. Both hold the single line as a special case: the
fall of χ² with two parameters (one for VFT) more is compared with the χ² distribution, or, where the better
law still scatters more than the errors, with the F distribution. Intervals at 300 K are those of the law
(confidence), not of a further measurement. Two regimes from AIMD or machine-learned potentials:
LLTO, Li3YCl6, Li7P3S11 (J. Qi et al., Mater. Today Phys. 21, 100463 (2021)).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

from mlplugins.analysis.value import LEVEL, Value
from mlplugins.units import BOLTZMANN_EV_K

Floats = NDArray[np.float64]
SIGNIFICANT = 0.005
"""Probability below which the single line is given up; the break is searched for, hence small."""
WIDE_SCATTER = 0.16
"""Probability of the scatter below which the known errors are given up. At 1 a clear break is missed in 40 %
of cases; at 0 points that scatter three times their errors show one in 8 to 13 %; here 17 % and 3 to 5 %."""
LEAST_REGIMES, LEAST_VFT = 6, 5
"""At least two points more than parameters."""


@dataclass(frozen=True)
class _Linear:
    """Weighted least squares: parameters, covariance for known errors, χ²."""

    parameters: NDArray[Any]
    covariance: NDArray[Any]
    chi_square: float


def _solve(design: Floats, y: Floats, errors: Floats) -> _Linear:
    scaled = design / errors[:, None]
    covariance = np.linalg.pinv(scaled.T @ scaled)
    parameters = covariance @ scaled.T @ (y / errors)
    residual = (y - design @ parameters) / errors
    return _Linear(np.asarray(parameters), np.asarray(covariance), float(residual @ residual))


def _probability(single: float, better: float, extra: int, freedom: int) -> float:
    """That the fall of χ² is chance: F test where the better law scatters more than its errors."""
    fall, scatter = max(single - better, 0.0), better / freedom
    if scatter > 1 and stats.chi2.sf(better, freedom) < WIDE_SCATTER:
        return float(stats.f.sf(fall / extra / scatter, extra, freedom))
    return float(stats.chi2.sf(fall / max(scatter, 1.0), extra))


def _spread(chi_square: float, freedom: int) -> float:
    """Half-width of 95 % in units of the known error, widened where the points scatter more than that."""
    z = float(special.ndtri(0.5 + LEVEL / 2))
    if freedom < 1:
        return z
    t = float(special.stdtrit(freedom, 0.5 + LEVEL / 2))
    return max(z, t * float(np.sqrt(chi_square / freedom)))


@dataclass(frozen=True)
class TwoRegimes:
    """Continuous broken line.

    Attributes:
        cold_ev, hot_ev: activation energies below and above the break.
        break_k: temperature of the break.
        probability: that one line is enough.
        room: D at the asked temperature from the cold branch, with its 95 % interval.
    """

    cold_ev: Value
    hot_ev: Value
    break_k: float
    probability: float
    room: Value

    @property
    def significant(self) -> bool:
        """Whether two regimes are significantly better than one line."""
        return self.probability < SIGNIFICANT

    def as_json(self) -> dict[str, object]:
        """The `two_regimes` entry of `arrhenius`."""
        return {
            "Ea_cold_eV": self.cold_ev.as_json(),
            "Ea_hot_eV": self.hot_ev.as_json(),
            "break_K": self.break_k,
            "probability_of_one_line": self.probability,
            "D_300K_cm2_s": self.room.as_json(),
            "significant": self.significant,
        }


def two_regimes(
    temperatures_k: Floats, values: Floats, relative_errors: Floats, room_k: float = 300.0
) -> TwoRegimes | None:
    """Best broken line; None with fewer than six temperatures."""
    if len(np.unique(temperatures_k)) < LEAST_REGIMES:
        return None
    x = 1 / (BOLTZMANN_EV_K * np.asarray(temperatures_k, dtype=float))
    y, errors = np.log(values), np.asarray(relative_errors, dtype=float)
    order = np.unique(x)
    breaks = np.linspace(order[1], order[-2], 101)
    single = _solve(np.stack([np.ones_like(x), x], axis=1), y, errors)
    fits = [_solve(_broken(x, at), y, errors) for at in breaks]
    best = int(np.argmin([fit.chi_square for fit in fits]))
    fit, freedom = fits[best], len(x) - 4
    width = _spread(fit.chi_square, freedom)
    hot = _linear_value(fit, np.array([0.0, -1.0, 0.0]), width)
    cold = _linear_value(fit, np.array([0.0, -1.0, -1.0]), width)
    room_x = 1 / (BOLTZMANN_EV_K * room_k)
    row = _broken(np.array([room_x]), breaks[best])[0]
    log = _linear_value(fit, row, width)
    factor = log.high - log.value
    middle = float(np.exp(log.value))
    room = Value(middle, middle * float(np.exp(-factor)), middle * float(np.exp(factor)), factor / 1.96)
    return TwoRegimes(
        cold,
        hot,
        1 / (BOLTZMANN_EV_K * float(breaks[best])),
        _probability(single.chi_square, fit.chi_square, 2, freedom),
        room,
    )


def _broken(x: Floats, at: float) -> Floats:
    return np.stack([np.ones_like(x), x, np.maximum(x - at, 0.0)], axis=1)


def _linear_value(fit: _Linear, row: Floats, width: float) -> Value:
    value = float(row @ fit.parameters)
    error = float(np.sqrt(max(row @ fit.covariance @ row, 0.0)))
    return Value(value, value - width * error, value + width * error, error / abs(value) if value else np.inf)


@dataclass(frozen=True)
class Vft:
    """D = A exp(−B/(k (T − T0))).

    Attributes:
        b_ev: pseudo-activation energy B; `t0_k`: Vogel temperature, ≥ 0; `log_a`: ln A.
        covariance: of (ln A, B, T0), widened for scatter.
        width: half-width of 95 % in standard errors.
        probability: that Arrhenius (T0 = 0) is enough.
    """

    log_a: float
    b_ev: float
    t0_k: float
    covariance: Floats
    width: float
    probability: float

    @property
    def significant(self) -> bool:
        """Whether the VFT law is significantly better than an Arrhenius line."""
        return self.probability < SIGNIFICANT

    def at(self, temperature_k: float) -> Value:
        """D with its 95 % interval by propagation of the covariance; only above T0."""
        if temperature_k <= self.t0_k:
            return Value(0.0, 0.0, float("nan"), float("inf"))
        gap = BOLTZMANN_EV_K * (temperature_k - self.t0_k)
        gradient = np.array([1.0, -1 / gap, -self.b_ev / gap / (temperature_k - self.t0_k)])
        half = self.width * float(np.sqrt(gradient @ self.covariance @ gradient))
        value = float(np.exp(self.log_a - self.b_ev / gap))
        return Value(value, value * float(np.exp(-half)), value * float(np.exp(half)), half / 1.96)

    def as_json(self) -> dict[str, object]:
        """The `vft` entry of `arrhenius`."""
        b, t0 = (self.width * float(np.sqrt(self.covariance[i, i])) for i in (1, 2))
        return {
            "A_cm2_s": float(np.exp(self.log_a)),
            "B_eV": {"value": self.b_ev, "low": self.b_ev - b, "high": self.b_ev + b},
            "T0_K": {"value": self.t0_k, "low": max(self.t0_k - t0, 0.0), "high": self.t0_k + t0},
            "probability_of_arrhenius": self.probability,
            "D_300K_cm2_s": self.at(300.0).as_json(),
            "significant": self.significant,
        }


def vft(temperatures_k: Floats, values: Floats, relative_errors: Floats) -> Vft | None:
    """Fit the VFT law; None with fewer than five temperatures, or if T0 runs into the coldest run."""
    temperatures = np.asarray(temperatures_k, dtype=float)
    if len(np.unique(temperatures)) < LEAST_VFT:
        return None
    y, errors = np.log(values), np.asarray(relative_errors, dtype=float)

    def given(t0: float) -> _Linear:
        x = 1 / (BOLTZMANN_EV_K * (temperatures - t0))
        return _solve(np.stack([np.ones_like(x), -x], axis=1), y, errors)

    limit = 0.98 * float(temperatures.min())
    found = optimize.minimize_scalar(
        lambda t0: given(float(t0)).chi_square, bounds=(0.0, limit), method="bounded"
    )
    t0 = float(np.asarray(found.x))
    if t0 > 0.97 * float(temperatures.min()):
        return None
    fit, single = given(t0), given(0.0)
    log_a, b = (float(value) for value in fit.parameters)
    gap = BOLTZMANN_EV_K * (temperatures - t0)
    jacobian = (
        np.stack([np.ones_like(gap), -1 / gap, -b / gap / (temperatures - t0)], axis=1) / errors[:, None]
    )
    freedom = len(temperatures) - 3
    covariance = np.linalg.pinv(jacobian.T @ jacobian)
    probability = _probability(single.chi_square, fit.chi_square, 1, freedom)
    return Vft(log_a, b, t0, covariance, _spread(fit.chi_square, freedom), probability)
