import torch

from mlplugins.nn.irreps import o3
from mlplugins.nn.layer_norm import RMSLayerNorm


def test_scale_is_that_of_the_formula():
    """Two blocks of one irrep count as one; components lie as (m, channel)."""
    torch.manual_seed(0)
    irreps = o3.Irreps("2x0e+3x0e+2x1o")
    norm = RMSLayerNorm(irreps)
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(4, irreps.dim, dtype=torch.float64)
    vectors = x[:, 5:].reshape(4, 3, 2)
    mean = (x[:, :5].square().sum(1) + vectors.square().sum((1, 2)) / 9) / 2
    scaled = x / (mean + 1e-12).sqrt().unsqueeze(1)
    expected = torch.cat(
        [scaled[:, :5] * norm.weight[:5], (scaled[:, 5:].reshape(4, 3, 2) * norm.weight[5:]).flatten(1)], 1
    )
    torch.testing.assert_close(norm(x), expected, rtol=1e-14, atol=0)


def test_zero_stays_zero_with_finite_slopes():
    norm = RMSLayerNorm(o3.Irreps("2x0e+1x1o"))
    x = torch.zeros(1, 5, dtype=torch.float64, requires_grad=True)
    y = norm(x)
    assert (y == 0).all()
    assert torch.isfinite(torch.autograd.grad(y.sum(), x)[0]).all()
