"""The symmetric contraction: its basis against group theory, equivariance, a dense evaluation, its state."""

import math
from itertools import permutations

import pytest
import torch
from e3nn import o3

from mlplugins.errors import BadInput
from mlplugins.nn.contraction import SymmetricContraction, _symmetric_basis, monomial_basis, symmetric_basis
from mlplugins.ops import reference

SPHERICAL = o3.Irreps("0e+1o+2e+3o")
MIXED = o3.Irreps("0e+0o+1e+1o+2o")


def _dense(monomials, basis, n_in, n_out, order):
    """Symmetric tensors (η, k, i1, …) of a basis."""
    u = torch.zeros(len(basis), n_out, *[n_in] * order, dtype=torch.float64)
    for (k, *padded), column in zip(monomials.tolist(), basis.T):
        places = set(permutations(padded[:order]))
        for place in places:
            u[(slice(None), k, *place)] += column / len(places)
    return u


def _multiplicity(irreps, ir_out, order):
    """How often ir_out occurs in the symmetric power: ∫ χ_out χ_sym over O(3); the quadrature is exact."""

    def character(angle, inversion):
        total = 0.0
        for mul, ir in irreps:
            chi = sum(math.cos(m * angle) for m in range(-ir.l, ir.l + 1))
            total += mul * chi * (ir.p if inversion else 1)
        return total

    def symmetric(angle, inversion):
        x1, x2, x3 = (character(n * angle, inversion and n % 2 == 1) for n in (1, 2, 3))
        return {1: x1, 2: (x1**2 + x2) / 2, 3: (x1**3 + 3 * x1 * x2 + 2 * x3) / 6}[order]

    n = 200
    total = 0.0
    for i in range(n):
        angle = 2 * math.pi * i / n
        chi = sum(math.cos(m * angle) for m in range(-ir_out.l, ir_out.l + 1))
        both = symmetric(angle, False) + ir_out.p * symmetric(angle, True)
        total += (1 - math.cos(angle)) / n * chi * both / 2
    return total


@pytest.mark.parametrize("irreps", [SPHERICAL, MIXED, o3.Irreps("2x0e+2x1o")], ids=str)
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("ir_out", ["0e", "0o", "1e", "1o", "2e", "3o"])
def test_dimension_of_the_basis(irreps, ir_out, order):
    expected = _multiplicity(irreps, o3.Irrep(ir_out), order)
    assert expected == pytest.approx(round(expected), abs=1e-8)
    monomials, basis = symmetric_basis(irreps, o3.Irrep(ir_out), order)
    assert basis.shape == (round(expected), len(monomials))
    assert not (basis == 0).all(dim=0).any()


def test_known_invariants():
    """The invariants of a vector: r·r only; of a scalar and a vector at order 3: a³ and a r·r."""
    vector = o3.Irreps("1o")
    assert [len(symmetric_basis(vector, o3.Irrep("0e"), order)[1]) for order in (1, 2, 3)] == [0, 1, 0]
    monomials, basis = symmetric_basis(o3.Irreps("0e+1o"), o3.Irrep("0e"), 3)
    assert monomials.tolist() == [[0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 2, 2], [0, 0, 3, 3]]
    # each of the three tensor entries of a x² is 1/3 of its coefficient
    torch.testing.assert_close(basis.abs(), torch.tensor([[1, 0, 0, 0], [0, 1, 1, 1]], dtype=torch.float64))


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("ir_out", ["0e", "1o", "2e"])
def test_basis_is_orthogonal_sorted_and_clean(ir_out, order):
    ir = o3.Irrep(ir_out)
    monomials, basis = symmetric_basis(SPHERICAL, ir, order)
    u = _dense(monomials, basis, SPHERICAL.dim, ir.dim, order).flatten(1)
    torch.testing.assert_close(u @ u.T, ir.dim * torch.eye(len(u), dtype=torch.float64), rtol=0, atol=1e-12)
    assert basis[basis != 0].abs().min() > 1e-3
    rows = monomials.tolist()
    assert rows == sorted(rows)
    assert all(i == sorted(i) for i in ([j for j in row[1:] if j >= 0] for row in rows))


def test_basis_is_made_once():
    wanted = [(o3.Irrep(ir_out), order) for ir_out in ("0e", "1o") for order in (1, 2, 3)]
    first = [symmetric_basis(SPHERICAL, *each) for each in wanted]
    made = _symmetric_basis.cache_info().misses
    again = [symmetric_basis(SPHERICAL, *each) for each in wanted]
    assert _symmetric_basis.cache_info().misses == made
    assert all(torch.equal(a, b) for one, other in zip(first, again) for a, b in zip(one, other))


