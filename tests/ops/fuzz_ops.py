"""Broken arguments for every compiled op; a program of its own, because what it looks for are crashes.

    python fuzz_ops.py LOG EXAMPLES OP …

Valid arguments are spoilt up to three times. The op must then refuse them, or give what the plain-torch
reference gives, gradients included. Every case is written to LOG before it is tried: after a crash its last
line tells which.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import torch
from e3nn import o3
from hypothesis import HealthCheck, Phase, given, settings
from torch import Tensor

from mlplugins import ops
from mlplugins.nn.contraction import SymmetricContraction
from mlplugins.nn.convolution import Convolution
from mlplugins.nn.linear import Linear
from mlplugins.ops import reference

REFUSALS = (RuntimeError, IndexError, ValueError, MemoryError)
MEMORY = 12 * 2**30  # bytes of address space: a row count of 2**31 must fail, not fill the machine
Arguments = list[Any]  # tensors, lists of tensors, integers
SANITIZED = "libasan" in os.environ.get("LD_PRELOAD", "")
"""AddressSanitizer's shadow is terabytes of addresses, and its `new` ends the process, does not throw."""
LARGE = (2**60, 2**60) if SANITIZED else (2**31, 2**32 + 1)
EXTREMES = (-1, -2, 7, *LARGE, 2**60, 2**63 - 1, -(2**63))


def convolution(generator: torch.Generator) -> Arguments:
    h, y, _, edges, n_centers, tables, layer = _layer(generator)
    return [h, y, _normal(generator, len(y), layer.n_weights), edges, n_centers, tables]


def convolution_rows(generator: torch.Generator) -> Arguments:
    h, y, w, edges, n_centers, tables, layer = _layer(generator)
    row = torch.arange(len(y)) // 2
    w = _normal(generator, int(row.max()) + 1, layer.n_weights)
    return [h, y, w, [*edges, row], n_centers, tables]


def radial_convolution(generator: torch.Generator) -> Arguments:
    h, y, basis, edges, n_centers, tables, layer = _layer(generator)
    matrices = [matrix.detach() for matrix in layer.radial.matrices()]
    radial = [_normal(generator, len(y)), basis, _normal(generator, *basis.shape)]
    row = torch.randperm(len(y), generator=generator)
    return [h, y, radial, matrices, [*edges, row], n_centers, tables]


def table_convolution(generator: torch.Generator) -> Arguments:
    h, y, basis, edges, n_centers, tables, layer = _layer(generator)
    return [h, y, basis[:, 0].abs() / 2, _normal(generator, 9, 3, layer.n_weights), edges, n_centers, tables]


def tables_convolution(generator: torch.Generator) -> Arguments:
    h, y, x, knots, edges, *rest = table_convolution(generator)
    knots = _normal(generator, 3, *knots.shape)
    which = torch.randint(0, 3, (len(y),), generator=generator)
    return [h, y, x, knots, [*edges, torch.arange(len(y)), which], *rest]


def symmetric_contraction(generator: torch.Generator) -> Arguments:
    layer = SymmetricContraction(o3.Irreps("3x0e+3x1o"), o3.Irreps("3x0e+3x1o"), 3, 2)
    coefficients, monomials = layer.folded_weights()
    species = torch.randint(0, 2, (5,), generator=generator)
    return [_normal(generator, 5, 12), coefficients.detach().clone(), species, monomials, layer.n_out]


def edge_rows(generator: torch.Generator) -> Arguments:
    *_, edges, _, _, _ = _layer(generator)
    return [*edges, _normal(generator, len(edges[0]), 3)]


def _lengths(op: Callable[..., tuple[Tensor, Tensor]]) -> Callable[..., Tensor]:
    """The lengths of the edges, looked up through their rows: the same whether rows are shared or not."""

    def lengths(centers: Tensor, neighbors: Tensor, vectors: Tensor) -> Tensor:
        first, row = op(centers, neighbors, vectors)
        return vectors.detach().norm(dim=1)[first][row]

    return lengths


def linear(generator: torch.Generator) -> Arguments:
    layer = Linear(o3.Irreps("3x0e+2x1o+2x0e"), o3.Irreps("4x0e+1x1e+3x1o"))
    weights = [_normal(generator, *w.shape[1:]) for w in layer.weights]
    return [_normal(generator, 5, 11), weights, list(layer.terms), layer.n_out]


