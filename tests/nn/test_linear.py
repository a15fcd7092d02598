import math

import pytest
import torch
from e3nn import o3

from mlplugins.nn.linear import Linear


def test_mixes_the_blocks_of_an_irrep():
    """Blocks of one irrep mix, others do not; an irrep that the input lacks is zero."""
    irreps_in, irreps_out = o3.Irreps("3x0e+2x1o+4x0e+1x2e"), o3.Irreps("2x0e+3x1o+2x1e+2x0e")
    layer = Linear(irreps_in, irreps_out)
    x = torch.randn(5, irreps_in.dim, dtype=torch.float64)
    y = layer(x, torch.zeros(5, dtype=torch.long))
    expected = torch.zeros(5, irreps_out.dim, dtype=torch.float64)
    scalars = torch.cat([x[:, :3], x[:, 9:13]], dim=1)
    expected[:, :2] = scalars @ layer.weights[0][0] / math.sqrt(7)
    vectors = x[:, 3:9].reshape(5, 3, 2)
    expected[:, 2:11] = (vectors @ layer.weights[1][0] / math.sqrt(2)).reshape(5, 9)
    expected[:, 17:] = scalars @ layer.weights[3][0] / math.sqrt(7)
    torch.testing.assert_close(y, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("n_atoms", [0, 1, 7])
def test_weights_by_species_equal_a_copy_of_them_per_atom(n_atoms):
    """Values, first and second derivatives; species 2 never occurs."""
    generator = torch.Generator().manual_seed(0)
    layer = Linear(o3.Irreps("4x1o"), o3.Irreps("5x1o"), n_species=4)
    layer.fold()
    w = layer.weights[0]
    x = torch.randn(n_atoms, 12, dtype=torch.float64, generator=generator, requires_grad=True)
    species = torch.tensor([3, 0, 1, 1, 0, 3, 1])[:n_atoms]

    def derivatives(y):
        g = torch.randn(
            y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(1), requires_grad=True
        )
        first = torch.autograd.grad(y, (x, w), g, create_graph=True)
        second = torch.autograd.grad((first[0] ** 2).sum() + (first[1] ** 3).sum(), (x, w, g))
        return [y, *first, *second]

    per_atom = torch.bmm(x.reshape(-1, 3, 4), w.index_select(0, species)).reshape(-1, 15)
    for a, b in zip(derivatives(layer(x, species)), derivatives(per_atom)):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
