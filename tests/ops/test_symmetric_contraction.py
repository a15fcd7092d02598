"""The native symmetric contraction against its plain-torch reference: values, all derivatives, bad input."""

import hypothesis.strategies as st
import pytest
import torch
from e3nn import o3
from hypothesis import HealthCheck, given, settings

from mlplugins.nn.contraction import SymmetricContraction
from mlplugins.ops import reference

from .comparison import assert_equal

pytestmark = pytest.mark.usefixtures("compiled")


def _native(*case):
    return torch.ops.mlplugins.symmetric_contraction(*case)


def _tensors(sizes, dtype, generator):
    """Random x, coefficients and species for (nodes, components, channels, species, monomials)."""
    n, n_in, channels, n_species, n_rows = sizes
    x = torch.randn(n, n_in * channels, dtype=dtype, generator=generator, requires_grad=True)
    c = torch.randn(n_species, n_rows, channels, dtype=dtype, generator=generator, requires_grad=True)
    return x, c, torch.randint(0, n_species, (n,), generator=generator)


def _layer_case(irreps_in, irreps_out, correlation, n, n_species, dtype=torch.float64):
    """A case with the monomials of a real layer."""
    layer = SymmetricContraction(o3.Irreps(irreps_in), o3.Irreps(irreps_out), correlation, n_species)
    c, monomials = layer.folded_weights()
    n_in = o3.Irreps(irreps_in).dim // c.shape[2]
    x, c, species = _tensors(
        (n, n_in, c.shape[2], n_species, c.shape[1]), dtype, torch.Generator().manual_seed(0)
    )
    return x, c, species, monomials, layer.n_out


def _all_derivatives(function, case, seed=1):
    """Value, gradients with respect to x and c, and the gradients of a random mix of those."""
    x, c, species, monomials, n_out = case
    generator = torch.Generator().manual_seed(seed)
    out = function(x, c, species, monomials, n_out)
    g = torch.randn(out.shape, dtype=out.dtype, generator=generator, requires_grad=True)
    first = torch.autograd.grad(out, (x, c), g, create_graph=True)
    mix = sum((torch.randn(d.shape, dtype=d.dtype, generator=generator) * d).sum() for d in first)
    second = torch.autograd.grad(mix, (g, x, c))
    return [out, *first, *second]


def _assert_equal(case):
    ops = _native, reference.symmetric_contraction
    assert_equal(_all_derivatives, ops, case, ("out", "dx", "dc", "ddg", "ddx", "ddc"))


@st.composite
def cases(draw):
    """Any polynomial: random rows in any order, repeated ones and empty outputs included."""
    n_in, n_out, correlation = draw(st.integers(1, 9)), draw(st.integers(1, 5)), draw(st.integers(1, 3))
    n_rows = draw(st.integers(0, 60))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    order = torch.randint(1, correlation + 1, (n_rows,), generator=generator)
    inputs = torch.randint(0, n_in, (n_rows, 3), generator=generator).sort(dim=1).values
    inputs[torch.arange(3) >= order[:, None]] = -1
    outputs = torch.randint(0, n_out, (n_rows, 1), generator=generator)
    n, channels, n_species = draw(st.integers(0, 300)), draw(st.integers(1, 37)), draw(st.integers(1, 4))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    x, c, species = _tensors((n, n_in, channels, n_species, n_rows), dtype, generator)
    return x, c, species, torch.cat([outputs, inputs], dim=1), n_out


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cases())
def test_equals_reference_for_random_polynomials(case):
    _assert_equal(case)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("irreps_in", "irreps_out", "correlation"),
    [
        ("64x0e+64x1o+64x2e+64x3o", "64x0e+64x1o", 3),
        ("33x0e+33x1o+33x2e", "33x0e+33x1o+33x2e", 3),
        ("7x0e+7x0o+7x1e+7x1o", "7x0o+7x1e", 2),
        ("128x0e+128x1o", "128x1o", 1),
    ],
)
def test_equals_reference_for_real_layers(irreps_in, irreps_out, correlation, dtype):
    _assert_equal(_layer_case(irreps_in, irreps_out, correlation, 25, 3, dtype))


def test_elements_that_are_absent_or_many():
    """Unused rows of the coefficients get zero gradients; sums over many nodes of one element are cut."""
    x, c, species, monomials, n_out = _layer_case("4x0e+4x1o", "4x0e+4x1o", 3, 700, 5)
    species = torch.where(species == 3, 1, species)
    _assert_equal((x, c, species, monomials, n_out))
    out = _native(x, c, species, monomials, n_out)
    (gradient,) = torch.autograd.grad(out.sum(), c)
    assert torch.equal(gradient[3], torch.zeros_like(gradient[3]))
    assert gradient[1].abs().min() > 0


