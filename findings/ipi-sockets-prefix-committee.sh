#!/usr/bin/env bash
# i-PI 3.3.1, `i-pi -S PREFIX` with a <ffsocket> inside <ffcommittee>. The help of sockets_prefix: "A prefix prepended to
# the `address` value to form the UNIX-domain socket location".
# Expected: every <ffsocket mode='unix'> of the input listens at PREFIX + address. Seen: the one on the top level does, the
# member of a committee listens at i-PI's default, /tmp/ipi_ + address, so drivers started with the same -S don't find it,
# and runs that share an address, or lack a writable /tmp, meet just what the option is there to avoid. Nothing warns.
set -euo pipefail
place=$(mktemp -d); cd "$place"
name=find$$
trap 'kill -INT $server 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$place" "/tmp/ipi_$name-member"' EXIT
python3 -m venv v
v/bin/pip install --quiet --disable-pip-version-check ipi==3.3.1 2>/dev/null
printf '1\n# CELL(abcABC): 20 20 20 90 90 90 positions{angstrom} cell{angstrom}\nAr 0 0 0\n' > start.xyz
cat > in.xml <<XML
<simulation verbosity='medium'>
  <output prefix='s'/>
  <total_steps>1</total_steps>
  <ffsocket name='alone' mode='unix'><address>$name-alone</address></ffsocket>
  <ffcommittee name='both'>
    <ffsocket name='member' mode='unix'><address>$name-member</address></ffsocket>
  </ffcommittee>
  <system>
    <initialize nbeads='1'><file mode='xyz'>start.xyz</file></initialize>
    <forces><force forcefield='alone'/><force forcefield='both'/></forces>
    <ensemble><temperature units='kelvin'>100</temperature></ensemble>
    <motion mode='dynamics'><dynamics mode='nve'/></motion>
  </system>
</simulation>
XML
v/bin/i-pi -S "$place/s_" in.xml > log 2>&1 & server=$!
for _ in $(seq 100); do
    [ "$(grep -c 'Created unix socket' log)" = 2 ] && break
    sleep 0.3
done
at() { for p in "$place/s_" /tmp/ipi_; do [ -S "$p$name-$1" ] && echo "${p/"$place/"/PREFIX }"; done; true; }
echo "alone: $(at alone)" | tee seen.txt
echo "member: $(at member)" | tee -a seen.txt
printf 'alone: PREFIX s_\nmember: /tmp/ipi_\n' | diff - seen.txt || { echo changed; exit 1; }
