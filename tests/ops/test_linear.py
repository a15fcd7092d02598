"""The native linear map against its plain-torch reference: values, all derivatives, bad input."""

import hypothesis.strategies as st
import pytest
import torch
from e3nn import o3
from hypothesis import HealthCheck, given, settings

from mlplugins.nn.linear import Linear
from mlplugins.ops import reference

from .comparison import assert_equal

pytestmark = pytest.mark.usefixtures("compiled")


def _case(irreps_in, irreps_out, n_atoms, dtype):
    generator = torch.Generator().manual_seed(0)
    layer = Linear(irreps_in, irreps_out).to(dtype)
    x = torch.randn(n_atoms, irreps_in.dim, dtype=dtype, generator=generator, requires_grad=True)
    weights = [
        torch.randn(w.shape[1:], dtype=dtype, generator=generator, requires_grad=True) for w in layer.weights
    ]
    return x, weights, layer.terms, layer.n_out


def _all_derivatives(function, case):
    """Value, gradients with respect to x and the weights, and the gradients of a random mix of those."""
    x, weights, terms, n_out = case
    generator = torch.Generator().manual_seed(1)
    y = function(x, weights, terms, n_out)
    if not terms:  # zeros, whatever x is
        return [y]
    g = torch.randn(y.shape, dtype=y.dtype, generator=generator, requires_grad=True)
    inputs = [x, *weights]
    first = torch.autograd.grad(y, inputs, g, create_graph=True, allow_unused=True, materialize_grads=True)
    mix = sum((torch.randn(d.shape, dtype=d.dtype, generator=generator) * d).sum() for d in first)
    second = torch.autograd.grad(mix, [g, *inputs], allow_unused=True, materialize_grads=True)
    return [y, *first, *second]


def _assert_equal(case):
    ops = torch.ops.mlplugins.linear, reference.linear
    n_results = 4 + 2 * len(case[1])  # y, gradients by x and the weights, and of their mix by those and g
    assert_equal(_all_derivatives, ops, case, [f"result {i}" for i in range(n_results)])


irreps = st.lists(
    st.tuples(st.integers(1, 37), st.integers(0, 3), st.sampled_from([1, -1])), min_size=1, max_size=5
).map(lambda rows: o3.Irreps([(mul, (degree, parity)) for mul, degree, parity in rows]))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(irreps, irreps, st.integers(0, 30), st.booleans())
def test_equals_reference_for_random_shapes(irreps_in, irreps_out, n_atoms, double):
    _assert_equal(_case(irreps_in, irreps_out, n_atoms, torch.float64 if double else torch.float32))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_reference_for_a_real_layer(dtype):
    wide = o3.Irreps("128x0e+128x1o+128x2e+64x1o+64x0e+64x2e+32x2e+32x0e")
    _assert_equal(_case(wide, o3.Irreps("128x0e+96x0e+64x1o+32x2e"), 200, dtype))


def test_views_and_inference():
    x, weights, terms, n_out = _case(o3.Irreps("3x0e+2x1o"), o3.Irreps("4x0e+5x1o"), 9, torch.float64)
    expected = reference.linear(x, weights, terms, n_out)
    strided = x.detach().t().contiguous().t()
    transposed = [w.detach().t().contiguous().t() for w in weights]
    with torch.inference_mode():
        got = torch.ops.mlplugins.linear(strided, transposed, terms, n_out)
    torch.testing.assert_close(got, expected.detach(), rtol=0.0, atol=1e-13)


def test_threads_give_the_same_bits():
    case = _case(o3.Irreps("32x0e+32x1o"), o3.Irreps("32x0e+32x1o"), 700, torch.float32)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(torch.ops.mlplugins.linear(*case))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ([0, 0, 1, 3], "6 numbers"),
        ([0, 0, 1, 3, 1, 0], "no matrix 1"),
        ([1, 0, 1, 3, 0, 0], "does not fit"),
        ([0, 2, 1, 3, 0, 0], "does not fit"),
        ([0, 0, 1, 3, 0, 1], "does not fit"),
        ([-1, 0, 1, 3, 0, 0], "malformed"),
        ([0, 0, 1, 3, 0, 0, 0, 1, 1, 3, 0, 0], "overlap"),
    ],
)
def test_bad_terms(terms, message):
    x, w = torch.zeros(2, 3), torch.zeros(3, 2)
    with pytest.raises(RuntimeError, match=message):
        torch.ops.mlplugins.linear(x, [w], terms, 3)


def test_bad_tensors():
    terms = [0, 0, 1, 3, 0, 0]
    for x, w in [
        (torch.zeros(2, 3), torch.zeros(3, 2, dtype=torch.float64)),
        (torch.zeros(2, 3, dtype=torch.int64), torch.zeros(3, 2, dtype=torch.int64)),
        (torch.zeros(3), torch.zeros(3, 2)),
        (torch.zeros(2, 3), torch.zeros(3)),
    ]:
        with pytest.raises(RuntimeError, match="linear: "):
            torch.ops.mlplugins.linear(x, [w], terms, 2)
