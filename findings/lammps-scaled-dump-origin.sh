#!/usr/bin/env bash
# Four readers of a LAMMPS dump and the origin of the box (ASE 3.29.0, MDAnalysis 2.11.0, chemfiles 0.10.4, dpdata 1.1.0).
# One atom rests at x = 5 Å while the box grows about its centre, 0…10 -> -1…11 Å, as `fix npt` dilates it. Written as
# `x` (absolute) and as `xs` (fraction of the box). Expected: 5 and 5 (absolute), or 5 and 6 (from the box's corner), the
# same for both columns. Seen: MDAnalysis subtracts the origin from scaled coordinates too, which never contained it: the
# resting atom moves by 2 Å. ASE gives absolute positions for `x` but positions from the corner for `xs`, and dpdata from
# the corner for both; chemfiles is absolute for both. So displacements under NPT depend on reader and column.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT; cd "$place"
python3 -m venv v
v/bin/pip install --quiet --disable-pip-version-check ase==3.29.0 MDAnalysis==2.11.0 chemfiles==0.10.4 dpdata==1.1.0 2>/dev/null
v/bin/python -W ignore - <<'PY'
import ase.io
import chemfiles
import dpdata
import MDAnalysis


def dump(name, column, values):
    with open(name, "w") as out:
        for frame, (low, high, value) in enumerate(zip((0, -1), (10, 11), values)):
            bounds = f"{low} {high}\n" * 3
            out.write(
                f"ITEM: TIMESTEP\n{frame}\nITEM: NUMBER OF ATOMS\n1\nITEM: BOX BOUNDS pp pp pp\n{bounds}"
                f"ITEM: ATOMS id type {' '.join(a + column for a in 'xyz')}\n1 1 {value} {value} {value}\n"
            )


dump("x.lammpstrj", "", (5.0, 5.0))
dump("xs.lammpstrj", "s", (0.5, 0.5))
readers = {
    "ase": lambda f: [a.positions[0, 0] for a in ase.io.read(f, ":", format="lammps-dump-text")],
    "MDAnalysis": lambda f: [
        float(ts.positions[0, 0])
        for ts in MDAnalysis.Universe(f, format="LAMMPSDUMP", topology_format="LAMMPSDUMP").trajectory
    ],
    "chemfiles": lambda f: [frame.positions[0, 0] for frame in chemfiles.Trajectory(f)],
    "dpdata": lambda f: dpdata.System(f, fmt="lammps/dump", type_map=["Li"])["coords"][:, 0, 0].tolist(),
}
seen = {}
for name, read in readers.items():
    seen[name] = [[round(float(x), 6) for x in read(f"{c}.lammpstrj")] for c in ("x", "xs")]
    print(f"{name:11s} x: {seen[name][0]}   xs: {seen[name][1]}")
expected = {
    "ase": [[5.0, 5.0], [5.0, 6.0]],
    "MDAnalysis": [[5.0, 6.0], [5.0, 7.0]],
    "chemfiles": [[5.0, 5.0], [5.0, 5.0]],
    "dpdata": [[5.0, 6.0], [5.0, 6.0]],
}
raise SystemExit(0 if seen == expected else f"changed: {seen}")
PY
