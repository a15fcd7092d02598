"""Thermal conductivity by Green and Kubo, κ = 1/(3 V k T²) ∫⟨J(0)·J(t)⟩ dt, of runs at one temperature.

J is the heat flux times the volume, as LAMMPS' `compute heat/flux` and `mlplugins/heat/flux` give it.
κ = S(0)/(2 V k T²) with the spectral density S of a component (`cepstrum`); beside it the running integral,
read where the correlation has decayed (`green_kubo`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import special

from mlplugins.analysis import cepstrum, green_kubo, heat_series, twice
from mlplugins.analysis.cepstrum import Cepstrum, Floats
from mlplugins.analysis.heat_series import Series
from mlplugins.analysis.value import LEVEL, Value
from mlplugins.errors import BadInput, nearest
from mlplugins.units import (
    ASE_TIME_PER_FS,
    BOLTZMANN_EV_K,
    EV_PER_KCAL_MOL,
    FS_PER_PS,
    W_MK_PER_EV_A_FS_K,
)

FLUX_UNITS: Mapping[str, float] = {
    "metal": 1.0 / FS_PER_PS,
    "real": EV_PER_KCAL_MOL,
    "ase": ASE_TIME_PER_FS,
}
"""J in eV Å/fs per J in the unit: LAMMPS' metal (eV Å/ps), its real (kcal/mol Å/fs), ASE's."""
FS_PER_STEP = {"metal": FS_PER_PS, "real": 1.0}
"""Of LAMMPS' time steps."""
KNOWN_W_MK = (1e-3, 1e4)
"""Thermal conductivities of anything, from gases (0.005) to diamond (3000)."""
AXES = "xyz"
SAME_TEMPERATURE = 0.05
"""Relative difference of the mean temperatures of runs of one state."""
DEPENDENT = 1e-8
"""Eigenvalue of a matrix of correlations below which one flux is the sum of others, to the printed digits."""
STEADY = 5.0
"""Standard errors from zero up to which the mean of a flux is taken for noise."""
CORRELATIONS = 50.0
"""Correlation times that a run has to have."""


@dataclass(frozen=True)
class Settings:
    """What the files do not say.

    Attributes:
        timestep_fs: MD time step, fs, where the files count steps.
        interval_fs: between samples, fs; instead of `timestep_fs`.
        temperature_k, volume_a3: None: the means of the columns Temp and Volume.
        units: of J, one of `FLUX_UNITS`.
        columns: names of J_x, J_y, J_z.
        others: names of further fluxes to project out, three (x, y, z) each.
        discard_ps: left out at the start of each run.
        highest_thz: frequency up to which spectra are analysed; None chooses.
        cut_ps: where the running integral is read; None chooses.
    """

    timestep_fs: float | None = None
    interval_fs: float | None = None
    temperature_k: float | None = None
    volume_a3: float | None = None
    units: str = "metal"
    columns: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    discard_ps: float = 0.0
    highest_thz: float | None = None
    cut_ps: float | None = None


@dataclass(frozen=True)
class Conduction:
    """κ and what it is made of.

    Attributes:
        kappa: W/(m K), with its 95 % interval.
        axes: the same of x, y and z; empty where there are more fluxes than runs.
        runs: of every run; empty for one run.
        integral: κ by the running integral.
        cut_ps, reason: where it was read, and why.
        time_ps, running, correlation: the integral, W/(m K), and ⟨J(0)·J(t)⟩/⟨J²⟩, the mean over runs.
        cepstrum: of the mean of all runs and axes; frequencies in 1/fs.
        factor: S in the unit of J² times fs → W/(m K).
        correlation_ps: ∫⟨J(0)·J(t)⟩ dt/⟨J²⟩ up to the cut.
    """

    kappa: Value
    axes: tuple[Value, ...]
    runs: tuple[Value, ...]
    integral: Value
    cut_ps: float
    reason: str
    time_ps: Floats
    running: Floats
    correlation: Floats
    cepstrum: Cepstrum
    factor: float
    correlation_ps: float
    temperature_k: float
    volume_a3: float
    interval_fs: float
    length_ps: tuple[float, ...]
    assumptions: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]

    def as_json(self) -> dict[str, object]:
        """The result of `--json`; all intervals are 95 %."""
        return {
            "kappa_W_mK": self.kappa.as_json(),
            "kappa_axes_W_mK": {axis: value.as_json() for axis, value in zip(AXES, self.axes)},
            "kappa_runs_W_mK": [value.as_json() for value in self.runs],
            "integral": {"kappa_W_mK": self.integral.as_json(), "cut_ps": self.cut_ps, "reason": self.reason},
            "temperature_K": self.temperature_k,
            "volume_A3": self.volume_a3,
            "interval_fs": self.interval_fs,
            "length_ps": list(self.length_ps),
            "correlation_time_ps": self.correlation_ps,
            "highest_THz": FS_PER_PS * float(self.cepstrum.frequency[-1]),
            "assumptions": dict(self.assumptions),
            "warnings": list(self.warnings),
        }


