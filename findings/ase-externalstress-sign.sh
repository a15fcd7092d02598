#!/usr/bin/env bash
# ASE 3.29.0, `externalstress=p`, a positive number, in two of its constant-pressure integrators. Copper (EMT), 100 K, 5 GPa.
# Expected: one meaning of one keyword in ase.md, a crystal of the same density. Seen: for MelchionnaNPT (until lately NPT) a
# number is a pressure, and the crystal shrinks by 4.5 %; for LangevinBAOAB (new in ASE 3.27) it is a stress, positive in
# tension, and the crystal swells by 3 %. Each help text says so of its own class; a script whose class is exchanged, as
# the deprecation of NPT asks, runs on under a pressure of the other sign. In both a tensor means a stress.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT; cd "$place"
python3 -m venv v
v/bin/pip install --quiet --disable-pip-version-check ase==3.29.0 2>/dev/null
v/bin/python -W ignore - <<'PY'
import numpy as np
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.md.langevinbaoab import LangevinBAOAB
from ase.md.melchionna import MelchionnaNPT
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.units import GPa, fs

asked = {"temperature_K": 100, "externalstress": 5 * GPa}
barostats = {
    MelchionnaNPT: {"ttime": 25 * fs, "pfactor": (75 * fs) ** 2 * 100 * GPa},
    LangevinBAOAB: {"T_tau": 50 * fs, "P_tau": 300 * fs, "hydrostatic": True, "rng": 1},
}
volume = {}
for barostat, settings in barostats.items():
    atoms = bulk("Cu", cubic=True)
    atoms.calc = EMT()
    MaxwellBoltzmannDistribution(atoms, temperature_K=200, rng=np.random.default_rng(1))
    run, start, seen = barostat(atoms, 2 * fs, **asked, **settings), atoms.get_volume(), []
    run.attach(lambda a=atoms, v=seen: v.append(a.get_volume()))
    run.run(500)
    volume[barostat.__name__] = np.mean(seen[100:]) / start
    print(f"{barostat.__name__}: V/V0 = {volume[barostat.__name__]:.4f}")
raise SystemExit(0 if volume["MelchionnaNPT"] < 0.98 and volume["LangevinBAOAB"] > 1.015 else "changed")
PY
