"""The ops of mlplugins models: compiled (libmlplugins_ops) if built, else their plain-torch reference."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_NAMESPACE = "mlplugins"
_fallback: list[object] = []  # keeps the Python definitions alive


def load() -> str:
    """Make `torch.ops.mlplugins.*` available; call it before `torch.jit.load`.

    The compiled library is loaded if `mlplugins build` made a current one and `MLPLUGINS_OPS` is not `off`;
    otherwise the plain-torch reference is registered under the same names. Later calls change nothing.

    Returns:
        `"compiled"` or `"reference"`.

    >>> load() in ("compiled", "reference")
    True
    >>> import torch
    >>> torch.ops.mlplugins.ghost_exchange(torch.ones(2, 3)).shape
    torch.Size([2, 3])
    """
    import torch

    from mlplugins.ops import build

    if _fallback:
        return "reference"
    library = build.ops_library()
    if library is not None:
        try:
            torch.ops.load_library(str(library))
            return "compiled"
        except OSError as error:
            warnings.warn(
                f"cannot load {library}: {error}. Run `mlplugins build --force`; until then the slower "
                "plain-torch ops are used.",
                RuntimeWarning,
                stacklevel=2,
            )
    if hasattr(torch.ops.mlplugins, "ghost_exchange"):  # LAMMPS in this process brought the library
        return "compiled"
    _register_reference()
    return "reference"


def _register_reference() -> None:
    import torch

    from mlplugins.ops import reference

    library = torch.library.Library(_NAMESPACE, "FRAGMENT")
    for schema, function in (
        ("convolution(Tensor h, Tensor y, Tensor w, {graph}) -> Tensor", reference.convolution),
        (
            "radial_convolution(Tensor h, Tensor y, Tensor[] radial, Tensor[] weights, {graph}) -> Tensor",
            reference.radial_convolution,
        ),
        (
            "table_convolution(Tensor h, Tensor y, Tensor x, Tensor knots, {graph}) -> Tensor",
            reference.table_convolution,
        ),
        (
            "edge_rows(Tensor centers, Tensor neighbors, Tensor vectors) -> (Tensor first, Tensor row)",
            reference.edge_rows,
        ),
        (
            "symmetric_contraction(Tensor x, Tensor coefficients, Tensor species, Tensor monomials, "
            "int n_out) -> Tensor",
            reference.symmetric_contraction,
        ),
        ("linear(Tensor x, Tensor[] weights, int[] terms, int n_out) -> Tensor", reference.linear),
        (
            "kernel_sum(Tensor q, Tensor packed, Tensor values, str kernel, float sigma) "
            "-> (Tensor energy, Tensor gradient)",
            reference.kernel_sum,
        ),
        (
            "molecular_kernel(Tensor positions, Tensor[] tables, str kernel, float sigma) "
            "-> (Tensor energy, Tensor gradient, Tensor farthest)",
            reference.molecular_kernel,
        ),
        ("ghost_exchange(Tensor h) -> Tensor", _ghost_exchange),
    ):
        library.define(schema.format(graph="Tensor[] edges, int n_centers, Tensor[] tables"))
        library.impl(schema.partition("(")[0], function, "CompositeImplicitAutograd")
    _fallback.append(library)


def _ghost_exchange(h: Tensor) -> Tensor:
    return h.clone()
