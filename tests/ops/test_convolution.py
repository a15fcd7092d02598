"""The native convolution against its plain-torch reference: values, all derivatives, bad input."""

import hypothesis.strategies as st
import pytest
import torch
from e3nn import o3
from hypothesis import HealthCheck, given, settings

from mlplugins.nn.convolution import Convolution
from mlplugins.ops import reference

from .comparison import assert_equal

pytestmark = pytest.mark.usefixtures("compiled")


def _case(irreps, l_max, n_centers, n_ghosts, n_edges, dtype=torch.float64, shared=False):
    """Arguments of the op; `shared`: several edges use the same row of w, in any order."""
    generator = torch.Generator().manual_seed(0)
    layer = Convolution(o3.Irreps(irreps), l_max, o3.Irreps(irreps), [4]).to(dtype)
    n_nodes = n_centers + n_ghosts
    centers = torch.randint(0, max(n_centers, 1), (n_edges,), generator=generator).sort().values
    neighbors = torch.randint(0, max(n_nodes, 1), (n_edges,), generator=generator)
    edges, n_rows = [centers, neighbors], n_edges
    if shared:
        row = torch.randint(0, max(n_edges // 2, 1), (n_edges,), generator=generator)
        edges.append(torch.unique(row, return_inverse=True)[1])
        n_rows = len(torch.unique(row))
    shapes = [(n_nodes, o3.Irreps(irreps).dim), (n_edges, (l_max + 1) ** 2), (n_rows, layer.n_weights)]
    h, y, w = (torch.randn(shape, dtype=dtype, generator=generator, requires_grad=True) for shape in shapes)
    return h, y, w, edges, n_centers, [layer.paths, layer.entries, layer.values]


def _all_derivatives(function, case, seed=1):
    """Value, gradients with respect to h, y, w, and the gradients of a random mix of those."""
    h, y, w, edges, n_centers, tables = case
    generator = torch.Generator().manual_seed(seed)
    out = function(h, y, w, edges, n_centers, tables)
    g = torch.randn(out.shape, dtype=out.dtype, generator=generator, requires_grad=True)
    first = torch.autograd.grad(out, (h, y, w), g, create_graph=True)
    mix = sum((torch.randn(d.shape, dtype=d.dtype, generator=generator) * d).sum() for d in first)
    second = torch.autograd.grad(mix, (g, h, y, w))
    return [out, *first, *second]


def _assert_equal(case):
    ops = torch.ops.mlplugins.convolution, reference.convolution
    assert_equal(_all_derivatives, ops, case, ("out", "dh", "dy", "dw", "ddg", "ddh", "ddy", "ddw"))


irreps = st.lists(
    st.tuples(st.integers(1, 37), st.integers(0, 3), st.sampled_from([1, -1])), min_size=1, max_size=4
).map(lambda rows: o3.Irreps([(mul, (degree, parity)) for mul, degree, parity in rows]))

sizes = st.tuples(st.integers(0, 6), st.integers(0, 4), st.integers(0, 40))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(irreps, st.integers(0, 3), sizes, st.booleans(), st.booleans())
def test_equals_reference_for_random_shapes(irreps, l_max, sizes, double, shared):
    n_centers, n_ghosts, n_edges = sizes
    n_edges = n_edges if n_centers else 0
    dtype = torch.float64 if double else torch.float32
    _assert_equal(_case(irreps, l_max, n_centers, n_ghosts, n_edges, dtype, shared=shared))


@pytest.mark.long
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "irreps", ["16x0e+16x1o", "128x0e+64x1o+32x2e", "9x0e+9x0o+9x1e+9x1o+9x2e+9x2o+9x3e+9x3o"]
)
def test_equals_reference_for_real_layers(irreps, dtype):
    for shared in (False, True):
        _assert_equal(_case(irreps, 3 if "3e" in irreps else 2, 20, 5, 900, dtype, shared=shared))


@pytest.mark.long
def test_two_threads_equal_one_and_repeat_bit_by_bit():
    case = _case("32x0e+32x1o+32x2e", 2, 60, 10, 3000, torch.float32, shared=True)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        twice = [_all_derivatives(torch.ops.mlplugins.convolution, case) for _ in range(2)]
        _assert_equal(case)
    finally:
        torch.set_num_threads(before)
    for a, b in zip(*twice):
        assert torch.equal(a, b)


def test_gradcheck():
    h, y, w, edges, n_centers, tables = _case("3x0e+2x1o", 1, 3, 1, 7)

    def function(h, y, w):
        return torch.ops.mlplugins.convolution(h, y, w, edges, n_centers, tables)

    assert torch.autograd.gradcheck(function, (h, y, w))
    assert torch.autograd.gradgradcheck(function, (h, y, w))


@pytest.mark.parametrize("function", ["unsorted", "neighbor", "center", "dtype", "rows", "width", "degree"])
def test_bad_input_is_refused(function):
    h, y, w, (centers, neighbors), n_centers, tables = _case("4x0e+4x1o", 1, 5, 2, 20)
    match = {
        "unsorted": "sorted by centre",
        "neighbor": "is not a node",
        "center": "is not below",
        "dtype": "one dtype",
        "rows": "one row of w per edge",
        "width": "shorter than path",
        "degree": "degrees above 3",
    }[function]
    if function == "unsorted":
        centers = centers.flip(0)
    elif function == "neighbor":
        neighbors = neighbors + 7
    elif function == "center":
        n_centers = 2
    elif function == "dtype":
        y = y.float()
    elif function == "rows":
        w = w[:-1]
    elif function == "width":
        h = h[:, :-1]
    else:
        tables = [torch.where(tables[0] == 3, 9, tables[0]), *tables[1:]]
    with pytest.raises(RuntimeError, match=match):
        torch.ops.mlplugins.convolution(h, y, w, [centers, neighbors], n_centers, tables)


def test_scripted():
    layer = Convolution(o3.Irreps("4x0e+4x1o"), 1, o3.Irreps("4x0e+4x1o"), [4]).double()
    h, y, _, edges, n_centers, _ = _case("4x0e+4x1o", 1, 5, 2, 20)
    basis, r = torch.randn(20, 4, dtype=torch.float64), torch.ones(20, dtype=torch.float64)
    expected = layer(h, y, [r, basis], edges, n_centers)
    layer.use_native_ops()
    scripted = torch.jit.script(layer)
    in_training = scripted(h, y, [r, basis], edges, n_centers)
    in_inference = scripted(h, y, [r, basis, torch.zeros_like(basis)], [*edges, torch.arange(20)], n_centers)
    torch.testing.assert_close(in_training, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(in_inference, expected, rtol=0, atol=1e-12)
