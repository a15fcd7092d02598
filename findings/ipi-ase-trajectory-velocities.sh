#!/usr/bin/env bash
# i-PI 3.3.1, <trajectory format='ase'>, read by ASE 3.29.0. Expected of an extended XYZ file of forces or velocities "using
# the Atomic Simulation Environment": frames whose atoms stand where they are and have these forces or velocities. Seen: the
# pos column of both is 0 0 0 for every atom; the forces arrive in a calculator of atoms that all sit at the origin, and the
# velocities, in a column `velocities`, are not the atoms': get_velocities() is zero and get_temperature() 0 K, no warning.
# A fit to the forces file sees one structure, with all atoms in one point; the positions have to be merged by hand.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT; cd "$place"
python3 -m venv v
v/bin/pip install --quiet --disable-pip-version-check ipi==3.3.1 ase==3.29.0 2>/dev/null
printf '2\n# CELL(abcABC): 20 20 20 90 90 90 positions{angstrom} cell{angstrom}\nAr 1 0 0\nAr 5 0 0\n' > start.xyz
cat > in.xml <<'XML'
<simulation verbosity='quiet'>
  <output prefix='x'>
    <trajectory filename='pos' format='ase'> positions </trajectory>
    <trajectory filename='for' format='ase'> forces </trajectory>
    <trajectory filename='vel' format='ase'> velocities </trajectory>
    <properties filename='out'> [temperature{kelvin}] </properties>
  </output>
  <total_steps>1</total_steps>
  <prng><seed>5</seed></prng>
  <ffdirect name='spring'><pes>harmonic</pes><parameters>{k1: 0.001}</parameters></ffdirect>
  <system>
    <initialize nbeads='1'>
      <file mode='xyz'>start.xyz</file>
      <velocities mode='thermal' units='kelvin'>300</velocities>
    </initialize>
    <forces><force forcefield='spring'/></forces>
    <ensemble><temperature units='kelvin'>300</temperature></ensemble>
    <motion mode='dynamics'><dynamics mode='nve'/></motion>
  </system>
</simulation>
XML
v/bin/i-pi in.xml > log 2>&1
echo "i-PI: temperature $(grep -v '^#' x.out | head -1) K"
v/bin/python -W error - <<'PY'
import ase.io

seen = []
for name in ("pos", "for", "vel"):
    atoms = ase.io.read(f"x.{name}_0.extxyz", index=0, format="extxyz")
    forces = atoms.get_forces()[:, 0].round(3).tolist() if atoms.calc else None
    seen.append((atoms.positions[:, 0].round(3).tolist(), forces and forces[0] != 0, atoms.get_temperature()))
    print(f"{name}: x of the atoms {seen[-1][0]}, forces {forces}, {seen[-1][2]:.0f} K, arrays {sorted(atoms.arrays)}")
expected = [([1.0, 5.0], None, 0.0), ([0.0, 0.0], True, 0.0), ([0.0, 0.0], None, 0.0)]
raise SystemExit(0 if seen == expected else f"changed: {seen}")
PY
