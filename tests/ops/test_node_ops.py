"""Sums of linear maps, gates and harmonics: values and all derivatives against plain torch, and bad input."""

import hypothesis.strategies as st
import pytest
import torch
from e3nn import o3
from hypothesis import HealthCheck, given, settings

from mlplugins.nn.convolution import EdgeGeometry
from mlplugins.nn.gate import Gate
from mlplugins.nn.linear import Linear
from mlplugins.nn.sums import LinearSum
from mlplugins.ops import reference

from .comparison import TOLERANCE

pytestmark = pytest.mark.usefixtures("compiled")

QUIET = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
irreps = st.lists(
    st.tuples(st.integers(0, 37), st.integers(0, 3), st.sampled_from([1, -1])), min_size=1, max_size=4
).map(lambda rows: o3.Irreps([(mul, (degree, parity)) for mul, degree, parity in rows]))
dtypes = st.sampled_from([torch.float32, torch.float64])


def _derivatives(function, inputs):
    """Values, gradients and, of a random mix of those, gradients again."""
    generator = torch.Generator().manual_seed(1)
    inputs = [x.detach().requires_grad_() for x in inputs]
    values = function(*inputs)
    along = [torch.randn(v.shape, dtype=v.dtype, generator=generator).requires_grad_() for v in values]
    only_first = torch.autograd.grad(values, inputs, along, retain_graph=True, materialize_grads=True)
    first = torch.autograd.grad(values, inputs, along, create_graph=True, materialize_grads=True)
    mix = sum((torch.randn(d.shape, dtype=d.dtype, generator=generator) * d).sum() for d in first)
    second = torch.autograd.grad(mix, [*along, *inputs], materialize_grads=True)
    return [*values, *only_first, *first, *second]


def _assert_close(function, expected, inputs):
    for got, wanted in zip(_derivatives(function, inputs), _derivatives(expected, inputs), strict=True):
        assert got.shape == wanted.shape
        assert got.dtype == wanted.dtype
        if wanted.numel():
            scale = max(1.0, float(wanted.detach().abs().max()))
            assert float((got - wanted).detach().abs().max()) <= TOLERANCE[wanted.dtype] * scale


def _maps(irreps_in, irreps_out, n_species, dtype):
    layer = Linear(irreps_in, irreps_out, n_species, bias=n_species == 0).to(dtype).requires_grad_(False)
    if layer.bias is not None:
        layer.bias.normal_(generator=torch.Generator().manual_seed(3))
    layer.fold()
    return layer


@QUIET
@given(irreps, irreps, irreps, st.integers(0, 30), dtypes)
def test_a_sum_is_its_maps(first, second, irreps_out, n, dtype):
    generator = torch.Generator().manual_seed(0)
    one, two = _maps(first, irreps_out, 0, dtype), _maps(second, irreps_out, 3, dtype)
    x = [torch.randn(n, ir.dim, dtype=dtype, generator=generator) for ir in (first, second)]
    species = torch.randint(0, 3, (n,), generator=generator)
    packed = LinearSum([one, two], [0.5, 1.0])

    def apart(a, b):
        return [0.5 * one(a, species) + 0.5 * one.bias + two(b, species)]

    def plain(a, b):
        weights = [packed.weights, packed.transposed]
        return [reference.linear_sums([a, b], species, weights, packed.plan, packed.back)[0] + one.bias]

    def fused(a, b):
        return [packed([a, b], species)]

    _assert_close(fused, plain, x)
    _assert_close(fused, apart, x)


def test_a_sum_of_a_real_layer_in_threads():
    wide, out = o3.Irreps("128x0e+128x1o+128x2e+64x1o+64x0e+32x2e"), o3.Irreps("224x0e+64x1o+32x2e")
    one, two = _maps(wide, out, 0, torch.float32), _maps(o3.Irreps("128x0e+64x1o"), out, 2, torch.float32)
    x, z = torch.randn(200, wide.dim), torch.randn(200, 320)
    species = (torch.arange(200) % 3 == 0).long()
    expected = (one(x, species) + two(z, species)).detach()
    packed, before = LinearSum([one, two]), torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(packed([x, z], species))
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(found[0], expected, rtol=0, atol=2e-5 * float(expected.abs().max()))
    assert torch.equal(*found)


