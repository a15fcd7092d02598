"""The smallest metatomic model: the energy is a constant."""

from typing import Dict, List, Optional

import torch
from metatensor.torch import Labels, TensorBlock, TensorMap
from metatomic.torch import ModelOutput, System


class Constant(torch.nn.Module):
    def forward(
        self,
        systems: List[System],
        outputs: Dict[str, ModelOutput],
        selected_atoms: Optional[Labels] = None,
    ) -> Dict[str, TensorMap]:
        n = len(systems)
        block = TensorBlock(
            torch.ones(n, 1, dtype=torch.float64),
            Labels(["system"], torch.arange(n, dtype=torch.int32).reshape(-1, 1)),
            torch.jit.annotate(List[Labels], []),
            Labels("energy", torch.zeros(1, 1, dtype=torch.int32)),
        )
        return {"energy": TensorMap(Labels("_", torch.zeros(1, 1, dtype=torch.int32)), [block])}
