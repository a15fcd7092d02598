#!/usr/bin/env bash
# pymatgen-analysis-diffusion 2026.9.23 (pymatgen 2026.10.24), DiffusionAnalyzer.conductivity of structures without oxidation states,
# as files of molecular dynamics have them. Expected: n (ze)² D / (V kT) with the charge of the ion, or a refusal.
# Seen: z is the number of electrons in the outermost subshell of the free atom: 1 for Li, 5 for F, Cl, Br and I, 4 for O, and 10 for Ag
# and Cu, whose filled d shell comes last in that list. Conductivities of fluorides are 25 times too large, of silver and copper ions 100.
# Oxidation states in the structures change nothing: ions are looked up by their element, and "F-" finds none ("Not enough data").
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT; cd "$place"
python3 -m venv v
v/bin/pip install --quiet --disable-pip-version-check pymatgen==2026.10.24 pymatgen-analysis-diffusion==2026.9.23 2>/dev/null
v/bin/python -W ignore - <<'PY'
import numpy as np
from pymatgen.analysis.diffusion.analyzer import DiffusionAnalyzer
from pymatgen.core import Lattice, Structure
from scipy.constants import e, k

IONS, FRAMES, EDGE, KELVIN = 20, 1000, 20.0, 600.0
random = np.random.default_rng(0)
start = random.random((IONS, 3))
walks = np.cumsum(random.normal(0, 0.1, (FRAMES, IONS, 3)), axis=0)
host = np.eye(4, 3) / 2


def ratio(name, ion=None):
    """Conductivity of random walkers over that of ions of charge e with the same D."""
    kinds = [ion or name] * IONS + ["Xe"] * 4
    frames = [Structure(Lattice.cubic(EDGE), kinds, np.vstack([(start + walk / EDGE) % 1, host])) for walk in walks]
    found = DiffusionAnalyzer.from_structures(frames, name, KELVIN, 2.0, 50)
    unit_charge = IONS / (EDGE * 1e-8) ** 3 * e**2 * found.diffusivity / (k * KELVIN) * 1000  # mS/cm
    return found.conductivity / unit_charge


seen = {name: round(float(ratio(name)), 6) for name in ("Li", "F", "Cl", "O", "Ag", "Cu")}
seen["F of F-"] = round(float(ratio("F", ion="F-")), 6)
print("conductivity over that of charge e:", seen)
raise SystemExit(0 if seen == {"Li": 1, "F": 25, "Cl": 25, "O": 16, "Ag": 100, "Cu": 100, "F of F-": 25} else "changed")
PY