def kernel_sum(generator: torch.Generator) -> Arguments:
    packed = reference.pack_points(_normal(generator, 10, 6), _normal(generator, 10, 6))
    return [_normal(generator, 5, 6), packed, _normal(generator, 16)]


def molecular_kernel(generator: torch.Generator) -> Arguments:
    scale, shift = _normal(generator, 6), _normal(generator, 6)
    pairs = torch.stack([torch.arange(6), torch.randperm(6, generator=generator)])
    return [_normal(generator, 2, 4, 3), [scale, shift, pairs, *kernel_sum(generator)[1:]]]


def _inference(op: Callable[..., tuple[Tensor, ...]]) -> Callable[..., Tensor]:
    """All results of an op without gradients, as one row; nothing if they are not finite."""

    def row(*arguments: Tensor | list[Tensor]) -> Tensor:
        with torch.no_grad():
            found = torch.cat([t.reshape(-1) for t in op(*arguments, "gaussian", 0.7)])
        return found if bool(torch.isfinite(found).all()) else found[:0]

    return row


def ghost_exchange(generator: torch.Generator) -> Arguments:
    return [_normal(generator, 4, 3)]


def near_pairs(generator: torch.Generator) -> Arguments:
    atoms = torch.randint(0, 6, (9, 2), generator=generator)
    shifts = torch.randint(-1, 2, (9, 3), generator=generator)
    samples = torch.cat([atoms, shifts], dim=1).int()
    positions, expected = _normal(generator, 6, 3), _normal(generator, 6, 3)
    return [positions, expected, _normal(generator, 3, 3), samples]


def _near(op: Callable[..., tuple[Tensor, ...]]) -> Callable[..., Tensor]:
    """All that is near and how far atoms moved, without gradients, one row for each pair and one for that."""

    def rows(positions: Tensor, expected: Tensor, cell: Tensor, samples: Tensor) -> Tensor:
        found = op(positions.detach(), expected.detach(), cell.detach(), samples, 2.0)
        pairs = torch.cat([*(t.unsqueeze(1) for t in found[:3]), found[3]], dim=1)
        return torch.cat([pairs, found[4].expand(1, 6)])

    return rows


def forces_and_virials(generator: torch.Generator) -> Arguments:
    edges = [torch.randint(0, 6, (9,), generator=generator) for _ in range(2)]
    system = torch.randint(0, 2, (6,), generator=generator)
    return [_normal(generator, 9, 3), _normal(generator, 9, 3), *edges, system, 2]


def _all(op: Callable[..., tuple[Tensor, ...]]) -> Callable[..., Tensor]:
    return lambda *arguments: torch.cat([t.reshape(-1) for t in op(*arguments, True)])


OPS: dict[str, tuple[Callable[[torch.Generator], Arguments], Callable[..., Tensor]]] = {
    "convolution": (convolution, reference.convolution),
    "convolution_rows": (convolution_rows, reference.convolution),
    "radial_convolution": (radial_convolution, reference.radial_convolution),
    "table_convolution": (table_convolution, reference.table_convolution),
    "tables_convolution": (tables_convolution, reference.table_convolution),
    "symmetric_contraction": (symmetric_contraction, reference.symmetric_contraction),
    "edge_rows": (edge_rows, _lengths(reference.edge_rows)),
    "linear": (linear, reference.linear),
    "kernel_sum": (kernel_sum, _inference(reference.kernel_sum)),
    "molecular_kernel": (molecular_kernel, _inference(reference.molecular_kernel)),
    "ghost_exchange": (ghost_exchange, torch.clone),
    "near_pairs": (near_pairs, _near(reference.near_pairs)),
    "forces_and_virials": (forces_and_virials, _all(reference.forces_and_virials)),
}
WRAPPED = {
    "kernel_sum": _inference,
    "molecular_kernel": _inference,
    "edge_rows": _lengths,
    "near_pairs": _near,
    "forces_and_virials": _all,
}


def native(op: str) -> Callable[..., Tensor]:
    names = {"convolution_rows": "convolution", "tables_convolution": "table_convolution"}
    compiled = getattr(torch.ops.mlplugins, names.get(op, op))
    return WRAPPED[op](compiled) if op in WRAPPED else compiled


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=generator)