@QUIET
@given(irreps, st.booleans(), st.integers(0, 9), dtypes)
def test_gate(of, sigmoid, n, dtype):
    gate = Gate(o3.Irreps([(mul, ir) for mul, ir in of if mul > 0]), sigmoid)
    x = 3.0 * torch.randn(n, gate.irreps_in.dim, dtype=dtype, generator=torch.Generator().manual_seed(0))

    def fused(x):
        return [torch.ops.mlplugins.gate(x, gate.sizes, gate.factors)]

    def plain(x):
        return [reference.gate(x, gate.sizes, gate.factors)]

    _assert_close(fused, plain, [x])
    _assert_close(fused, lambda x: [gate(x)], [x])


@pytest.mark.parametrize("solid", [False, True])
@pytest.mark.parametrize("l_max", [1, 2, 3])
def test_harmonics_are_those_of_e3nn(l_max, solid):
    v = 2.0 * torch.randn(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def of_e3nn(v):
        degrees = list(range(l_max + 1))
        y = o3.spherical_harmonics(degrees, v, not solid, "component")
        return [torch.linalg.vector_norm(v, dim=1), y]

    def fused(v):
        return [*torch.ops.mlplugins.harmonics(v, l_max, solid)]

    _assert_close(fused, of_e3nn, [v])
    _assert_close(fused, lambda v: [*reference.harmonics(v, l_max, solid)], [v])
    _assert_close(fused, lambda v: [*EdgeGeometry(l_max, solid)(v)], [v])


def test_bad_sums():
    packed = LinearSum([_maps(o3.Irreps("3x0e"), o3.Irreps("2x0e"), 2, torch.float64)])
    x, species, weights = (
        torch.zeros(4, 3).double(),
        torch.zeros(4).long(),
        [packed.weights, packed.transposed],
    )
    plan, back = packed.plan, packed.back

    def call(x=x, species=species, weights=weights, plan=plan):
        return torch.ops.mlplugins.linear_sums([x], species, weights, plan, back)

    assert call()[0].shape == (4, 2)
    for bad, message in [
        ({"species": species + 2}, "species 2 of row 0"),
        ({"species": species[:3]}, "the species of every row"),
        ({"x": x[:, :2]}, "does not fit"),
        ({"x": x.float()}, "the weights must be"),
        ({"x": x.long()}, "expected float32 or float64"),
        ({"weights": weights[:1]}, "got 1 tensors"),
        ({"weights": [packed.weights[:-1], packed.transposed]}, "species 0|does not fit|is not in"),
        ({"plan": plan[:-1]}, "malformed plan"),
        ({"plan": [1, 3, *plan[2:]]}, "must cover it"),
        ({"plan": []}, "malformed plan"),
        ({"weights": [packed.weights.clone().requires_grad_(), packed.transposed]}, "constants"),
    ]:
        if "weights" in bad and bad["weights"][0] is not weights[0] and len(bad["weights"]) == 2:
            bad["species"] = species + 1  # the last matrix
        with pytest.raises(RuntimeError, match=f"linear_sums: .*({message})"):
            call(**bad)


def test_bad_gates_and_vectors():
    x = torch.zeros(2, 5)
    for sizes, factors in [
        ([5, 0, 0], [1.0]),
        ([5, 0], [1.0] * 3),
        ([4, 0, 0], [1.0] * 3),
        ([6, -1, 0], [1.0] * 3),
    ]:
        with pytest.raises(RuntimeError, match="gate: "):
            torch.ops.mlplugins.gate(x, sizes, factors)
    for v, l_max in [(x, 2), (torch.zeros(2, 3), 4), (torch.zeros(2, 3), 0), (torch.zeros(2, 3).long(), 1)]:
        with pytest.raises(RuntimeError, match="harmonics: "):
            torch.ops.mlplugins.harmonics(v, l_max, False)
