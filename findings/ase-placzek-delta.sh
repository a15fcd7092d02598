#!/usr/bin/env bash
# ASE 3.29.0, Raman activities: StaticRamanCalculator(atoms, exobj, delta=…) displaces the atoms and stores polarizabilities,
# PlaczekStatic(atoms, name=…) reads them. Expected: the stored displacements are used, or another delta is refused; the
# results for one molecule hardly depend on delta. Seen: PlaczekStatic divides forces and polarizabilities by its own
# default, 0.01 Å, and says nothing: files of delta=0.02 give 4 times the activity and 1.41 times the frequencies of water
# (3110 -> 4399 cm-1). It must be told the same delta once more.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT; cd "$place"
python3 -m venv v
v/bin/pip install --quiet --disable-pip-version-check ase==3.29.0 2>/dev/null
v/bin/python -W ignore - <<'PY'
import numpy as np
from ase.build import molecule
from ase.calculators.bond_polarizability import BondPolarizability
from ase.calculators.emt import EMT
from ase.optimize import BFGS
from ase.vibrations.placzek import PlaczekStatic
from ase.vibrations.raman import StaticRamanCalculator

atoms = molecule("H2O")
atoms.calc = EMT()
BFGS(atoms, logfile=None).run(fmax=1e-4)
found = {}
for name, delta, told in (("small", 0.01, {}), ("large", 0.02, {}), ("repeated", 0.02, {"delta": 0.02})):
    StaticRamanCalculator(atoms, BondPolarizability, name=name, delta=delta).run()
    placzek = PlaczekStatic(atoms, name=name, **told)
    found[name] = np.max(placzek.get_absolute_intensities()[-3:])
    highest = np.max(placzek.get_energies().real) / 1.239842e-4
    print(f"files of delta {delta}, PlaczekStatic told {told or 'nothing'}: largest activity {found[name]:.4g}, "
          f"highest mode {highest:.0f} cm-1")
large, repeated = found["large"] / found["small"], found["repeated"] / found["small"]
print(f"ratios to 0.01: {large:.3f}, and {repeated:.3f} where delta is repeated")
raise SystemExit(0 if 3.9 < large < 4.2 and 0.95 < repeated < 1.05 else "changed")
PY
