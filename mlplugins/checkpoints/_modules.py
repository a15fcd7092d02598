"""Networks pickled as a tree of modules, walked as records (shared by several readers)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from mlplugins.checkpoints.unpickle import Stub

GRAPH = "torch.fx.graph_module.reduce_graph_module"
MAX_MODULES = 20_000
"""A model has some hundred modules; a forged file could have one contain itself."""


def fields(module: Any) -> dict[str, Any]:
    """Attributes of a module in the file."""
    if not isinstance(module, Stub):
        raise TypeError(f"{module!r} is not a module")
    found = module.arguments[0] if module.name == GRAPH else module.state
    if not isinstance(found, dict) or not isinstance(found.get("_modules"), dict):
        raise TypeError(f"{module!r} is not a module")
    return found


def child(module: Stub, name: str) -> Stub:
    """The child of this name."""
    found: Stub = fields(module)["_modules"][name]
    return found


def children(module: Stub) -> list[Stub]:
    """All children, in order."""
    return [found for found in fields(module)["_modules"].values() if found is not None]


def modules(root: Stub) -> Iterator[tuple[str, Stub]]:
    """All modules below `root` and itself, with their dotted names, parents first."""
    waiting = [("", root)]
    for _ in range(MAX_MODULES):
        if not waiting:
            return
        prefix, module = waiting.pop()
        yield prefix, module
        below = fields(module)["_modules"].items()
        waiting += [(f"{prefix}{name}.", found) for name, found in below if found is not None][::-1]
    raise ValueError(f"more than {MAX_MODULES} modules")


def tensors(root: Stub, constants: bool = False) -> Iterator[tuple[str, Tensor]]:
    """The entries of the model's `state_dict()`, without those inside compiled code.

    Args:
        root: the network.
        constants: also the buffers that are not part of a state_dict.
    """
    for prefix, module in modules(root):
        found = fields(module)
        unsaved = () if constants else found.get("_non_persistent_buffers_set", ())
        for kind in ("_parameters", "_buffers"):
            for name, tensor in found.get(kind, {}).items():
                if tensor is not None and name not in unsaved:
                    if not isinstance(tensor, Tensor):
                        raise TypeError(f"'{prefix}{name}' is not a tensor")
                    yield f"{prefix}{name}", tensor
