#!/usr/bin/env bash
# ASE 3.29.0 and a LAMMPS dump with forces and types. A dump holds no energy, so expected: get_potential_energy() raises
# PropertyNotImplementedError, as of a DL_POLY HISTORY with forces, and types without elements are refused or numbered.
# Seen: an energy of 0.0 eV for every frame, without a word, and types taken for atomic numbers (1 = H, 2 = He, 3 = Li).
# A potential trained on such frames learns that all energies are zero, of atoms that nobody simulated.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT; cd "$place"
python3 -m venv v
v/bin/pip install --quiet --disable-pip-version-check ase==3.29.0 2>/dev/null
cat > run.lammpstrj <<'DUMP'
ITEM: TIMESTEP
0
ITEM: NUMBER OF ATOMS
2
ITEM: BOX BOUNDS pp pp pp
0 9
0 9
0 9
ITEM: ATOMS id type x y z fx fy fz
1 1 0 0 0 1.5 0 0
2 2 2 0 0 -1.5 0 0
DUMP
v/bin/python -W error - <<'PY'
import ase
import ase.io

atoms = ase.io.read("run.lammpstrj")
print("ASE", ase.__version__, "energy:", atoms.get_potential_energy(), "eV, atoms:", atoms.symbols)
raise SystemExit(0 if atoms.get_potential_energy() == 0.0 and str(atoms.symbols) == "HHe" else "changed")
PY
