#!/usr/bin/env bash
# GEMDAT 1.8.1, Trajectory.metrics().attempt_frequency(): "Return attempt frequency and standard deviation in Hz".
# 32 ions in isotropic harmonic traps of 2 THz, friction 1 per ps, frames every 20, 40, 80 and 120 fs (which still resolve 4.2 THz).
# Expected: about 2 THz, whatever the spacing. Seen: 3.5, 3.3, 3.0 and 2.7 THz. What it takes is the mean frequency of the changes of
# the distance from the position in the first frame, a length, which also oscillates at other frequencies; the more frames are
# left out, the more of them fold back. Attempt frequencies and barriers of runs with different spacings cannot be compared.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT; cd "$place"
python3 -m venv v
v/bin/pip install --quiet --disable-pip-version-check gemdat==1.8.1 2>/dev/null
v/bin/python -W ignore - <<'PY'
import numpy as np
from gemdat import Trajectory
from pymatgen.core import Element

FREQUENCY, FRICTION, AMPLITUDE, EDGE, FINE = 2e12, 1e12, 0.4, 20.0, 20e-15  # Hz, 1/s, Å, Å, s
STEPS, IONS = 6000, 32
omega = 2 * np.pi * FREQUENCY
random = np.random.default_rng(0)
x = random.normal(0, AMPLITUDE, (IONS, 3))
v = random.normal(0, AMPLITUDE * omega, (IONS, 3))
kept = np.exp(-FRICTION * FINE)
frames = []
for _ in range(STEPS):  # exact rotation of the oscillator, then friction and noise
    c, s = np.cos(omega * FINE), np.sin(omega * FINE)
    x, v = c * x + s * v / omega, c * v - s * omega * x
    v = kept * v + np.sqrt(1 - kept**2) * random.normal(0, AMPLITUDE * omega, v.shape)
    frames.append(x.copy())
positions = 0.5 + np.array(frames) / EDGE
found = {}
for stride in (1, 2, 4, 6):
    trajectory = Trajectory(
        species=[Element("Li")] * IONS, coords=positions[::stride], lattice=EDGE * np.eye(3), constant_lattice=True,
        time_step=stride * FINE, metadata={"temperature": 600},
    )
    mean, deviation = trajectory.metrics().attempt_frequency()
    found[stride] = float(mean) / FREQUENCY
    print(f"frames {stride * 20:3d} fs apart: {float(mean) / 1e12:.2f} THz (standard deviation {float(deviation) / 1e12:.2f}) of 2 THz")
raise SystemExit(0 if 1.6 < found[1] < 1.9 and 1.2 < found[6] < 1.5 and found[1] > found[2] > found[4] > found[6] else "changed")
PY
