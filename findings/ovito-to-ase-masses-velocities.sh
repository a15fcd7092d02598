#!/usr/bin/env bash
# ovito 3.17.2 with ase 3.29.0: ovito.io.ase.ovito_to_ase of a LAMMPS dump with the columns mass vx vy vz.
# Expected: an Atoms with these masses and velocities (to and fro from Atoms keeps them). Seen: they become arrays named "Mass" and
# "Velocity", which ase does not read: deuterium is 1.008 u again, the kinetic energy zero, without a word.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT; cd "$place"
python3 -m venv v
v/bin/pip install --quiet --disable-pip-version-check ovito==3.17.2 ase==3.29.0 2>/dev/null
cat > one.dump <<'L'
ITEM: TIMESTEP
0
ITEM: NUMBER OF ATOMS
2
ITEM: BOX BOUNDS pp pp pp
0 8
0 8
0 8
ITEM: ATOMS id type element mass x y z vx vy vz
1 1 H 2.014 1 1 1 3 0 0
2 1 H 2.014 2 2 2 0 -3 0
L
QT_QPA_PLATFORM=offscreen OVITO_GUI_MODE=0 v/bin/python - <<'PY'
import warnings

import numpy as np
from ase import Atoms
from ovito.io import import_file
from ovito.io.ase import ase_to_ovito, ovito_to_ase

warnings.simplefilter("error", UserWarning)  # a word would be an error
atoms = Atoms("H2", [[1, 1, 1], [2, 2, 2]], cell=[8, 8, 8], pbc=True, masses=[2.014, 2.014])
atoms.set_velocities([[0.3, 0, 0], [0, -0.3, 0]])
to_and_fro = ovito_to_ase(ase_to_ovito(atoms))
read = ovito_to_ase(import_file("one.dump").compute(0))
for name, each in {"to and fro": to_and_fro, "from the dump": read}.items():
    print(f"{name}: masses {each.get_masses()} u, kinetic energy {each.get_kinetic_energy():.4f} eV, arrays {sorted(each.arrays)}")
kept = np.allclose(to_and_fro.get_masses(), 2.014) and to_and_fro.get_kinetic_energy() > 0.1
lost = np.allclose(read.get_masses(), 1.008) and read.get_kinetic_energy() == 0 and np.allclose(read.arrays["Mass"], 2.014)
raise SystemExit(0 if kept and lost and np.abs(read.arrays["Velocity"]).max() == 3 else "changed")
PY
