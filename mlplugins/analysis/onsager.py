"""Transport coefficients of several charged species: L_ij, their shares of σ, transference numbers.

L_ij = 1/(6 V k T) d⟨ΔP_i · ΔP_j⟩/dt with P_i = Σ r over the ions of species i; σ = e² Σ_ij z_i z_j L_ij.
The diagonal holds self and distinct parts, L_ii = N_i D_i/(V k T) + L_ii^distinct; without cross terms and
distinct parts σ is the Nernst–Einstein value. K. D. Fong, H. K. Bergstrom, B. D. McCloskey, K. K. Mandadapu,
AIChE J. 66, e17091 (2020). Positions are relative to what the drift removal holds fixed
(the framework, or the total centre of mass).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mlplugins.analysis.blocks import Paths, time_variance
from mlplugins.analysis.diffusion import Diffusion, diffusion
from mlplugins.analysis.matrix import MatrixSlope, slope_matrix, spanned
from mlplugins.analysis.value import UNKNOWN, Value, interval, spanning
from mlplugins.units import BOLTZMANN_EV_K, CM2_S_PER_A2_FS, conductivity_ms_cm

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Carrier:
    """One charged species: symbol, charge in e, number of ions, D* in cm²/s, whether its MSD is curved."""

    species: str
    charge: float
    ions: int
    tracer: Value
    curved: bool = False


@dataclass(frozen=True)
class Onsager:
    """Transport of all carriers together.

    Attributes:
        carriers: in the order of the matrices.
        coefficients: L_ij in 1/(eV Å fs), with 95 % intervals.
        parts: z_i z_j e² L_ij in mS/cm: what each pair contributes to σ.
        sigma: their sum, mS/cm.
        sigma_tracer: Nernst–Einstein sum over the species, mS/cm.
        transference: t_i = Σ_j parts_ij/σ.
        haven: σ_tracer/σ.
    """

    carriers: tuple[Carrier, ...]
    coefficients: tuple[tuple[Value, ...], ...]
    parts: tuple[tuple[Value, ...], ...]
    sigma: Value
    sigma_tracer: Value
    transference: tuple[float, ...]
    haven: Value | None

    def as_json(self) -> dict[str, object]:
        """The `onsager` entry of a run."""
        return {
            "species": [carrier.species for carrier in self.carriers],
            "charges": [carrier.charge for carrier in self.carriers],
            "D_cm2_s": [carrier.tracer.as_json() for carrier in self.carriers],
            "L_per_eV_A_fs": [[value.as_json() for value in row] for row in self.coefficients],
            "sigma_parts_mS_cm": [[value.as_json() for value in row] for row in self.parts],
            "sigma_mS_cm": self.sigma.as_json(),
            "sigma_tracer_mS_cm": self.sigma_tracer.as_json(),
            "transference_numbers": list(self.transference),
            "haven_ratio": self.haven.as_json() if self.haven else None,
        }


@dataclass(frozen=True)
class ThermodynamicState:
    """Temperature (K) and volume (Å³)."""

    temperature_k: float
    volume_a3: float


def onsager(
    species: Mapping[str, Sequence[Floats]],
    charges: Mapping[str, float],
    paths: Paths,
    result: Diffusion,
    state: ThermodynamicState,
) -> Onsager:
    """L_ij, σ and transference numbers of the carriers.

    Args:
        species: displacements (frames, ions, 3) of each run, by species.
        charges: in e, by species.
        paths: segments and frame spacing of the runs.
        result: fit of the first species; the L_ij take its lags and weights.
        state: temperature and volume.
    """
    names = list(species)
    limits = (result.window.low_ps, result.window.high_ps) if result.window.fixed else None
    others = [diffusion(_like(paths, species[name]), limits, collective=False) for name in names[1:]]
    own = [result, *others]
    sums = [
        np.stack([species[name][run].sum(axis=1) for name in names], axis=1) for run in range(_runs(species))
    ]
    ions = [species[name][0].shape[1] for name in names]
    slopes = [slope_matrix(sums, paths, fit) for fit in result.fits]
    weight = np.array([charges[name] for name in names])
    unit = 1 / paths.interval_fs / 6
    sigma_unit = conductivity_ms_cm(CM2_S_PER_A2_FS, state.volume_a3, state.temperature_k) * unit
    plain = unit / (state.volume_a3 * BOLTZMANN_EV_K * state.temperature_k)
    sigma = spanning([_sum(slope, weight) for slope in slopes]).scaled(sigma_unit)
    sigma = replace(sigma, limit=UNKNOWN)
    # σ is the median of its distribution, and the sum of its parts
    total = float(weight @ slopes[0].value @ weight) * sigma_unit
    skew = sigma.value / total if total > 0 else 1.0
    tracer = _nernst_einstein(own, ions, weight, state)
    shares = weight @ slopes[0].value * weight
    return Onsager(
        carriers=tuple(
            Carrier(name, float(z), count, one.tracer, one.curved)
            for name, z, count, one in zip(names, weight, ions, own)
        ),
        coefficients=_entries(slopes, skew * plain * np.ones_like(slopes[0].value)),
        parts=_entries(slopes, skew * sigma_unit * np.outer(weight, weight)),
        sigma=sigma,
        sigma_tracer=tracer,
        transference=tuple(float(share) for share in shares / shares.sum()) if shares.sum() > 0 else (),
        haven=_ratio(tracer, sigma),
    )


def _runs(species: Mapping[str, Sequence[Floats]]) -> int:
    return len(next(iter(species.values())))


def _like(paths: Paths, displacements: Sequence[Floats]) -> Paths:
    return Paths(displacements, paths.segments, paths.interval_fs)


def _entries(slopes: Sequence[MatrixSlope], units: Floats) -> tuple[tuple[Value, ...], ...]:
    return tuple(
        tuple(spanned(slopes, i, j, float(unit)) for j, unit in enumerate(row)) for i, row in enumerate(units)
    )


def _sum(slope: MatrixSlope, weight: Floats) -> Value:
    """Σ_ij z_i z_j of the slopes, with the scatter of the sum block by block."""
    currents = np.einsum("i,bij,j->b", weight, slope.per_block, weight)
    total = float(slope.weights @ currents)
    error = time_variance(currents, slope.weights)
    model, known = slope.brownian * total**2, (slope.curvature + slope.ions) * total**2
    return interval(total, error, model, len(currents) - 1, known, single=slope.skew)


def _nernst_einstein(
    own: Sequence[Diffusion], ions: Sequence[int], charges: Floats, state: ThermodynamicState
) -> Value:
    """Σ_i N_i z_i² D_i as a conductivity; the errors of the species add in squares."""
    units = [
        conductivity_ms_cm(count * z**2, state.volume_a3, state.temperature_k)
        for count, z in zip(ions, charges)
    ]
    values = [one.tracer.scaled(unit) for one, unit in zip(own, units)]
    total = sum(value.value for value in values)
    up = sum((value.high - value.value) ** 2 for value in values) ** 0.5
    down = sum((value.value - value.low) ** 2 for value in values) ** 0.5
    return Value(total, max(total - down, 0.0), total + up, up / 1.96 / total if total else float("inf"))


def _ratio(tracer: Value, sigma: Value) -> Value | None:
    """Haven ratio; the error of the tracer part is small and taken as independent."""
    if tracer.value <= 0 or sigma.value <= 0 or sigma.low <= 0:
        return None
    value = tracer.value / sigma.value
    high = np.hypot(np.log(tracer.high / tracer.value), np.log(sigma.value / sigma.low))
    low = np.hypot(
        np.log(tracer.value / tracer.low) if tracer.low > 0 else np.inf, np.log(sigma.high / sigma.value)
    )
    return Value(value, value * float(np.exp(-low)), value * float(np.exp(high)), float(high) / 1.96, UNKNOWN)
