import math

import numpy as np
import pytest
import torch
from e3nn import o3
from scipy.integrate import quad
from scipy.spatial.transform import Rotation
from scipy.special import spherical_in

from mlplugins.nn.soap import Expansion, Harmonics, PowerSpectrum, RadialIntegrals
from mlplugins.structures.graph import Graph


def test_harmonics_are_those_of_e3nn_up_to_signs():
    directions = torch.nn.functional.normalize(torch.randn(20, 3, dtype=torch.float64), dim=1)
    ours = Harmonics(7)(directions)
    theirs = o3.spherical_harmonics(list(range(8)), directions, False, "component") / math.sqrt(4 * math.pi)
    for degree in range(8):
        part = slice(degree**2, (degree + 1) ** 2)
        a, b = ours[:, part], theirs[:, part]
        # both are orthonormal bases of the same space: all scalar products agree
        torch.testing.assert_close(a @ a.T, b @ b.T, rtol=0, atol=1e-12)


def test_radial_functions_expand_a_gaussian():
    """Σ_n R_n0(r) g_n(s) is the spherical average of the Gaussian at r: its norm by quadrature."""
    sigma, distance = 0.6, 1.7
    radial = RadialIntegrals(5.0, 10, 0, sigma, 1.0)
    got = radial(torch.tensor([distance], dtype=torch.float64))[0]

    def profile(s: float) -> float:
        exponent = -0.5 * (s * s + distance * distance) / sigma**2
        return 4 * math.pi * math.exp(exponent) * spherical_in(0, s * distance / sigma**2)

    norm = quad(lambda s: profile(s) ** 2 * s * s, 0.0, 8.0, epsabs=1e-12)[0]
    # the basis is orthonormal and nearly complete for so wide a Gaussian
    assert float(got.square().sum()) == pytest.approx(norm, rel=1e-4)


def test_radial_functions_end_smoothly_and_begin_at_the_centre():
    radial = RadialIntegrals(4.0, 6, 3, 0.5, 0.7)
    r = torch.tensor([3.0, 4.0, 4.5], dtype=torch.float64)
    values = radial(r).reshape(3, 4, 6)
    assert values[0].abs().max() > 1e-3
    assert values[1:].abs().max() == 0.0
    near = radial(torch.tensor([1e-4], dtype=torch.float64)).reshape(4, 6)
    torch.testing.assert_close(near[0] / math.sqrt(4 * math.pi), radial.origin, rtol=1e-4, atol=1e-5)
    assert near[1:].abs().max() < 1e-3 * near[0].abs().max()  # r^l


def test_spectrum_is_the_overlap_of_densities_averaged_over_rotations():
    """p·p' = Σ_l |c_l c'_lᵀ|² / (2l + 1): the average of the squared overlap."""
    generator = torch.Generator().manual_seed(0)
    one, two = torch.randn(2, 5, 3, dtype=torch.float64, generator=generator)
    expansion = Expansion(1, RadialIntegrals(5.0, 4, 2, 0.5, 1.0), 4, 2)
    spectrum = PowerSpectrum(4, 2)
    zero = torch.zeros(6, dtype=torch.long)

    def coefficients(vectors):
        return expansion(Graph(zero, zero[:5], torch.arange(1, 6), vectors, zero, 1))

    expected = spectrum(coefficients(one)) @ spectrum(coefficients(two)).T
    total = 0.0
    nodes, weights = np.polynomial.legendre.leggauss(4)  # exact to the degrees that squares of l = 2 reach
    angles = 2 * math.pi * np.arange(6) / 6
    for z, weight in zip(nodes, weights):
        for a in angles:
            for c in angles:
                matrix = torch.from_numpy(Rotation.from_euler("zyz", [a, math.acos(z), c]).as_matrix())
                turned = coefficients(two @ matrix.T)
                overlap = sum(float((x * y).sum()) for x, y in zip(coefficients(one), turned))
                total += overlap**2 * weight / 2 / 36
    assert total == pytest.approx(float(expected), rel=1e-10)
