#!/usr/bin/env bash
# ASE 3.29.0, read(..., format="lammps-data") of a LAMMPS data file whose types are labels (Atom Type Labels), atoms not in the
# order of their numbers.
# Expected: the elements of the atoms, as from the same file with numbers for types. Seen: positions are put in order by number, elements
# stay in the order of the lines: the sulfur of line one goes to atom 1, which is lithium. No error, no warning.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT; cd "$place"
python3 -m venv v
v/bin/pip install --quiet --disable-pip-version-check ase==3.29.0 2>/dev/null
v/bin/python -W error - <<'PY'
from ase.io import read

HEAD = "LAMMPS data file\n\n3 atoms\n2 atom types\n0 10 xlo xhi\n0 10 ylo yhi\n0 10 zlo zhi\n"
LABELS = "\nAtom Type Labels\n\n1 Li\n2 S\n"
REST = "\nMasses\n\n1 6.94\n2 32.06\n\nAtoms # atomic\n\n3 {S} 1 1 1\n1 {Li} 2 2 2\n2 {Li} 3 3 3\n"
found = {}
for name, text in (("numbers", HEAD + REST.format(Li=1, S=2)), ("labels", HEAD + LABELS + REST.format(Li="Li", S="S"))):
    with open(f"{name}.lammps-data", "w") as file:
        file.write(text)
    atoms = read(f"{name}.lammps-data", format="lammps-data")
    found[name] = {symbol: sorted(round(x, 6) for x, other in zip(atoms.positions[:, 0].tolist(), atoms.symbols) if other == symbol) for symbol in ("Li", "S")}
    print(f"types by {name}: x of each element {found[name]}")
expected = {"Li": [2.0, 3.0], "S": [1.0]}
raise SystemExit(0 if found == {"numbers": expected, "labels": {"Li": [1.0, 3.0], "S": [2.0]}} else "changed")
PY
