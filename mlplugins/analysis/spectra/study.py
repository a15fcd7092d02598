"""Spectra of runs of one system: reading, densities, curves with standard errors, peaks, what to doubt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mlplugins.analysis.readers._text import Floats
from mlplugins.analysis.spectra.doubts import doubts
from mlplugins.analysis.spectra.experiment import Experiment, experiment
from mlplugins.analysis.spectra.kinds import KINDS, LASER_NM_PER_CM, Channels, Conditions, SpectrumKind
from mlplugins.analysis.spectra.peaks import peaks
from mlplugins.analysis.spectra.result import Ratio, Spectrum
from mlplugins.analysis.spectra.runs import Clock, Dipoles, Reading, SeriesFile, open_source, together
from mlplugins.analysis.spectra.settings import WIDTH_CM, Settings, reading, require
from mlplugins.analysis.spectra.welch import HANN_WIDTH, Density, Periodogram
from mlplugins.analysis.twice import Appended, require_other_columns, require_other_runs
from mlplugins.errors import BadInput, nearest
from mlplugins.structures.components import ORDERS, checked_order, indefinite
from mlplugins.units import ASE_TIME_PER_FS, ATOMIC_TIME_S, BOLTZMANN_EV_K, FS_PER_PS, PER_CM_PER_FS

WIDEST_CM = 200.0
"""Lines of a spectrum whose width nobody asked for are not wider."""
SEGMENTS = 8
"""Segments of the shortest run for which the default width is enlarged."""
SEEN = 0.005
"""Of the maximum: what is below need not be in the figure."""
ENOUGH_RUNS = 5
"""Runs from which on errors are those of the means of runs."""
SHORTEST = 64
"""Samples of a segment at least."""
OFF_TEMPERATURE = 0.1
OFF_VOLUME = 0.1
LOOKED_AT, ABSOLUTE = 100, 5.0
"""Samples of a polarizability, and their mean over their scatter, by which its sign can be told."""
AXES = ("μx", "μy", "μz")
AT_REST = 1e-3
"""Kinetic energy of the centre of mass, of what it has in equilibrium, that is rounding."""
TIME_UNITS_FS = (1.0, FS_PER_PS, 1e15, ATOMIC_TIME_S * 1e15)
TIME_DIGITS = 0.02
PLAUSIBLE_K = 1.0, 1e5
SAME_TIME = 1e-3
"""Relative difference of two intervals that is rounding."""


@dataclass
class _SpectralRun:
    """The sources of one run and what was found; of velocities `drift` is ⟨P²⟩/M of the centre of mass."""

    sources: list[SeriesFile]
    density: Density | None = None
    samples: int = 0
    variance: float = 0.0
    drift: float = 0.0
    unwrapped: int = 0


def spectrum(kind_name: str, paths: Sequence[Path | str], settings: Settings) -> Spectrum:
    """Spectra of the runs in these files.

    Raises:
        BadInput: an unreadable file, a unit, time step or temperature that neither files nor settings say,
            uneven steps, jumps of the dipole, runs that are too short for the width asked for, runs of
            different systems or intervals, settings without meaning.
    """
    if kind_name not in KINDS:
        raise BadInput(f"kind of spectrum '{kind_name}': {nearest(kind_name, KINDS)}")
    kind = KINDS[kind_name]
    require(kind, settings, paths)
    how = reading(settings)
    warnings: list[str] = []
    sources = [open_source(Path(path), kind, how) for path in paths]
    beads = settings.beads or 1
    runs = [_SpectralRun(sources[k : k + beads]) for k in range(0, len(sources), beads)]
    _one_system(kind, sources, settings)
    interval = _interval(sources, settings)
    channels = _channels(kind, sources[0], settings)
    samples, chosen = _samples(settings, interval)
    estimate = _analyse(runs, channels, kind, (samples, interval), how, settings, warnings)
    shortest = min(run.samples for run in runs)
    fitting = 2 * int(shortest / (SEGMENTS + 1))
    if chosen and fitting < samples and _width(fitting + 1, interval) < WIDEST_CM:
        samples = fitting
        _long_enough(runs, samples, interval, settings)
        warnings.clear()
        estimate = _analyse(runs, channels, kind, (samples, interval), how, settings, warnings)
    _long_enough(runs, samples, interval, settings)
    return _assembled(kind, runs, channels, estimate, samples, settings, warnings)


def _one_system(kind: SpectrumKind, sources: Sequence[SeriesFile], settings: Settings) -> None:
    first = sources[0]
    for other in sources[1:]:
        if other.symbols != first.symbols:
            raise BadInput(f"{first.path} and {other.path} hold different atoms: expected runs of one system")
        if other.width != first.width or other.unit != first.unit:
            raise BadInput(
                f"{first.path} ({first.width} columns, {first.unit}) and {other.path} ({other.width}, "
                f"{other.unit}): expected runs of one "
                "system"
            )
    volumes = [volume for each in sources if (volume := getattr(each.content, "volume", 0.0))]
    if settings.volume_a3 is None and volumes and max(volumes) > 1.05 * min(volumes):
        raise BadInput(
            f"cells of {min(volumes):.5g} and {max(volumes):.5g} Å³: expected runs of one state, or --volume"
        )


def _interval(sources: Sequence[SeriesFile], settings: Settings) -> float:
    """Between samples, fs, the same in all files."""
    found: dict[float, Path] = {}
    for source in sources:
        found.setdefault(_interval_of(source, settings), source.path)
    if len(found) > 1:
        listed = ", ".join(f"{path.name} {interval:g} fs" for interval, path in found.items())
        raise BadInput(f"runs with different times between samples ({listed}): expected one")
    interval = next(iter(found))
    nyquist = PER_CM_PER_FS / (2 * interval)
    if settings.highest_cm is not None and nyquist < settings.highest_cm:
        most = PER_CM_PER_FS / (2 * settings.highest_cm)
        raise BadInput(
            f"samples every {interval:g} fs show nothing above {nyquist:.0f} cm⁻¹ (Nyquist), but the "
            f"highest mode is at {settings.highest_cm:g}: it would be folded into the spectrum; write "
            f"samples every {most:.2g} fs or "
            "less"
        )
    return interval


def _interval_of(source: SeriesFile, settings: Settings) -> float:
    """Between the samples of one file, fs: as it says, and as the settings say."""
    clock = Clock(source.path)
    clock.add(source.first_steps())
    step = settings.timestep_fs
    known = {
        "the times in the file": source.stated_interval(),
        "--interval": settings.interval_fs,
        "its steps and --timestep": clock.stride * step if clock.stride is not None and step else None,
    }
    given = {name: value for name, value in known.items() if value is not None}
    if not given and clock.stride is None:
        raise BadInput(f"{source.path}: the time between samples is not in the file: give --interval (fs)")
    if not given:
        raise BadInput(f"{source.path} counts MD steps: give their length, --timestep (fs)")
    column = source.clock()
    if column is not None and not any(
        abs(column * unit / value - 1) < TIME_DIGITS for unit in TIME_UNITS_FS for value in given.values()
    ):
        listed = " or ".join(f"{value:.6g} fs" for value in given.values())
        raise BadInput(
            f"{source.path}: its column of times grows by {column:.6g} from row to row, which is {listed} in "
            "no unit (fs, ps, s, atomic): expected the time between its rows as --interval"
        )
    if max(given.values()) > (1 + SAME_TIME) * min(given.values()):
        listed = ", ".join(f"{value:.6g} fs by {name}" for name, value in given.items())
        raise BadInput(
            f"{source.path}: time between samples: {listed}: expected one (a step of multiple time steps is "
            "the outer one)"
        )
    return float(f"{[*given.values()][-1]:.9g}")  # differences of times have few digits


def _channels(kind: SpectrumKind, source: SeriesFile, settings: Settings) -> Channels:
    if kind.name == "raman" and source.width == 6 and settings.order is None:
        raise BadInput(
            f"{source.path}: six components of the polarizability in an unknown order: --order, "
            f"e.g. {' or '.join(ORDERS[:2])}"
        )
    return kind.prepare(
        source.width, checked_order(settings.order or ORDERS[0], "order"), source.symbols, source.masses
    )


def _samples(settings: Settings, interval: float) -> tuple[int, bool]:
    """Samples of a segment, even, and whether nobody asked for them."""
    if settings.window_fs is not None:
        length = settings.window_fs
    else:
        length = HANN_WIDTH * PER_CM_PER_FS / (settings.width_cm or WIDTH_CM)
    samples = max(2 * round(length / interval / 2), SHORTEST)
    return samples, settings.window_fs is None and settings.width_cm is None


def _width(samples: int, interval: float) -> float:
    return HANN_WIDTH * PER_CM_PER_FS / (samples * interval)


def _long_enough(runs: Sequence[_SpectralRun], samples: int, interval: float, settings: Settings) -> None:
    for run in runs:
        if run.samples < max(samples, SHORTEST):
            best = _width(max(run.samples, 1), interval)
            left = f" after the first {settings.discard_ps:g} ps" if settings.discard_ps else ""
            shorter = (
                f"; a --width of {5 * best:.2g} cm⁻¹ would give a few blocks" if best < WIDEST_CM else ""
            )
            raise BadInput(
                f"{run.sources[0].path}: {run.samples} samples ({run.samples * interval / FS_PER_PS:.3g} "
                f"ps){left}, too few for lines of "
                f"{_width(samples, interval):.3g} cm⁻¹ ({samples} samples): run "
                f"longer{shorter}"
            )


def _analyse(
    runs: Sequence[_SpectralRun],
    channels: Channels,
    kind: SpectrumKind,
    grid: tuple[int, float],
    how: Reading,
    settings: Settings,
    warnings: list[str],
) -> Periodogram:
    """Densities of all runs; the last periodogram, for its frequencies."""
    samples, interval = grid
    for run in runs:
        estimate = Periodogram(samples, interval, channels.groups, kind.centred)
        appended = Appended(run.sources[0].path)
        clock, dipoles = Clock(run.sources[0].path), Dipoles(run.sources[0].path, how)
        skip = round(settings.discard_ps * FS_PER_PS / interval)
        last = None
        run.samples, squares, drift, run.unwrapped = 0, 0.0, 0.0, 0
        for piece in together(run.sources, warnings):
            clock.add(piece.steps)
            if piece.steps is None:
                appended.see(piece.values)
            if kind.name == "ir" and len(piece.values) >= SHORTEST:
                require_other_columns(run.sources[0].path, AXES, piece.values)
            values = dipoles.follow(piece.values, piece.cells) if kind.name == "ir" else piece.values
            values, skip = values[skip:], max(0, skip - len(values))
            values = channels.transform(values)
            if kind.name == "raman" and run.samples == 0:
                warnings.extend(_indefinite(values[:LOOKED_AT], run.sources[0].path))
            run.samples += len(values)
            if kind.differenced and len(values):
                known = values if last is None else np.concatenate([last, values])
                last, values = values[-1:].copy(), np.diff(known, axis=0)
            squares += float(np.einsum("nc,nc->", values, values))
            if kind.name == "vdos":
                drift += _of_centre(values, run.sources[0].masses)
            estimate.add(values)
        appended.end()
        run.samples -= kind.differenced
        run.unwrapped = dipoles.unwrapped
        if dipoles.doubtful:
            warnings.append(
                f"{run.sources[0].path}: {dipoles.doubtful} steps of the dipole are more than {0.25:g} of "
                "a cell vector, so its branch is a guess: write it more "
                "often"
            )
        run.variance, run.drift = squares / max(run.samples, 1), drift / max(run.samples, 1)
        if run.samples > 1 and not squares > 0:
            raise BadInput(f"{run.sources[0].path}: the {kind.what} does not change: nothing vibrates")
        run.density = estimate.finish()
    means = [run.density.mean for run in runs if run.density is not None]
    require_other_runs([str(run.sources[0].path) for run in runs], means)
    for source in (source for run in runs for source in run.sources):
        warnings.extend(text for text in source.content.warnings if text not in warnings)
        source.content.warnings.clear()
    return estimate


def _indefinite(values: Floats, path: Path) -> list[str]:
    """A warning about polarizabilities that no ground state has; differences to a mean may be anything."""
    size, scatter = np.linalg.norm(values.mean(axis=0)), np.linalg.norm(values.std(axis=0))
    if not len(values) or size < ABSOLUTE * scatter:
        return []
    tensors = values[:, 1:].reshape(-1, 3, 3) + values[:, :1, None] * np.eye(3)
    said = indefinite(list(tensors), str(path))
    return [said] if said else []


def _of_centre(values: Floats, masses: Floats) -> float:
    """Σ P²/M over the samples, of columns √m v."""
    momenta = np.einsum("nac,a->nc", values.reshape(len(values), -1, 3), np.sqrt(masses))
    return float(np.einsum("nc,nc->", momenta, momenta)) / float(masses.sum())


def _freedom(runs: Sequence[_SpectralRun]) -> int:
    """Degrees of freedom of velocities: 3N, less three where the centre of mass is at rest."""
    all_of_them = runs[0].sources[0].width
    rests = all(run.drift < AT_REST * 3 * run.variance / all_of_them for run in runs)
    return all_of_them - 3 if rests and all_of_them > 3 else all_of_them


def _temperature(
    kind: SpectrumKind, runs: Sequence[_SpectralRun], settings: Settings, warnings: list[str]
) -> float:
    """As given, or of the velocities."""
    if kind.name != "vdos":
        return settings.temperature_k or float("nan")
    freedom = _freedom(runs)
    variance = float(np.average([run.variance for run in runs], weights=[run.samples for run in runs]))
    own = variance / freedom / (BOLTZMANN_EV_K * ASE_TIME_PER_FS**2)
    given = settings.temperature_k
    if given is not None and abs(own / given - 1) > OFF_TEMPERATURE:
        warnings.append(
            f"velocities of {own:.4g} K (of {freedom} degrees of freedom), not {given:g} K: another unit "
            f"({runs[0].sources[0].unit} was taken), a run that is not in equilibrium, or frozen atoms"
        )
    if given is None and not PLAUSIBLE_K[0] < own < PLAUSIBLE_K[1]:
        warnings.append(
            f"velocities of {own:.3g} K in {runs[0].sources[0].unit}: expected those of a simulation, so "
            "another unit (--unit)"
        )
    return given if given is not None else own


def _assembled(
    kind: SpectrumKind,
    runs: Sequence[_SpectralRun],
    channels: Channels,
    estimate: Periodogram,
    samples: int,
    settings: Settings,
    warnings: list[str],
) -> Spectrum:
    state = _conditions(kind, runs, estimate, settings, warnings)
    per_cm = estimate.frequency * PER_CM_PER_FS
    densities = [run.density for run in runs if run.density is not None]

    def curves(density: Floats) -> dict[str, Floats]:
        by_group = {name: density[..., k, :] for k, name in enumerate(channels.names)}
        return kind.curves(per_cm, by_group, state)

    weights = np.array([density.segments for density in densities], dtype=np.float64)
    mean = curves(np.average([density.mean for density in densities], axis=0, weights=weights))
    of_runs = curves(np.stack([density.mean for density in densities]))
    if len(runs) >= ENOUGH_RUNS:
        scatter, blocks_of = of_runs, "runs"
    else:
        scatter = curves(np.concatenate([density.blocks for density in densities]))
        blocks_of = f"blocks of {_block_ps(densities, samples, state.interval_fs)}"
    main, parts, each = (next(iter(values.values())) for values in (mean, scatter, of_runs))
    step = estimate.weights * PER_CM_PER_FS
    high = _high(per_cm, main, settings)
    axis, unit, integral_unit = kind.labels(state)
    found = Spectrum(
        kind=kind,
        per_cm=per_cm,
        curves=mean,
        errors={name: _error(values) for name, values in scatter.items()},
        ratio=_ratio(mean, scatter) if kind.name == "raman" else None,
        integral=float(main @ step),
        integral_error=float(_error(parts @ step)),
        runs=tuple((each @ step).tolist()),
        peaks=tuple(peaks(per_cm, main, parts, step, (settings.low_cm, high))),
        axis=axis,
        unit=unit,
        integral_unit=integral_unit,
        width_cm=_width(samples, state.interval_fs),
        blocks=len(parts),
        blocks_of=blocks_of,
        state=state,
        low_cm=settings.low_cm,
        high_cm=high,
        length_ps=tuple(run.samples * state.interval_fs / FS_PER_PS for run in runs),
        experiment=_experiment(per_cm, main, (settings.low_cm, high), settings),
        assumptions=(),
        warnings=(),
    )
    said = _assumptions(found, runs, settings, samples)
    doubted = [*warnings, *doubts(found, settings, parts @ step, runs[0].sources[0].symbols)]
    return replace(found, assumptions=said, warnings=tuple(doubted))


def _conditions(
    kind: SpectrumKind,
    runs: Sequence[_SpectralRun],
    estimate: Periodogram,
    settings: Settings,
    warnings: list[str],
) -> Conditions:
    first = runs[0].sources[0]
    own = getattr(first.content, "volume", 0.0) or None
    given = settings.volume_a3
    if own and given and kind.name == "ir" and abs(given / own - 1) > OFF_VOLUME:
        warnings.append(
            f"{first.path}: its cell has {own:.6g} Å³, --volume is {given:.6g} Å³, which was taken: expected "
            "the volume that the dipole is of"
        )
    return Conditions(
        temperature_k=_temperature(kind, runs, settings, warnings),
        volume_a3=settings.volume_a3 or (own if kind.name == "ir" else None),
        interval_fs=estimate.interval,
        correction=settings.correction,
        laser_per_cm=None if settings.laser_nm is None else LASER_NM_PER_CM / settings.laser_nm,
        unit=first.unit if kind.name == "power" else "",
    )


def _experiment(
    per_cm: Floats, main: Floats, shown: tuple[float, float], settings: Settings
) -> Experiment | None:
    if settings.experiment is None:
        return None
    inside = (per_cm >= shown[0]) & (per_cm <= shown[1])
    return experiment(settings.experiment, per_cm[inside], main[inside], settings.experiment_scale)


def _block_ps(densities: Sequence[Density], samples: int, interval: float) -> str:
    lengths = sorted({(each.per_block + 1) * samples / 2 * interval / FS_PER_PS for each in densities})
    return " and ".join(f"{length:.3g} ps" for length in lengths)


def _error(values: Floats) -> Floats:
    """Standard error of the mean along the first axis; NaN of one."""
    if len(values) < 2:
        return np.full(values.shape[1:], np.nan)
    error: Floats = np.std(values, axis=0, ddof=1) / np.sqrt(len(values))
    return error


def _ratio(mean: Mapping[str, Floats], scatter: Mapping[str, Floats]) -> Ratio:
    """VH/VV, with the error of its linear part."""
    vv, vh = mean["VV"], mean["VH"]
    some = vv > 1e-4 * vv.max()
    ratio = np.where(some, vh / np.where(some, vv, 1.0), np.nan)
    return Ratio(ratio, _error(scatter["VH"] - ratio * scatter["VV"]) / np.where(some, vv, np.nan))


def _high(per_cm: Floats, curve: Floats, settings: Settings) -> float:
    """Where figures end: beyond everything that can be seen."""
    if settings.high_cm is not None:
        return min(settings.high_cm, float(per_cm[-1]))
    seen = per_cm[np.flatnonzero(curve > SEEN * curve.max())[-1]]
    return min(1.1 * float(seen) + 50.0, float(per_cm[-1]))


def _assumptions(
    found: Spectrum, runs: Sequence[_SpectralRun], settings: Settings, samples: int
) -> tuple[tuple[str, str], ...]:
    kind, state, first = found.kind, found.state, runs[0].sources[0]
    names = [str(source.path) for run in runs for source in run.sources]
    window = samples * state.interval_fs / FS_PER_PS
    lines = [
        ("files", ", ".join(names)),
        ("unit", f"{first.unit or 'none'}, {first.unit_from}"),
        ("time between samples", f"{state.interval_fs:g} fs (up to {found.per_cm[-1]:.0f} cm⁻¹)"),
        (
            "window",
            f"Hann, {window:.4g} ps, half overlapped: lines of {found.width_cm:.3g} cm⁻¹ (full width)",
        ),
        ("errors", f"standard errors over {found.blocks} {found.blocks_of}"),
        ("left out at the start", f"{settings.discard_ps:g} ps of each run"),
    ]
    if settings.beads is not None and settings.beads > 1:
        lines.append(("path integral", f"mean over {settings.beads} beads"))
    if state.temperature_k == state.temperature_k:
        how = "as given" if settings.temperature_k is not None else "of the velocities"
        if kind.name == "vdos":
            how += f" ({_freedom(runs)} degrees of freedom in {first.width} components)"
        lines.append(("temperature", f"{state.temperature_k:.6g} K, {how}"))
    if kind.name == "ir":
        per = (
            "none: intensity of the whole system" if state.volume_a3 is None else f"{state.volume_a3:.8g} Å³"
        )
        lines.append(("volume", per))
        if jumps := sum(run.unwrapped for run in runs):
            lines.append(("jumps by cell vectors taken back", str(jumps)))
    if kind.name in ("ir", "raman"):
        lines.append(("quantum correction", CORRECTION_TEXT[state.correction]))
    return tuple(lines)


CORRECTION_TEXT = {
    "harmonic": "harmonic (contained in the classical formula; exact for Kubo's correlation of TRPMD, "
    "RPMD, CMD)",
    "standard": "standard, 2/(1 + e^(−hν/kT)) on the classical correlation",
    "schofield": "Schofield, e^(hν/2kT) on the classical correlation",
    "none": "none: the classical correlation in the place of the quantum one",
}
