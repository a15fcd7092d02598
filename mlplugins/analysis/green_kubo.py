"""Green–Kubo conductivity: σ = 1/(3 V k T) ∫ ⟨J(0)·J(t)⟩ dt, J = e Σ z v, an independent check of the
Einstein form.

From velocities (a LAMMPS dump with vx vy vz), or from a correlation that LAMMPS summed up itself
(`fix ave/correlate` of the components of J). The integral settles once the correlation has decayed; after
that it only gathers noise. It is read at the first time where the correlation has been within twice its
noise for a while, and its error is that of blocks of time. R. Kubo, J. Phys. Soc. Jpn. 12, 570 (1957).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase.data import atomic_masses, atomic_numbers
from numpy.typing import NDArray
from scipy import fft, special

from mlplugins.analysis.value import LEVEL, Value
from mlplugins.errors import BadInput
from mlplugins.units import CM2_S_PER_A2_FS, FS_PER_PS, conductivity_ms_cm

Floats = NDArray[np.float64]
BLOCKS = 8
QUIET = 2.0
SHORTEST = 40
LONGEST_SHARE = 0.25
LEAST_KEPT = 0.7
"""Part of C(0) that C must keep over one frame for the trapezoidal rule to follow it."""


@dataclass(frozen=True)
class GreenKubo:
    """σ and the running integral.

    Attributes:
        sigma: mS/cm with a 95 % interval (no interval, NaN, from a correlation file); measured, it holds the
            truth in about 90 %, as the plateau is read a little early.
        time_ps, running: the integral up to each time, mS/cm.
        plateau_ps: where it was read.
        reason: how that time was chosen.
        warnings: why not to trust it.
    """

    sigma: Value
    time_ps: Floats
    running: Floats
    plateau_ps: float
    reason: str
    warnings: tuple[str, ...] = ()

    def as_json(self) -> dict[str, object]:
        """The `green_kubo` entry of a run."""
        return {"sigma_mS_cm": self.sigma.as_json(), "plateau_ps": self.plateau_ps, "reason": self.reason}


def charge_current(frames: Iterable[tuple[NDArray[np.str_], Floats]], charges: dict[str, float]) -> Floats:
    """J(t)/e = Σ z v (frames, 3), Å/fs, relative to the centre of mass of what carries no charge (the
    framework) as the displacements are.

    Args:
        frames: (symbols, velocities in Å/fs) of each frame.
        charges: of the mobile species, e.
    """
    rows: list[Floats] = []
    known: NDArray[np.str_] | None = None
    for symbols, velocities in frames:
        if symbols is not known:
            known, masses = symbols, masses_of(symbols)
            weights = np.array([charges.get(str(name), 0.0) for name in symbols])
            if (weights == 0).any():
                masses[weights != 0] = 0.0
            masses /= masses.sum()
        rows.append(weights @ (velocities - masses @ velocities))
    return np.array(rows)


def masses_of(symbols: NDArray[np.str_]) -> Floats:
    """Atomic masses (N,), u."""
    return np.array([atomic_masses[atomic_numbers[str(name)]] for name in symbols])


def autocorrelation(series: Floats, times: int | None = None) -> Floats:
    """⟨J(0)·J(t)⟩ over all origins by FFT, for the first so many times, or all (frames,).

    >>> autocorrelation(np.ones((4, 3))).round(12).tolist()
    [3.0, 3.0, 3.0, 3.0]
    >>> autocorrelation(np.ones((4, 3)), 2).round(12).tolist()
    [3.0, 3.0]
    """
    frames = len(series)
    times = frames if times is None else min(times, frames)
    size = fft.next_fast_len(frames + times, real=True)
    power = np.zeros(size // 2 + 1)
    for component in series.T:  # one at a time fits into the cache
        spectrum = fft.rfft(component, size)
        power += spectrum.real**2 + spectrum.imag**2
    return fft.irfft(power, size)[:times] / (frames - np.arange(times))


def green_kubo(
    current: Floats,
    interval_fs: float,
    volume_a3: float,
    temperature_k: float,
    plateau_ps: float | None = None,
) -> GreenKubo:
    """σ from J/e in Å/fs (frames, 3), mS/cm.

    Args:
        current: from `charge_current`.
        interval_fs: between frames; well below the period of vibrations, or the integral is wrong.
        volume_a3, temperature_k: of the run.
        plateau_ps: where to read the integral; None chooses.
    """
    if len(current) < SHORTEST:
        raise BadInput(f"{len(current)} frames of velocities; a correlation needs at least {SHORTEST}")
    longest = max(int(len(current) * LONGEST_SHARE), SHORTEST // 2)
    correlation = autocorrelation(current, longest)
    unit = _unit(volume_a3, temperature_k)
    running = integral(correlation, interval_fs) * unit
    cut, reason = plateau(correlation, interval_fs, plateau_ps, len(current))
    parts = np.array_split(current, BLOCKS)
    usable = min(len(part) for part in parts)
    if usable <= cut + 1:
        parts = np.array_split(current, max(2, len(current) // (cut + 2)))
    values = np.array([integral(autocorrelation(part, cut + 1), interval_fs)[-1] for part in parts]) * unit
    error = float(values.std(ddof=1) / np.sqrt(len(values)))
    half = error * float(special.stdtrit(len(values) - 1, 0.5 + LEVEL / 2))
    value = float(running[cut])
    time: Floats = np.arange(longest, dtype=np.float64) * float(interval_fs / FS_PER_PS)
    sigma = Value(value, value - half, value + half, error / abs(value) if value else float("inf"))
    doubts = _undersampled(correlation, interval_fs)
    return GreenKubo(sigma, time, running, float(time[cut]), reason, doubts)


def _undersampled(correlation: Floats, interval_fs: float) -> tuple[str, ...]:
    """Whether the correlation has lost more than a trapezoid can follow by its second point."""
    kept = float(correlation[1] / correlation[0]) if correlation[0] > 0 else 1.0
    if kept >= LEAST_KEPT:
        return ()
    return (
        f"Green–Kubo: frames every {interval_fs:g} fs are too far apart, the correlation falls to {kept:.2f} "
        f"of its start between two (expected at least {LEAST_KEPT}): its integral is not to be trusted; "
        "write velocities more often",
    )


def _unit(volume_a3: float, temperature_k: float) -> float:
    """∫⟨J J⟩ dt/3 (Å²/fs) → σ in mS/cm."""
    return conductivity_ms_cm(CM2_S_PER_A2_FS, volume_a3, temperature_k) / 3


def integral(correlation: Floats, interval_fs: float) -> Floats:
    """∫ C dt up to each time (frames,), by trapezoids."""
    steps = 0.5 * (correlation[1:] + correlation[:-1]) * interval_fs
    return np.concatenate([[0.0], np.cumsum(steps)])


def plateau(correlation: Floats, interval_fs: float, wanted_ps: float | None, frames: int) -> tuple[int, str]:
    """Index at which the integral is read, and why."""
    last = len(correlation) - 1
    if wanted_ps is not None:
        cut = int(np.clip(round(wanted_ps * FS_PER_PS / interval_fs), 1, last))
        return cut, f"fixed by the user to {cut * interval_fs / FS_PER_PS:.3g} ps"
    normal = correlation / correlation[0] if correlation[0] > 0 else np.zeros_like(correlation)
    memory = 1 + 2 * float((normal[: np.argmax(normal < 0) or last] ** 2).sum())
    noise = QUIET * np.sqrt(memory / (3 * frames))
    quiet = np.abs(normal) < noise
    need = max(5, int(memory))
    run = 0
    for index, flag in enumerate(quiet):
        run = run + 1 if flag else 0
        if run >= need:
            return index, (
                f"the correlation stayed within {QUIET:g} standard errors of its noise for "
                f"{need * interval_fs:.4g} fs before"
            )
    return last, "the correlation has not decayed to its noise: the end of what was computed; run longer"


def from_correlate(
    path: Path, timestep_fs: float, volume_a3: float, temperature_k: float, to_a_fs: float = 1e-3
) -> GreenKubo:
    """σ from a file of LAMMPS `fix ave/correlate` (type auto) of the three components of Σ z v.

    Args:
        path: the file; its last complete block is taken.
        timestep_fs: MD time step.
        volume_a3, temperature_k: of the run.
        to_a_fs: unit of the current in Å/fs (1e-3 for metal units, Å/ps).
    """
    table = _last_block(path)
    times, correlation = table[:, 1] * timestep_fs, table[:, 3:].sum(axis=1) * to_a_fs**2
    if len(times) < 3:
        raise BadInput(f"{path}: {len(times)} times with data; a correlation needs at least 3; run longer")
    origins = table[0, 2]
    interval = float(times[1] - times[0])
    running = integral(correlation, interval) * _unit(volume_a3, temperature_k)
    cut, reason = plateau(correlation, interval, None, int(origins))
    value = float(running[cut])
    nan = float("nan")
    return GreenKubo(
        Value(value, nan, nan, nan),
        times / FS_PER_PS,
        running,
        float(times[cut] / FS_PER_PS),
        reason,
        _undersampled(correlation, interval),
    )


def _last_block(path: Path) -> Floats:
    """Rows (index, time delta, number of origins, three correlations) of the last complete block that have
    data."""
    if not path.is_file():
        raise BadInput(f"no such file: '{path}'")
    wanted = (
        "expected the output of LAMMPS fix ave/correlate (type auto) of the 3 components of J: blocks of a "
        "line 'step number-of-times' and that many rows of 6 numbers"
    )
    block: list[list[float]] = []
    done: list[list[float]] = []
    expected = 0
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            values = [float(word) for word in words]
        except ValueError as error:
            raise BadInput(f"{path}, line {number}: {error}; {wanted}") from error
        if len(values) == 2 and len(block) == expected:  # the head of a block
            block, expected = [], int(values[1])
        elif len(values) == 6 and len(block) < expected:
            block.append(values)
        else:
            raise BadInput(f"{path}, line {number}: {len(values)} numbers; {wanted}")
        if expected and len(block) == expected:
            done = block
    rows = np.array([row for row in done if row[2] > 0])
    if not len(rows):
        raise BadInput(f"{path}: no complete block; {wanted}")
    return rows
