#!/usr/bin/env bash
# The equivariant layer norm of nequix 0.4.5 (JAX, e3nn-jax 0.21.0), in all its published models.
# Expected: as its comments say and as in EquiformerV2, from which it is taken: the square of the norm over the 2l+1 components
# of a channel, divided by 2l+1 and by the number of irreps, then the mean over the channels. The scale would not depend on the number of
# channels.
# Seen: chunks of e3nn-jax are (…, channels, components), so that `sum(axis=-2)` runs over the channels and `mean(axis=-1)` over the
# components: features of 16 equal channels come out 4 times smaller than those of one channel, and a vector counts 3⁻² and not 3⁻¹. A
# reimplementation after the comments gives other energies from the same weights (tens of eV for Nequix-MP-1).
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT; cd "$place"
python3 -m venv v
v/bin/pip install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2 e3nn-jax==0.21.0 equinox==0.13.8 jraph==0.0.6.dev0 2>/dev/null
v/bin/pip install --quiet --disable-pip-version-check --no-deps nequix==0.4.5 2>/dev/null
v/bin/python - <<'PY'
import importlib.metadata

import e3nn_jax as e3nn
import jax.numpy as jnp
from nequix.layer_norm import RMSLayerNorm


def size(irreps: str) -> float:
    """Of every output channel, for features whose channels all have norm 1."""
    irreps = e3nn.Irreps(irreps)
    norm = RMSLayerNorm(irreps, centering=False)
    one = [jnp.zeros((mul, ir.dim)).at[:, 0].set(1.0) for mul, ir in irreps]
    return float(jnp.abs(norm(e3nn.from_chunks(irreps, one, ())).chunks[0]).max())


sizes = {irreps: size(irreps) for irreps in ("1x0e", "16x0e", "1x1o", "16x1o")}
expected = {"1x0e": 1.0, "16x0e": 1.0, "1x1o": 3**0.5, "16x1o": 3**0.5}
print(f"nequix {importlib.metadata.version('nequix')}")
for irreps, value in sizes.items():
    print(f"{irreps:>6}: {value:.4f} (mean over channels, sum over components / (2l+1): {expected[irreps]:.4f})")
seen = {"1x0e": 1.0, "16x0e": 0.25, "1x1o": 3.0, "16x1o": 0.75}
raise SystemExit(0 if all(abs(sizes[k] - seen[k]) < 1e-5 for k in seen) else "changed")
PY
