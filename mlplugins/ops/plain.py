"""The ops registered from Python, where the compiled library is not: the reference, on every device.

Most are followed into by torch, which differentiates and compiles what it finds there. The convolution reads
numbers from its tables; where they have none (torch.compile, fake tensors) it stays an op of its own.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from mlplugins.ops import reference

if TYPE_CHECKING:
    from collections.abc import Callable

_GRAPH = "Tensor[] edges, int n_centers, Tensor[] tables"


def register() -> torch.library.Library:
    """Define all ops; they live as long as what is returned."""
    library = torch.library.Library("mlplugins", "FRAGMENT")
    for schema, function in FOLLOWED.items():
        library.define(schema)
        library.impl(schema.partition("(")[0], function, "CompositeImplicitAutograd")
    library.define(f"convolution(Tensor h, Tensor y, Tensor w, {_GRAPH}) -> Tensor")
    library.impl("convolution", reference.convolution, "CompositeExplicitAutograd")
    library.impl("convolution", _convolution, "Autograd")
    library.define(
        f"convolution_backward(Tensor g, Tensor h, Tensor y, Tensor w, {_GRAPH}, bool[3] wanted) "
        "-> (Tensor, Tensor, Tensor)"
    )
    library.impl("convolution_backward", _convolution_backward, "Autograd")
    return library


def _radial_convolution(
    h: Tensor,
    y: Tensor,
    radial: list[Tensor],
    weights: list[Tensor],
    edges: list[Tensor],
    n_centers: int,
    tables: list[Tensor],
) -> Tensor:
    w = reference.perceptron(radial[1], weights)
    return torch.ops.mlplugins.convolution(h, y, w, edges, n_centers, tables)


def _table_convolution(
    h: Tensor,
    y: Tensor,
    x: Tensor,
    knots: Tensor,
    edges: list[Tensor],
    n_centers: int,
    tables: list[Tensor],
) -> Tensor:
    w = reference.interpolate(x, knots, edges)
    return torch.ops.mlplugins.convolution(h, y, w, edges[:2], n_centers, tables)


class _Copies(NamedTuple):
    """A row of its own for every edge: the node it is a copy of (E,), and the copies of every exchange."""

    sources: Tensor
    made: list[Tensor]


class _Thread(threading.local):
    copies: _Copies | None = None


_thread = _Thread()


def _message_copies(sources: Tensor | None, n_nodes: int) -> list[Tensor]:
    made = [] if _thread.copies is None else _thread.copies.made
    _thread.copies = None if sources is None else _Copies(sources, [])
    return made


def _message_moments(edges: list[Tensor]) -> list[Tensor]:
    return []  # of no exchange: copies have to do


def _ghost_exchange(h: Tensor) -> Tensor:
    copies = _thread.copies
    if copies is None:
        return h.clone()
    rows = h[: h.shape[0] - copies.sources.shape[0]]
    copies.made.append(rows.index_select(0, copies.sources))
    return torch.cat([rows, copies.made[-1]])


FOLLOWED: dict[str, Callable[..., Any]] = {
    f"radial_convolution(Tensor h, Tensor y, Tensor[] radial, Tensor[] weights, {_GRAPH}) -> Tensor": (
        _radial_convolution
    ),
    f"table_convolution(Tensor h, Tensor y, Tensor x, Tensor knots, {_GRAPH}) -> Tensor": _table_convolution,
    "edge_rows(Tensor centers, Tensor neighbors, Tensor vectors) -> (Tensor first, Tensor row)": (
        reference.edge_rows
    ),
    "symmetric_contraction(Tensor x, Tensor coefficients, Tensor species, Tensor monomials, int n_out) "
    "-> Tensor": reference.symmetric_contraction,
    "linear(Tensor x, Tensor[] weights, int[] terms, int n_out) -> Tensor": reference.linear,
    "linear_sums(Tensor[] x, Tensor species, Tensor[] weights, int[] plan, int[] back) -> Tensor[]": (
        reference.linear_sums
    ),
    "gate(Tensor x, int[] sizes, float[] factors) -> Tensor": reference.gate,
    "harmonics(Tensor vectors, int l_max, bool solid) -> (Tensor r, Tensor y)": reference.harmonics,
    "kernel_sum(Tensor q, Tensor packed, Tensor values, str kernel, float sigma) "
    "-> (Tensor energy, Tensor gradient)": reference.kernel_sum,
    "molecular_kernel(Tensor positions, Tensor[] tables, str kernel, float sigma) "
    "-> (Tensor energy, Tensor gradient, Tensor farthest)": reference.molecular_kernel,
    "pair_sum(Tensor vectors, Tensor[] factors, Tensor kind, Tensor[] edges, Tensor pairs, str form, "
    "float[] constants) -> Tensor": reference.pair_sum,
    "ghost_exchange(Tensor h) -> Tensor": _ghost_exchange,
    "message_copies(Tensor? sources, int n_nodes) -> Tensor[]": _message_copies,
    "message_moments(Tensor[] edges) -> Tensor[]": _message_moments,
    "near_pairs(Tensor positions, Tensor expected, Tensor cell, Tensor samples, float cutoff) "
    "-> (Tensor rows, Tensor centers, Tensor neighbors, Tensor vectors, Tensor farthest)": (
        reference.near_pairs
    ),
    "forces_and_virials(Tensor gradient, Tensor vectors, Tensor centers, Tensor neighbors, Tensor system, "
    "int n_systems, bool per_atom) -> (Tensor forces, Tensor virial, Tensor virials)": (
        reference.forces_and_virials
    ),
}


def _without_data(tables: list[Tensor]) -> bool:
    return any(type(table) not in (Tensor, nn.Parameter) for table in tables)


def _convolution(
    h: Tensor, y: Tensor, w: Tensor, edges: list[Tensor], n_centers: int, tables: list[Tensor]
) -> Tensor:
    """The reference, which torch differentiates to any order, or an op without values."""
    if _without_data(tables):
        result: Tensor = Opaque.apply(h, y, w, edges, n_centers, tables)
        return result
    return reference.convolution(h, y, w, edges, n_centers, tables)


class Opaque(torch.autograd.Function):
    """The convolution as one op of a graph, and its gradients as another."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, y: Tensor, w: Tensor, edges: Any, n_centers: int, tables: Any) -> Tensor:
        ctx.save_for_backward(h, y, w, *tables, *edges)
        ctx.n_centers = n_centers
        with torch._C._AutoDispatchBelowAutograd():
            return torch.ops.mlplugins.convolution(h, y, w, edges, n_centers, tables)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        h, y, w, *rest = ctx.saved_tensors
        wanted = list(ctx.needs_input_grad[:3])
        found = torch.ops.mlplugins.convolution_backward(
            g, h, y, w, rest[3:], ctx.n_centers, rest[:3], wanted
        )
        return (*(d if want else None for d, want in zip(found, wanted)), None, None, None)


def _convolution_backward(g: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    """Gradients of ⟨g, convolution⟩ with respect to h, y and w, those wanted, the others empty."""
    *inputs, edges, n_centers, tables, wanted = arguments
    if _without_data(tables):
        with torch._C._AutoDispatchBelowAutograd():
            found: tuple[Tensor, ...] = torch.ops.mlplugins.convolution_backward(g, *arguments)
            return found
    with torch.enable_grad():
        h, y, w = (t.detach().requires_grad_() for t in inputs)
        out = reference.convolution(h, y, w, edges, n_centers, tables)
        gradients = torch.autograd.grad(out, (h, y, w), g)
    return tuple(d if want else d.new_empty(0) for d, want in zip(gradients, wanted))