def test_rows_that_are_not_contiguous():
    x, c, species, monomials, n_out = _layer_case("4x0e+4x1o", "4x0e", 3, 10, 2)
    wide = torch.randn(10, 40, dtype=x.dtype, requires_grad=True)
    turned = c.detach().permute(2, 0, 1).contiguous().requires_grad_()
    strided = torch.stack([species, species], dim=1)[:, 0]
    case = (wide[:, 3:19], turned.permute(1, 2, 0), strided, monomials, n_out)
    torch.testing.assert_close(_native(*case), reference.symmetric_contraction(*case), rtol=0, atol=1e-12)
    got = torch.autograd.grad(_native(*case).square().sum(), (wide, turned))
    expected = torch.autograd.grad(reference.symmetric_contraction(*case).square().sum(), (wide, turned))
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-10)


def test_two_threads_equal_one_and_repeat_bit_by_bit():
    case = _layer_case("32x0e+32x1o+32x2e", "32x0e+32x1o", 3, 400, 2, torch.float32)
    before = torch.get_num_threads()
    runs = []
    try:
        for threads in (1, 2, 2):
            torch.set_num_threads(threads)
            runs.append(_all_derivatives(_native, case))
        _assert_equal(case)
    finally:
        torch.set_num_threads(before)
    for run in runs[1:]:
        for a, b in zip(runs[0], run):
            assert torch.equal(a, b)


@pytest.mark.parametrize("function", [reference.symmetric_contraction, _native])
def test_gradcheck(function):
    x, c, species, monomials, n_out = _layer_case("2x0e+2x1o", "2x0e+2x1o", 3, 3, 2)

    def of_x_and_c(x, c):
        return function(x, c, species, monomials, n_out)

    assert torch.autograd.gradcheck(of_x_and_c, (x, c))
    assert torch.autograd.gradgradcheck(of_x_and_c, (x, c))


def test_gradients_that_are_not_asked_for():
    """Forces of a fixed model, weights of a fixed input, and forces in the loss with either."""
    x, c, species, monomials, n_out = _layer_case("4x0e+4x1o", "4x0e+4x1o", 3, 9, 2)
    for fixed in range(2):
        leaves = [x.detach(), c.detach()]
        free = leaves[1 - fixed].requires_grad_()
        results = []
        for function in (_native, reference.symmetric_contraction):
            energy = function(*leaves, species, monomials, n_out).square().sum()
            (first,) = torch.autograd.grad(energy, free, create_graph=True)
            (second,) = torch.autograd.grad(first.square().sum(), free)
            results.append((first, second))
        torch.testing.assert_close(*results, rtol=1e-12, atol=1e-9)


def test_third_derivatives_are_refused():
    x, c, species, monomials, n_out = _layer_case("2x0e", "2x0e", 3, 3, 1)
    out = _native(x, c, species, monomials, n_out)
    (first,) = torch.autograd.grad(out.sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="third derivatives"):
        torch.autograd.grad(second.sum(), x)


BAD = {
    "species high": ("species", lambda t: t + 2, "is not in"),
    "species negative": ("species", lambda t: t - 1, "is not in"),
    "species rows": ("species", lambda t: t[:-1], "one species per row"),
    "species dtype": ("species", lambda t: t.int(), "int64"),
    "x dtype": ("x", lambda t: t.float(), "one dtype"),
    "x width": ("x", lambda t: t[:, :-1], "not a multiple"),
    "x components": ("x", lambda t: t[:, :-4], "needs input"),
    "x dimensions": ("x", lambda t: t[0], "expected x"),
    "x device": ("x", lambda t: t.to("meta"), "one device"),
    "coefficients": ("coefficients", lambda t: t[:, :-1], "one row per coefficient"),
    "no channels": ("coefficients", lambda t: t[:, :, :0], "not a multiple"),
    "monomials columns": ("monomials", lambda t: t[:, :3], "monomials"),
    "monomials dtype": ("monomials", lambda t: t.int(), "int64"),
    "gap": ("monomials", lambda t: t[:, [0, 1, 3, 2]], "malformed monomial"),
    "constant": ("monomials", lambda t: torch.where(torch.arange(4) > 0, -1, t), "malformed monomial"),
    "n_out": ("n_out", lambda n: n - 1, "output component"),
    "negative n_out": ("n_out", lambda n: -1, "negative"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_bad_input_is_refused(case):
    name, change, match = BAD[case]
    names = ("x", "coefficients", "species", "monomials", "n_out")
    arguments = dict(zip(names, _layer_case("4x0e+4x1o", "4x0e+4x1o", 2, 6, 2)))
    arguments[name] = change(arguments[name])
    with pytest.raises(RuntimeError, match=match):
        _native(*arguments.values())


def test_half_precision_is_refused():
    x, c, species, monomials, n_out = _layer_case("4x0e", "4x0e", 1, 2, 1)
    with pytest.raises(RuntimeError, match="float32 or float64"):
        _native(x.half(), c.half(), species, monomials, n_out)


@pytest.mark.parametrize("folded", [False, True])
def test_scripted(folded):
    layer = SymmetricContraction(o3.Irreps("4x0e+4x1o"), o3.Irreps("4x0e+4x1o"), 3, 2)
    x, _, species, _, _ = _layer_case("4x0e+4x1o", "4x0e+4x1o", 3, 6, 2)
    expected = layer(x, species)
    layer.use_native_ops()
    if folded:
        layer.fold()
    got = torch.jit.script(layer)(x, species)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)
