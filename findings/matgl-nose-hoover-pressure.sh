#!/usr/bin/env bash
# matgl 4.1.2, matgl.ext.ase.MolecularDynamics(ensemble="npt_nose_hoover", pressure=…); ase 3.29.0.
# Expected: `pressure` (eV/Å³) is the barostat's pressure, as in the other NPT ensembles of the class.
# Seen: it is left aside without a word: cells at 0 and at 50 GPa are the same to the last digit; `external_stress` alone acts here.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT; cd "$place"
python3 -m venv v
v/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 2>/dev/null
v/bin/pip install --quiet --disable-pip-version-check matgl==4.1.2 ase==3.29.0 2>/dev/null
OMP_NUM_THREADS=1 MPLBACKEND=agg v/bin/python -W ignore - <<'PY'
import numpy as np
import torch
from ase import units
from ase.build import bulk
from matgl.apps.pes import Potential
from matgl.ext.ase import MolecularDynamics
from matgl.models import M3GNet

torch.manual_seed(0)
potential = Potential(M3GNet(element_types=("Cu",), is_intensive=False))


def volume(**pressure):
    np.random.seed(0)
    atoms = bulk("Cu", a=3.61, cubic=True)
    dynamics = MolecularDynamics(atoms, potential, ensemble="npt_nose_hoover", temperature=1, timestep=1.0, **pressure)
    dynamics.run(5)
    return float(dynamics.atoms.get_volume())


none, pressed, stressed = volume(), volume(pressure=50 * units.GPa), volume(external_stress=50 * units.GPa)
print(f"5 steps: {none:.9f} Å³ without, {pressed:.9f} with pressure = 50 GPa, {stressed:.9f} with external_stress = 50 GPa")
raise SystemExit(0 if pressed == none and stressed < none - 1e-4 else "changed")
PY