def conduction(paths: Sequence[Path | str], settings: Settings) -> Conduction:
    """κ of the runs in these files, all of one system at one temperature.

    Raises:
        BadInput: an unreadable file, a time step, temperature or volume that neither files nor settings say,
            runs of different intervals or cells, settings without meaning.
    """
    return of_series(read(paths, settings), settings)


def read(paths: Sequence[Path | str], settings: Settings) -> list[Series]:
    """The series of these files.

    Raises:
        BadInput: as `conduction`, but for what several files have to agree in.
    """
    if not paths:
        raise BadInput("expected one file with a heat flux or more, got none")
    _check(settings)
    series = [heat_series.read(Path(path), settings.columns) for path in paths]
    for each in series:
        _require_units(each, settings)
    return series


def of_series(series: Sequence[Series], settings: Settings) -> Conduction:
    """As `conduction`, of series that have been read."""
    interval = _interval(series, settings)
    temperature = _common(series, "Temp", settings.temperature_k, "temperature", SAME_TEMPERATURE)
    volume = _common(series, "Volume", settings.volume_a3, "volume", 0.01)
    factor = W_MK_PER_EV_A_FS_K * FLUX_UNITS[settings.units] ** 2
    factor /= 2.0 * volume * BOLTZMANN_EV_K * temperature**2
    skip = round(settings.discard_ps * FS_PER_PS / interval)
    currents = [_fluxes(each, settings, skip) for each in series]
    names = [str(each.path) for each in series]
    twice.require_other_runs(names, currents)
    twice.require_other_samples(names, currents)
    segments = _segments(currents)  # (runs, samples, 3, fluxes)
    n_runs, n, _, n_fluxes = segments.shape
    step = 1.0 / (n * interval)  # of frequency
    waves = cepstrum.transformed(segments.transpose(0, 2, 1, 3).reshape(-1, n, n_fluxes), interval)
    waves = waves.reshape(n_runs, 3, -1, n_fluxes)
    found = _zero(waves, step, settings)
    single = n_runs >= n_fluxes  # enough realisations for one axis alone
    axes = [_zero(waves[:, [k]], step, settings) for k in range(3) if single]
    alone = [_zero(each[None], step, settings) for each in waves if n_runs > 1]
    times = max(int(n * green_kubo.LONGEST_SHARE), green_kubo.SHORTEST // 2)
    correlation = np.mean([green_kubo.autocorrelation(each[..., 0], times) for each in segments], axis=0)
    cut, reason = green_kubo.plateau(correlation, interval, settings.cut_ps, n_runs * n)
    running = green_kubo.integral(correlation, interval)
    unit = 2.0 * factor / 3.0
    result = Conduction(
        kappa=_value(found, factor),
        axes=tuple(_value(each, factor) for each in axes),
        runs=tuple(_value(each, factor) for each in alone),
        integral=_blocked(segments[..., 0], interval, cut, float(running[cut]), unit),
        cut_ps=cut * interval / FS_PER_PS,
        reason=reason,
        time_ps=np.arange(len(running), dtype=np.float64) * float(interval / FS_PER_PS),
        running=running * unit,
        correlation=correlation / correlation[0],
        cepstrum=found,
        factor=factor,
        correlation_ps=float(running[cut] / correlation[0] / FS_PER_PS),
        temperature_k=temperature,
        volume_a3=volume,
        interval_fs=interval,
        length_ps=tuple(float(len(each) * interval / FS_PER_PS) for each in currents),
        assumptions=_assumptions(series, settings, temperature, volume, interval),
        warnings=(),
    )
    return replace(result, warnings=(*_left_out(series), *_doubts(result, currents, n)))


def _left_out(series: Sequence[Series]) -> list[str]:
    """Which run of a log was taken, where another one may be meant."""
    return [
        f"{each.path}: taken is {each.chosen}: the others may be equilibration, or runs of their own, which "
        "count if each has a file (log FILE before its run)"
        for each in series
        if each.doubtful
    ]


def _check(settings: Settings) -> None:
    if settings.units not in FLUX_UNITS:
        raise BadInput(f"units of the flux: '{settings.units}': {nearest(settings.units, FLUX_UNITS)}")
    positive = ("timestep_fs", "interval_fs", "temperature_k", "volume_a3", "highest_thz", "cut_ps")
    for name in positive:
        value = getattr(settings, name)
        if value is not None and not (np.isfinite(value) and value > 0):
            raise BadInput(f"{name}: expected a positive number, got {value}")
    if settings.discard_ps < 0 or len(settings.others) % 3:
        raise BadInput(
            f"expected discard_ps ≥ 0 and three columns for each further flux, got {settings.discard_ps} and "
            f"{len(settings.others)}"
        )


def _require_units(series: Series, settings: Settings) -> None:
    """Refuse units and a time step that the log of the run contradicts."""
    if series.units is not None and series.units != settings.units:
        expected = f"--units {series.units}" if series.units in FLUX_UNITS else "a run in metal or real units"
        raise BadInput(
            f"{series.path}: the log says units {series.units}, and J is taken in those of "
            f"'{settings.units}': expected {expected}"
        )
    if series.units not in FS_PER_STEP or series.time_step is None or settings.timestep_fs is None:
        return
    step = series.time_step * FS_PER_STEP[series.units]
    if abs(settings.timestep_fs / step - 1) > 1e-6:
        raise BadInput(
            f"{series.path}: the log says a time step of {step:g} fs, and --timestep is "
            f"{settings.timestep_fs:g} fs: correct it"
        )


def _interval(series: Sequence[Series], settings: Settings) -> float:
    """Between samples, fs, the same in all files."""
    found = set()
    for each in series:
        if settings.interval_fs is not None:
            _require_clock(each, settings.interval_fs, settings.timestep_fs)
            found.add(settings.interval_fs)
        elif each.step is None:
            raise BadInput(f"{each.path}: the time between samples is not in the file: give --interval (fs)")
        elif settings.timestep_fs is None:
            raise BadInput(f"{each.path} counts MD steps: give their length, --timestep (fs)")
        else:
            found.add(each.step * settings.timestep_fs)
    if len(found) > 1:
        raise BadInput(
            f"runs with samples every {', '.join(f'{x:g}' for x in sorted(found))} fs: expected one"
        )
    return found.pop()


def _require_clock(series: Series, interval: float, timestep: float | None) -> None:
    """Refuse an interval that the steps of a file contradict, with the time step that is given or its own."""
    if timestep is None and series.time_step is not None and series.units in FS_PER_STEP:
        timestep = series.time_step * FS_PER_STEP[series.units]
    if series.step is None or timestep is None or abs(series.step * timestep / interval - 1) < 1e-6:
        return
    raise BadInput(
        f"{series.path}: {series.step} steps of {timestep:g} fs are {series.step * timestep:g} fs between "
        f"samples, --interval is {interval:g} fs: leave that out"
    )


def _common(series: Sequence[Series], column: str, given: float | None, name: str, tolerance: float) -> float:
    """The value given, or the mean of a column, which is the same in all files to `tolerance`.

    Raises:
        BadInput: no value, runs of different states, a value that contradicts a file's own column.
    """
    means = {each.path: each.mean(column) for each in series}
    for path, mean in means.items():
        if mean is None and given is None:
            raise BadInput(f"{path}: no column {column}: give --{name}")
        if mean is not None and given is not None and abs(mean - given) > tolerance * given:
            raise BadInput(
                f"{path}: the mean of its column {column} is {mean:.5g}, --{name} says {given:.5g}: leave "
                "that out, or the column if it is another quantity's"
            )
    if given is not None:
        return given
    values = [mean for mean in means.values() if mean is not None]
    if max(values) - min(values) > tolerance * max(values):
        listed = ", ".join(f"{path.name} {mean:.5g}" for path, mean in means.items())
        raise BadInput(f"the runs differ in their {name} ({listed}): expected runs of one state")
    return float(np.mean(values))


def _fluxes(series: Series, settings: Settings, skip: int) -> Floats:
    """(samples, 3, 1 + further fluxes)."""
    names = (*series.fluxes, *settings.others)
    table = series.values(names)[skip:]
    if len(table) < heat_series.SHORTEST:
        raise BadInput(
            f"{series.path}: {len(table)} samples after the first {settings.discard_ps:g} ps, expected at "
            f"least {heat_series.SHORTEST}"
        )
    if not np.isfinite(table).all() or not (np.ptp(table, axis=0) > 0).all():
        raise BadInput(f"{series.path}: the fluxes {', '.join(names)} must be finite and not constant")
    for axis in range(3 if settings.others else 0):
        if np.linalg.eigvalsh(np.corrcoef(table[:, axis::3].T)).min() < DEPENDENT:
            raise BadInput(
                f"{series.path}: the fluxes {', '.join(names[axis::3])} depend on one another and cannot be "
                "projected out: leave one out of --others (where the momentum is zero, those of all "
                "components add up to nothing)"
            )
    return np.ascontiguousarray(table.reshape(len(table), -1, 3).transpose(0, 2, 1))


def _segments(currents: Sequence[Floats]) -> Floats:
    """Pieces of the length of the shortest run, (pieces, samples, 3, fluxes)."""
    n = min(len(each) for each in currents)
    pieces = [each[k * n : (k + 1) * n] for each in currents for k in range(len(each) // n)]
    return np.stack(pieces)


def _zero(waves: NDArray[np.complex128], step: float, settings: Settings) -> Cepstrum:
    """S(0) of the Fourier components of some pieces and axes (pieces, axes, frequencies, fluxes).

    The sum over axes that differ scatters as one of fewer (Satterthwaite, Biometrics 2, 110 (1946)).
    """
    together = waves.reshape(-1, *waves.shape[2:])
    of_axes = (np.abs(waves[..., 0]) ** 2).mean(axis=(0, 2))
    alike = float(of_axes.sum() ** 2 / (of_axes**2).sum() / len(of_axes))  # 1/3 if one axis conducts alone
    degrees = max(1.0, alike * len(together) - together.shape[2] + 1)
    highest = None if settings.highest_thz is None else settings.highest_thz / FS_PER_PS
    return cepstrum.cepstrum(cepstrum.power(together), step, degrees, highest)


def _value(found: Cepstrum, factor: float) -> Value:
    """κ with its interval."""
    kappa, low, high = (factor * float(np.exp(log)) for log in (found.log_zero, found.low, found.high))
    return Value(kappa, low, high, found.error)


def _blocked(currents: Floats, interval: float, cut: int, integral: float, unit: float) -> Value:
    """κ by the running integral, with the error of blocks of time."""
    n = currents.shape[1]
    per_run = max(1, min(-(-green_kubo.BLOCKS // len(currents)), n // (4 * (cut + 1))))
    parts = [part for each in currents for part in np.array_split(each, per_run)]
    values = [
        green_kubo.integral(green_kubo.autocorrelation(part, cut + 1), interval)[-1] * unit for part in parts
    ]
    kappa = integral * unit
    if len(values) < 2:
        return Value(kappa, float("nan"), float("nan"), float("nan"))
    error = float(np.std(values, ddof=1) / np.sqrt(len(values)))
    half = error * float(special.stdtrit(len(values) - 1, 0.5 + LEVEL / 2))
    return Value(kappa, kappa - half, kappa + half, error / abs(kappa) if kappa else float("inf"))


def _assumptions(
    series: Sequence[Series], settings: Settings, temperature: float, volume: float, interval: float
) -> tuple[tuple[str, str], ...]:
    source = {"T": settings.temperature_k, "V": settings.volume_a3}
    said = {name: "as given" if value is not None else "mean of the files" for name, value in source.items()}
    chosen = "; ".join(f"{each.path.name}: {each.chosen}" for each in series if each.chosen)
    projected = ", ".join(settings.others) or "none (one component, or a solid)"
    return (
        ("files", ", ".join(str(each.path) for each in series)),
        *([("tables", chosen)] if chosen else []),
        ("heat flux", f"columns {', '.join(series[0].fluxes)}, times the volume, units {settings.units}"),
        ("further fluxes projected out", projected),
        ("time between samples", f"{interval:g} fs"),
        ("temperature", f"{temperature:.6g} K, {said['T']}"),
        ("volume", f"{volume:.8g} Å³, {said['V']}"),
        ("left out at the start", f"{settings.discard_ps:g} ps of each run"),
    )


def _doubts(result: Conduction, currents: Sequence[Floats], n: int) -> list[str]:
    texts = _absurd(result)
    kept = float(result.correlation[1])
    if kept < green_kubo.LEAST_KEPT:
        texts.append(
            f"samples every {result.interval_fs:g} fs are too far apart: the correlation falls to {kept:.2f} "
            f"of its start between two (expected at least {green_kubo.LEAST_KEPT}): what is faster is folded "
            "into the spectrum; write J more often"
        )
    length = n * result.interval_fs / FS_PER_PS
    least = CORRELATIONS * result.correlation_ps
    if length < least:
        texts.append(
            f"runs of {length:.3g} ps are short for a correlation time of {result.correlation_ps:.3g} ps: "
            f"expected {least:.3g} ps or more"
        )
    texts += _steady(result, currents)
    if "not decayed" in result.reason:
        texts.append(f"running integral: {result.reason}")
    for name, value in (("by blocks of the running integral", result.integral), *named_runs(result)):
        if value.high < result.kappa.low or value.low > result.kappa.high:
            texts.append(
                f"κ {name}, {value.value:.3g} [{value.low:.3g}, {value.high:.3g}] W/(m K), and κ of all, "
                f"{result.kappa.value:.3g} [{result.kappa.low:.3g}, {result.kappa.high:.3g}], do not overlap"
            )
    return texts


def _steady(result: Conduction, currents: Sequence[Floats]) -> list[str]:
    """A warning about a flux that does not vanish on the average, as it does in equilibrium."""
    together = np.concatenate(currents)[..., 0]
    mean = together.mean(axis=0)
    blocks = np.array([part.mean(axis=0) for part in np.array_split(together, 2 * green_kubo.BLOCKS)])
    error = float(np.sqrt(np.exp(result.cepstrum.log_zero) / (len(together) * result.interval_fs)))
    error = max(error, float(blocks.std(axis=0, ddof=1).max() / np.sqrt(len(blocks))))
    if np.abs(mean).max() < STEADY * error:
        return []
    listed = ", ".join(f"{value:.3g}" for value in mean)
    return [
        f"the mean of J, ({listed}), is {np.abs(mean).max() / error:.3g} standard errors from zero: expected "
        "zero in equilibrium. The spectrum leaves it out, the running integral does not: does the system "
        "drift (velocity all zero linear), or is it driven?"
    ]


def _absurd(result: Conduction) -> list[str]:
    """A warning about a κ that nothing has."""
    low, high = KNOWN_W_MK
    kappa = result.kappa.value
    if low < kappa < high:
        return []
    guess = "is J in other units (--units), or the time between samples wrong?"
    if low < kappa * result.volume_a3**2 < high:
        guess = "J seems to be divided by the volume: expected J times V, as the computes give it"
    return [f"κ = {kappa:.2g} W/(m K), and anything known has 0.005 (gases) to 3000 (diamond): {guess}"]


def named_runs(result: Conduction) -> list[tuple[str, Value]]:
    """Names and values of the runs alone."""
    return [(f"of run {k + 1}", value) for k, value in enumerate(result.runs)]