def _layer(generator: torch.Generator) -> tuple[Any, ...]:
    irreps = o3.Irreps("3x0e+2x1o")
    layer = Convolution(irreps, 1, irreps, [4, 5]).double()
    n_centers, n_nodes, n_edges = 4, 6, 9
    centers = torch.randint(0, n_centers, (n_edges,), generator=generator).sort().values
    edges = [centers, torch.randint(0, n_nodes, (n_edges,), generator=generator)]
    tables = [layer.paths, layer.entries, layer.values]
    h, y = _normal(generator, n_nodes, irreps.dim), _normal(generator, n_edges, 4)
    return h, y, _normal(generator, n_edges, 4), edges, n_centers, tables, layer


def _places(arguments: Arguments) -> Iterator[tuple[Arguments, int]]:
    """Every list and index at which something can be spoilt."""
    for index, argument in enumerate(arguments):
        yield arguments, index
        if isinstance(argument, list):
            yield from ((argument, k) for k in range(len(argument)))


def _dtype(tensor: Tensor, number: int) -> Tensor:
    dtypes = (torch.float32, torch.int64, torch.int32, torch.bool, torch.complex64, torch.float16)
    return tensor.to(dtypes[number % len(dtypes)])


def _entry(tensor: Tensor, number: int) -> Tensor:
    """One extreme entry."""
    values: tuple[float, ...] = EXTREMES
    if tensor.dtype.is_floating_point:
        values = (float("nan"), float("inf"), -float("inf"), -1e9, -0.5, 1.0)
    if tensor.numel() == 0 or tensor.dtype not in (torch.int64, torch.float64):
        return tensor
    changed = tensor.clone(memory_format=torch.contiguous_format)
    changed.view(-1)[number // 8 % tensor.numel()] = values[number % len(values)]
    return changed


def _sparse(tensor: Tensor, number: int) -> Tensor:
    return tensor.to_sparse() if number % 4 == 0 else tensor


SPOILERS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "dtype": _dtype,
    "entry": _entry,
    "sparse": _sparse,
    "drop row": lambda t, _: t[:-1] if t.dim() else t,
    "add row": lambda t, _: torch.cat([t, t[:1]]) if t.dim() else t,
    "drop column": lambda t, _: t[..., :-1] if t.dim() else t,
    "no rows": lambda t, _: t[:0] if t.dim() else t,
    "no columns": lambda t, _: t[..., :0] if t.dim() else t,
    "more dimensions": lambda t, number: t.unsqueeze(number % (t.dim() + 1)),
    "two columns": lambda t, _: torch.stack([t, t], dim=-1),
    "fewer dimensions": lambda t, _: t.reshape(-1),
    "scalar": lambda t, _: t.sum() if t.dtype != torch.bool else t,
    "transposed": lambda t, _: t.mT if t.dim() > 1 else t,
    "shuffled": lambda t, number: t[torch.randperm(len(t), generator=_seeded(number))] if t.dim() else t,
    "strided": lambda t, _: torch.stack([t, t], dim=-1)[..., 0],
    "strided rows": lambda t, _: torch.cat([t, t], dim=-1)[..., : t.shape[-1]] if t.dim() else t,
    "turned": lambda t, _: t.mT.contiguous().mT if t.dim() > 1 else t.flip(0).flip(0) if t.dim() else t,
    "expanded": lambda t, _: t[:1].expand_as(t) if t.dim() else t,
}


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def spoil(arguments: Arguments, where: int, how: str, number: int) -> None:
    """Change one argument in place; lists and integers have their own ways."""
    places = list(_places(arguments))
    target, index = places[where % len(places)]
    value = target[index]
    if isinstance(value, Tensor):
        target[index] = SPOILERS[how](value, number)
    elif isinstance(value, int):
        values = (value - 1, value + 1, 0, *EXTREMES)
        target[index] = values[number % len(values)]
    elif isinstance(value, list):
        target[index] = (value[:-1], [*value, *value[:1]], [])[number % 3]


def _leaves(arguments: Arguments, wanted: int) -> list[Tensor]:
    """The first tensors that can have gradients; bits of `wanted` choose those that ask for them."""
    found = []
    for index in range(min(3, len(arguments))):
        value = arguments[index]
        if isinstance(value, Tensor) and value.dtype.is_floating_point and wanted >> index & 1:
            arguments[index] = value.detach().requires_grad_()
            found.append(arguments[index])
    return found


