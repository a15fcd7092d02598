"""Arrhenius law D = D0 exp(−Ea/kT): weighted straight line of ln D on 1/kT, with its prediction band.

With x = 1/kT, weights w = (D/δD)², x̄ the weighted mean and S_xx = Σ w (x − x̄)², the variance of the
prediction at x0 is s²[1/Σw + (x0 − x̄)²/S_xx + 1/w0] (w0: mean weight of the points), with s² = χ²/(n − 2)
and Student's t of n − 2 degrees of freedom. With the known errors alone s² = 1 and the normal quantile: the
wider of the two is given, so that points that lie on a line by chance do not shrink the interval below
their own error bars.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from mlplugins.analysis.regimes import TwoRegimes, Vft, two_regimes, vft
from mlplugins.analysis.result import RunResult
from mlplugins.analysis.value import LEVEL, Value
from mlplugins.errors import BadInput
from mlplugins.units import BOLTZMANN_EV_K, conductivity_ms_cm

Floats = NDArray[np.float64]
Z = float(special.ndtri(0.5 + LEVEL / 2))
ROOM_K = 300.0
MIN_POINTS = 3
FAR_FACTOR = 1.5
SCATTER_PROBABILITY = 0.01


@dataclass(frozen=True)
class Arrhenius:
    """Fit of ln D = ln D0 − Ea x, x = 1/kT in 1/eV.

    >>> temperatures = np.array([500.0, 600.0, 700.0])
    >>> values = 1e-3 * np.exp(-0.3 / (BOLTZMANN_EV_K * temperatures))
    >>> law = Arrhenius.fit(temperatures, values, np.full(3, 0.1))
    >>> round(law.activation_ev, 10), round(law.prefactor / 1e-3, 10)
    (0.3, 1.0)
    """

    activation_ev: float
    prefactor: float
    center: float
    total_weight: float
    spread: float
    mean_weight: float
    chi_square: float
    points: int

    @staticmethod
    def fit(temperatures_k: Floats, values: Floats, relative_errors: Floats) -> Arrhenius:
        """Fit values with relative standard errors; at least three different temperatures.

        Raises:
            BadInput: fewer than three temperatures, or values and errors that are not positive.
        """
        if len(np.unique(temperatures_k)) < MIN_POINTS:
            raise BadInput(
                f"Arrhenius fit: {len(np.unique(temperatures_k))} temperature(s); an error bar needs "
                f"at least {MIN_POINTS}"
            )
        positive = np.isfinite(values) & (values > 0) & np.isfinite(relative_errors) & (relative_errors > 0)
        if not positive.all():
            raise BadInput("Arrhenius fit: expected positive D with positive finite errors")
        x = 1.0 / (BOLTZMANN_EV_K * np.asarray(temperatures_k, dtype=float))
        y = np.log(values)
        weight = 1.0 / np.asarray(relative_errors, dtype=float) ** 2
        center = float(np.average(x, weights=weight))
        spread = float((weight * (x - center) ** 2).sum())
        mean = float(np.average(y, weights=weight))
        slope = float((weight * (x - center) * (y - mean)).sum() / spread)
        residual = y - mean - slope * (x - center)
        return Arrhenius(
            activation_ev=-slope,
            prefactor=float(np.exp(mean - slope * center)),
            center=center,
            total_weight=float(weight.sum()),
            spread=spread,
            mean_weight=float(weight.mean()),
            chi_square=float((weight * residual**2).sum()),
            points=len(x),
        )

    def half_width(self, unit_variance: Floats | float) -> Floats | float:
        """Half of the 95 % interval of a quantity whose variance is `unit_variance` for s² = 1."""
        freedom = self.points - 2
        t = float(special.stdtrit(freedom, 0.5 + LEVEL / 2)) * np.sqrt(self.chi_square / freedom)
        z = float(special.ndtri(0.5 + LEVEL / 2))
        return max(float(t), z) * np.sqrt(unit_variance)

    def predict(self, temperatures_k: Floats, prediction: bool = True) -> tuple[Floats, Floats, Floats]:
        """Value, lower and upper limit at other temperatures: prediction band, or confidence band
        of the line."""
        x = 1.0 / (BOLTZMANN_EV_K * np.asarray(temperatures_k, dtype=float))
        middle = np.log(self.prefactor) - self.activation_ev * x
        variance = 1.0 / self.total_weight + (x - self.center) ** 2 / self.spread
        half = self.half_width(variance + (1.0 / self.mean_weight if prediction else 0.0))
        return np.exp(middle), np.exp(middle - half), np.exp(middle + half)

    def activation(self) -> Value:
        """Ea in eV."""
        half = float(self.half_width(1.0 / self.spread))
        value = self.activation_ev
        return Value(value, value - half, value + half, half / Z / abs(value) if value else float("inf"))

    def prefactor_value(self) -> Value:
        """D0 in the unit of the values."""
        half = float(self.half_width(1.0 / self.total_weight + self.center**2 / self.spread))
        return Value(self.prefactor, self.prefactor * np.exp(-half), self.prefactor * np.exp(half), half / Z)

    def at(self, temperature_k: float) -> Value:
        """Value at one temperature with the prediction band."""
        middle, low, high = (float(part[0]) for part in self.predict(np.array([temperature_k])))
        return Value(middle, low, high, float(np.log(high / middle)) / Z)


@dataclass(frozen=True)
class ArrheniusResult:
    """The law of D with what follows at 300 K (σ by Nernst–Einstein, at the volume of the coldest run).

    Attributes:
        regimes, vft: other laws, from six and five temperatures on.
        collective: the line of σ_collective T (mS K/cm); it and D share their slope if H does not change.
        room_collective: σ_collective at 300 K, mS/cm.
    """

    law: Arrhenius
    activation_ev: Value
    prefactor_cm2_s: Value
    room_d: Value
    room_sigma: Value | None
    regimes: TwoRegimes | None = None
    vft: Vft | None = None
    collective: Arrhenius | None = None
    room_collective: Value | None = None

    def as_json(self) -> dict[str, object]:
        """The `arrhenius` entry of `--json`."""
        return {
            "Ea_eV": self.activation_ev.as_json(),
            "D0_cm2_s": self.prefactor_cm2_s.as_json(),
            "D_300K_cm2_s": self.room_d.as_json(),
            "sigma_300K_mS_cm": self.room_sigma.as_json() if self.room_sigma else None,
            "reduced_chi_square": self.law.chi_square / (self.law.points - 2),
            "Ea_collective_eV": self.collective.activation().as_json() if self.collective else None,
            "sigma_collective_300K_mS_cm": self.room_collective.as_json() if self.room_collective else None,
            "two_regimes": self.regimes.as_json() if self.regimes else None,
            "vft": self.vft.as_json() if self.vft else None,
        }


def arrhenius(runs: Sequence[RunResult]) -> tuple[ArrheniusResult | None, list[str]]:
    """Fit the runs of several temperatures; None with the reason where that is not possible."""
    usable = [run for run in runs if np.isfinite(run.diffusion.tracer.relative_error)]
    warnings = [
        f"{run.temperature_k:g} K: left out of the Arrhenius fit (no measurable diffusion)"
        for run in runs
        if run not in usable and len(runs) > 1
    ]
    temperatures = np.array([run.temperature_k for run in usable])
    if len(np.unique(temperatures)) < MIN_POINTS:
        if len(runs) > 1:
            warnings.append(
                f"no Arrhenius fit: {len(np.unique(temperatures))} usable temperature(s), at least "
                f"{MIN_POINTS} are needed for Ea with an error bar"
            )
        return None, warnings
    errors = np.array([run.diffusion.tracer.relative_error for run in usable])
    values = np.array([run.diffusion.tracer.value for run in usable])
    law = Arrhenius.fit(temperatures, values, errors)
    coldest = min(usable, key=lambda run: run.temperature_k)
    room = law.at(ROOM_K)
    factor = conductivity_ms_cm(coldest.n_ions * coldest.charge**2, coldest.volume_a3, ROOM_K)
    warnings += _extrapolation(temperatures, law)
    collective = _collective(usable)
    result = ArrheniusResult(
        law,
        law.activation(),
        law.prefactor_value(),
        room,
        room.scaled(factor) if np.isfinite(factor) else None,
        two_regimes(temperatures, values, errors, ROOM_K),
        vft(temperatures, values, errors),
        collective,
        collective.at(ROOM_K).scaled(1 / ROOM_K) if collective else None,
    )
    return result, warnings + _other_laws(result)


def _collective(runs: Sequence[RunResult]) -> Arrhenius | None:
    """The line of σ T, as σ ~ exp(−Ea/kT)/T."""
    points = [
        (
            run.temperature_k,
            run.sigma_collective.value * run.temperature_k,
            run.sigma_collective.relative_error,
        )
        for run in runs
        if run.sigma_collective is not None and np.isfinite(run.sigma_collective.relative_error)
    ]
    if len({point[0] for point in points}) < MIN_POINTS:
        return None
    temperatures, values, errors = (np.array(column) for column in zip(*points))
    return Arrhenius.fit(temperatures, values, errors)


def _other_laws(result: ArrheniusResult) -> list[str]:
    texts = []
    regimes, law = result.regimes, result.vft
    if regimes is not None and regimes.significant:
        texts.append(
            f"two regimes: Ea = {regimes.cold_ev.value:.3f} eV below and {regimes.hot_ev.value:.3f} eV above "
            f"{regimes.break_k:.0f} K (one line has probability {regimes.probability:.1g}); the cold "
            f"branch gives "
            f"D(300 K) = {regimes.room.value:.2g} [{regimes.room.low:.2g}, {regimes.room.high:.2g}] "
            f"cm²/s (confidence of that line, without the scatter of points that the interval of the single "
            f"line holds), the single line {result.room_d.value:.2g}"
        )
    if law is not None and law.significant:
        room = law.at(ROOM_K)
        texts.append(
            f"D falls off faster on cooling than an Arrhenius law (probability {law.probability:.1g}); "
            f"VFT with "
            f"T0 = {law.t0_k:.0f} K gives D(300 K) = {room.value:.2g} [{room.low:.2g}, {room.high:.2g}] "
            f"cm²/s "
            "(confidence)"
        )
    return texts


def _extrapolation(temperatures: Floats, law: Arrhenius) -> list[str]:
    texts = []
    low, high = float(temperatures.min()), float(temperatures.max())
    if low > ROOM_K:
        span = 1 / low - 1 / high
        distance = (1 / ROOM_K - 1 / low) / span
        strength = "far " if distance > FAR_FACTOR else ""
        texts.append(
            f"300 K is {strength}extrapolated: {low - ROOM_K:.0f} K below the coldest run, {distance:.1f} "
            f"times the fitted range in 1/T ({low:g}–{high:g} K); a change of mechanism or phase in between "
            "is not in the error bar"
        )
    freedom = law.points - 2
    if special.chdtrc(freedom, law.chi_square) < SCATTER_PROBABILITY:
        texts.append(
            f"the points scatter about the Arrhenius line more than their errors (reduced χ² = "
            f"{law.chi_square / freedom:.1f}): perhaps two slopes or a phase change; the intervals "
            "are widened accordingly"
        )
    return texts
