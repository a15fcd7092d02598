"""Joins the frames of the files of one run: checks them, unwraps, removes drift, keeps what is needed."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers
from numpy.typing import NDArray

from mlplugins.analysis import identity, neighbours, plausibility, twice
from mlplugins.analysis.following import Following
from mlplugins.analysis.readers._text import Floats, Frame
from mlplugins.analysis.run import ReadSettings, Trajectory
from mlplugins.analysis.snapshots import SnapshotStore
from mlplugins.analysis.store import FrameStore
from mlplugins.analysis.timegrid import NO_TIMES, TimeGrid, thinned, uniform_grid
from mlplugins.analysis.unwrapping import Lattice, Place, Unwrapper
from mlplugins.analysis.vacuum import Filling, without_volume
from mlplugins.analysis.witnesses import Witnesses
from mlplugins.errors import BadInput

NO_STEPS = "the file holds no step numbers; give --interval, the number of MD steps between frames"
MOST_STEPS = 1 << 62


@dataclass
class _Overlap:
    """Frames of a file that repeat steps already read."""

    repeated: int = 0
    mismatch: float | None = None


@dataclass
class Joiner:
    """Takes the frames of all files in order; `finish` makes the run of them."""

    settings: ReadSettings
    warnings: list[str]
    path: Path = Path()
    steps: list[int] = field(default_factory=list)
    times: list[float | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._symbols: NDArray[np.str_] | None = None
        self._periodic = (True, True, True)
        self._lattice: Lattice | None = None
        self._unwrapper = Unwrapper(self.warnings)
        self._filling = Filling()
        self._flags = plausibility.LostFlags()
        self._contacts = plausibility.Contacts()
        self._following = Following()
        self._witnesses = Witnesses(self.settings.interval, self.settings.timestep_fs)
        self._last_step_before = 0
        self._store = FrameStore(self.settings.memory_bytes)
        self._snapshots = SnapshotStore(self.settings.memory_bytes)
        self._waiting: list[list[Floats]] = []  # rows by both readings of a file, until one is taken
        self._volume = 0.0
        self._cell: Floats = np.zeros((3, 3))
        self._bead: int | None = None
        self._beads = False
        self._numbered = False
        self._mass_u = 0.0
        self._file_frames = 0
        self._overlap = _Overlap()
        self._identical = 0
        self._marks: list[int] = []

    def start_file(self, path: Path) -> None:
        """The frames that follow are of this file."""
        self.path, self._file_frames, self._overlap = path, 0, _Overlap()
        self.warnings += neighbours.doubts(path, self.settings.timestep_fs)
        self._unwrapper.start_file(path)

    def end_file(self) -> None:
        """Refuse a file without frames; report what was dropped."""
        if self._file_frames == 0:
            raise BadInput(f"{self.path}: holds no complete frame; expected a trajectory")
        self._flush(end=True)
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
        """Take the next frame."""
        where = f"{self.path}, frame {self._file_frames + 1}"
        self._flags.see(frame, where)
        self._file_frames += 1
        if self._symbols is None:
            self._begin(frame, where)
            return
        place = self._place(frame, where)
        if self._is_new(frame, place, where):
            self._unwrapper.move(place, where)
            self._keep(frame, place)

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
        plausibility.require_lengths(frame, where)
        self.warnings += identity.doubts(frame, where)
        self._symbols = symbols
        self._groups = {name: np.flatnonzero(symbols == name) for name in names}
        self._kept = np.concatenate(list(self._groups.values()))
        self._mobile = np.isin(symbols, names)
        masses = identity.masses(frame)
        self._mass_u = float(masses[self._groups[self.settings.species]].mean())
        self._weights = self._reference_weights(masses)
        self._bead, self._periodic = frame.bead, frame.periodic
        self._beads = frame.bead is not None and _has_other_beads(self.path)
        self._numbered = frame.step is not None and self.settings.interval is None
        self._require_times(frame)
        others = sorted(set(symbols) - set(names))
        self._others = {str(name): np.flatnonzero(symbols == name) for name in others}
        place = self._place(frame, where)
        self._start = place.fractions[self._groups[self.settings.species]] % 1.0
        self._unwrapper.begin(place)
        self._keep(frame, place)

    def _require_times(self, frame: Frame) -> None:
        """Refuse at the first frame, before a long file is read."""
        if frame.time_fs is not None:
            return
        if not self._numbered and self.settings.interval is None:
            raise BadInput(f"{self.path}: {NO_STEPS}")
        if self.settings.timestep_fs is None:
            raise BadInput(f"{self.path}: {NO_TIMES}")

    def _reference_weights(self, masses: Floats) -> Floats | None:
        if self.settings.drift == "none":
            return None
        if len(masses) == 1:
            raise BadInput(
                f"{self.path}: one atom only, which does not move relative to its own centre of mass: write "
                "all atoms, or give --drift none"
            )
        if self.settings.drift == "framework" and not self._mobile.all():
            masses[self._mobile] = 0.0
        return masses / masses.sum()

    def _place(self, frame: Frame, where: str) -> Place:
        """Check for the same atoms, the same periodic directions, finite positions and a cell."""
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
        if frame.periodic != self._periodic:
            raise BadInput(
                f"{where}: periodic directions {frame.periodic} after {self._periodic}; expected "
                "the same in all frames"
            )
        if not np.isfinite(frame.positions).all():
            raise BadInput(
                f"{where}: positions are not finite (NaN or infinity); the run blew up before this frame"
            )
        if self._lattice is None or not self._lattice.same(frame):
            self._lattice = Lattice.of(frame, where, self._lattice)
        return Place.of(frame, self._lattice)

    def _is_new(self, frame: Frame, place: Place, where: str) -> bool:
        """Whether the frame continues the run; a repeated frame only moves the point to continue from."""
        if self._numbered != (frame.step is not None and self.settings.interval is None):
            raise BadInput(
                f"{where}: step numbers in some files only; give --interval (MD steps between frames)"
            )
        if not self._numbered:
            same = self._unwrapper.same(place)
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
        if step == last:  # steps from here on belong to the new branch
            self._overlap.mismatch = self._unwrapper.jump(place, where)
        return False

    def _keep(self, frame: Frame, place: Place) -> None:
        self._contacts.see(frame)
        self._following.see(place)
        self._witnesses.see(frame, self._groups[self.settings.species], self._unwrapper.candidates[0])
        number, interval = len(self.steps), self.settings.interval or 1
        step = int(frame.step or 0) if self._numbered else number * interval
        if abs(step) > MOST_STEPS or (frame.time_fs is not None and not np.isfinite(frame.time_fs)):
            raise BadInput(
                f"{self.path}: step {step}, time {frame.time_fs} fs; expected a 64-bit number of steps and a "
                "finite time; the file is damaged"
            )
        self.steps.append(step)
        self.times.append(frame.time_fs)
        self._waiting.append([self._row(displaced) for displaced in self._unwrapper.candidates])
        self._flush()
        self._filling.see(place)
        self._snapshots.add(place.fractions, place.lattice.cell)
        self._marks.append(twice.mark(place.fractions))
        self._volume += place.lattice.volume
        self._cell += self._unwrapper.renaming @ place.lattice.cell

    def _row(self, displaced: Floats) -> Floats:
        """What is kept of one frame: displacements of the carriers, drift, rms of the others."""
        drift = np.zeros(3) if self._weights is None else self._weights @ displaced
        rows = displaced - drift
        rms = []
        for chosen in self._others.values():
            others = rows.take(chosen, axis=0).ravel()
            rms.append(math.sqrt(others @ others / len(chosen)))
        return np.concatenate([rows.take(self._kept, axis=0).ravel(), drift, rms])

    def _flush(self, end: bool = False) -> None:
        taken = self._unwrapper.settle(end)
        if taken is None:
            return
        for rows in self._waiting:
            self._store.add(rows[min(taken, len(rows) - 1)])
        self._waiting.clear()

    def finish(self) -> Trajectory:
        """The run, once all files are read."""
        count = len(self.steps)
        self._report(count)
        marks = np.array(self._marks, dtype=np.uint64)
        twice.require_new_frames(marks, str(self.path))
        if not self._numbered and self.settings.interval is None and None in self.times:
            raise BadInput(f"{self.path}: {NO_STEPS}")
        grid = uniform_grid(self.steps, self.times, self.settings.timestep_fs)
        self.warnings += self._witnesses.of_velocities(self.steps, grid.step_fs)
        whole, grid = grid, thinned(grid, self._store.stride)
        self.warnings.extend(grid.warnings)
        run = replace(self._trajectory(grid, count), marks=marks)
        if self._symbols is None or not all(self._periodic):
            return run
        return replace(run, snapshots=self._snapshots.finish(self._symbols, self.steps, whole))

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
        self.warnings += self._witnesses.doubts(self.steps)
        self._unwrapper.report(count, self._kept)

    def _volume_of_material(self, count: int) -> float:
        """Mean volume, Å³; NaN with a warning where that of the cell is not that of the material."""
        if self.settings.volume_a3 is not None:
            return self.settings.volume_a3
        heights = np.zeros(3) if self._lattice is None else self._lattice.heights
        # a dump of the carriers alone cannot tell vacuum from framework
        empty = {} if self._mobile.all() else self._filling.vacuum(len(self._mobile))
        reason = without_volume(self._periodic, empty, heights)
        if not reason:
            self.warnings += plausibility.density(self._volume / count, len(self._mobile))
            self.warnings += [] if self._mobile.all() else self._filling.doubts()
            return self._volume / count
        self.warnings.append(
            f"no conductivity: {reason}; D is kept (the mean of its three axes, though "
            "ions cannot leave the material); for σ give --volume, that of the material in Å³"
        )
        return float("nan")

    def _trajectory(self, grid: TimeGrid, count: int) -> Trajectory:
        volume = self._volume_of_material(count)
        rows = self._store.rows
        width = 3 * len(self._kept)
        self.warnings += plausibility.seams(rows, len(self._kept), self.steps)
        if self._symbols is not None:
            self.warnings += [*self._contacts.doubts(self._symbols), *self._following.doubts()]
        if not self._following.changed and count > 1:
            self.warnings += neighbours.lost_cells(self.path)
        if len(grid.frames) < len(rows):
            rows = rows[grid.frames]
        moved = rows[:, :width].reshape(len(rows), -1, 3)
        self.warnings += [text for text in [twice.copied(moved)] if text]
        ends = np.cumsum([len(chosen) for chosen in self._groups.values()])
        parts = dict(zip(self._groups, np.split(moved, ends[:-1], axis=1)))
        species = self.settings.species
        alone = self._mobile.all() and not self.settings.carriers
        rms = dict(zip(self._others, rows[:, width + 3 :].T))
        cell = self._cell / count
        return Trajectory(
            species=species,
            displacements=parts.pop(species),
            interval_fs=grid.interval_fs,
            segments=grid.segments,
            volume_a3=volume,
            n_atoms=len(self._mobile),
            framework_rms=rms,
            drift=rows[:, width : width + 3],
            collective=self.settings.drift == "none" or not alone,
            warnings=tuple(self.warnings),
            others=parts,
            start=self._start @ cell if all(self._periodic) else None,
            cell=cell if all(self._periodic) else None,
            reading=self._unwrapper.reading,
            kinetic=self._witnesses.kinetic(),
            mass_u=self._mass_u,
            classical=not self._beads,
        )


def _has_other_beads(path: Path) -> bool:
    """Whether files of other beads are beside this one, as i-PI calls them: pos_0.xyz, pos_1.xyz."""
    names = re.compile(re.sub(r"_\d+$", r"_\\d+", re.escape(path.stem)) + re.escape(path.suffix))
    return any(names.fullmatch(other.name) and other.name != path.name for other in path.parent.iterdir())


def _formula(symbols: NDArray[np.str_]) -> str:
    names, counts = np.unique(symbols, return_counts=True)
    return "".join(f"{name}{count}" for name, count in zip(names, counts))
