#!/usr/bin/env bash
# pymatgen-analysis-diffusion 2026.9.23 (pymatgen 2026.10.24), DiffusionAnalyzer.diffusivity_std_dev ("Std dev in diffusivity in cm^2/s").
# Twenty random walkers, 1000 frames, twelve seeds, D = 5.0e-6 cm²/s. Expected: roughly the scatter of D from seed to seed.
# Seen: D scatters by 7e-7, its reported standard deviation is 1e-10 with smoothed="max" (the default), 1.3e-6 and 2e-8 with
# smoothed=False: several thousand and some fifty times too small. It is the error of a line through points of the MSD taken as independent,
# which they are not; conductivity_std_dev is made from it.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT; cd "$place"
python3 -m venv v
v/bin/pip install --quiet --disable-pip-version-check pymatgen==2026.10.24 pymatgen-analysis-diffusion==2026.9.23 2>/dev/null
v/bin/python -W ignore - <<'PY'
import numpy as np
from pymatgen.analysis.diffusion.analyzer import DiffusionAnalyzer
from pymatgen.core import Lattice, Structure

IONS, FRAMES, EDGE = 20, 1000, 20.0
ratios = {}
for smoothed in ("max", False):
    values, reported = [], []
    for seed in range(12):
        random = np.random.default_rng(seed)
        structure = Structure(Lattice.cubic(EDGE), ["Li"] * IONS + ["Xe"] * 4, np.vstack([random.random((IONS, 3)), np.eye(4, 3) / 2]))
        walks = np.cumsum(random.normal(0, 0.1, (FRAMES, IONS, 3)), axis=0)
        moved = np.concatenate([walks.swapaxes(0, 1), np.zeros((4, FRAMES, 3))])
        found = DiffusionAnalyzer(structure, moved, "Li", 600, 2.0, 50, smoothed=smoothed)
        values.append(found.diffusivity)
        reported.append(found.diffusivity_std_dev)
    scatter, mean = np.std(values, ddof=1), np.mean(reported)
    ratios[smoothed] = scatter / mean
    print(f"smoothed={smoothed!r}: D = {np.mean(values):.2e} cm²/s, from seed to seed ± {scatter:.1e}, reported ± {mean:.1e}: {scatter / mean:.0f} times less")
raise SystemExit(0 if ratios["max"] > 1000 and 20 < ratios[False] < 200 else "changed")
PY
