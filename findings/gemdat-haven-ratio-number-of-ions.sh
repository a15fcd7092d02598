#!/usr/bin/env bash
# GEMDAT 1.8.1, Trajectory.metrics().haven_ratio(): "Haven's ratio". Ions that hop independently of each other have the Haven
# ratio 1 (D* over D_σ, with D_σ = N times the diffusion coefficient of the ions' centre of mass).
# Expected: 1 within the noise for 32 independent random walkers. Seen: D* is divided by the diffusion coefficient of the
# centre of mass itself, without N: about 32. The ratio grows with the cell: supercells of one material cannot be compared,
# and a conductivity corrected with it is too small by the number of ions. tracer_conductivity() is not affected.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT; cd "$place"
python3 -m venv v
v/bin/pip install --quiet --disable-pip-version-check gemdat==1.8.1 2>/dev/null
v/bin/python -W ignore - <<'PY'
import numpy as np
from gemdat import Trajectory
from pymatgen.core import Element

found = {}
for ions in (8, 32):
    tracer, centre, ratios = [], [], []
    for seed in range(40):
        steps = np.random.default_rng(seed).normal(0, 0.01, (200, ions, 3))
        walk = Trajectory(
            species=[Element("Li")] * ions, coords=np.cumsum(steps, axis=0) % 1, lattice=20 * np.eye(3),
            constant_lattice=True, time_step=1e-12, metadata={"temperature": 600},
        )
        metrics = walk.metrics()
        tracer.append(float(metrics.tracer_diffusivity()))
        centre.append(float(metrics.tracer_diffusivity_center_of_mass()))
        ratios.append(float(metrics.haven_ratio()))
        assert np.isclose(ratios[-1], tracer[-1] / centre[-1])
    found[ions] = np.mean(tracer) / np.mean(centre)
    print(f"{ions} independent ions: D* / D(centre of mass) = {found[ions]:.1f} over 40 walks, "
          f"median haven_ratio {np.median(ratios):.1f}")
raise SystemExit(0 if 5.5 < found[8] < 11 and 24 < found[32] < 43 else "changed")
PY
