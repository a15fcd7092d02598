#!/usr/bin/env bash
# pymatgen 2026.10.24, AseAtomsAdaptor, and velocities. Two argon atoms with 0.01 Å/fs in a POSCAR.
# Expected: the velocities that pymatgen reads into site_properties["velocities"] are those of the Atoms (1602 K, as ASE 3.29.0
# reads the same file), and those of Atoms come back as velocities, which Poscar writes. Seen: get_atoms gives atoms at rest,
# 0 K, without a warning. The other way round get_structure keeps ASE's momenta under a name of its own, "momenta", which
# Poscar does not write: the file has no velocities. MD continued through either conversion starts cold.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT; cd "$place"
python3 -m venv v
v/bin/pip install --quiet --disable-pip-version-check pymatgen==2026.10.24 ase==3.29.0 2>/dev/null
v/bin/python -W ignore - <<'PY'
import ase.io
from pymatgen.core import Lattice, Structure
from pymatgen.io.ase import AseAtomsAdaptor
from pymatgen.io.vasp import Poscar

argon = Structure(Lattice.cubic(5), ["Ar", "Ar"], [[0, 0, 0], [0.5, 0.5, 0.5]])
Poscar(argon, velocities=[[0.01, 0, 0], [-0.01, 0, 0]]).write_file("POSCAR")
read = Poscar.from_file("POSCAR").structure
by_ase, by_pymatgen = ase.io.read("POSCAR"), AseAtomsAdaptor.get_atoms(read)
print(f"POSCAR by ASE: {by_ase.get_temperature():.0f} K")
print(f"POSCAR by pymatgen: {read.site_properties}; converted: {by_pymatgen.get_temperature():.0f} K")
back = AseAtomsAdaptor.get_structure(by_ase)
Poscar(back).write_file("POSCAR.back")
print(f"Atoms to pymatgen: {back.site_properties}; written: {ase.io.read('POSCAR.back').get_temperature():.0f} K")
as_seen = (
    by_ase.get_temperature() > 1600 and "velocities" in read.site_properties and by_pymatgen.get_temperature() == 0
    and list(back.site_properties) == ["momenta"] and ase.io.read("POSCAR.back").get_temperature() == 0
)
raise SystemExit(0 if as_seen else "changed")
PY
