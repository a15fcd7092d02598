#!/usr/bin/env bash
# ASE 3.29.0 and a `mass` column in extended XYZ. The help of ase.io.extxyz.read_extxyz: "The property names `pos`, `Z`,
# `mass`, and `charge` map to ASE atoms.arrays entries named `positions`, `numbers`, `masses` and `charges`".
# Expected: get_masses() gives the file's mass. Seen: the column stays in arrays["mass"], get_masses() gives the standard
# mass (24.305 for the 25.0 of the file), without a word; only a column called `masses`, which the help does not name, works.
# Temperatures, velocities from momenta and MD then use the wrong isotope (i-PI 3.3.1 refuses such a file for that reason).
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT; cd "$place"
python3 -m venv v
v/bin/pip install --quiet --disable-pip-version-check ase==3.29.0 2>/dev/null
v/bin/python -W error::UserWarning - <<'PY'
import io

import ase.io
from ase.io.extxyz import read_extxyz

print("the help maps `mass`:", "`mass`, and `charge` map to ASE" in read_extxyz.__doc__)
seen = {}
for column in ("mass", "masses"):
    text = f'1\nLattice="9 0 0 0 9 0 0 0 9" Properties=species:S:1:pos:R:3:{column}:R:1\nMg 0 0 0 25.0\n'
    atoms = ase.io.read(io.StringIO(text), format="extxyz")
    seen[column] = float(atoms.get_masses()[0])
    print(f"column {column}: get_masses() = {seen[column]}, arrays {sorted(atoms.arrays)}")
raise SystemExit(0 if seen == {"mass": 24.305, "masses": 25.0} else "changed")
PY
