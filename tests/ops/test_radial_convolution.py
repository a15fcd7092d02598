"""Convolutions that make their radial weights in the kernel, against the plain-torch reference."""

import hypothesis.strategies as st
import pytest
import torch
from e3nn import o3
from hypothesis import HealthCheck, given, settings

from mlplugins.nn.convolution import Convolution
from mlplugins.ops import reference

from .comparison import assert_equal

pytestmark = pytest.mark.usefixtures("compiled")
KINDS = ["perceptron", "table", "tables", "table without rises"]


def _case(kind, irreps, l_max, sizes, widths, dtype=torch.float64):
    """Arguments of the op; `sizes` are centres, ghosts, edges."""
    n_centers, n_ghosts, n_edges = sizes
    generator = torch.Generator().manual_seed(0)
    irreps = o3.Irreps(irreps)
    layer = Convolution(irreps, l_max, irreps, widths).to(dtype)
    n_nodes = n_centers + n_ghosts
    centers = torch.randint(0, max(n_centers, 1), (n_edges,), generator=generator).sort().values
    neighbors = torch.randint(0, max(n_nodes, 1), (n_edges,), generator=generator)

    def normal(*shape):
        return torch.randn(shape, dtype=dtype, generator=generator).requires_grad_()

    h, y = normal(n_nodes, irreps.dim), normal(n_edges, (l_max + 1) ** 2)
    # rows of one to three edges, in any order; the derivatives are taken with respect to their lengths
    row = (torch.arange(n_edges) // 2)[torch.randperm(n_edges, generator=generator)]
    row[row == n_edges // 3] = 0
    row = torch.unique(row, return_inverse=True)[1]
    n_rows = len(torch.unique(row))
    length = (1.1 * torch.rand(n_rows, dtype=dtype, generator=generator)).requires_grad_()
    edges = [centers, neighbors, row]
    if kind == "tables":
        weights = normal(4, 19, 3, layer.n_weights).detach()
        edges.append(torch.randint(0, 4, (n_rows,), generator=generator)[row])
    elif kind != "perceptron":
        weights = normal(19, 3 if kind == "table" else 2, layer.n_weights).detach()
    else:
        weights = [matrix.detach() for matrix in layer.radial.matrices()]
    return (
        h,
        y,
        length,
        weights,
        edges,
        n_centers,
        [layer.paths, layer.entries, layer.values],
    )


def _radial(kind, length, weights, row):
    """The radial argument of the op: one length per edge, and for the perceptron functions of it."""
    if kind != "perceptron":
        return length[row]
    waves = torch.arange(1, len(weights[0]) + 1, dtype=length.dtype)
    values, slopes = torch.sin(length[:, None] * waves), waves * torch.cos(length[:, None] * waves)
    return [length[row], values, slopes.detach()]


def _op(kind):
    native, plain = torch.ops.mlplugins.radial_convolution, reference.radial_convolution
    if kind != "perceptron":
        native, plain = torch.ops.mlplugins.table_convolution, reference.table_convolution
    return native, plain


def _derivatives(kind, function, case, create_graph):
    """Value and gradients with respect to h, y, lengths; with a graph, also those of a random mix of them."""
    h, y, x, weights, edges, *rest = case
    generator = torch.Generator().manual_seed(1)
    out = function(h, y, _radial(kind, x, weights, edges[2]), weights, edges, *rest)
    g = torch.randn(out.shape, dtype=out.dtype, generator=generator, requires_grad=True)
    first = torch.autograd.grad(out, (h, y, x), g, create_graph=create_graph)
    if not create_graph:
        return [out, *first]
    mix = sum((torch.randn(d.shape, dtype=d.dtype, generator=generator) * d).sum() for d in first)
    return [out, *first, *torch.autograd.grad(mix, (g, h, y, x))]


def _assert_equal(kind, case, create_graph):
    def derivatives(function, case):
        return _derivatives(kind, function, case, create_graph)

    assert_equal(derivatives, _op(kind), case, ("out", "dh", "dy", "dx", "ddg", "ddh", "ddy", "ddx"))


irreps = st.lists(
    st.tuples(st.integers(1, 37), st.integers(0, 3), st.sampled_from([1, -1])), min_size=1, max_size=3
).map(lambda rows: o3.Irreps([(mul, (degree, parity)) for mul, degree, parity in rows]))
sizes = st.tuples(st.integers(1, 6), st.integers(0, 4), st.integers(0, 150))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(irreps, st.integers(0, 3), sizes, st.lists(st.integers(1, 40), min_size=1, max_size=4), st.booleans())
def test_equals_reference_for_random_shapes(kind, irreps, l_max, sizes, widths, double):
    dtype = torch.float64 if double else torch.float32
    case = _case(kind, irreps, l_max, sizes, widths, dtype)
    for create_graph in (False, True):
        _assert_equal(kind, case, create_graph)


@pytest.mark.parametrize("kind", KINDS[:3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("irreps", "l_max"),
    [("128x0e+64x1o+32x2e", 2), ("32x0e+32x1o+32x2e+32x3o", 3), ("16x0e+16x0o+16x1e+16x1o", 2)],
)
def test_equals_reference_for_real_layers(kind, irreps, l_max, dtype):
    case = _case(kind, irreps, l_max, (20, 5, 900), [8, 64, 64], dtype)
    _assert_equal(kind, case, create_graph=False)


@pytest.mark.parametrize("kind", KINDS)
def test_empty(kind):
    for sizes in ((0, 0, 0), (0, 3, 0), (4, 0, 0)):
        _assert_equal(kind, _case(kind, "4x0e+4x1o", 1, sizes, [3, 5]), create_graph=True)


def test_gradients_reach_the_parameters():
    h, y, x, weights, edges, *rest = _case("perceptron", "8x0e+8x1o", 2, (5, 0, 40), [4, 16])
    gradients = []
    for function in _op("perceptron"):
        parameters = [matrix.clone().requires_grad_() for matrix in weights]
        out = function(h, y, _radial("perceptron", x, weights, edges[2]), parameters, edges, *rest)
        (force,) = torch.autograd.grad(out.pow(2).sum(), y, create_graph=True)
        gradients.append(torch.autograd.grad(force.pow(2).sum(), parameters))
    for a, b in zip(*gradients):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12 * float(b.abs().max()))


def test_each_edge_has_the_gradient_of_its_own_length():
    h, y, x, weights, edges, *rest = _case("perceptron", "8x0e+8x1o", 2, (5, 2, 40), [4, 16])
    r = x.detach()[edges[2]].requires_grad_()
    radial = _radial("perceptron", x.detach(), weights, edges[2])
    out = torch.ops.mlplugins.radial_convolution(h, y, [r, *radial[1:]], weights, edges, *rest)
    (got,) = torch.autograd.grad(out.pow(2).sum(), r)

    own = [edges[0], edges[1], torch.arange(len(r))]
    out = reference.radial_convolution(h, y, _radial("perceptron", r, weights, own[2]), weights, own, *rest)
    (expected,) = torch.autograd.grad(out.pow(2).sum(), r)
    torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-12 * float(expected.abs().max()))


@pytest.mark.parametrize("kind", KINDS[:2])
def test_two_threads_equal_one_and_repeat_bit_by_bit(kind):
    case = _case(kind, "32x0e+32x1o", 2, (60, 10, 3000), [8, 32], torch.float32)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 2):
            torch.set_num_threads(threads)
            results.append(_derivatives(kind, _op(kind)[0], case, create_graph=False))
    finally:
        torch.set_num_threads(before)
    for one, two, again in zip(*results):
        torch.testing.assert_close(two, one, rtol=1e-5, atol=1e-5 * float(one.detach().abs().max()))
        assert torch.equal(two, again)


