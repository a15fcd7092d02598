"""The radial bases."""

import pytest
import torch

from mlplugins.nn.radial import BesselBasis, radial_slopes


@pytest.mark.parametrize("onset", [None, 3.0])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
def test_slopes_are_the_derivative_of_the_basis(onset, dtype, tolerance):
    """Below the onset of the envelope, at it, near the cutoff, at it and beyond."""
    basis = BesselBasis(4.5, 8, xplor_onset=onset).to(dtype)
    r = torch.tensor([0.3, 1.7, 3.0, 3.4, 4.49, 4.5, 5.0], dtype=dtype, requires_grad=True)
    wanted = radial_slopes(basis(r), r)
    assert wanted[:5].abs().max() > 0.1
    torch.testing.assert_close(basis.slopes(r), wanted, rtol=0, atol=tolerance * float(wanted.abs().max()))
