"""Shapes of the ops' results, without their values: what torch.compile, fake and meta tensors need.

The width of a convolution and the number of shared rows are data: torch.compile gives them a symbol, meta
tensors have no answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

if TYPE_CHECKING:
    from collections.abc import Callable


def register() -> None:
    """Tell torch the shapes of all ops that it cannot trace."""
    for name, shape in SHAPES.items():
        qualified = f"mlplugins::{name}"
        if not hasattr(torch.ops.mlplugins, name):  # the plain ops have fewer
            continue
        known = (
            torch._C._dispatch_has_kernel_for_dispatch_key(qualified, key)
            for key in ("CompositeImplicitAutograd", "Meta")
        )
        if not any(known):
            torch.library.register_fake(qualified, _on_one_device(name, shape))


def _on_one_device(name: str, shape: Callable[..., Any]) -> Callable[..., Any]:
    def checked(*arguments: Any) -> Any:
        devices = {str(t.device) for t in pytree.tree_leaves(arguments) if isinstance(t, Tensor)}
        if len(devices) > 1:
            raise RuntimeError(f"{name}: all tensors must be on one device, got {', '.join(sorted(devices))}")
        return shape(*arguments)

    return checked


def _from_data() -> Any:
    return torch.library.get_ctx().new_dynamic_size()


def _gradients(inputs: tuple[Tensor, ...], wanted: list[bool]) -> tuple[Tensor, ...]:
    return tuple(t.new_empty(t.shape if want else (0,)) for t, want in zip(inputs, wanted, strict=True))


def _convolution(h: Tensor, y: Tensor, w: Tensor, edges: list[Tensor], n_centers: int, *_: Any) -> Tensor:
    return h.new_empty(n_centers, _from_data())


def _radial_convolution(
    h: Tensor, y: Tensor, radial: Any, weights: Any, edges: list[Tensor], n_centers: int, *_: Any
) -> Tensor:
    return h.new_empty(n_centers, _from_data())


def _convolution_backward(g: Tensor, h: Tensor, y: Tensor, w: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    return _gradients((h, y, w), rest[-1])


def _radial_convolution_backward(
    g: Tensor, h: Tensor, y: Tensor, radial: list[Tensor], *rest: Any
) -> tuple[Tensor, ...]:
    return _gradients((h, y, radial[0]), rest[-1])


def _edge_rows(centers: Tensor, neighbors: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
    return centers.new_empty(_from_data()), torch.empty_like(centers)


def _linear(x: Tensor, weights: list[Tensor], terms: list[int], n_out: int) -> Tensor:
    return x.new_empty(x.shape[0], n_out)


def _linear_sums(x: list[Tensor], species: Tensor, weights: Any, plan: list[int], back: Any) -> list[Tensor]:
    return [x[0].new_empty(x[0].shape[0], width) for width in plan[1 : 1 + plan[0]]]


def _gate(x: Tensor, sizes: list[int], factors: list[float]) -> Tensor:
    return x.new_empty(x.shape[0], x.shape[1] - sum(sizes[4::2]))


def _harmonics(vectors: Tensor, l_max: int, solid: bool) -> tuple[Tensor, Tensor]:
    n = vectors.shape[0]
    return vectors.new_empty(n), vectors.new_empty(n, (l_max + 1) ** 2)


def _symmetric_contraction(
    x: Tensor, coefficients: Tensor, species: Tensor, monomials: Tensor, n_out: int
) -> Tensor:
    return x.new_empty(x.shape[0], n_out * coefficients.shape[2])


def _symmetric_contraction_backward(
    g: Tensor, x: Tensor, coefficients: Tensor, species: Tensor, *rest: Any
) -> tuple[Tensor, ...]:
    return _gradients((x, coefficients), [True, rest[-1]])


def _symmetric_contraction_double_backward(
    dx: Any, dc: Any, g: Tensor, x: Tensor, coefficients: Tensor, *rest: Any
) -> tuple[Tensor, ...]:
    return _gradients((g, x, coefficients), [True, True, rest[-1]])


def _kernel_sum(q: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape[0]), q.new_empty(q.shape)


def _molecular_kernel(positions: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    return (
        positions.new_empty(positions.shape[0]),
        positions.new_empty(positions.shape),
        positions.new_empty(1),
    )


def _pair_sum(vectors: Tensor, factors: list[Tensor], *_: Any) -> Tensor:
    return vectors.new_empty(factors[0].shape[0])


def _pair_sum_backward(g: Tensor, vectors: Tensor, factors: list[Tensor], *_: Any) -> tuple[Tensor, ...]:
    return _gradients((vectors, *factors), [True] * 3)


def _near_pairs(positions: Tensor, *_: Any) -> tuple[Tensor, ...]:
    n = _from_data()
    rows, centers, neighbors = (positions.new_empty(n, dtype=torch.long) for _ in range(3))
    return rows, centers, neighbors, positions.new_empty(n, 3), positions.new_empty(())


def _forces_and_virials(
    gradient: Tensor,
    vectors: Tensor,
    centers: Tensor,
    neighbors: Tensor,
    system: Tensor,
    n_systems: int,
    per_atom: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    n = system.shape[0]
    return (
        vectors.new_empty(n, 3),
        vectors.new_empty(n_systems, 3, 3),
        vectors.new_empty(n if per_atom else 0, 3, 3),
    )


SHAPES: dict[str, Callable[..., Any]] = {
    "convolution": _convolution,
    "convolution_backward": _convolution_backward,
    "radial_convolution": _radial_convolution,
    "radial_convolution_backward": _radial_convolution_backward,
    "table_convolution": _radial_convolution,
    "table_convolution_backward": _convolution_backward,
    "edge_rows": _edge_rows,
    "linear": _linear,
    "linear_sums": _linear_sums,
    "gate": _gate,
    "gate_backward": lambda g, x, *_: torch.empty_like(x),
    "harmonics": _harmonics,
    "harmonics_backward": lambda gr, gy, vectors, *_: torch.empty_like(vectors),
    "symmetric_contraction": _symmetric_contraction,
    "symmetric_contraction_backward": _symmetric_contraction_backward,
    "symmetric_contraction_double_backward": _symmetric_contraction_double_backward,
    "kernel_sum": _kernel_sum,
    "molecular_kernel": _molecular_kernel,
    "pair_sum": _pair_sum,
    "pair_sum_backward": _pair_sum_backward,
    "ghost_exchange": torch.empty_like,
    "near_pairs": _near_pairs,
    "forces_and_virials": _forces_and_virials,
}
