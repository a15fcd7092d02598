"""e3nn's irreps and Clebsch–Gordan coefficients, without loading torch's compiler.

e3nn keeps one function out of torch.compile, with a decorator that imports all of torch._dynamo, which takes
twice as long as the rest of e3nn. A mark on the function says the same.
"""

from typing import Any, Callable

import torch


def _disable(function: Callable[..., Any]) -> Callable[..., Any]:
    function._torchdynamo_disable = True  # type: ignore[attr-defined]
    return function


_imports_dynamo = torch.compiler.disable
torch.compiler.disable = _disable  # type: ignore[assignment]
try:
    from e3nn import o3
    from e3nn.math import normalize2mom
finally:
    torch.compiler.disable = _imports_dynamo

__all__ = ["normalize2mom", "o3"]
