#!/usr/bin/env bash
# nequip 0.19.1, the pair potentials that a model's option `pair_potential` can name: nequip.nn.pair_potential.ZBL, LennardJones, SimpleLennardJones.
# A small model of argon, two atoms, torch 2.13.0. Expected: one total energy, with any of them.
# Seen: that holds without one and with ZBL. With LennardJones the total energy of two edges has the shape (1, 2, 2): lengths are columns,
# σ and ε rows, and their product is every edge with every other. SimpleLennardJones cannot be built from a model's options:
# the builder passes the names of the types, which it does not take.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT; cd "$place"
python3 -m venv v
v/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 2>/dev/null
v/bin/pip install --quiet --disable-pip-version-check nequip==0.19.1 2>/dev/null
OMP_NUM_THREADS=1 v/bin/python -W ignore - <<'PY'
import torch
from nequip.model import NequIPGNNModel
from nequip.utils.global_state import set_global_state

set_global_state()
PLACE, ARGON = "nequip.nn.pair_potential.", {"lj_sigma": 3.4, "lj_epsilon": 0.0104}
PAIRS = {
    "none": None,
    "ZBL": {"_target_": PLACE + "ZBL", "units": "metal", "chemical_species": ["Ar"]},
    "LennardJones": {"_target_": PLACE + "LennardJones", **ARGON},
    "SimpleLennardJones": {"_target_": PLACE + "SimpleLennardJones", **ARGON},
}
COMMON = {"seed": 1, "model_dtype": "float64", "r_max": 5.0, "type_names": ["Ar"], "l_max": 1, "num_layers": 1, "num_features": 2}
COMMON |= {"radial_mlp_depth": 1, "radial_mlp_width": 4, "parity": False, "avg_num_neighbors": 5.0}
seen = {}
for name, pair in PAIRS.items():
    try:
        model = NequIPGNNModel(**COMMON, **({} if pair is None else {"pair_potential": pair}))
    except Exception as error:
        seen[name] = "not built" if "type_names" in str(error) else f"another error: {error}"
    else:
        positions = torch.tensor([[0.0, 0.0, 0.0], [3.5, 0.0, 0.0]], dtype=torch.float64)
        none = torch.zeros(2, dtype=torch.long)
        data = {"pos": positions, "edge_index": torch.tensor([[0, 1], [1, 0]]), "atom_types": none, "batch": none, "num_atoms": torch.tensor([2])}
        try:
            seen[name] = tuple(model(data)["total_energy"].shape)
        except Exception as error:
            seen[name] = f"{type(error).__name__}: {error}"
    print(f"{name}: total energy {seen[name]}")
expected = {"none": (1, 1), "ZBL": (1, 1), "LennardJones": (1, 2, 2), "SimpleLennardJones": "not built"}
raise SystemExit(0 if seen == expected else "changed")
PY
