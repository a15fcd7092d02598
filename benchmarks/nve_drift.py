"""Energy drift of a model in LAMMPS: 20 ps of NVE at 2 fs, and one rank against two for the first 100 steps.

    python benchmarks/nve_drift.py model.pt structure.extxyz [--temperature 600] [--ps 20] [--timestep 2]

Prints the slope of a linear fit to the total energy (eV/atom/ps) after the first picosecond. Limits for a
float64 model: 1e-5 eV/atom/ps, and 1e-8 eV between one rank and two. Exit code 1 if one is exceeded.
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np

from mlplugins.checks.md import DRIFT, NVE, SAME_ENERGY_EV, SAME_STEPS, drift, total_energies
from mlplugins.dynamics.start import read_structure
from mlplugins.model_file import artifact
from mlplugins.units import FS_PER_PS

TRANSIENT_PS = 1.0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("structure", help="FILE or FILE@INDEX")
    parser.add_argument("--temperature", type=float, default=600.0, help="of the initial velocities, K")
    parser.add_argument("--ps", type=float, default=20.0, help="length of the run")
    parser.add_argument("--timestep", type=float, default=2.0, help="fs")
    args = parser.parse_args()
    model, atoms = artifact.load(args.model), read_structure(args.structure)
    n_steps = round(args.ps * FS_PER_PS / args.timestep)

    start = time.perf_counter()
    run = NVE(args.timestep, args.temperature, n_steps, every=10)
    steps, energies = total_energies(model, atoms, run, ranks=1)
    seconds = time.perf_counter() - start
    late = steps * args.timestep / FS_PER_PS >= min(TRANSIENT_PS, args.ps / 2)
    slope = drift(steps[late], energies[late], args.timestep, len(atoms))
    spread = float(np.ptp(energies[late])) / len(atoms)
    print(f"{args.model} ({model.dtype}), {len(atoms)} atoms, {args.temperature:g} K, {args.timestep:g} fs")
    print(
        f"drift     {slope:+.2e} eV/atom/ps over {args.ps:g} ps (limit {DRIFT:g}), "
        f"spread {spread:.1e} eV/atom"
    )
    print(f"speed     {1e3 * seconds / n_steps:.2f} ms per step, start included")

    short = NVE(args.timestep, args.temperature, SAME_STEPS, every=1)
    one, two = (total_energies(model, atoms, short, ranks)[1] for ranks in (1, 2))
    difference = float(np.abs(one - two).max())
    print(
        f"2 ranks   {difference:.1e} eV from 1 rank in the first {SAME_STEPS} steps "
        f"(limit {SAME_ENERGY_EV:g})"
    )
    passed = abs(slope) <= DRIFT and difference <= SAME_ENERGY_EV
    print("passed" if passed else "FAILED")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
