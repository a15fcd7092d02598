#!/usr/bin/env bash
# dftd3 1.7.0 (s-dftd3), its ASE calculator with a functional's name and with the same functional's numbers. fcc argon.
# Expected: DFTD3(method="PBE", damping="d3bj") and params_tweaks with the published s6, s8, a1 and a2 of PBE give one energy,
# that of D3(BJ) as published, without a three-body term. Seen: by name s9 is 0, by numbers s9 is 1 unless it is written
# too: -87.0 against -84.9 meV. It also is so where method="PBE" stands beside the numbers. An own or revised fit
# that was made without the three-body term silently gets it, in forces and stress as well.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT; cd "$place"
python3 -m venv v
v/bin/pip install --quiet --disable-pip-version-check dftd3==1.7.0 ase==3.29.0 2>/dev/null
v/bin/python - <<'PY'
from ase.build import bulk
from dftd3.ase import DFTD3

pbe = {"s6": 1.0, "s8": 0.7875, "a1": 0.4289, "a2": 4.4407}
asked = {
    "name": {"method": "PBE"},
    "numbers": {"params_tweaks": pbe},
    "name and numbers": {"method": "PBE", "params_tweaks": pbe},
    "numbers, s9 = 0": {"params_tweaks": {**pbe, "s9": 0.0}},
    "numbers, s9 = 1": {"params_tweaks": {**pbe, "s9": 1.0}},
}
energy = {}
for name, given in asked.items():
    atoms = bulk("Ar", "fcc", 5.3)
    atoms.calc = DFTD3(damping="d3bj", **given)
    energy[name] = atoms.get_potential_energy()
    print(f"{name}: {1000 * energy[name]:.4f} meV")
same = lambda a, b: abs(energy[a] - energy[b]) < 1e-9  # noqa: E731
as_seen = (
    same("name", "numbers, s9 = 0") and same("numbers", "numbers, s9 = 1") and same("name and numbers", "numbers")
    and energy["numbers"] - energy["name"] > 0.002
)
raise SystemExit(0 if as_seen else "changed")
PY
