#!/usr/bin/env bash
# dpdata 1.1.0, LabeledSystem(file, fmt="extxyz") (also "mace/xyz", "quip/gap/xyz"), a file of several frames; ase 3.29.0.
# Expected: all frames, as with fmt="ase/traj", or an error that names MultiSystems. Seen: the first frame alone, without a word; five
# frames of copper become a data set of one. MultiSystems.from_file reads all five.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT; cd "$place"
python3 -m venv v
v/bin/pip install --quiet --disable-pip-version-check dpdata==1.1.0 ase==3.29.0 2>/dev/null
v/bin/python - <<'PY'
import warnings

import ase.io
import dpdata
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

warnings.simplefilter("error", UserWarning)  # a word would be an error
frames = [bulk("Cu", a=3.5 + k / 50, cubic=True) for k in range(5)]
for atoms in frames:
    atoms.calc = EMT()
    atoms.calc = SinglePointCalculator(atoms, energy=atoms.get_potential_energy(), forces=atoms.get_forces())
ase.io.write("five.xyz", frames, format="extxyz")
ase.io.write("five.traj", frames)
read = {fmt: dpdata.LabeledSystem("five.xyz", fmt=fmt).get_nframes() for fmt in ("extxyz", "mace/xyz", "quip/gap/xyz")}
read["ase/traj"] = dpdata.LabeledSystem("five.traj", fmt="ase/traj").get_nframes()
all_of_them = dpdata.MultiSystems.from_file("five.xyz", fmt="extxyz").get_nframes()
print("LabeledSystem reads", read, "frames of 5, MultiSystems", all_of_them)
raise SystemExit(0 if read == {"extxyz": 1, "mace/xyz": 1, "quip/gap/xyz": 1, "ase/traj": 5} and all_of_them == 5 else "changed")
PY
