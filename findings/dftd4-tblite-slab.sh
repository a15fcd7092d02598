#!/usr/bin/env bash
# ASE calculators of dftd4 4.3.1 and tblite 0.8.0 on a slab, atoms.pbc = (True, True, False), beside dftd3 1.7.0; ase 3.29.0.
# Expected: the third cell vector, not periodic, has no influence. Seen: that holds for dftd3; dftd4 and tblite take any periodic
# structure as periodic in all three directions: equal energies to (True, True, True), images 6 Å above and below.
# Whoever relaxes a slab whose file has a short third vector gets a layered crystal, without a word.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT; cd "$place"
python3 -m venv v
v/bin/pip install --quiet --disable-pip-version-check ase==3.29.0 dftd3==1.7.0 dftd4==4.3.1 tblite==0.8.0 2>/dev/null
OMP_NUM_THREADS=1 v/bin/python -W ignore - <<'PY'
from ase.build import graphene
from dftd3.ase import DFTD3
from dftd4.ase import DFTD4
from tblite.ase import TBLite

CALCULATORS = {
    "dftd3": lambda: DFTD3(method="pbe", damping="d3bj"),
    "dftd4": lambda: DFTD4(method="pbe"),
    "tblite": lambda: TBLite(method="GFN1-xTB", verbosity=0),
}


def energy(name, height, periodic):
    """Energy of eight atoms of graphene, third cell vector of `height`, in eV."""
    atoms = graphene(size=(2, 2, 1), vacuum=8.0)
    cell = atoms.cell.array.copy()
    cell[2, 2] = height
    atoms.set_cell(cell)
    atoms.positions[:, 2] = height / 2
    atoms.pbc = periodic
    atoms.calc = CALCULATORS[name]()
    return atoms.get_potential_energy()


slab, crystal = (True, True, False), (True, True, True)
length, flag = {}, {}
for name in CALCULATORS:
    length[name] = energy(name, 6.0, slab) - energy(name, 16.0, slab)
    flag[name] = energy(name, 6.0, slab) - energy(name, 6.0, crystal)
    print(f"{name}: third vector 6 Å minus 16 Å {length[name] * 1000:8.3f} meV; slab minus crystal at 6 Å {flag[name] * 1000:8.3f} meV")
right = abs(length["dftd3"]) < 1e-9 and flag["dftd3"] > 0.05
wrong = all(abs(length[name]) > 0.02 and abs(flag[name]) < 1e-9 for name in ("dftd4", "tblite"))
raise SystemExit(0 if right and wrong else "changed")
PY
