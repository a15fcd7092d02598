#!/usr/bin/env bash
# ASE 3.29.0, ase.md.analysis.DiffusionCoefficient(traj, timestep, atom_indices=…): "The indices of atoms whose Diffusion
# Coefficient is to be calculated explicitly". Four atoms of one element with the squared displacement t along each axis.
# Expected: D = 1/2 (per unit of time), whichever of the equal atoms are named. Seen: the sum runs over the named atoms but
# is divided by all atoms of their element in the structure: 1/4 for two of the four, 1/8 for one. So D of the mobile ions
# of a slab, a grain or a tagged subset is too small by the fraction that they are of their element, without a warning.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT; cd "$place"
python3 -m venv v
v/bin/pip install --quiet --disable-pip-version-check ase==3.29.0 2>/dev/null
v/bin/python - <<'PY'
import numpy as np
from ase import Atoms
from ase.md.analysis import DiffusionCoefficient

traj = [Atoms("Li4", positions=np.full((4, 3), np.sqrt(t))) for t in range(50)]
seen = {}
for named in ([0, 1, 2, 3], [0, 1], [3]):
    (mean,), _ = DiffusionCoefficient(traj, 1.0, atom_indices=named).get_diffusion_coefficients()
    seen[len(named)] = round(float(mean), 12)
    print(f"{len(named)} of the 4 atoms named: D = {mean:.4f}")
raise SystemExit(0 if seen == {4: 0.5, 2: 0.25, 1: 0.125} else "changed")
PY
