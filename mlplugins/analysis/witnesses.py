"""What a trajectory says besides positions: step numbers, a clock, velocities. It may contradict the user."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlplugins.analysis.readers._text import Floats, Frame
from mlplugins.units import ASE_TIME_PER_FS, ATOMIC_TIME_S, BOLTZMANN_EV_K, FS_PER_PS

NEAR, CHANGED = 0.01, 0.05
CLOCKS = {
    "fs": 1.0,
    "ps": 1 / FS_PER_PS,
    "ns": FS_PER_PS**-2,
    "ASE's time units": ASE_TIME_PER_FS,
    "atomic units": 1e-15 / ATOMIC_TIME_S,
}
"""Per fs; the unit of a time in a comment line is not stated."""
ALL, FEWEST = 16, 8
"""Frames of which all are taken for a temperature, before every 2nd, 4th, 8th, …, and below which none is."""
LEAST_FS, MOST_FS = 0.01, 50.0
"""Time steps of molecular dynamics, coarse-grained ones included."""
LONGEST_FS = 1e10
"""10 µs: longer than any run of molecular dynamics of atoms for which a conductivity was computed."""
OFF, SURE = 0.05, 4.0
"""A temperature that is off by this part, and by so many standard errors more, is not the one given."""


OFF_TIME = 0.1
"""Part by which the time between frames may differ from what velocities say."""
PAIRS, GOES_ON = 64, 0.5
"""Pairs of frames that are looked at, and the correlation of their velocities below which too much happens
between them."""


class Elapsed(NamedTuple):
    """Time between frames over the one that was taken, and its standard error."""

    factor: float
    error: float


def elapsed(sums: Floats, time_fs: Floats) -> Elapsed | None:
    """The time that velocities v need for the steps Δ between frames: Δ = v̄ t (tan ½ωt)/½ωt of motion with
    one frequency, cos ωt = ⟨v·v′⟩/⟨v²⟩; None where these are too far apart.

    Args:
        sums: of each pair of frames: numbers, Σ v̄², Σ v̄·Δ, Σ Δ², Σ v·v′, Σ (v² + v′²)/2.
        time_fs: taken for each.

    >>> v, step = np.ones(2), np.full(2, 5.0)  # straight on, 1 Å/fs
    >>> rows = np.array([np.ones(2), v * v, v * step, step**2, v * v, v * v])
    >>> elapsed(rows.T, np.full(2, 10.0))
    Elapsed(factor=0.5, error=0.0)
    """
    numbers, own, along, moved, after, size = sums.T
    if not size.sum() > 0:
        return None
    correlation = min(float(after.sum() / size.sum()), 1.0)
    if correlation < GOES_ON:
        return None
    half = 0.5 * math.acos(correlation)
    curved = math.tan(half) / half if half else 1.0
    expected, squares = float((own * time_fs**2).sum()), float((along * time_fs).sum())
    if not (expected > 0 and squares > 0):
        return None
    slope = squares / expected
    left = max(float(moved.sum()) - slope * squares, 0.0)
    return Elapsed(slope / curved, math.sqrt(left / expected / numbers.sum()))


class Kinetic(NamedTuple):
    """Temperature of the velocities of the mobile ions and its standard error, K."""

    kelvin: float
    error: float


def sampled(number: int) -> bool:
    """Whether the velocities of frame `number` (from 1) are read for a temperature.

    >>> [sampled(n) for n in (1, 31, 32, 33, 34, 64, 66, 68)]
    [True, True, True, False, True, True, False, True]
    """
    return number % (1 << max(0, (number // ALL).bit_length() - 1)) == 0


class Witnesses:
    """Compares what the frames of a run say with what the user said.

    Args:
        interval: MD steps between frames, as given; None takes the numbers in the file.
        timestep_fs: MD time step, as given.
    """

    def __init__(self, interval: int | None, timestep_fs: float | None) -> None:
        self._interval, self._timestep = interval, timestep_fs
        self._numbers: list[int] = []
        self._clock: list[float] = []
        self._kinetic: list[tuple[int, float]] = []
        self._before: tuple[int, Floats, Floats] | None = None
        self._units: tuple[float, ...] = (1.0,)
        self._flights: list[tuple[float, ...]] = []
        self._seen = self._taken = 0

    def see(self, frame: Frame, ions: NDArray[np.intp], displaced: Floats) -> None:
        """Look at a frame that is kept, with the displacements of all atoms so far (N, 3), Å."""
        self._seen += 1
        if self._interval is not None and frame.step is not None:
            self._numbers.append(frame.step)
        if frame.clock is not None:
            self._clock.append(frame.clock)
        if frame.velocities is not None and np.isfinite(frame.velocities).all():
            self._fly(frame.velocities, displaced)
            self._units = frame.velocity_units
        if frame.kinetic is not None:
            weight, self._taken = self._seen - self._taken, self._seen
            n = len(frame.kinetic)  # at rest as a whole
            mean = float(frame.kinetic[ions].mean()) * (n / (n - 1) if n > 1 else 1.0)
            self._kinetic.append((weight, 2 * mean / 3 / BOLTZMANN_EV_K))

    def _fly(self, velocities: Floats, displaced: Floats) -> None:
        """Steps against the mean of the velocities before and after them."""
        if len(self._flights) == PAIRS:
            return
        before, self._before = self._before, (self._seen, velocities, displaced.copy())
        if before is None or before[0] != self._seen - 1:
            return
        mean, moved = 0.5 * (before[1] + velocities), displaced - before[2]
        products = ((mean, mean), (mean, moved), (moved, moved), (before[1], velocities))
        sums = [float(np.einsum("ia,ia->", a, b)) for a, b in products]
        both = 0.5 * float((before[1] ** 2).sum() + (velocities**2).sum())
        self._flights.append((self._seen - 1, velocities.size, *sums, both))

    def of_velocities(self, steps: list[int], step_fs: float) -> list[str]:
        """A warning where atoms do not move as far between frames as their velocities say.

        Args:
            steps: MD step of each frame.
            step_fs: length of a step, as it was taken.
        """
        if len(self._flights) < 2 or not step_fs > 0:
            return []
        table = np.array(self._flights)
        ends = table[:, 0].astype(int)
        time = (np.array(steps)[ends] - np.array(steps)[ends - 1]) * step_fs
        found = elapsed(table[:, 1:], time)
        if found is None:
            return []
        factor = min((found.factor / unit for unit in self._units), key=lambda each: abs(math.log(abs(each))))
        if abs(factor - 1) < OFF_TIME + SURE * found.error:
            return []
        usual = float(np.median(time))
        return [
            f"the velocities in the file carry atoms as far as they go between frames in "
            f"{usual * factor:.4g} fs, not in the {usual:.4g} fs that --timestep and the MD steps between "
            f"frames make ({factor:.3g} times as long): are both right? D goes with "
            "the inverse of the time"
        ]

    def kinetic(self) -> Kinetic | None:
        """Mean over the run of the temperature of the ions' velocities; None if they are not known."""
        if len(self._kinetic) < FEWEST or not any(kelvin for _, kelvin in self._kinetic):
            return None
        weights, kelvin = np.array(self._kinetic).T
        mean = float(np.average(kelvin, weights=weights))
        spread = float(np.average((kelvin - mean) ** 2, weights=weights))
        effective = float(weights.sum() ** 2 / (weights**2).sum())
        return Kinetic(mean, math.sqrt(spread / effective))

    def doubts(self, steps: list[int]) -> list[str]:
        """Warnings about numbers and a clock that say otherwise; `steps` as they were taken."""
        found = (self._of_numbers(), self._of_clock(steps), self._of_timestep(steps))
        return [text for text in found if text]

    def _of_numbers(self) -> str:
        rises = np.diff(self._numbers)
        usual = int(np.median(rises)) if len(rises) and len(self._numbers) == self._seen else 1
        if usual <= 1 or usual == self._interval:  # by one: frames may be counted instead of steps
            return ""
        return (
            f"the frames are numbered {self._numbers[0]}, {self._numbers[1]}, …, {usual} MD steps apart, but "
            f"--interval says {self._interval}, which was taken: all times are "
            f"{(self._interval or 1) / usual:.3g} of what the numbers say; if these are right, leave it out"
        )

    def _of_clock(self, steps: list[int]) -> str:
        if self._timestep is None or len(self._clock) != len(steps) or len(steps) < 2:
            return ""
        rates = np.diff(self._clock) / np.diff(steps)
        usual = float(np.median(rates))
        if usual > 0 and np.abs(rates / usual - 1).max() > CHANGED:
            k = int(np.abs(rates / usual - 1).argmax())
            return (
                f"between frames {k + 1} and {k + 2} the time in the file grows by {rates[k] / usual:.3g} "
                f"times as much per MD step as usual, while --timestep says {self._timestep:g} fs for all: "
                "did the time step change (fix dt/reset)? Then give each part as a run of its own"
            )
        said = float(np.median(np.diff(self._clock)))
        taken = float(np.median(np.diff(steps))) * self._timestep
        if said <= 0 or any(abs(said / taken / unit - 1) < NEAR for unit in CLOCKS.values()):
            return ""
        return (
            f"the time in the comment lines grows by {said:.4g} from frame to frame, while --timestep and "
            f"the MD steps between frames make {taken:.4g} fs: they agree in no unit ({', '.join(CLOCKS)}); "
            "is --timestep or --interval wrong?"
        )

    def _of_timestep(self, steps: list[int]) -> str:
        """Frames that are one step apart may be counted instead of steps; the time step is then theirs."""
        step, apart = self._timestep, float(np.median(np.diff(steps))) if len(steps) > 1 else 1.0
        if step is None:
            return ""
        if apart > 1 and not LEAST_FS <= step <= MOST_FS:
            return (
                f"a time step of {step:g} fs, with {apart:g} MD steps between frames: no molecular dynamics "
                f"has one below {LEAST_FS:g} or above {MOST_FS:g} fs; --timestep is in fs"
            )
        length = (steps[-1] - steps[0]) * step
        if length > LONGEST_FS:
            return (
                f"{len(steps)} frames make a run of {length * 1e-9:.3g} µs: is the time between them "
                f"({apart * step:.3g} fs) right? --timestep is in fs, --interval in MD steps between frames"
            )
        return ""


def hotter_or_colder(found: Kinetic, species: str, temperature_k: float) -> str:
    """A warning about velocities of another temperature; "" where they agree.

    >>> hotter_or_colder(Kinetic(702.0, 4.0), "Li", 600.0).partition(":")[0]
    'the velocities of Li are those of 702 ± 4 K, not 600 K'
    >>> hotter_or_colder(Kinetic(620.0, 4.0), "Li", 600.0)
    ''
    """
    if abs(found.kelvin - temperature_k) < OFF * temperature_k + SURE * found.error:
        return ""
    return (
        f"the velocities of {species} are those of {found.kelvin:.0f} ± {found.error:.0f} K, not "
        f"{temperature_k:g} K: is the temperature, or the element, another? σ goes with 1/T"
    )
