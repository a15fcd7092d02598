"""What the heat flux costs: in LAMMPS against steps without it, and its analysis; CPU time and peak memory.

    python benchmarks/heat_flux.py [--rounds 3] [--cases example mace-64] [--atoms 480] [--steps 40]
    python benchmarks/heat_flux.py --analysis [--samples 1000000] [--runs 10] [--log]

Models are those of `hessian.py` in float32 (with their radial tables), on its water; J of LAMMPS is compared
with that of ASE first. Runs of `lmp` of `--steps` steps and of none take turns (one process each, one
thread): the difference is the steps. A flux step is one with J over one without: J is asked for in every
step, and in every tenth. Memory is the peak of the process, in all and above that of one that has evaluated
24 atoms (loading itself has a peak, above which few atoms do not get).
The analysis is the whole command `mlplugins thermal` on Ornstein–Uhlenbeck fluxes (.npy, or `--log`: as
LAMMPS prints them), whose κ is known.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import ase.io
import numpy as np
from ase import units
from hessian import CASES, water, written

from mlplugins import MLCalculator

MIB = 1024.0
KINDS = {"none": 0, "every": 1, "tenth": 10}


def main() -> int:
    """Print a line for every case."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=["example", "mace-64"])
    parser.add_argument("--atoms", type=int, default=480)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--analysis", action="store_true")
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--log", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.analysis:
            return analysis(Path(folder), args)
        for case in args.cases:
            stepped(case, Path(folder), args)
    return 0


def stepped(case: str, folder: Path, args: argparse.Namespace) -> None:
    """Steps of LAMMPS with and without J."""
    model = written(case, folder, "float32")
    ase.io.write(folder / "water.data", water(24), format="lammps-data", masses=True, specorder=["H", "O"])
    idle = lammps(folder, "none", 0)[1]
    atoms = water(args.atoms)
    atoms.set_velocities(np.random.default_rng(0).normal(scale=0.01, size=(len(atoms), 3)))
    given = {"format": "lammps-data", "masses": True, "specorder": ["H", "O"], "velocities": True}
    ase.io.write(folder / "water.data", atoms, units="metal", **given)
    lammps(folder, "every", 0)
    expected = MLCalculator(model).heat_flux(atoms).total * 1000 * units.fs
    off = np.abs(read(folder)[0] / expected - 1).max()
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    memory: dict[str, float] = {}
    for _ in range(args.rounds):
        for kind in KINDS:
            start, whole = lammps(folder, kind, 0), lammps(folder, kind, args.steps)
            seconds[kind].append((whole[0] - start[0]) / args.steps)
            memory[kind] = whole[1]
    plain, every, tenth = (1000 * statistics.median(seconds[kind]) for kind in KINDS)
    print(
        f"{case} {len(atoms)} atoms, J off by {off:.1e} | ms per step: none {plain:.1f}, J in every "
        f"{every:.1f} ({every / plain:.2f}), in every tenth {tenth:.1f} ({tenth / plain:.2f}); a flux "
        f"step {every / plain:.2f} | MiB: {memory['none']:.0f}, {memory['every']:.0f} "
        f"({memory['every'] / memory['none']:.2f}), above {idle:.0f} of loading: "
        f"{memory['none'] - idle:.0f}, {memory['every'] - idle:.0f}",
        flush=True,
    )


def lammps(folder: Path, kind: str, steps: int) -> tuple[float, float]:
    """CPU seconds and peak memory, MiB, of a run."""
    every = KINDS[kind]
    deck = ["units metal", "atom_style atomic", "atom_modify map yes", "read_data water.data"]
    deck += ["pair_style mlplugins model.pt", "pair_coeff * * H O", "timestep 0.0002", "fix md all nve"]
    if every:
        deck += ["compute J all mlplugins/heat/flux", "thermo_style custom step c_J[1] c_J[2] c_J[3]"]
    deck += ["thermo_modify format float %.12g", f"thermo {every or 1000000}", f"run {steps}"]
    (folder / "in.lammps").write_text("\n".join(deck) + "\n")
    return used([str(Path(sys.executable).parent / "lmp"), "-in", "in.lammps", "-log", "log.lammps"], folder)


def used(command: list[str], folder: Path) -> tuple[float, float]:
    """CPU seconds and peak memory of a process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(said.decode())
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / MIB


def read(folder: Path) -> np.ndarray:
    """J of every step of the log."""
    rows = []
    for line in (folder / "log.lammps").read_text().splitlines():
        words = line.split()
        if len(words) == 4 and words[0].isdigit():
            rows.append([float(word) for word in words[1:]])
    return np.array(rows)


def analysis(folder: Path, args: argparse.Namespace) -> int:
    """The command on long series."""
    from mlplugins.testing.fluxes import density_at_zero, ornstein_uhlenbeck

    parts = [(20.0, 1.0)]
    names = []
    for k in range(args.runs):
        flux = ornstein_uhlenbeck(np.random.default_rng(k), (args.samples, 3), parts)
        names.append(f"{k}.log" if args.log else f"{k}.npy")
        if args.log:
            rows = np.column_stack([np.arange(args.samples), flux])
            head = "   Step          c_J[1]         c_J[2]         c_J[3]"
            np.savetxt(folder / names[-1], rows, ["%10d", *["%.10g"] * 3], header=head, comments="")
        else:
            np.save(folder / names[-1], flux)
    given = ["--timestep" if args.log else "--interval", "2", "--temperature", "300", "--volume", "1000"]
    program = str(Path(sys.executable).parent / "mlplugins")
    seconds, memory = used([program, "thermal", *names, *given, "-o", "out", "--json", "k.json"], folder)
    from json import loads

    kappa = loads((folder / "k.json").read_text())["kappa_W_mK"]
    si = (1.602176634e-19 * 1e-10 / 1e-12) ** 2
    truth = density_at_zero(parts) * 2e-15 * si / (2 * 1000e-30 * 1.380649e-23 * 300.0**2)
    value, low, high = (kappa[key] for key in ("value", "low", "high"))
    print(
        f"{args.runs} runs of {args.samples} samples ({'log' if args.log else 'npy'}): κ = {value:.5g} "
        f"[{low:.5g}, {high:.5g}], truth {truth:.5g} | {seconds:.1f} CPU-s, {memory:.0f} MiB"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
