"""Second derivatives of models that send messages by convolutions, without differentiating these twice.

A convolution m = Σ_e w_e (h_n ⊗ y_e) is linear in h, y and w. With the atoms moved along coordinate k, and
what then changes written as ṁᵏ, ḣᵏ, ẏᵏ, ẇᵏ, the chain of a model is evaluated forward only:

    ṁᵏ = conv(ḣᵏ, y, w) + conv(h, ẏᵏ, w) + conv(h, y, ẇᵏ),

where the last two have the few edges of one atom. With the adjoints μ = ∂E/∂m, η = ∂E/∂h, ȳ and w̄, which
the gradient has anyway, the Hessian is a sum of what each nonlinear operation adds ("edge pushing", R. M.
Gower and M. P. Mello, Optim. Methods Softw. 27, 251 (2012)):

    ∂²E/∂k∂j = Σ ṁᵏ · ∇²P ṁʲ + Σ (σᵏ · ḣʲ + σʲ · ḣᵏ) + Σ_e ẋ_eᵏ · D_e ẋ_eʲ.

P(m) = E + Σ η · h(m) is all that happens on an atom between convolutions, differentiated twice by torch; σᵏ,
what the edges of one atom send back to h: ∂/∂h of μ · [conv(h, ẏᵏ, w) + conv(h, y, ẇᵏ)]; D_e (3, 3), the
second derivatives within one edge. The dear part, the convolutions, is passed forward once for each
coordinate, where differentiating twice passes them about six times.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mlplugins.ops import reference
from mlplugins.structures.graph import Graph

OPS = ("convolution", "radial_convolution", "table_convolution")
MOST_BYTES = 2**30
"""Of what changes with each coordinate, which has to be kept; larger structures are left to others."""


@dataclass
class Call:
    """A convolution of a model: its inputs, with their graphs, and its result without one."""

    h: Tensor
    y: Tensor
    w: Tensor
    edges: list[Tensor]
    n_centers: int
    tables: list[Tensor]
    m: Tensor

    @property
    def row(self) -> Tensor:
        """Of w, for every edge."""
        return (
            self.edges[2] if len(self.edges) == 3 else torch.arange(len(self.edges[0]), device=self.h.device)
        )


@dataclass
class Tape:
    """The convolutions of one evaluation; `given` are their results, where they are known."""

    given: list[Tensor] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    inputs: list[Tensor] = field(default_factory=list)
    leaves: list[Tensor] = field(default_factory=list)

    def take(
        self, h: Tensor, y: Tensor, w: Callable[[], Tensor], edges: list[Tensor], n: int, tables: list[Tensor]
    ) -> Tensor:
        """What the convolution returns: a leaf."""
        if self.given:
            m = self.given[len(self.inputs)].detach().requires_grad_()
        else:
            weights = w()
            m = convolved(h.detach(), y.detach(), weights.detach(), edges, n, tables).requires_grad_()
            self.calls.append(Call(h, y, weights, edges, n, tables, m))
        self.inputs.append(h)
        self.leaves.append(m)
        return m


class _Recording(threading.local):
    tape: Tape | None = None


_thread = _Recording()


def convolved(h: Tensor, y: Tensor, w: Tensor, edges: list[Tensor], n: int, tables: list[Tensor]) -> Tensor:
    """The convolution, without a graph."""
    with torch._C._AutoDispatchBelowAutograd():
        found: Tensor = torch.ops.mlplugins.convolution(h, y, w, edges, n, tables)
    return found


def pulled(mu: Tensor, call: Call, wanted: Sequence[bool], w: Tensor | None = None) -> list[Tensor]:
    """Gradients of ⟨μ, conv(h, y, w)⟩ with respect to h, y and w, without a graph."""
    w = call.w.detach() if w is None else w
    values = mu, call.h.detach(), call.y.detach(), w
    found = torch.ops.mlplugins.convolution_backward(
        *values, call.edges, call.n_centers, call.tables, list(wanted)
    )
    return list(found)


@contextmanager
def taped(tape: Tape) -> Iterator[None]:
    """Convolutions of this thread go to the tape; those of others are computed by the reference meanwhile."""

    def convolution(h: Any, y: Any, w: Any, edges: Any, n: Any, tables: Any) -> Tensor:
        if _thread.tape is None:
            return reference.convolution(h, y, w, edges, n, tables)
        return _thread.tape.take(h, y, lambda: w, edges, n, tables)

    def radial(h: Any, y: Any, of_rows: Any, weights: Any, edges: Any, n: Any, tables: Any) -> Tensor:
        if _thread.tape is None:
            return reference.radial_convolution(h, y, of_rows, weights, edges, n, tables)
        return _thread.tape.take(h, y, lambda: reference.perceptron(of_rows[1], weights), edges, n, tables)

    def table(h: Any, y: Any, x: Any, knots: Any, edges: Any, n: Any, tables: Any) -> Tensor:
        if _thread.tape is None:
            return reference.table_convolution(h, y, x, knots, edges, n, tables)
        return _thread.tape.take(h, y, lambda: reference.interpolate(x, knots, edges), edges[:2], n, tables)

    with torch.library._scoped_library("mlplugins", "IMPL") as library:
        for name, function in zip(OPS, (convolution, radial, table), strict=True):
            for key in ("AutogradCPU", "AutogradCUDA"):
                library.impl(name, function, key)
        _thread.tape = tape
        try:
            yield
        finally:
            _thread.tape = None


@dataclass
class EdgeParts:
    """What edges do, each by itself.

    Attributes:
        blocks: D (E, 3, 3).
        harmonics: ∂y/∂x of every convolution (E, J, 3); None: constant.
        slopes: ∂w/∂r (U, W), likewise.
        along: x/|x| (E, 3).
    """

    blocks: Tensor
    harmonics: list[Tensor | None]
    slopes: list[Tensor | None]
    along: Tensor


@dataclass
class Adjoints:
    """∂E/∂m, ∂E/∂h, ∂E/∂y and ∂E/∂w of every convolution."""

    m: list[Tensor]
    h: list[Tensor]
    y: list[Tensor]
    w: list[Tensor]


def adjoints(u: Tensor, calls: Sequence[Call]) -> Adjoints:
    """From the last convolution to the first."""
    found = Adjoints([], [], [], [])
    for k in reversed(range(len(calls))):
        call = calls[k]
        later = [(c.h, eta) for c, eta in zip(calls[k + 1 :], found.h, strict=True) if c.h.requires_grad]
        outputs = [u, *(h for h, _ in later)]
        weights = [torch.ones_like(u), *(eta for _, eta in later)]
        (mu,) = torch.autograd.grad(outputs, call.m, weights, retain_graph=True, allow_unused=True)
        mu = torch.zeros_like(call.m) if mu is None else mu
        back = pulled(mu, call, (True, True, True))
        for of_all, own in zip((found.m, found.h, found.y, found.w), (mu, *back), strict=True):
            of_all.insert(0, own)
    return found


def jvp(outputs: Tensor, inputs: Sequence[Tensor]) -> Callable[[Sequence[Tensor]], Tensor] | None:
    """The change of `outputs` along directions of `inputs`; None if it does not depend on them."""
    if not outputs.requires_grad:
        return None
    dummy = torch.zeros_like(outputs).requires_grad_()
    found = torch.autograd.grad(outputs, inputs, dummy, create_graph=True, allow_unused=True)
    kept = [k for k, each in enumerate(found) if each is not None and each.requires_grad]
    if not kept:
        return None

    def along(directions: Sequence[Tensor]) -> Tensor:
        (change,) = torch.autograd.grad(
            [found[k] for k in kept], dummy, [directions[k] for k in kept], retain_graph=True
        )
        return change

    return along


def alike(graph: Graph, calls: Sequence[Call]) -> bool:
    """Whether the convolutions have the edges of the graph (terms of shorter cutoffs have fewer), atoms send
    nothing but through them, and what edges do depends on their vectors alone."""
    before: list[Tensor] = []
    for call in calls:
        ends = zip(call.edges[:2], (graph.centers, graph.neighbors), strict=True)
        if not all(torch.equal(own, given) for own, given in ends) or _depends(call.h, [graph.vectors]):
            return False
        if _depends(call.y, before) or _depends(call.w, before):
            return False
        before.append(call.m)
    return True


def _depends(output: Tensor, inputs: Sequence[Tensor]) -> bool:
    if not output.requires_grad or not inputs:
        return False
    found = torch.autograd.grad(
        output, inputs, torch.zeros_like(output), retain_graph=True, allow_unused=True
    )
    return any(each is not None for each in found)


def edge_parts(u: Tensor, x: Tensor, calls: Sequence[Call], back: Adjoints) -> EdgeParts | None:
    """What every edge does by itself; None if edges act together otherwise than in the convolutions."""
    along = x.detach() / torch.linalg.vector_norm(x.detach(), dim=1, keepdim=True)
    outputs, weights = [u], [torch.ones_like(u)]
    for k, call in enumerate(calls):
        for value, adjoint in ((call.h, back.h[k]), (call.y, back.y[k]), (call.w, back.w[k])):
            if value.requires_grad:
                outputs.append(value)
                weights.append(adjoint)
    kept = [k for k, output in enumerate(outputs) if output.requires_grad]
    found = torch.autograd.grad(
        [outputs[k] for k in kept],
        [x, *(call.m for call in calls)],
        [weights[k] for k in kept],
        create_graph=True,
        allow_unused=True,
    )
    g = found[0]
    blocks = torch.zeros(*x.shape, 3, dtype=x.dtype, device=x.device)
    if g is not None and g.requires_grad:
        mixed = torch.autograd.grad(
            g, [call.m for call in calls], _pattern(x), retain_graph=True, allow_unused=True
        )
        if any(each is not None and bool((each != 0).any()) for each in mixed):
            return None
        local = _local(lambda v: torch.autograd.grad(g, x, v[0], retain_graph=True)[0], x)
        if local is None:
            return None
        blocks = local
    harmonics: list[Tensor | None] = []
    slopes: list[Tensor | None] = []
    known: dict[tuple[int, int], Tensor | None] = {}
    for k, call in enumerate(calls):
        change = jvp(call.y, [x])
        same = call.y.data_ptr(), call.y.shape[1]
        if same not in known:
            known[same] = None if change is None else _local(change, x)
        of_y = known[same]
        of_w = _slopes(call, x, along)
        if (of_y is None) != (change is None) or (of_w is None) != (jvp(call.w, [x]) is None):
            return None
        harmonics.append(of_y)
        slopes.append(of_w)
        if of_y is not None and of_w is not None:
            (_, z, _) = pulled(back.m[k], call, (False, True, False), of_w)
            both = torch.einsum("ej,eja->ea", z, of_y).unsqueeze(2) * along.unsqueeze(1)
            blocks = blocks + both + both.transpose(1, 2)
    return EdgeParts(blocks, harmonics, slopes, along)


def _local(change: Callable[[Sequence[Tensor]], Tensor], x: Tensor) -> Tensor | None:
    """(E, …, 3): the change of a quantity of the edges for each component of all x; None if another edge's x
    changes it, too."""
    unit = torch.eye(3, dtype=x.dtype, device=x.device)
    parts = torch.stack([change([unit[a].expand_as(x).contiguous()]) for a in range(3)], dim=2)
    v = _pattern(x)
    return parts if _equal(change([v]), torch.einsum("eja,ea->ej", parts, v)) else None


def _slopes(call: Call, x: Tensor, along: Tensor) -> Tensor | None:
    """∂w/∂r (U, W); None if w is no function of the length of its edges alone, or constant."""
    change = jvp(call.w, [x])
    if change is None:
        return None
    slopes = change([along])
    scale = _pattern(slopes[:, 0])
    across = torch.linalg.cross(along, along.roll(1, dims=1), dim=1)
    v = scale.index_select(0, call.row).unsqueeze(1) * along + across
    return slopes if _equal(change([v]), scale.unsqueeze(1) * slopes) else None


def _pattern(like: Tensor) -> Tensor:
    """Numbers without a symmetry."""
    k = torch.arange(like.numel(), dtype=like.dtype, device=like.device)
    return torch.sin(1.0 + k * k).reshape(like.shape)


def _equal(a: Tensor, b: Tensor) -> bool:
    """Row by row: what stiff edges would hide among all is seen at the soft ones."""
    eps, of_row = float(torch.finfo(a.dtype).eps), b.abs().amax(dim=1)
    return bool(((a - b).abs().amax(dim=1) <= eps**0.5 * of_row + 64 * eps * of_row.max()).all())


class Moved:
    """Several copies of a structure, in each of which another coordinate moves."""

    def __init__(self, graph: Graph, calls: Sequence[Call], back: Adjoints, edges: EdgeParts) -> None:
        self.graph, self.calls, self.back, self.edges = graph, calls, back, edges

    def touching(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Edges whose vector changes with coordinate rows[b]: b, the edge, the component, the sign."""
        atoms, component = rows // 3, rows % 3
        ahead = self.graph.neighbors.unsqueeze(0) == atoms.unsqueeze(1)
        copy, edge = (ahead ^ (self.graph.centers.unsqueeze(0) == atoms.unsqueeze(1))).nonzero(as_tuple=True)
        return (
            copy,
            edge,
            component[copy],
            torch.where(ahead[copy, edge], 1.0, -1.0).to(self.edges.along.dtype),
        )

    def directions(self, k: int, rows: Tensor) -> tuple[list[Tensor], list[tuple[Tensor, Tensor]]]:
        """Of convolution k: the edges (copy, edge), and the pairs (ẏ, w) and (y, ẇ) of them."""
        copy, edge, component, sign = self.touching(rows)
        call, of_y, of_w = self.calls[k], self.edges.harmonics[k], self.edges.slopes[k]
        row = call.row.index_select(0, edge)
        pairs = []
        if of_y is not None:
            pairs.append((sign.unsqueeze(1) * of_y[edge, :, component], call.w.detach().index_select(0, row)))
        if of_w is not None:
            stretch = sign * self.edges.along[edge, component]
            pairs.append(
                (call.y.detach().index_select(0, edge), stretch.unsqueeze(1) * of_w.index_select(0, row))
            )
        return [copy, edge], pairs

    def messages(self, k: int, rows: Tensor, dh: Tensor | None) -> tuple[Tensor, Tensor]:
        """ṁ (B n, …) and σ (B n, …) of convolution k."""
        call, n, copies = self.calls[k], self.graph.n_centers, len(rows)
        (copy, edge), pairs = self.directions(k, rows)
        centers = call.edges[0].index_select(0, edge) + n * copy
        senders = call.edges[1].index_select(0, edge)
        h, mu = call.h.detach(), self.back.m[k]
        dm = mu.new_zeros(copies * n, mu.shape[1])
        sigma = h.new_zeros(copies * n, h.shape[1])
        for y, w in pairs:
            dm += convolved(h, y, w, [centers, senders], copies * n, call.tables)
            if dh is not None:
                sigma += torch.ops.mlplugins.convolution_backward(
                    mu.repeat(copies, 1),
                    h.repeat(copies, 1),
                    y,
                    w,
                    [centers, senders + n * copy],
                    copies * n,
                    call.tables,
                    [True, False, False],
                )[0]
        if dh is not None:
            shift = n * torch.arange(copies, device=h.device).unsqueeze(1)
            of_all = [(each + shift).reshape(-1) for each in call.edges[:2]] + [call.row.repeat(copies)]
            y = call.y.detach().repeat(copies, 1)
            dm += convolved(dh, y, call.w.detach(), of_all, copies * n, call.tables)
        return dm, sigma