def _layer(irreps_in, irreps_out, correlation, channels=5, n_species=3):
    torch.manual_seed(0)
    wide = [o3.Irreps([(channels, ir) for _, ir in o3.Irreps(irreps)]) for irreps in (irreps_in, irreps_out)]
    return SymmetricContraction(*wide, correlation, n_species)


def _rotate(irreps, x, rotation):
    """Rows in ir_mul order under a rotation or a rotation with inversion."""
    blocks, n = [], x.shape[0]
    for block, (mul, ir) in zip(x.split([mul * ir.dim for mul, ir in irreps], dim=1), irreps):
        d = ir.D_from_matrix(rotation)
        blocks.append(torch.einsum("ij,njc->nic", d, block.reshape(n, ir.dim, mul)).reshape(n, -1))
    return torch.cat(blocks, dim=1)


@pytest.fixture
def double():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # e3nn's matrices take it
    yield
    torch.set_default_dtype(before)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("inversion", [1, -1])
@pytest.mark.parametrize("correlation", [1, 2, 3])
@pytest.mark.parametrize(("irreps_in", "irreps_out"), [(SPHERICAL, "0e+1o+2e"), (MIXED, "0e+1o+1e+2o")])
def test_equivariance(irreps_in, irreps_out, correlation, inversion):
    layer = _layer(irreps_in, irreps_out, correlation)
    x = torch.randn(4, layer.irreps_in.dim)
    species = torch.tensor([0, 2, 1, 2])
    rotation = inversion * o3.rand_matrix()
    expected = _rotate(layer.irreps_out, layer(x, species), rotation)
    got = layer(_rotate(layer.irreps_in, x, rotation), species)
    assert expected.abs().max() > 0.1
    assert (got - expected).abs().max() < 1e-10 * expected.abs().max()


@pytest.mark.parametrize("irreps_out", ["0e", "0e+1o"])
def test_equals_a_dense_evaluation(irreps_out):
    layer = _layer(SPHERICAL, irreps_out, 3)
    n_in, channels = SPHERICAL.dim, 5
    x = torch.randn(4, n_in, channels, dtype=torch.float64)
    species = torch.tensor([0, 2, 1, 2])
    expected, path = [], 0
    for ir in (ir for _, ir in o3.Irreps(irreps_out)):
        total = 0.0
        for order in (1, 2, 3):
            u = _dense(*symmetric_basis(SPHERICAL, ir, order), n_in, ir.dim, order)
            weight = layer.paths[path].weight[species]  # (N, η, C)
            letters = "abc"[:order]
            powers = ",".join(f"n{i}u" for i in letters)
            total = total + torch.einsum(f"pk{letters},npu,{powers}->nku", u, weight, *[x] * order)
            path += 1
        expected.append(total.flatten(1))
    assert path == len(layer.paths)
    got = layer(x.flatten(1), species)
    torch.testing.assert_close(got, torch.cat(expected, dim=1), rtol=0, atol=1e-12)


def test_foreign_bases_need_be_neither_symmetric_nor_independent():
    irreps_in, irreps_out = o3.Irreps("3x0e+3x1o"), o3.Irreps("3x0e+3x1o")
    generator = torch.Generator().manual_seed(0)
    bases = [
        [
            torch.randn(ir.dim, *[4] * order, 7 * order, dtype=torch.float64, generator=generator)
            for order in (1, 2, 3)
        ]
        for _, ir in irreps_out
    ]
    layer = SymmetricContraction(irreps_in, irreps_out, 3, 2, bases)
    assert [path.weight.shape for path in layer.paths] == [(2, 7 * order, 3) for order in (1, 2, 3)] * 2
    x = torch.randn(6, 4, 3, dtype=torch.float64, generator=generator)
    species = torch.tensor([0, 1, 1, 0, 1, 0])
    expected, path = [], 0
    for orders in bases:
        total = 0.0
        for order, u in enumerate(orders, start=1):
            letters = "abc"[:order]
            powers = ",".join(f"n{i}u" for i in letters)
            weight = layer.paths[path].weight[species]
            total = total + torch.einsum(f"k{letters}p,npu,{powers}->nku", u, weight, *[x] * order)
            path += 1
        expected.append(total.flatten(1))
    got = layer(x.flatten(1), species)
    torch.testing.assert_close(got, torch.cat(expected, dim=1), rtol=1e-12, atol=1e-12)


def test_monomial_basis_inverts_the_dense_form():
    monomials, basis = symmetric_basis(SPHERICAL, o3.Irrep("1o"), 3)
    again = monomial_basis(_dense(monomials, basis, SPHERICAL.dim, 3, 3).movedim(0, -1))
    assert torch.equal(again[0], monomials)
    torch.testing.assert_close(again[1], basis, rtol=0, atol=1e-14)


