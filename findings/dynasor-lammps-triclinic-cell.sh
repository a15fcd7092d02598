#!/usr/bin/env bash
# dynasor 2.5, Trajectory(..., trajectory_format="lammps_internal") of a LAMMPS dump with a triclinic box.
# LAMMPS writes the bounds of the box that surrounds the cell (xlo_bound xhi_bound xy and so on), which is wider than the cell by its tilts.
# Expected: the cell, as ASE 3.29.0 reads it from the same file. Seen: the differences of the bounds on the diagonal: 15 Å in place of 10 Å
# with tilts of 3 and 2 Å; and scaled positions (xs ys zs) multiplied by that diagonal alone, without tilts: a tenth of
# the second cell vector, (0.3, 0.9, 0) Å, is read as (0, 1, 0) Å. q points and structure factors of such runs belong to another cell.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT; cd "$place"
python3 -m venv v
v/bin/pip install --quiet --disable-pip-version-check dynasor==2.5 ase==3.29.0 2>/dev/null
v/bin/python -W ignore - <<'PY'
import logging

import numpy as np
from ase.io import read
from dynasor import Trajectory

logging.disable(logging.CRITICAL)
A, B, C, XY, XZ, YZ = 10.0, 9.0, 8.0, 3.0, 2.0, 1.0
cell = np.array([[A, 0, 0], [XY, B, 0], [XZ, YZ, C]])
bounds = f"0 {A + XY + XZ} {XY}\n0 {B + YZ} {XZ}\n0 {C} {YZ}"
fractions = [0.5, 0.5, 0.5], [0.5, 0.6, 0.5]
for name, columns in (("plain", "x y z"), ("scaled", "xs ys zs")):
    with open(f"{name}.lammpstrj", "w") as file:
        for step, fraction in enumerate(fractions):
            place = fraction if name == "scaled" else (np.array(fraction) @ cell).tolist()
            file.write(f"ITEM: TIMESTEP\n{step}\nITEM: NUMBER OF ATOMS\n1\nITEM: BOX BOUNDS xy xz yz pp pp pp\n{bounds}\n")
            file.write(f"ITEM: ATOMS id type {columns}\n1 1 {place[0]} {place[1]} {place[2]}\n")
by_ase = read("plain.lammpstrj", index=0, format="lammps-dump-text").cell.array
trajectory = Trajectory("scaled.lammpstrj", trajectory_format="lammps_internal")
print("cell by LAMMPS' rules\n", cell, "\nby ASE\n", by_ase, "\nby dynasor\n", trajectory.cell)
frames = [frame.positions_by_type["X"][0].copy() for frame in Trajectory("scaled.lammpstrj", trajectory_format="lammps_internal")]
moved, expected = frames[1] - frames[0], np.array([0, 0.1, 0]) @ cell
print("displacement of (0, 0.1, 0): dynasor", moved, "expected", expected)
right = np.allclose(by_ase, cell)
wrong = np.allclose(np.diag(trajectory.cell), [A + XY + XZ, B + YZ, C]) and np.allclose(moved, [0, 0.1 * (B + YZ), 0])
raise SystemExit(0 if right and wrong else "changed")
PY