def pushed(
    energies: Callable[[Graph], Tensor], graph: Graph, copied: Callable[[Graph, int], Graph], copies: int
) -> Tensor | None:
    """∂²E/∂r∂r (3N, 3N), symmetric but for rounding; None of a model that is not of this kind, or of a
    structure too large.

    Args:
        energies: of the atoms of a graph.
        graph: without ghosts, of one structure.
        copied: makes copies of a graph, the vectors of which need gradients.
        copies: of the structure at a time.
    """
    n = graph.n_centers
    tape = Tape()
    one = copied(graph, 1)
    with taped(tape):
        u = energies(one)
    calls = tape.calls
    widths = sum(call.m.shape[1] + 2 * call.h.shape[1] for call in calls)
    if not calls or 3 * n * n * widths * u.element_size() > MOST_BYTES:
        return None
    if not alike(one, calls):
        return None
    back = adjoints(u, calls)
    edges = edge_parts(u, one.vectors, calls, back)
    if edges is None:
        return None
    again = Tape([call.m.repeat(copies, 1) for call in calls])
    with taped(again):
        u = energies(copied(graph, copies))
    return _assembled(Moved(graph, calls, back, edges), again, u, copies)


def _assembled(moved: Moved, tape: Tape, u: Tensor, copies: int) -> Tensor:
    """The sum of all terms, from the changes along every coordinate."""
    n, leaves, inputs, back = moved.graph.n_centers, tape.leaves, tape.inputs, moved.back
    batches = torch.arange(-(-3 * n // copies) * copies, device=u.device).clamp_max(3 * n - 1).split(copies)
    changes = [jvp(h, leaves[:k]) if k else None for k, h in enumerate(inputs)]
    of_m: list[list[Tensor]] = [[] for _ in leaves]
    of_h: list[list[Tensor]] = [[] for _ in leaves]
    sent: list[list[Tensor]] = [[] for _ in leaves]
    for rows in batches:
        directions: list[Tensor] = []
        for k, change in enumerate(changes):
            dh = None if change is None else change(directions)
            dm, sigma = moved.messages(k, rows, dh)
            directions.append(dm)
            of_m[k].append(dm.reshape(copies, -1))
            if dh is not None:
                of_h[k].append(dh.reshape(copies, -1))
                sent[k].append(sigma.reshape(copies, -1))
    whole_m = [torch.cat(parts) for parts in of_m]
    total = torch.zeros(len(whole_m[0]), len(whole_m[0]), dtype=u.dtype, device=u.device)
    for parts, others in zip(sent, of_h, strict=True):
        if parts:
            both = torch.cat(parts) @ torch.cat(others).T
            total += both + both.T
    terms = [(h, eta.repeat(copies, 1)) for h, eta in zip(inputs, back.h, strict=True) if h.requires_grad]
    outputs, weights = [u, *(h for h, _ in terms)], [torch.ones_like(u), *(eta for _, eta in terms)]
    found = torch.autograd.grad(outputs, leaves, weights, create_graph=True, allow_unused=True)
    curved = [k for k, g in enumerate(found) if g is not None and g.requires_grad]
    for first in range(0, len(total), copies) if curved else ():
        rows_of = [whole_m[k][first : first + copies].reshape(leaves[k].shape) for k in curved]
        s = torch.autograd.grad(
            [found[k] for k in curved], leaves, rows_of, retain_graph=True, allow_unused=True
        )
        for change_of, all_m in zip(s, whole_m, strict=True):
            if change_of is not None:
                total[first : first + copies] += change_of.reshape(copies, -1) @ all_m.T
    return total[: 3 * n, : 3 * n].double() + _of_edges(moved)


def _of_edges(moved: Moved) -> Tensor:
    """Σ_e ẋ_e · D_e ẋ_e."""
    n, blocks = moved.graph.n_centers, moved.edges.blocks.double()
    centers, neighbors = moved.graph.centers, moved.graph.neighbors
    total = torch.zeros(n * n, 3, 3, dtype=blocks.dtype, device=blocks.device)
    for i, j, sign in (
        (neighbors, neighbors, 1),
        (centers, centers, 1),
        (neighbors, centers, -1),
        (centers, neighbors, -1),
    ):
        total.index_add_(0, n * i + j, sign * blocks)
    return total.reshape(n, n, 3, 3).permute(0, 2, 1, 3).reshape(3 * n, 3 * n)
