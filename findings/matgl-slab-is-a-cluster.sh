#!/usr/bin/env bash
# matgl 4.1.2, its ASE calculators' graph (matgl.ext.ase.Atoms2Graph), of a slab: atoms.pbc = (True, True, False); ase 3.29.0.
# Expected: edges across the two periodic directions. Seen: the edges of a cluster, across no face at all: unless all three directions
# are periodic, none is. Eight atoms of graphene have 54 edges within 5 Å, with the same flags and with none; periodic in the plane they have 240.
# Energies and forces of slabs are those of a flake cut out of them; with pbc = True and enough vacuum they are right.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT; cd "$place"
python3 -m venv v
v/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 2>/dev/null
v/bin/pip install --quiet --disable-pip-version-check matgl==4.1.2 ase==3.29.0 2>/dev/null
OMP_NUM_THREADS=1 MPLBACKEND=agg v/bin/python -W ignore - <<'PY'
from ase.build import graphene
from ase.neighborlist import neighbor_list
from matgl.ext.ase import Atoms2Graph

CUTOFF = 5.0
convert = Atoms2Graph(("C",), CUTOFF)
edges = {}
for flags in ("TTF", "FFF", "TTT"):
    atoms = graphene(size=(2, 2, 1), vacuum=8.0)
    atoms.pbc = [flag == "T" for flag in flags]
    edges[flags] = convert.get_graph(atoms)[0].edge_index.shape[1], len(neighbor_list("i", atoms, CUTOFF))
    print(f"pbc {flags}: matgl {edges[flags][0]} edges, ASE's neighbour list {edges[flags][1]}")
expected = {"TTF": (54, 240), "FFF": (54, 54), "TTT": (240, 240)}
raise SystemExit(0 if edges == expected else "changed")
PY