def test_extreme_activations_stay_finite():
    h, y, x, weights, *rest = _case("perceptron", "4x0e", 0, (3, 0, 20), [4, 8, 8])
    _assert_equal("perceptron", (h, y, x, [1e4 * weights[0], *weights[1:]], *rest), create_graph=False)


def test_bad_input_is_refused():
    h, y, x, weights, edges, n_centers, tables = _case("perceptron", "4x0e+4x1o", 1, (5, 0, 20), [4, 8])
    r, values, slopes = radial = [t.detach() for t in _radial("perceptron", x, weights, edges[2])]
    op = torch.ops.mlplugins.radial_convolution
    with pytest.raises(RuntimeError, match="perceptron has 0 matrices"):
        op(h, y, radial, [], edges, n_centers, tables)
    with pytest.raises(RuntimeError, match="expected 4 rows"):
        op(h, y, radial, weights[1:], edges, n_centers, tables)
    with pytest.raises(RuntimeError, match="dtype and the device of h"):
        op(h, y, radial, [matrix.float() for matrix in weights], edges, n_centers, tables)
    with pytest.raises(RuntimeError, match="one distance per edge"):
        op(h, y, [r[:-1], values, slopes], weights, edges, n_centers, tables)
    with pytest.raises(RuntimeError, match="slopes of the basis in its own shape"):
        op(h, y, [r, values, slopes[:-1]], weights, edges, n_centers, tables)
    with pytest.raises(RuntimeError, match="the distances, the basis and its slopes, got 1"):
        op(h, y, [values], weights, edges, n_centers, tables)
    with pytest.raises(RuntimeError, match="row of the basis"):
        op(h, y, radial, weights, edges[:2], n_centers, tables)
    with pytest.raises(RuntimeError, match=r"row \d+ of edge \d+ is not one of"):
        op(h, y, [r, values[:-1], slopes[:-1]], weights, edges, n_centers, tables)
    with pytest.raises(RuntimeError, match="belongs to no edge"):
        op(h, y, [r, *(torch.cat([t, t]) for t in radial[1:])], weights, edges, n_centers, tables)
    with pytest.raises(RuntimeError, match="shorter than path"):
        op(h, y, radial, [weights[0], weights[1][:, :-1]], edges, n_centers, tables)
    op = torch.ops.mlplugins.table_convolution
    with pytest.raises(RuntimeError, match="expected a table"):
        op(h, y, r, weights[0], edges, n_centers, tables)
    several, which = torch.rand(2, 9, 3, weights[1].shape[1], dtype=r.dtype), torch.zeros_like(edges[0])
    for knots, of_edges in ((several, edges), (several[0], [*edges, which])):
        with pytest.raises(RuntimeError, match="several, .* if edges say which"):
            op(h, y, r, knots, of_edges, n_centers, tables)
    with pytest.raises(RuntimeError, match="must be int64, one per edge"):
        op(h, y, r, several, [*edges, which[1:]], n_centers, tables)
    for unknown in (which + 2, which - 1):
        with pytest.raises(RuntimeError, match="an edge has none of the 2 tables"):
            op(h, y, r, several, [*edges, unknown], n_centers, tables)
