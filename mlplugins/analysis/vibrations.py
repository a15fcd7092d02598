"""How far and how fast mobile ions vibrate about their sites.

The amplitude u is the root-mean-square distance of an ion from its site along one axis. A harmonic ion has
u² = kT/k and the frequency ν = √(k/m)/2π, so ν = √(kT/m)/(2πu) for frames however far apart. Where frames
are close enough, ν is also the mean frequency of the spectrum of the velocities, differences of positions.
They are close enough if these hold the kinetic energy kT/2 per axis: motion faster than frames loses it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from mlplugins.analysis.blocks import Paths
from mlplugins.analysis.jackknife import BLOCKS, jackknife, positive
from mlplugins.analysis.value import Value
from mlplugins.analysis.visits import Visits
from mlplugins.units import ASE_TIME_PER_FS, BOLTZMANN_EV_K, FS_PER_PS

Floats = NDArray[np.float64]
WINDOW_PS = 10.0
FEWEST, MOST = 16, 4096
"""Frames of a window."""
POINTS = 20_000_000
"""Steps of ions that the spectrum is made of: longer runs are thinned by whole windows."""
CHUNK = 2_000_000
RESOLVED = (0.8, 1.25)
"""Share of kT/2 that the velocities hold if frames resolve the vibrations."""


@dataclass(frozen=True)
class Vibrations:
    """Amplitude and frequency.

    Attributes:
        amplitude_a: rms distance from the site along one axis, Å; None without sites.
        from_amplitude_thz: frequency of harmonic ions of this amplitude; None without sites.
        from_spectrum_thz: mean frequency of the spectrum; None where frames do not resolve it.
        kinetic_share: share of kT/2 that the velocities hold.
        frequency_thz, density: spectrum of the velocities (F,), integral 1 over THz.
    """

    amplitude_a: Value | None
    from_amplitude_thz: Value | None
    from_spectrum_thz: Value | None
    kinetic_share: float
    frequency_thz: Floats
    density: Floats

    @property
    def attempt_thz(self) -> Value | None:
        """Attempt frequency: of the spectrum where frames resolve it, else of the amplitude."""
        return self.from_spectrum_thz or self.from_amplitude_thz

    @property
    def source(self) -> str:
        """What the attempt frequency comes from."""
        if self.from_spectrum_thz is not None:
            return "spectrum"
        return "amplitude" if self.from_amplitude_thz is not None else ""


def vibrations(paths: Paths, visits: Visits, mass_u: float, temperature_k: float) -> Vibrations:
    """Amplitude from the visits of sites, spectrum from all steps."""
    # (Å/fs)², of one axis
    thermal = BOLTZMANN_EV_K * temperature_k / mass_u
    speed = float(np.sqrt(thermal)) * ASE_TIME_PER_FS
    amplitude = _amplitude(visits)
    harmonic = None
    if amplitude is not None and amplitude.low > 0:
        factor = speed * FS_PER_PS / (2 * np.pi)
        middle, low, high = (factor / u for u in (amplitude.value, amplitude.high, amplitude.low))
        harmonic = Value(middle, low, high, amplitude.relative_error)
    frequency, sums = _spectra(paths)
    if not len(sums):
        return Vibrations(amplitude, harmonic, None, float("nan"), frequency, np.zeros(0))
    weight = frequency[1] if len(frequency) > 1 else 1.0
    mean = sums.mean(axis=0)
    share = float(mean.sum()) / (speed * FS_PER_PS) ** 2
    spectral = None
    if RESOLVED[0] <= share <= RESOLVED[1]:
        spectral = positive(*jackknife(sums, lambda total: frequency @ total / total.sum()))
    return Vibrations(amplitude, harmonic, spectral, share, frequency, mean / (mean.sum() * weight))


def _amplitude(visits: Visits) -> Value | None:
    """Over all sites, each with its own mean position."""
    parts = [each.spread for each in visits.stretches]
    if not parts:
        return None
    squares = np.zeros((BLOCKS, 2))
    for spread in parts:
        total = spread.sum(axis=0)
        number = np.maximum(total[:, 0], 1)
        mean = total[:, 1:4] / number[:, None]
        about = spread[..., 4] - 2 * (spread[..., 1:4] * mean).sum(axis=2)
        about += spread[..., 0] * (mean**2).sum(axis=1)
        freedom = np.maximum(total[:, 0] - 1, 0) / number  # a mean was taken from each
        squares += np.stack([about.sum(axis=1), (spread[..., 0] * freedom).sum(axis=1)], axis=1)
    if not squares[:, 0].sum() > 0:
        return None
    return positive(*jackknife(squares, lambda total: float(np.sqrt(total[0] / total[1] / 3))))


def _spectra(paths: Paths) -> tuple[Floats, Floats]:
    """Frequencies (THz) and the mean square velocity of an axis in each, (Å/ps)², of windows or ions."""
    frame_ps = paths.interval_fs / FS_PER_PS
    width = int(np.clip(WINDOW_PS / frame_ps, FEWEST, MOST))
    width = min(width, paths.longest - 1)
    if width < FEWEST:
        return np.zeros(0), np.zeros((0, 0))
    windows = [
        (run, first)
        for run, (start, stop) in paths.stretches(width)
        for first in range(start, stop - width, width)
    ]
    ions = paths.displacements[0].shape[1]
    windows = windows[:: max(1, len(windows) * width * ions // POINTS)]
    frequency: Floats = np.asarray(np.fft.rfftfreq(width, frame_ps), dtype=np.float64)
    # a difference holds less of a fast motion than its velocity
    phase = np.pi * frequency * frame_ps
    sharp = np.divide(phase, np.sin(phase), out=np.ones_like(phase), where=phase > 0) ** 2
    found = np.array(
        [_power(paths.displacements[run][first : first + width + 1], frame_ps) for run, first in windows]
    )
    if len(windows) < BLOCKS // 2:  # ions scatter, windows are too few to tell
        return frequency, found.mean(axis=0) * sharp
    return frequency, found.mean(axis=1) * sharp


def _power(moved: Floats, frame_ps: float) -> Floats:
    """Mean square velocity of an axis of each ion in each frequency (ions, F), through a Hann window."""
    width = len(moved) - 1
    taper = np.hanning(width + 1)[:-1]
    size = max(1, CHUNK // (3 * width))
    rows = []
    for first in range(0, moved.shape[1], size):
        speed = np.diff(moved[:, first : first + size], axis=0) / frame_ps * taper[:, None, None]
        power = np.abs(fft.rfft(speed, axis=0)) ** 2
        power[1 : (width + 1) // 2] *= 2  # both signs of the frequency
        rows.append(power.mean(axis=2).T / (width * (taper**2).sum()))
    return np.concatenate(rows)
