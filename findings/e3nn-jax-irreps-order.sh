#!/usr/bin/env bash
# Sorted irreps in e3nn 0.6.0 (torch) and e3nn-jax 0.21.0, two implementations of one library with the same notation.
# Expected: Irreps("0e+0o+1e+1o+2e+2o").sort() is the same in both. Seen: e3nn puts odd before even at every l (0o, 0e, 1o,
# 1e, 2o, 2e), e3nn-jax the true tensors first (0e, 0o, 1o, 1e, 2e, 2o; it also is the order of e3nn's own Irrep.iterator).
# Spherical harmonics and Clebsch-Gordan coefficients agree. A network whose layers sort their features, with both parities, has
# rows of weights of the same shapes in another order: ported by position they load without an error and mean something else.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT; cd "$place"
python3 -m venv v
v/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 2>/dev/null
v/bin/pip install --quiet --disable-pip-version-check e3nn==0.6.0 e3nn-jax==0.21.0 2>/dev/null
v/bin/python -W ignore - <<'PY'
import e3nn_jax
import numpy as np
from e3nn import o3

text, seen = "4x0e+4x0o+4x1e+4x1o+4x2e+4x2o", {}
for name, irreps in (("e3nn", o3.Irreps(text)), ("e3nn-jax", e3nn_jax.Irreps(text))):
    seen[name] = [str(ir) for _, ir in irreps.sort().irreps]
    print(f"{name}: {seen[name]}")
natural = [str(ir) for ir, _ in zip(o3.Irrep.iterator(), range(6))]
print(f"e3nn, Irrep.iterator: {natural}")
apart = max(
    float(np.abs(o3.wigner_3j(*ls).numpy() - np.asarray(e3nn_jax.clebsch_gordan(*ls))).max())
    for ls in ((1, 1, 1), (1, 1, 2), (2, 2, 2), (1, 2, 3))
)
print(f"largest difference of coupling coefficients: {apart:.1e}")
as_seen = seen == {"e3nn": ["0o", "0e", "1o", "1e", "2o", "2e"], "e3nn-jax": ["0e", "0o", "1o", "1e", "2e", "2o"]}
raise SystemExit(0 if as_seen and natural == seen["e3nn-jax"] and apart < 1e-6 else "changed")
PY
