#!/usr/bin/env bash
# i-PI 3.3.1, the property `temperature` with <fixatoms>: "the current temperature, as obtained from the MD kinetic energy".
# Eight free atoms and four fixed ones in an NVE run with no forces. Expected: 2K / (24 k_B), 917 K from kinetic_md, whatever
# temperature the ensemble names (nothing couples to it in NVE). Seen: each fixed degree of freedom counts as if it moved
# at the ensemble's temperature, (2K/k_B + 12 T_ensemble) / 36: 645 K where the ensemble says 100 K, and 745 K with 400 K.
# So a hot or cold system with fixed atoms looks nearer to its target than it is, and NVE temperatures depend on the input.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT; cd "$place"
python3 -m venv v
v/bin/pip install --quiet --disable-pip-version-check ipi==3.3.1 2>/dev/null
{ printf '12\n# CELL{abcABC}: 20 20 20 90 90 90\n'; for k in $(seq 12); do echo "Ar $k 0 0"; done; } > start.xyz
for target in 100 400; do
    cat > "$target.xml" <<XML
<simulation verbosity='quiet'>
  <output prefix='$target'><properties stride='1' filename='out'> [temperature{kelvin}, kinetic_md{kelvin}] </properties></output>
  <total_steps>1</total_steps>
  <prng><seed>5</seed></prng>
  <ffdirect name='none'><pes>dummy</pes></ffdirect>
  <system>
    <initialize nbeads='1'>
      <file mode='xyz' units='angstrom' cell_units='angstrom'>start.xyz</file>
      <velocities mode='thermal' units='kelvin'>1000</velocities>
    </initialize>
    <forces><force forcefield='none'/></forces>
    <ensemble><temperature units='kelvin'>$target</temperature></ensemble>
    <motion mode='dynamics'>
      <fixatoms>[0, 1, 2, 3]</fixatoms>
      <dynamics mode='nve'><timestep units='femtosecond'>0.1</timestep></dynamics>
    </motion>
  </system>
</simulation>
XML
    v/bin/i-pi "$target.xml" > "$target.log" 2>&1
done
v/bin/python - <<'PY'
as_seen = True
for target in (100, 400):
    rows = [line.split() for line in open(f"{target}.out") if not line.startswith("#")]
    temperature, kinetic = (float(x) for x in rows[-1])
    free, counted = 2 * kinetic / 24, (2 * kinetic + 12 * target) / 36
    print(f"ensemble {target} K: temperature {temperature:.1f} K; 2K/(24 k_B) = {free:.1f} K; with 12 more at {target} K {counted:.1f} K")
    as_seen &= abs(temperature - counted) < 0.1 and abs(temperature - free) > 100
raise SystemExit(0 if as_seen else "changed")
PY
