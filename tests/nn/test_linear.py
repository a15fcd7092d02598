import pytest
import torch

from mlplugins.nn.linear import by_species


@pytest.mark.parametrize("n_atoms", [0, 1, 7])
def test_weights_by_species_equal_a_copy_of_them_per_atom(n_atoms):
    """Values, first and second derivatives; species 2 never occurs."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n_atoms, 3, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    w = torch.randn(4, 4, 5, dtype=torch.float64, generator=generator, requires_grad=True)
    species = torch.tensor([3, 0, 1, 1, 0, 3, 1])[:n_atoms]

    def derivatives(y):
        g = torch.randn(
            y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(1), requires_grad=True
        )
        first = torch.autograd.grad(y, (x, w), g, create_graph=True)
        second = torch.autograd.grad((first[0] ** 2).sum() + (first[1] ** 3).sum(), (x, w, g))
        return [y, *first, *second]

    expected = derivatives(torch.bmm(x, w.index_select(0, species)))
    for a, b in zip(derivatives(by_species(x, w, species)), expected):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_no_atoms_stay_part_of_the_graph():
    x = torch.zeros(0, 1, 2, requires_grad=True)
    y = by_species(x, torch.ones(3, 2, 2), torch.zeros(0, dtype=torch.long))
    assert torch.autograd.grad(y.sum(), x)[0].shape == x.shape
