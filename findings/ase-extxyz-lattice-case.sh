#!/usr/bin/env bash
# ASE 3.29.0 and `lattice="…"` in lower case in extended XYZ.
# Expected: the cell, or an error, for a frame whose comment line plainly holds one. Seen: the cell has rank 0 and pbc is
# F F F, no warning; the nine numbers end up in atoms.info["lattice"]. A periodic data set becomes one of clusters in
# vacuum, energies and forces included, and everything downstream (a fit, an MD run) works on it without complaint.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT; cd "$place"
python3 -m venv v
v/bin/pip install --quiet --disable-pip-version-check ase==3.29.0 2>/dev/null
v/bin/python -W error - <<'PY'
import io

import ase.io

ranks = []
for key in ("Lattice", "lattice"):
    text = f'1\n{key}="5 0 0 0 5 0 0 0 5" energy=-1.0 Properties=species:S:1:pos:R:3:forces:R:3\nAr 0 0 0 0 0 0\n'
    atoms = ase.io.read(io.StringIO(text), format="extxyz")
    ranks.append((int(atoms.cell.rank), atoms.pbc.tolist()))
    print(f"{key}: cell rank {atoms.cell.rank}, pbc {atoms.pbc.tolist()}, energy {atoms.get_potential_energy()}, info {list(atoms.info)}")
raise SystemExit(0 if ranks == [(3, [True] * 3), (0, [False] * 3)] else "changed")
PY
