#!/usr/bin/env bash
# OUTCAR of VASP 5.4.4 (as published in parsevasp 3.4.0's test data), read with ASE 3.29.0.
# Expected: an ionic step whose electronic iteration is ended by NELM does not say "aborting loop because EDIFF is reached"
# (VASP 6 says "EDIFF was not reached (unconverged)"), so that a search for that line finds unconverged labels.
# Seen: all five ionic steps of a run with NELM = 6 end after six iterations with the energy still changing by up to 0.6 eV
# (EDIFF = 1e-6), each with "EDIFF is reached" under it. Only the number of iterations and the last change tell. ASE reads the five
# energies and forces like any others, without a mark or a warning: ready-made wrong labels for a fit.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT; cd "$place"
python3 -m venv v
v/bin/pip install --quiet --disable-pip-version-check ase==3.29.0 2>/dev/null
v/bin/pip download --quiet --disable-pip-version-check --no-deps --no-binary parsevasp parsevasp==3.4.0 2>/dev/null
tar xzf parsevasp-3.4.0.tar.gz
mv parsevasp-3.4.0/tests/OUTCAR.nelm-breach-consistent OUTCAR
v/bin/python -W error - <<'PY'
import re
from pathlib import Path

import ase.io

text = Path("OUTCAR").read_text()
nelm, ediff = int(re.search(r"\bNELM\s*=\s*(\d+)", text)[1]), float(re.search(r"\bEDIFF\s*=\s*(\S+)", text)[1])
steps = text.split("FREE ENERGIE OF THE ION-ELECTRON SYSTEM")[:-1]
rows = []
for step in steps:
    iterations = len(re.findall(r"- Iteration ", step))
    change = abs(float(re.findall(r"energy-change \(2\. order\)\s*:\s*([-+.\dE]+)", step)[-1]))
    rows.append((iterations == nelm, change > ediff, "because EDIFF is reached" in step))
    print(f"{iterations} of {nelm} iterations, last change {change:.1e} eV (EDIFF {ediff:g}), says reached: {rows[-1][2]}")
frames = ase.io.read("OUTCAR", index=":", format="vasp-out")
print(f"{text.split()[0]}; ASE: {len(frames)} frames with energies, e.g. {frames[0].get_potential_energy():.4f} eV")
raise SystemExit(0 if len(rows) == len(frames) == 5 and all(map(all, rows)) else "changed")
PY
