#!/usr/bin/env bash
# dpdata 1.1.0 and labelled structures of ASE 3.29.0 with fixed atoms (a slab on FixAtoms), on their way into a DeePMD set.
# Expected: LabeledSystem(atoms, fmt="ase/structure") and LabeledSystem(file, fmt="ase/traj") hold the forces that the
# calculator stored, as the same structure written to extended XYZ and read with fmt="extxyz" does. Seen: the first two
# hold zeros for the fixed atoms, without a warning: ASE's get_forces() clears them by default. A potential is
# then trained on atoms of a bulk that feel nothing, and the forces no longer add up to zero.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT; cd "$place"
python3 -m venv v
v/bin/pip install --quiet --disable-pip-version-check ase==3.29.0 dpdata==1.1.0 2>/dev/null
v/bin/python -W ignore - <<'PY'
import dpdata
import numpy as np
from ase.build import fcc111
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.io import Trajectory, write

atoms = fcc111("Cu", (1, 1, 3), vacuum=6, periodic=True)
atoms.rattle(0.1, seed=1)
atoms.set_constraint(FixAtoms([0]))
atoms.calc = EMT()
atoms.get_forces()
stored = atoms.calc.results["forces"]
with Trajectory("slab.traj", "w", atoms) as trajectory:
    trajectory.write()
write("slab.extxyz", atoms)
sources = {"ase/structure": atoms, "ase/traj": "slab.traj", "extxyz": "slab.extxyz"}
held = {kind: dpdata.LabeledSystem(source, fmt=kind)["forces"][0] for kind, source in sources.items()}
print(f"{'calculator':14}force on the fixed atom {np.round(stored[0], 3)}, sum of all {np.round(stored.sum(0), 3)} eV/Å")
for kind, forces in held.items():
    print(f"{kind:14}force on the fixed atom {np.round(forces[0], 3)}, sum of all {np.round(forces.sum(0), 3)} eV/Å")
kept = np.allclose(held["extxyz"], stored, atol=1e-6)
lost = all(not held[kind][0].any() and np.allclose(held[kind][1:], stored[1:]) for kind in ("ase/structure", "ase/traj"))
raise SystemExit(0 if kept and lost and np.linalg.norm(stored[0]) > 0.5 else "changed")
PY
