"""Multiple time steps in LAMMPS against plain ones: energies first, then the drift of NVE and CPU time.

    python benchmarks/mts.py model.pt FILE@INDEX [--student student.pt] [--every 2 4 8] [--ps 10]

All runs start from one state, after 2 ps of Langevin dynamics. Before anything is timed, the energy and
pressure of the first step must be equal to 1e-9 in all of them. Drift: slope of a linear fit to the means of
eight blocks of the total energy, with its standard error; spread: standard deviation of the energy about it.
CPU time: of LAMMPS' loop, short runs, interleaved in one process, medians and quartiles.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlplugins.dynamics.start import read_structure
from mlplugins.engines import lammps
from mlplugins.errors import RunFailed
from mlplugins.model_file import artifact
from mlplugins.model_file.artifact import Artifact
from mlplugins.units import FS_PER_PS

SAME = 1e-9
BLOCKS = 8
LOOP = re.compile(r"Loop time of ([\d.e+-]+) on.*?([\d.]+)% CPU use", re.DOTALL)


class Variant(NamedTuple):
    """A way of integrating: the inner model (empty: plain) and its steps in an outer one."""

    inner: str
    every: int

    @property
    def name(self) -> str:
        if not self.inner:
            return f"plain, {self.every} times the step"
        return f"{Path(self.inner).stem}, every {self.every}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="with direct forces")
    parser.add_argument("structure", help="FILE or FILE@INDEX")
    parser.add_argument("--student", help="model.pt of other inner steps")
    parser.add_argument("--temperature", type=float, default=800.0, help="K")
    parser.add_argument("--timestep", type=float, default=2.0, help="of plain and of inner steps, fs")
    parser.add_argument("--every", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--ps", type=float, default=10.0, help="length of the NVE runs")
    parser.add_argument("--supercell", type=int, default=1, help="repetitions along every axis")
    parser.add_argument("--repeats", type=int, default=5, help="of the timed runs")
    parser.add_argument("--timed-ps", type=float, default=0.5, help="length of a timed run")
    args = parser.parse_args()
    model, atoms = artifact.load(args.model), read_structure(args.structure).repeat(args.supercell)
    inner = ["direct", *([str(Path(args.student).resolve())] if args.student else [])]
    variants = [Variant("", 1), Variant("", args.every[-1])]
    variants += [Variant(name, every) for name in inner for every in args.every]
    describe_forces(model, args.student, atoms)
    with tempfile.TemporaryDirectory(prefix="mlplugins-mts-") as folder:
        decks = Decks(Path(folder), model, args.timestep)
        decks.equilibrate(atoms, args.temperature)
        tables = {}
        for variant in variants:
            try:
                table = decks.energies(variant, args.ps)
            except RunFailed as error:  # lost atoms
                print(f"  {variant.name}: {str(error)[-50:]}")
                continue
            if np.isfinite(table["TotEng"]).all():
                tables[variant] = table
            else:
                print(f"  {variant.name}: energies are not finite")
        require_equal_start(list(tables.values()))
        times = decks.times(list(tables), args.repeats, args.timed_ps)
    report(tables, times, len(atoms), args.timestep)


def describe_forces(model: Artifact, student: str | None, atoms) -> None:
    """RMS difference of the inner forces from those of the model: it sets the outer step."""
    [exact] = model.evaluate([atoms])
    found = {"direct": exact.get("direct_forces")}
    if student is not None:
        found[Path(student).stem] = artifact.load(student).evaluate([atoms])[0].forces
    print(f"{model.path.name} ({model.dtype}), {len(atoms)} atoms; forces {rms(exact.forces):.3f} eV/Å RMS")
    for name, forces in found.items():
        print(f"  {name}: RMS difference of the forces {1000 * rms(forces - exact.forces):.0f} meV/Å")


def rms(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


class Decks:
    """LAMMPS runs of one model from one state."""

    def __init__(self, folder: Path, model: Artifact, timestep: float) -> None:
        self._folder, self._model, self._timestep = folder, model, timestep
        self._elements: list[str] = []

    def equilibrate(self, atoms, temperature: float) -> None:
        """2 ps of Langevin dynamics; the state is the start of all runs."""
        steps = round(2 * FS_PER_PS / self._timestep)
        commands = [
            f"timestep {self._timestep / FS_PER_PS:g}",
            f"velocity all create {2 * temperature:g} 1 mom yes",
            f"fix heat all langevin {temperature:g} {temperature:g} 0.1 1",
            "fix still all momentum 1 linear 1 1 1",
            "fix move all nve",
            f"run {steps}",
            "write_data start.data nocoeff",
        ]
        lammps.run_structure(self._model.path, atoms, commands, self._folder)
        self._elements = lammps.type_order(atoms)

    def energies(self, variant: Variant, ps: float) -> dict[str, NDArray[np.float64]]:
        """Thermo table of an NVE run, a row for every outer step."""
        return self._run([self._nve(variant, ps, 1)]).tables[-1]

    def times(self, variants: list[Variant], repeats: int, ps: float) -> list[list[float]]:
        """CPU seconds per ps of every repeat of each variant."""
        decks = [self._nve(variant, ps, 10**6) for _ in range(repeats) for variant in variants]
        log = self._run(decks).directory / lammps.LOG
        found = [float(t) * float(use) / 100 / ps for t, use in LOOP.findall(log.read_text())]
        return [found[k :: len(variants)] for k in range(len(variants))]

    def _nve(self, variant: Variant, ps: float, thermo: int) -> list[str]:
        outer = self._timestep * variant.every
        head = lammps.deck_head(self._model.path, self._elements, "p p p", data="start.data")
        if variant.inner:
            head[-2] += f" inner {variant.inner}"
            head.append(f"run_style respa 2 {variant.every} inner 1 1.0 2.0 outer 2")
        return [
            "clear",
            *head,
            "neighbor 1.0 bin",
            "neigh_modify every 1 delay 0 check yes",
            f"timestep {outer / FS_PER_PS:g}",
            "thermo_style custom step etotal press",
            "thermo_modify format float %.15g",
            f"thermo {thermo}",
            "fix move all nve",
            f"run {round(ps * FS_PER_PS / outer)}",
        ]

    def _run(self, decks: list[list[str]]) -> lammps.Finished:
        path = self._folder / "in.mts"
        path.write_text("\n".join(line for deck in decks for line in deck) + "\n", encoding="utf-8")
        return lammps.run(path)


def require_equal_start(tables: list[dict[str, NDArray[np.float64]]]) -> None:
    """The whole model is seen at the first step of every run."""
    for column in ("TotEng", "Press"):
        first = np.array([table[column][0] for table in tables])
        if np.ptp(first) > SAME * abs(first[0]):
            raise SystemExit(f"the runs do not start alike: {column} {first}")


def report(tables, times, n_atoms: int, timestep: float) -> None:
    """One row for each variant, as markdown."""
    plain = np.median(times[0])
    head = "run | outer step, fs | drift, eV/atom/ps | spread, meV/atom | CPU-s per ps | ns/day | × plain"
    print(f"\n| {head} |")
    print("|---|---|---|---|---|---|---|")
    for (variant, table), seconds in zip(tables.items(), times):
        outer = timestep * variant.every
        t, energy = table["Step"] * outer / FS_PER_PS, table["TotEng"] / n_atoms
        blocks = np.array(
            [part.mean(axis=1) for part in np.array_split(np.array([t, energy]), BLOCKS, axis=1)]
        )
        fit, covariance = np.polyfit(*blocks.T, 1, cov=True)
        spread = 1000 * np.std(energy - np.polyval(fit, t))
        low, middle, high = np.quantile(seconds, (0.25, 0.5, 0.75))
        print(
            f"| {variant.name} | {outer:g} | {fit[0]:+.1e} ± {covariance[0, 0] ** 0.5:.0e} | {spread:.3f} "
            f"| {middle:.3f} [{low:.3f}, {high:.3f}] | {86400e-3 / middle:.2f} | {plain / middle:.2f} |"
        )


if __name__ == "__main__":
    main()
