#!/usr/bin/env bash
# atomman 1.5.4, load("atom_dump", file) of a LAMMPS dump of several frames.
# Expected: the first frame, all of them, or an error that asks for one. Seen: the last frame, without a word; the file is read whole,
# and its docstring does not speak of several. mdapy 1.0.9 refuses the same file by name.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT; cd "$place"
python3 -m venv v
v/bin/pip install --quiet --disable-pip-version-check atomman==1.5.4 mdapy==1.0.9 2>/dev/null
for step in 0 100 200; do cat <<L
ITEM: TIMESTEP
$step
ITEM: NUMBER OF ATOMS
1
ITEM: BOX BOUNDS pp pp pp
0 8
0 8
0 8
ITEM: ATOMS id type x y z
1 1 1.$step 2 3
L
done > three.dump
v/bin/python - <<'PY'
import warnings

warnings.simplefilter("error", UserWarning)  # a word would be an error
import atomman
import mdapy

x = float(atomman.load("atom_dump", "three.dump").atoms.pos[0, 0])
try:
    said = f"reads {mdapy.System('three.dump')}"
except ValueError as error:
    said = str(error)
print(f"x of the three frames: 1.0, 1.1, 1.2; atomman has {x}; mdapy: {said}")
raise SystemExit(0 if x == 1.2 and "multi-frame" in said else "changed")
PY
