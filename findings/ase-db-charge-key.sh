#!/usr/bin/env bash
# ASE 3.29.0, ase.db: a key-value pair called `charge`. Guessed: db.write(atoms, charge=-1) is read back as -1, or refused as
# a reserved name, as `energy` is. Seen: it is accepted and stored, but row.charge, row.key_value_pairs["charge"] and
# atoms.info["key_value_pairs"]["charge"] are 0.0, the sum of the (absent) initial charges, whose property hides the key,
# and a selection by charge=-1 finds nothing. Sets of ions read so are sets of neutral molecules.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT; cd "$place"
python3 -m venv v
v/bin/pip install --quiet --disable-pip-version-check ase==3.29.0 2>/dev/null
v/bin/python -W error - <<'PY'
import ase
from ase import Atoms
from ase.db import connect

with connect("ions.db") as database:
    database.write(Atoms("OH", [[0, 0, 0], [0, 0, 0.96]]), charge=-1, label=-1)
[row] = connect("ions.db").select()
found = len(list(connect("ions.db").select("charge=-1")))
atoms = row.toatoms(add_additional_information=True)
seen = {key: float(atoms.info["key_value_pairs"][key]) for key in ("charge", "label")}
print("ASE", ase.__version__, "written: charge -1, label -1; read:", seen, "selected by charge=-1:", found)
raise SystemExit(0 if (seen, found) == ({"charge": 0.0, "label": -1.0}, 0) else "changed")
PY
