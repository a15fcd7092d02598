"""torch's own checks (`torch.library.opcheck`) of every op; one form of the ops in each process.

    python -m tests.ops.check_ops compiled|reference [first|all]

They compare the schema with what the op does, ask for derivatives at an autograd key, compare shapes without
values with those with values, and compare results and gradients in a graph of symbolic sizes (what
torch.compile does) with those outside it. `first`: of each op the first case.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor

from mlplugins import ops
from tests.ops import cases

LAST_DERIVATIVES = {
    "gate_backward",
    "harmonics_backward",
    "radial_convolution_backward",
    "table_convolution_backward",
    "symmetric_contraction_double_backward",
    "pair_sum_backward",
    "near_pairs",
}
"""Not differentiable further: second derivatives of convolutions, pair sums, gates and harmonics take another
way, third ones of the contraction do not exist, and the last is for inference. In a graph they are checked
without gradients; asking for these must be refused, see `main`."""


def main(form: str, which: str = "all") -> None:
    if ops.load() != form:
        sys.exit(f"the ops are not the {form} ones")
    torch.set_num_threads(1)
    for case, arguments in cases.arguments().items():
        name = case.partition(" ")[0]
        if which == "first" and case != name:
            continue
        if form == "reference" and name in cases.ONLY_COMPILED:
            if hasattr(torch.ops.mlplugins, name):
                sys.exit(f"{name} is registered")
            continue
        op = cases.operator(case)
        if form == "compiled" and name in LAST_DERIVATIVES:  # else it has no such op or no gradients
            torch.library.opcheck(op, arguments, test_utils=("test_schema", "test_autograd_registration"))
            torch.library.opcheck(op, cases.detached(arguments))
            if not _refuses_gradients(op, arguments):
                sys.exit(f"{case}: gradients of gradients are not refused")
        else:
            torch.library.opcheck(op, arguments)
        print(case)


def _refuses_gradients(op: Any, arguments: cases.Arguments) -> bool:
    leaf = next(a for a in arguments if isinstance(a, Tensor) and a.requires_grad)
    try:
        torch.autograd.grad(next(t for t in op(*arguments) if t.is_floating_point()).sum(), leaf)
    except NotImplementedError as error:
        return "are not implemented" in str(error)
    return False


if __name__ == "__main__":
    main(*sys.argv[1:])
