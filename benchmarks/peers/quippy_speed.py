"""Energies and forces of a GAP by quippy-ase, µs per atom: started by benchmarks/soap_gap_speed.py."""

import sys
import time

import ase.io
from quippy.potential import Potential

atoms = ase.io.read(sys.argv[2])
calculator = Potential(param_filename=sys.argv[1])
times = []
for k in range(int(sys.argv[3])):
    moved = atoms.copy()
    moved.rattle(0.01, seed=k)
    moved.calc = calculator
    start = time.process_time()
    moved.get_forces()
    times.append(time.process_time() - start)
print(1e6 * min(times[1:]) / len(atoms))
