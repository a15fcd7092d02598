"""Trajectories of any engine → unwrapped, drift-free displacements of the mobile ions, read frame by frame.

Only the displacements of the mobile ions are kept: (frames, ions, 3) float64. Unwrapping accumulates the
steps between frames (TOR scheme; S. von Bülow, J. Bullerjahn, G. Hummer, J. Chem. Phys. 153, 021101 (2020);
M. Kulke, J. Vermaas, J. Chem. Theory Comput. 18, 6161 (2022); J. Bullerjahn et al., J. Chem. Theory Comput.
19, 3406 (2023)), so that fluctuations of the cell do not multiply what an ion has travelled.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import numpy as np
from ase.data import atomic_masses, atomic_numbers
from numpy.typing import NDArray

from mlplugins import registry
from mlplugins.analysis.readers._text import Floats, Frame, ReadOptions, head
from mlplugins.analysis.store import BUDGET_BYTES, FrameStore
from mlplugins.analysis.timegrid import NO_TIMES, TimeGrid, thinned, uniform_grid
from mlplugins.errors import BadInput, nearest

READERS = "mlplugins.analysis.readers"
DRIFTS = ("framework", "all", "none")
AMBIGUOUS = 0.4
"""A step longer than this part of a cell vector may belong to another image."""
REFUSED_SHARE = 1e-3
"""Above this share of ambiguous steps the unwrapping is a guess."""
PROGRESS_EVERY = 50
NO_STEPS = "the file holds no step numbers; give --interval, the number of MD steps between frames"


@dataclass(frozen=True)
class ReadSettings:
    """How to read one run.

    Attributes:
        species: element of the mobile ions.
        timestep_fs: MD time step, fs; needed where the file does not hold times.
        interval: MD steps between frames; needed where the file holds no step numbers, and wins over them.
        type_map: elements of the LAMMPS types in order.
        drift: what is held fixed: the centre of mass of the `framework` (all other atoms), of `all` atoms,
            or `none`.
        progress: called with the fraction read so far and the number of frames.
        carriers: other mobile species, whose displacements are kept too.
        topology: file with the elements, for formats of MDAnalysis that hold none.
        memory_bytes: displacements beyond this are thinned to every second, fourth, … frame.
    """

    species: str
    timestep_fs: float | None = None
    interval: int | None = None
    type_map: tuple[str, ...] = ()
    drift: str = "framework"
    progress: Callable[[float, int], None] | None = None
    carriers: tuple[str, ...] = ()
    topology: Path | None = None
    memory_bytes: int = BUDGET_BYTES


@dataclass(frozen=True)
class Trajectory:
    """Displacements of the mobile ions of one run.

    Attributes:
        displacements: unwrapped, drift removed, from the first frame (frames, ions, 3), Å.
        interval_fs: time between frames, fs.
        segments: [start, stop) of each stretch without a missing frame.
        volume_a3: mean volume of the cell, Å³.
        framework_rms: root-mean-square displacement of each other element after drift removal (frames,), Å.
        drift: displacement of the reference that was removed (frames, 3), Å.
        collective: whether the collective displacement means anything.
        warnings: everything the reader dropped, assumed or doubts.
        others: displacements of the other carriers.
        start: positions of the mobile ions at zero displacement from the corner of the cell (ions, 3), Å;
            None if not known.
        cell: mean lattice vectors as rows, Å; None if not known.
    """

    species: str
    displacements: Floats
    interval_fs: float
    segments: tuple[tuple[int, int], ...]
    volume_a3: float
    n_atoms: int
    framework_rms: dict[str, Floats]
    drift: Floats
    collective: bool = True
    warnings: tuple[str, ...] = ()
    others: Mapping[str, Floats] = field(default_factory=dict)
    start: Floats | None = None
    cell: Floats | None = None

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return self.displacements.shape[0]

    @property
    def n_ions(self) -> int:
        """Number of mobile ions."""
        return self.displacements.shape[1]


def find_reader(path: Path) -> ModuleType:
    """The reader that recognises a file by its content."""
    if not path.is_file():
        raise BadInput(f"no such trajectory: '{path}'")
    start = head(path)
    if not start.strip():
        raise BadInput(f"{path}: the file is empty; expected a trajectory")
    modules = [registry.load(READERS, name, "trajectory format") for name in registry.available(READERS)]
    for module in sorted(modules, key=lambda module: getattr(module, "LAST", False)):
        if module.matches(path, start):
            return module
    known = ", ".join(module.NAME for module in modules)
    raise BadInput(f"{path}: not a trajectory that can be read; expected one of: {known}")


def read_frames(path: Path, options: ReadOptions | None = None) -> Iterator[Frame]:
    """Yield the frames of one file, whatever its format."""
    yield from find_reader(path).read(path, options or ReadOptions())


def read_trajectory(files: Sequence[Path | str], settings: ReadSettings) -> Trajectory:
    """Read the files of ONE run, in order, into unwrapped displacements of the mobile ions.

    Args:
        files: LAMMPS dumps, i-PI or extended xyz, XDATCAR, ASE .traj; also compressed.
        settings: species, time step, what to hold fixed.

    Raises:
        BadInput: unreadable or inconsistent files, unknown time between frames, wrapping that cannot be
            undone.
    """
    if not files:
        raise BadInput("no trajectory given; expected one or more files of a run")
    if settings.drift not in DRIFTS:
        raise BadInput(f"unknown drift reference '{settings.drift}': {nearest(settings.drift, DRIFTS)}")
    paths = [Path(file) for file in files]
    readers = [find_reader(path) for path in paths]
    options = ReadOptions(type_map=settings.type_map, topology=settings.topology)
    joiner = _Joiner(settings, options.warnings)
    sizes = [path.stat().st_size for path in paths]
    for number, (path, reader) in enumerate(zip(paths, readers)):
        joiner.start_file(path)
        for frame in reader.read(path, options):
            joiner.add(frame)
            if settings.progress and len(joiner.steps) % PROGRESS_EVERY == 0:
                here = os.lseek(options.raw.fileno(), 0, os.SEEK_CUR) if options.raw else 0
                settings.progress((sum(sizes[:number]) + here) / sum(sizes), len(joiner.steps))
        joiner.end_file()
    return joiner.finish()


@dataclass
class _Previous:
    """The last accepted frame: wrapped positions, images (or None), cell and its inverse."""

    positions: Floats
    images: Floats | None
    cell: Floats
    inverse: Floats


@dataclass
class _Overlap:
    """Frames of a file that repeat steps already read."""

    repeated: int = 0
    mismatch: float | None = None


@dataclass
class _Joiner:
    """Joins frames into one run: checks them, unwraps, removes drift, keeps what is needed."""

    settings: ReadSettings
    warnings: list[str]
    path: Path = Path()
    steps: list[int] = field(default_factory=list)
    times: list[float | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._symbols: NDArray[np.str_] | None = None
        self._previous: _Previous
        self._last_step_before = 0
        self._store = FrameStore(self.settings.memory_bytes)
        self._volume = 0.0
        self._cell: Floats = np.zeros((3, 3))
        self._last_cell = self._inverse = np.full((3, 3), np.nan)
        self._last_volume = 0.0
        self._bead: int | None = None
        self._numbered = False
        self._file_frames = 0
        self._overlap = _Overlap()
        self._identical = 0
        self._ambiguous = 0
        self._longest = 0.0

    def start_file(self, path: Path) -> None:
        self.path, self._file_frames, self._overlap = path, 0, _Overlap()

    def end_file(self) -> None:
        if self._file_frames == 0:
            raise BadInput(f"{self.path}: holds no complete frame; expected a trajectory")
        overlap = self._overlap
        if overlap.repeated:
            how = "no frame of the same step to join at"
            if overlap.mismatch is not None:
                how = f"at the join the atoms differ by at most {overlap.mismatch:.3g} Å"
            self.warnings.append(
                f"{self.path}: {overlap.repeated} frame(s) repeat steps that were already read (a restart); "
                f"dropped, the run goes on from step {self._last_step_before}; {how}"
            )

    def add(self, frame: Frame) -> None:
        where = f"{self.path}, frame {self._file_frames + 1}"
        self._file_frames += 1
        if self._symbols is None:
            self._begin(frame, where)
            return
        self._check(frame, where)
        current = _wrapped(frame, self._inverse)
        if not self._is_new(frame, current, where):
            return
        self._keep(self._displaced + self._step(current, frame.periodic), frame, current)

    def _begin(self, frame: Frame, where: str) -> None:
        symbols = frame.symbols
        names = (self.settings.species, *self.settings.carriers)
        for species in names:
            if species not in symbols:
                elements = ", ".join(sorted(set(symbols)))
                raise BadInput(f"{where}: no atom of species '{species}'; the trajectory holds {elements}")
        unknown = sorted({str(name) for name in symbols} - set(atomic_numbers))
        if unknown or "X" in symbols:
            raise BadInput(
                f"{where}: '{(unknown or ['X'])[0]}' is not an element; for a LAMMPS dump give the elements "
                "in the order of the types: --type-map Li P S Cl"
            )
        self._symbols = symbols
        self._groups = {name: np.flatnonzero(symbols == name) for name in names}
        self._kept = np.concatenate(list(self._groups.values()))
        self._mobile = np.isin(symbols, names)
        self._weights = self._reference_weights(symbols)
        self._bead = frame.bead
        self._numbered = frame.step is not None and self.settings.interval is None
        self._require_times(frame)
        self._displaced = np.zeros_like(frame.positions)
        others = sorted(set(symbols) - set(names))
        self._others = {str(name): np.flatnonzero(symbols == name) for name in others}
        self._check(frame, where)
        self._keep(self._displaced, frame, _wrapped(frame, self._inverse))

    def _require_times(self, frame: Frame) -> None:
        """Refused at the first frame: a long file takes its time."""
        if frame.time_fs is not None:
            return
        if not self._numbered and self.settings.interval is None:
            raise BadInput(f"{self.path}: {NO_STEPS}")
        if self.settings.timestep_fs is None:
            raise BadInput(f"{self.path}: {NO_TIMES}")

    def _reference_weights(self, symbols: NDArray[np.str_]) -> Floats | None:
        masses = np.array([atomic_masses[atomic_numbers[str(name)]] for name in symbols])
        if self.settings.drift == "none":
            return None
        if self.settings.drift == "framework" and not self._mobile.all():
            masses[self._mobile] = 0.0
        return masses / masses.sum()

    def _check(self, frame: Frame, where: str) -> None:
        """Same atoms, a cell, finite positions."""
        first = self._symbols
        if first is not None and frame.symbols is not first and not np.array_equal(frame.symbols, first):
            raise BadInput(
                f"{where}: {len(frame.symbols)} atoms ({_formula(frame.symbols)}), or in another order, "
                f"where the first frame has {len(first)} ({_formula(first)}); expected the "
                "same atoms in the same order in all frames"
            )
        if frame.bead != self._bead:
            raise BadInput(
                f"{where}: bead {frame.bead} after bead {self._bead}; beads are not one run: give the "
                "centroid (x_centroid) or the files of one bead"
            )
        if not np.isfinite(frame.positions).all():
            raise BadInput(
                f"{where}: positions are not finite (NaN or infinity); the run blew up before this frame"
            )
        if np.array_equal(frame.cell, self._last_cell):
            return
        self._last_cell, self._last_volume = frame.cell, abs(float(np.linalg.det(frame.cell)))
        if self._last_volume < 1e-6:
            raise BadInput(f"{where}: no cell, or one without volume; a conductivity needs the volume")
        self._inverse = np.linalg.inv(frame.cell)

    def _is_new(self, frame: Frame, current: _Previous, where: str) -> bool:
        """Whether the frame goes on with the run; repeated ones only move the point to go on from."""
        if self._numbered != (frame.step is not None and self.settings.interval is None):
            raise BadInput(
                f"{where}: step numbers in some files only; give --interval (MD steps between frames)"
            )
        if not self._numbered:
            same = np.array_equal(current.positions, self._previous.positions)
            same = same and np.array_equal(current.cell, self._previous.cell)
            self._identical += same
            return not same
        step, last = int(frame.step or 0), self.steps[-1]
        if step > last:
            return True
        if step <= self.steps[0] and len(self.steps) > 1:
            raise BadInput(
                f"{where}: step {step} after step {last} of a run that began at step {self.steps[0]}; give "
                "the files in order of time, each once; if the step counter was set back between them, "
                "give --interval (MD steps between frames) and the step numbers are ignored"
            )
        self._overlap.repeated += 1
        self._last_step_before = last
        if step == last:
            jump = self._minimum_image(current, frame.periodic) @ current.cell
            self._overlap.mismatch = float(np.sqrt((jump**2).sum(axis=1).max()))
            self._previous = current  # steps from here on belong to the new branch
        return False

    def _minimum_image(self, current: _Previous, periodic: tuple[bool, bool, bool]) -> Floats:
        """Displacement since the last frame, in fractions of the current cell."""
        fractional = (current.positions - self._previous.positions) @ current.inverse
        fractional -= np.round(fractional) * np.array(periodic)
        return fractional

    def _step(self, current: _Previous, periodic: tuple[bool, bool, bool]) -> Floats:
        """Displacement since the last frame, in the current cell (TOR)."""
        before = self._previous
        if current.images is not None and before.images is not None:
            # a flip of a tilted box renames the images: express the old ones in the new cell
            renamed = np.round(before.cell @ current.inverse)
            moved = current.images - before.images @ renamed
            return current.positions - before.positions + moved @ current.cell
        fractional = self._minimum_image(current, periodic)
        reach = np.abs(fractional if all(periodic) else fractional[:, np.array(periodic)])
        if (longest := float(reach.max(initial=0.0))) > AMBIGUOUS:
            self._ambiguous += int(np.count_nonzero(reach > AMBIGUOUS))
        self._longest = max(self._longest, longest)
        return fractional @ current.cell

    def _keep(self, displaced: Floats, frame: Frame, current: _Previous) -> None:
        number = len(self.steps)
        drift = np.zeros(3) if self._weights is None else self._weights @ displaced
        if number == 0:
            corner = 0.0 if frame.origin is None else frame.origin
            self._start = current.positions[self._groups[self.settings.species]] - corner
        rms = [
            np.sqrt(((displaced[chosen] - drift) ** 2).sum(axis=1).mean()) for chosen in self._others.values()
        ]
        self._store.add(np.concatenate([(displaced[self._kept] - drift).ravel(), drift, rms]))
        self._displaced, self._previous = displaced, current
        self._volume += self._last_volume
        self._cell += frame.cell
        interval = self.settings.interval or 1
        self.steps.append(int(frame.step or 0) if self._numbered else number * interval)
        self.times.append(frame.time_fs)

    def finish(self) -> Trajectory:
        count = len(self.steps)
        self._report(count)
        if not self._numbered and self.settings.interval is None and None in self.times:
            raise BadInput(f"{self.path}: {NO_STEPS}")
        grid = uniform_grid(self.steps, self.times, self.settings.timestep_fs)
        grid = thinned(grid, self._store.stride)
        self.warnings.extend(grid.warnings)
        return self._trajectory(grid, count)

    def _report(self, count: int) -> None:
        if count < 2:
            raise BadInput(f"{self.path}: {count} frame(s); a displacement needs at least two")
        if self._identical:
            self.warnings.append(
                f"{self._identical} frame(s) identical to the one before were dropped as duplicates "
                "of a restart"
            )
        if self._mobile.all() and self.settings.drift == "framework" and self.settings.carriers:
            self.warnings.append(
                "no framework (all atoms are carriers): the drift of the total centre of mass was removed; "
                "L_ij and σ are relative to it"
            )
        elif self._mobile.all() and self.settings.drift == "framework":
            self.warnings.append(
                "no framework (all atoms are mobile): the drift of the total centre of mass was removed, "
                f"which makes D too small by a factor of up to 1 − 1/N (N = {int(self._mobile.sum())}); no "
                "collective conductivity"
            )
        if not self._ambiguous:
            return
        total = 3 * self._displaced.shape[0] * (count - 1)
        text = (
            f"{self._ambiguous} of {total} steps between frames are longer than {AMBIGUOUS} of the cell "
            f"(longest {self._longest:.2f}): the file is wrapped, without image flags, and an ion may have "
            "taken the other way"
        )
        remedy = "write frames more often or unwrapped (LAMMPS: xu yu zu), or use a larger cell"
        if self._ambiguous > max(REFUSED_SHARE * total, 3):
            raise BadInput(f"{text}; {remedy}")
        self.warnings.append(f"{text}; {remedy}")

    def _trajectory(self, grid: TimeGrid, count: int) -> Trajectory:
        rows = self._store.rows
        if len(grid.frames) < len(rows):
            rows = rows[grid.frames]
        width = 3 * len(self._kept)
        moved = rows[:, :width].reshape(len(rows), -1, 3)
        ends = np.cumsum([len(chosen) for chosen in self._groups.values()])
        parts = dict(zip(self._groups, np.split(moved, ends[:-1], axis=1)))
        species = self.settings.species
        alone = self._mobile.all() and not self.settings.carriers
        rms = dict(zip(self._others, rows[:, width + 3 :].T))
        return Trajectory(
            species=species,
            displacements=parts.pop(species),
            interval_fs=grid.interval_fs,
            segments=grid.segments,
            volume_a3=self._volume / count,
            n_atoms=len(self._displaced),
            framework_rms=rms,
            drift=rows[:, width : width + 3],
            collective=self.settings.drift == "none" or not alone,
            warnings=tuple(self.warnings),
            others=parts,
            start=self._start,
            cell=self._cell / count,
        )


def _wrapped(frame: Frame, inverse: Floats) -> _Previous:
    """Positions inside the cell; where the file says so, with the images that were taken off."""
    origin = 0.0 if frame.origin is None else frame.origin
    fractional = (frame.positions - origin) @ inverse
    outside = np.floor(fractional) * np.array(frame.periodic)
    images = None if frame.images is None else frame.images + outside
    return _Previous(frame.positions - outside @ frame.cell, images, frame.cell, inverse)


def _formula(symbols: NDArray[np.str_]) -> str:
    names, counts = np.unique(symbols, return_counts=True)
    return "".join(f"{name}{count}" for name, count in zip(names, counts))