def outcome(function: Callable[..., Tensor], arguments: Arguments, leaves: list[Tensor]) -> list[Tensor]:
    """Result, gradients, and gradients of a mix of the gradients."""
    out = function(*arguments)
    results = [out]
    if leaves and out.requires_grad:
        weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).reshape(out.shape)
        first = torch.autograd.grad((out * weights).sum(), leaves, create_graph=True, allow_unused=True)
        results += _filled(first, leaves)
        mix = torch.stack([(g * g).sum() for g in results[1:]]).sum()
        if mix.requires_grad:
            results += _filled(torch.autograd.grad(mix, leaves, allow_unused=True), leaves)
        else:
            results += _filled([None] * len(leaves), leaves)
    return [result.to_dense() for result in results]


def _filled(gradients: Sequence[Tensor | None], leaves: list[Tensor]) -> list[Tensor]:
    return [torch.zeros_like(leaf) if g is None else g for g, leaf in zip(gradients, leaves)]


def _finite(arguments: Arguments) -> bool:
    """Where numbers are not finite the order of operations matters: then only crashes count."""
    tensors = [t for a in arguments for t in (a if isinstance(a, list) else [a]) if isinstance(t, Tensor)]
    return all(bool(t.to_dense().isfinite().all()) for t in tensors)


def _tables(op: str, arguments: Arguments) -> list[Tensor]:
    if op == "linear":
        return [torch.tensor(arguments[2])]
    tables = arguments[-1] if "convolution" in op else []
    return [*tables, *arguments[4][2:]] if op.startswith("table") else tables


def attempt(op: str, seed: int, wanted: int, changes: list[tuple[int, str, int]]) -> None:
    """One case; raises AssertionError if the op takes what it should not, or gives something else.

    Tables are made by `nn.convolution` and `nn.linear`, rows by `edge_rows`, not by users; spoilt ones may
    only not crash.
    """
    make, plain = OPS[op]
    arguments = make(_seeded(seed))
    tables = [*_tables(op, arguments)]
    for where, how, number in changes:
        try:
            spoil(arguments, where, how, number)
        except REFUSALS + (TypeError,):  # not every change fits every tensor
            return
    leaves = _leaves(arguments, wanted)
    try:
        got = outcome(native(op), arguments, leaves)
    except REFUSALS:
        return
    spoilt = _tables(op, arguments)
    intact = len(spoilt) == len(tables) and all(map(torch.equal, spoilt, tables))
    if not intact or not _finite(arguments):
        return
    try:
        expected = outcome(plain, arguments, leaves)
    except REFUSALS as error:
        raise AssertionError(f"{op} takes what the reference refuses: {error}") from error
    for number, (a, b) in enumerate(zip(got, expected, strict=True)):
        assert (a.shape, a.dtype) == (b.shape, b.dtype), f"{op}: result {number} is {a.shape}, {a.dtype}"
        size = float(b.detach().abs().max()) if b.numel() and b.dtype.is_floating_point else 0.0
        torch.testing.assert_close(
            a, b, rtol=1e-4, atol=1e-5 * max(size, 1.0), equal_nan=True, msg=lambda text: f"{op}: {text}"
        )


def refused(op: str, changes: list[tuple[int, str, int]]) -> bool:
    """Whether the op raises."""
    arguments = OPS[op][0](_seeded(0))
    for where, how, number in changes:
        spoil(arguments, where, how, number)
    try:
        native(op)(*arguments)
    except REFUSALS:
        return True
    return False


def main(log: Path, examples: int, names: list[str]) -> None:
    changes = st.lists(
        st.tuples(st.integers(0, 11), st.sampled_from(list(SPOILERS)), st.integers(0, 10**4)),
        max_size=3,
    )
    with log.open("w") as stream:

        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            derandomize=True,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        )
        @given(st.sampled_from(names), st.integers(0, 99), st.integers(0, 7), changes)
        def search(name: str, seed: int, wanted: int, chosen: list) -> None:
            stream.write(f"{(name, seed, wanted, chosen)!r}\n")
            stream.flush()
            attempt(name, seed, wanted, chosen)

        search()


if __name__ == "__main__":
    if not SANITIZED:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    torch.set_num_threads(1)
    if ops.load() != "compiled":
        sys.exit("the native library is built but not loaded")
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
