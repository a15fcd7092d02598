#!/usr/bin/env bash
# metatomic-torch 0.1.19, WeightedSum.wrap(load_atomistic_model(file), …) of a model whose requested_neighbor_lists() is not
# decorated with @torch.jit.export (the help of ModelInterface names no decorator). The help of wrap: "The original metadata,
# requested inputs, neighbor lists, and compatible capabilities are preserved". Expected: it asks for the list that the
# loaded model asks for, as DFTD3.wrap of it does (plus its own). Seen: it asks for none. TorchScript drops the undecorated
# method of the saved inner module, where wrap looks for it; nothing warns, and the first evaluation ends with "No neighbor
# list … was found". Wrapping the model before saving works.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT; cd "$place"
python3 -m venv v
v/bin/pip install --quiet --disable-pip-version-check metatomic-torch==0.1.19 torch==2.13.0 numpy 2>/dev/null
cat > model.py <<'PY'
from typing import Dict, List, Optional

import torch
from metatensor.torch import Labels, TensorBlock, TensorMap
from metatomic.torch import ModelOutput, NeighborListOptions, System


class Pairs(torch.nn.Module):
    """The sum of 1/r^6 over the pairs of each system, as two variants of an energy."""

    def __init__(self):
        super().__init__()
        self.pairs = NeighborListOptions(cutoff=4.0, full_list=False, strict=True)

    def requested_neighbor_lists(self) -> List[NeighborListOptions]:
        return [self.pairs]

    def forward(
        self, systems: List[System], outputs: Dict[str, ModelOutput], selected_atoms: Optional[Labels]
    ) -> Dict[str, TensorMap]:
        energy = torch.zeros(len(systems), 1, dtype=torch.float64)
        for k, system in enumerate(systems):
            energy[k] += (system.get_neighbor_list(self.pairs).values.squeeze(-1) ** 2).sum(dim=1).pow(-3).sum()
        one = torch.zeros(1, 1, dtype=torch.int64)
        rows = Labels(["system"], torch.arange(len(systems)).reshape(-1, 1))
        results: Dict[str, TensorMap] = {}
        for name in outputs.keys():
            block = TensorBlock(energy, rows, torch.jit.annotate(List[Labels], []), Labels(["energy"], one))
            results[name] = TensorMap(Labels(["_"], one), [block])
        return results
PY
cat > see.py <<'PY'
import metatomic.torch as mta
import torch
from metatomic.torch.dftd3 import DFTD3
from metatomic.torch.weighted_sum import WeightedSum
from model import Pairs

outputs = {name: mta.ModelOutput(unit="eV", sample_kind="system", description=name) for name in ("energy/a", "energy/b")}
model = mta.AtomisticModel(
    Pairs().eval(),
    mta.ModelMetadata(),
    mta.ModelCapabilities(
        outputs=outputs, atomic_types=[18], interaction_range=4.0, length_unit="Angstrom",
        supported_devices=["cpu"], dtype="float64",
    ),
)
model.save("pairs.pt")
loaded = mta.load_atomistic_model("pairs.pt")
weights = {"energy/a": 0.5, "energy/b": 0.5}
damping = {"energy/a": {"a1": 0.4, "a2": 4.4, "s8": 0.8}}
mixed = WeightedSum.wrap(loaded, "energy/mix", weights)
lists = {
    "loaded": loaded,
    "DFTD3.wrap(loaded)": DFTD3.wrap(loaded, damping_params=damping, cutoff=9.0, cn_cutoff=8.0),
    "WeightedSum.wrap(before saving)": WeightedSum.wrap(model, "energy/mix", weights),
    "WeightedSum.wrap(loaded)": mixed,
}
seen = {name: len(m.requested_neighbor_lists()) for name, m in lists.items()}
for name, number in seen.items():
    print(f"{name}: asks for {number} neighbour list(s)")
system = mta.System(
    types=torch.tensor([18, 18]), positions=torch.tensor([[0.0, 0, 0], [3, 0, 0]], dtype=torch.float64),
    cell=torch.zeros(3, 3, dtype=torch.float64), pbc=torch.zeros(3, dtype=torch.bool),
)
options = mta.ModelEvaluationOptions(length_unit="Angstrom", outputs={"energy/mix": outputs["energy/a"]})
try:
    said = mixed([system], options, check_consistency=True)
except Exception as error:
    said = [line for line in str(error).splitlines() if "No neighbor list" in line][-1].strip()
print("with the lists it asks for:", said)
raise SystemExit(0 if list(seen.values()) == [1, 2, 1, 0] and "No neighbor list" in str(said) else "changed")
PY
v/bin/python -W ignore see.py
