#!/usr/bin/env bash
# tblite 0.8.0, get_dipole_moment() of its ASE calculator for a periodic structure (ase 3.29.0): one water molecule in a box of 20 Å.
# Expected: the molecule's dipole wherever it is, as ASE's positions are never folded into the box, or no dipole under periodic boundaries.
# Seen: 0.597 e·Å in the middle; (0, 6.7, 12.7) e·Å when the molecule lies across faces: atoms are folded back first, and a charge
# that crosses a face moves the dipole by charge × edge. Infrared spectra of such a trajectory are made of these jumps.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT; cd "$place"
python3 -m venv v
v/bin/pip install --quiet --disable-pip-version-check ase==3.29.0 tblite==0.8.0 2>/dev/null
OMP_NUM_THREADS=1 v/bin/python -W ignore - <<'PY'
import numpy as np
from ase.build import molecule
from tblite.ase import TBLite


def dipole(shift):
    """Dipole of water in the box, in e·Å, and its charges × positions."""
    atoms = molecule("H2O", cell=[20.0] * 3, pbc=True)
    atoms.positions += shift
    atoms.calc = TBLite(method="GFN1-xTB", verbosity=0)
    return atoms.get_dipole_moment(), atoms.get_charges()


inside, charges = dipole([10.0, 10.0, 10.0])
across, _ = dipole([10.0, 0.0, 0.0])
print("in the middle", inside.round(3), "across two faces", across.round(3), "charges", charges.round(3))
jump = (across - inside) / 20.0
print("difference, charges × edge:", jump.round(3))
crossing = [0, charges[1], charges[1] + charges[2]]
raise SystemExit(0 if np.abs(jump - crossing).max() < 5e-3 and abs(inside[2] + 0.597) < 2e-3 else "changed")
PY
