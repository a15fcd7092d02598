#!/usr/bin/env bash
# torch-sim-atomistic 0.3.0 (what pip takes on Python 3.11), torch_sim.io.atoms_to_state and state_to_atoms; ase 3.29.0.
# Expected: a slab, pbc = (True, True, False), stays periodic in its plane or is refused; isotopes keep their masses on the way there and back.
# Seen: the slab is not periodic at all (pbc of the state is False, its Lennard-Jones energy that of a cluster), and deuterium comes back
# as hydrogen of 1.008 u: masses are taken over into the state and left behind by state_to_atoms. No warning.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT; cd "$place"
python3 -m venv v
v/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 2>/dev/null
v/bin/pip install --quiet --disable-pip-version-check torch-sim-atomistic==0.3.0 ase==3.29.0 2>/dev/null
OMP_NUM_THREADS=1 v/bin/python -W ignore - <<'PY'
import torch
from ase.build import fcc111, molecule
from torch_sim.io import atoms_to_state, state_to_atoms
from torch_sim.models.lennard_jones import LennardJonesModel

DEVICE, DTYPE = torch.device("cpu"), torch.float64
model = LennardJonesModel(sigma=3.4, epsilon=0.0104, cutoff=5.0, device=DEVICE, dtype=DTYPE, compute_forces=True, use_neighbor_list=True)
energies, periodic = {}, {}
for flags in ("TTF", "FFF", "TTT"):
    slab = fcc111("Ar", (4, 4, 2), a=5.3, vacuum=10)
    slab.pbc = [flag == "T" for flag in flags]
    slab.center()
    if flags == "TTT":
        slab.cell[2, 2] += slab.cell[2, 2]  # vacuum enough: the same slab
    state = atoms_to_state([slab], DEVICE, DTYPE)
    energies[flags], periodic[flags] = round(float(model(state)["energy"][0]), 6), bool(state.pbc)
    print(f"pbc {flags}: pbc of the state {periodic[flags]}, energy {energies[flags]} eV")
water = molecule("H2O")
water.set_masses([15.999, 2.014, 2.014])
state = atoms_to_state([water], DEVICE, DTYPE)
back = state_to_atoms(state)[0].get_masses().tolist()
print("masses in the state", state.masses.tolist(), "and back", back)
lost = state.masses.tolist() == [15.999, 2.014, 2.014] and back == [15.999, 1.008, 1.008]
cluster = not periodic["TTF"] and energies["TTF"] == energies["FFF"] != energies["TTT"]
raise SystemExit(0 if lost and cluster else "changed")
PY
