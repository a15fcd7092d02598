#!/usr/bin/env bash
# dftd3 1.7.0, its ASE calculator, on graphene() as ase 3.29.0 builds it: periodic in two directions, third cell vector zero.
# Expected: the energy that the same layer has with a third vector of any length (it is not periodic there), or an error.
# Seen: energy nan, without an error or a warning.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT; cd "$place"
python3 -m venv v
v/bin/pip install --quiet --disable-pip-version-check ase==3.29.0 dftd3==1.7.0 2>/dev/null
OMP_NUM_THREADS=1 v/bin/python -W error - <<'PY'
import math

from ase.build import graphene
from dftd3.ase import DFTD3

energies = {}
for vacuum in (None, 1.0, 8.0):
    atoms = graphene(vacuum=vacuum)
    atoms.pbc = (True, True, False)
    atoms.calc = DFTD3(method="pbe", damping="d3bj")
    energies[vacuum] = atoms.get_potential_energy()
    print(f"vacuum {vacuum}: third cell vector {atoms.cell.array[2]}, energy {energies[vacuum]:.6f} eV")
raise SystemExit(0 if math.isnan(energies[None]) and abs(energies[1.0] - energies[8.0]) < 1e-9 else "changed")
PY
