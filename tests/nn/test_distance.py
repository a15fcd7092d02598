import pytest
import torch

from mlplugins.nn.distance import Agnesi, Soft

ONE = [torch.zeros(5, dtype=torch.long), torch.zeros(5, dtype=torch.long)]
R = torch.tensor([0.5, 1.0, 1.5, 3.0, 6.0], dtype=torch.float64, requires_grad=True)
SPECIES = torch.tensor([0])


@pytest.mark.parametrize("transform", [Agnesi, Soft])
def test_first_and_second_derivatives(transform):
    module = transform(["Li"])
    r = R.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: module(x, SPECIES, ONE), (r,))
    assert torch.autograd.gradgradcheck(lambda x: module(x, SPECIES, ONE), (r,))


def test_agnesi_goes_from_one_at_contact_to_zero_far_away():
    near_and_far = torch.tensor([1e-3, 1e6], dtype=torch.float64)
    x = Agnesi(["Li"])(near_and_far, SPECIES, [ONE[0][:2], ONE[1][:2]])
    assert float(x[0]) == pytest.approx(1.0, abs=1e-12)
    assert 0.0 < float(x[1]) < 1e-4
    falling = Agnesi(["Li"])(R, SPECIES, ONE).detach()
    assert bool((falling.diff() < 0).all())


def test_soft_is_the_distance_above_the_bond_length_and_a_constant_below():
    radius = 2 * 1.28  # Li–Li
    r = torch.tensor([0.1 * radius, 0.2 * radius, 3 * radius], dtype=torch.float64)
    x = Soft(["Li"])(r, SPECIES, [ONE[0][:3], ONE[1][:3]])
    assert float(x[2]) == pytest.approx(3 * radius, rel=1e-9)
    assert float(x[0]) == pytest.approx(0.75 * radius, rel=1e-3)
    assert float(x[1] - x[0]) < 1e-3 * radius


def test_the_range_belongs_to_the_pair():
    agnesi = Agnesi(["H", "Cs"])
    r = torch.tensor([2.0, 2.0], dtype=torch.float64)
    edges = [torch.tensor([0, 1]), torch.tensor([1, 0])]
    x = agnesi(r, torch.tensor([0, 1]), edges)
    assert float(x[0]) == float(x[1])
    assert float(agnesi(r, torch.tensor([0, 0]), edges)[0]) < float(x[0])
