#!/usr/bin/env bash
# kinisi 2.1.0, DiffusionAnalyzer.from_ase and a run at constant pressure. A crystal of 32 atoms that vibrate about their
# sites, 0.15 Å along each axis, in a cubic cell of 10 Å whose edge varies by 1 % (frames of ASE 3.29.0; kinisi takes a
# cell for each frame). Nobody leaves a site. Expected: the mean squared displacement of a solid, 6 × 0.15² = 0.135 Å² at all
# lags, and the little that the cell's own breathing adds. Seen: 0.135 Å² where the cell is constant, but where it varies an atom
# that vibrates across a face of the cell gains the change of the edge's length at each crossing, and the crystal diffuses: the
# line through the MSD has the slope of a poor ionic conductor. Frames written unwrapped do not help, since they are wrapped first.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT; cd "$place"
python3 -m venv v
v/bin/pip install --quiet --disable-pip-version-check ase==3.29.0 kinisi==2.1.0 2>/dev/null
v/bin/python -W ignore - <<'PY'
import numpy as np
import scipp as sc
from ase import Atoms
from ase.build import bulk
from kinisi.analyze import DiffusionAnalyzer

FRAMES, EDGE, AMPLITUDE = 1000, 10.0, 0.15
sites = (bulk("Ar", cubic=True, a=EDGE / 2) * 2).get_scaled_positions()


def crystal(variation, on_faces=True):
    """Frames 100 fs apart; the sites lie on faces of the cell, or an eighth of the edge away from all of them."""
    random, strain, frames = np.random.default_rng(0), 0.0, []
    for _ in range(FRAMES):
        strain += -0.05 * strain + variation * np.sqrt(0.0975) * random.normal()
        edge = EDGE * (1 + strain)
        positions = (sites + (0 if on_faces else 0.125)) * edge + random.normal(0, AMPLITUDE, (len(sites), 3))
        frames.append(Atoms(f"Ar{len(sites)}", positions, cell=[edge] * 3, pbc=True))
    return frames


def msd(frames):
    times = {"time_step": sc.scalar(1.0, unit="fs"), "step_skip": sc.scalar(100)}
    analyzer = DiffusionAnalyzer.from_ase(frames, specie="Ar", progress=False, **times)
    return analyzer.dt.values / 1000, analyzer.msd.values


found = {}
for name, frames in (("constant cell", crystal(0)), ("cell varies, sites on faces", crystal(0.01)),
                     ("cell varies, sites off faces", crystal(0.01, on_faces=False))):
    time, found[name] = msd(frames)
    slope = np.polyfit(time[20:400], found[name][20:400], 1)[0]
    shown = ", ".join(f"{found[name][np.argmin(abs(time - t))]:.3f}" for t in (1, 10, 50))
    print(f"{name:30} MSD after 1, 10 and 50 ps: {shown} Å², slope / 6 = {slope / 6 * 1e-4:.1e} cm²/s")
late = {name: values[np.argmin(abs(time - 50))] for name, values in found.items()}
constant, on_faces, off_faces = late.values()
raise SystemExit(0 if abs(constant - 0.135) < 0.01 and off_faces < 0.17 and on_faces > 0.2 else "changed")
PY