def test_a_state_brings_its_own_basis():
    """The weights of a file mean something only together with the basis they were trained on."""
    irreps_in, irreps_out = o3.Irreps("3x0e+3x1o"), o3.Irreps("3x0e")
    foreign = [[torch.randn(1, *[4] * order, 9, dtype=torch.float64) for order in (1, 2)]]
    stored = SymmetricContraction(irreps_in, irreps_out, 2, 2, foreign)
    fresh = SymmetricContraction(irreps_in, irreps_out, 2, 2)
    fresh.load_state_dict(stored.state_dict())
    x, species = torch.randn(4, 12, dtype=torch.float64), torch.tensor([0, 1, 1, 0])
    assert torch.equal(fresh(x, species), stored(x, species))
    other_elements = SymmetricContraction(irreps_in, irreps_out, 2, 5)
    with pytest.raises(RuntimeError, match="size mismatch"):
        other_elements.load_state_dict(stored.state_dict())
    lacking = {name: t for name, t in stored.state_dict().items() if not name.endswith("basis")}
    with pytest.raises(RuntimeError, match="Missing key"):
        fresh.load_state_dict(lacking)


def test_freezing_keeps_the_result_and_cuts_the_weights_off():
    layer = _layer(SPHERICAL, "0e+1o", 3)
    x = torch.randn(4, layer.irreps_in.dim, dtype=torch.float64)
    species = torch.tensor([0, 2, 1, 2])
    expected = layer(x, species)
    layer.fold()
    got = layer(x, species)
    assert torch.equal(got, expected)
    assert expected.requires_grad
    assert not got.requires_grad
    single = layer.to(torch.float32)(x.float(), species)
    torch.testing.assert_close(single.double(), expected, rtol=1e-4, atol=1e-4)


def test_empty_and_scripted():
    layer = _layer(SPHERICAL, "0e+1o", 3)
    scripted = torch.jit.script(layer)
    none = torch.zeros(0, layer.irreps_in.dim, dtype=torch.float64), torch.zeros(0, dtype=torch.long)
    assert scripted(*none).shape == (0, layer.irreps_out.dim)
    x, species = torch.randn(3, layer.irreps_in.dim, dtype=torch.float64), torch.tensor([0, 2, 1])
    assert torch.equal(scripted(x, species), layer(x, species))


def test_reference_by_hand():
    """2 x_0 into component 0 and 3 x_0 x_1² into component 2, in two channels."""
    x = torch.tensor([[5.0, 7.0, 2.0, 3.0]])
    monomials = torch.tensor([[0, 0, -1, -1], [2, 0, 1, 1]])
    c = torch.tensor([[[0.0, 0.0], [0.0, 0.0]], [[2.0, 2.0], [3.0, 3.0]]])
    got = reference.symmetric_contraction(x, c, torch.tensor([1]), monomials, 3)
    assert got.tolist() == [[10.0, 14.0, 0.0, 0.0, 60.0, 189.0]]


@pytest.mark.parametrize(
    ("irreps_in", "irreps_out", "correlation", "n_species", "message"),
    [
        ("4x0e+3x1o", "4x0e", 2, 1, "one and the same multiplicity"),
        ("4x0e+4x1o", "2x0e", 2, 1, "one and the same multiplicity"),
        ("4x0e+4x1o", "4x0e", 4, 1, "correlation"),
        ("4x0e+4x1o", "4x0e", 0, 1, "correlation"),
        ("4x0e+4x1o", "4x0e", 2, 0, "n_species"),
        ("4x0e+4x1o", "4x0o", 3, 1, "do not reach 0o"),
    ],
)
def test_bad_input_is_refused(irreps_in, irreps_out, correlation, n_species, message):
    with pytest.raises(BadInput, match=message):
        SymmetricContraction(o3.Irreps(irreps_in), o3.Irreps(irreps_out), correlation, n_species)


def test_bad_bases_are_refused():
    irreps = o3.Irreps("4x0e+4x1o")
    with pytest.raises(BadInput, match="2 output irreps"):
        SymmetricContraction(irreps, irreps, 1, 1, [[torch.zeros(1, 4, 2)]])
    with pytest.raises(BadInput, match="order 1"):
        SymmetricContraction(irreps, o3.Irreps("4x0e"), 1, 1, [[torch.zeros(3, 4, 2)]])
    with pytest.raises(BadInput, match="one to three D"):
        monomial_basis(torch.zeros(1, 4, 3, 2))
