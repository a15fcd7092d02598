"""The kernel sum: native op against plain torch, and both against automatic differentiation."""

import pytest
import torch

from mlplugins.models.molecular_kernel import kernel_and_slope
from mlplugins.ops import reference

pytestmark = pytest.mark.usefixtures("compiled")

SIGMA = 0.7


def data(points, rows, width, labels, seed=0):
    """Rows q, the last of them a training point; points x, a and b."""
    generator = torch.Generator().manual_seed(seed)
    q, x, b = (
        torch.randn(n, width, generator=generator, dtype=torch.float64) for n in (rows, points, points)
    )
    a = torch.randn(points, generator=generator, dtype=torch.float64)
    q[-1] = x[-1]
    return q, x, a if "energies" in labels else a[:0], b if "forces" in labels else b[:0]


def native(q, x, a, b, kernel):
    padded = torch.nn.functional.pad(a, (0, -len(a) % reference.POINTS))
    return torch.ops.mlplugins.kernel_sum(q, reference.pack_points(x, b), padded, kernel, SIGMA)


@pytest.mark.parametrize("kernel", ["gaussian", "matern52"])
@pytest.mark.parametrize("labels", ["energies", "forces", "energies+forces"])
@pytest.mark.parametrize(
    ("points", "rows", "width"), [(1, 1, 1), (8, 6, 3), (77, 13, 36), (9, 5, 300), (30, 3, 5000)]
)
def test_native_equals_plain_torch(kernel, labels, points, rows, width):
    q, x, a, b = data(points, rows, width, labels)
    scale = width**-0.5  # distances of the order of the length scale
    q, x = scale * q, scale * x
    energy, gradient = native(q, x, a, b, kernel)
    padded = torch.nn.functional.pad(a, (0, -len(a) % reference.POINTS))
    expected = reference.kernel_sum(q, reference.pack_points(x, b), padded, kernel, SIGMA)
    for found, wanted in zip((energy, gradient), expected):
        if (
            kernel == "matern52"
        ):  # the last row is a training point: plain torch loses half the digits of d = 0
            found, wanted = found[:-1], wanted[:-1]
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("kernel", ["gaussian", "matern52"])
def test_gradient_and_values_are_those_of_the_kernel(kernel):
    q, x, a, b = data(20, 5, 6, "energies+forces")
    q = q[:-1]  # automatic differentiation cannot cross d = 0
    energy, gradient = native(q, x, a, b, kernel)
    q, x = q.requires_grad_(), x.requires_grad_()
    k, _ = kernel_and_slope(kernel, SIGMA, (q[:, None] - x).square().sum(2))
    along = [torch.autograd.grad(row.sum(), x, create_graph=True)[0] for row in k]
    expected = k @ a + torch.stack([(b * slope).sum() for slope in along])
    torch.testing.assert_close(energy, expected.detach(), rtol=1e-12, atol=1e-12)
    (slope,) = torch.autograd.grad(expected.sum(), q)
    torch.testing.assert_close(gradient, slope, rtol=1e-11, atol=1e-11)


def test_a_nearly_flat_gaussian_keeps_its_digits():
    """k − 1 to relative precision: weights of flat kernels are large and cancel."""
    q, x = torch.zeros(1, 1, dtype=torch.float64), torch.tensor([[1e-4]], dtype=torch.float64)
    weight = torch.tensor([1e8], dtype=torch.float64)
    energy, _ = native(q, x, weight, x[:0], "gaussian")
    assert float(energy[0]) == pytest.approx(1e8 * -0.5e-8 / SIGMA**2, rel=1e-7)
    exact = 1e8 * torch.expm1(torch.tensor(-0.5e-8 / SIGMA**2, dtype=torch.float64))
    assert float(energy[0]) == pytest.approx(float(exact), rel=1e-14)


@pytest.mark.parametrize("kernel", ["gaussian", "matern52"])
def test_molecules_native_equals_plain_torch_and_automatic_differentiation(kernel):
    generator = torch.Generator().manual_seed(1)
    positions = torch.randn(3, 4, 3, generator=generator, dtype=torch.float64)
    scale, shift, a = (torch.rand(n, generator=generator, dtype=torch.float64) for n in (6, 6, 16))
    x, b = (torch.rand(16, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    pairs = torch.stack([torch.arange(6), torch.randperm(6, generator=generator)])
    tables = [scale, shift, pairs, reference.pack_points(x, b), a]
    found = torch.ops.mlplugins.molecular_kernel(positions, tables, kernel, SIGMA)
    expected = reference.molecular_kernel(positions, tables, kernel, SIGMA)
    for one, other in zip(found, expected):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-11)

    def energy(r):
        return reference.molecular_kernel(r, tables, kernel, SIGMA)[0].sum()

    for place in range(12):
        step = torch.zeros(36, dtype=torch.float64)
        step[place] = 1e-5
        moved = [energy(positions + sign * step.reshape(3, 4, 3)) for sign in (1, -1)]
        slope = float(moved[0] - moved[1]) / 2e-5
        assert float(found[1].flatten()[place]) == pytest.approx(slope, abs=1e-7)
