#!/usr/bin/env bash
# i-PI 3.3.1, <file mode='xyz' units='angstrom'> and a comment line `# CELL(abcABC): 20 20 20 90 90 90` that names no unit.
# The help of <file> says of `units`: "The unit conversion will only be applied to the positions and cell parameters".
# Expected: positions and cell are in Å. Seen: the positions are, the cell is taken in bohr (10.58 Å) and no line of the log
# says so. cell_units='angstrom' or `positions{angstrom} cell{angstrom}` in the comment line gives 20 Å.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT; cd "$place"
python3 -m venv v
v/bin/pip install --quiet --disable-pip-version-check ipi==3.3.1 2>/dev/null
see() { # name, attributes of <file>, rest of the comment line
    printf '2\n# CELL(abcABC): 20 20 20 90 90 90 %s\nAr 0 0 0\nAr 7 0 0\n' "$3" > "$1.xyz"
    cat > "$1.xml" <<XML
<simulation verbosity='medium'>
  <output prefix='$1'>
    <properties filename='out'> [cell_h{angstrom}, atom_x{angstrom}(1)] </properties>
  </output>
  <total_steps>1</total_steps>
  <ffdirect name='none'><pes>dummy</pes></ffdirect>
  <system>
    <initialize nbeads='1'><file mode='xyz' $2>$1.xyz</file></initialize>
    <forces><force forcefield='none'/></forces>
    <ensemble><temperature units='kelvin'>100</temperature></ensemble>
    <motion mode='dynamics'><dynamics mode='nve'/></motion>
  </system>
</simulation>
XML
    v/bin/i-pi "$1.xml" > "$1.log" 2>&1
    grep -v '^#' "$1.out" | head -1 | awk -v name="$1" '{ printf "%s: cell %.2f Å, second atom at x = %.2f Å\n", name, $1, $7 }'
}
{
    see units "units='angstrom'" ""
    see cell_units "units='angstrom' cell_units='angstrom'" ""
    see comment "" "positions{angstrom} cell{angstrom}"
} | tee seen.txt
grep -Ei 'cell.*(warn|bohr|atomic)|W!.*cell' units.log && { echo "changed: the log speaks of the cell"; exit 1; }
diff - seen.txt <<'TXT'
units: cell 10.58 Å, second atom at x = 7.00 Å
cell_units: cell 20.00 Å, second atom at x = 7.00 Å
comment: cell 20.00 Å, second atom at x = 7.00 Å
TXT
