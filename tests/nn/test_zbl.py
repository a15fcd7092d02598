import pytest
import torch

from mlplugins.nn.zbl import ROUNDED, ZBL


def test_value_against_an_independent_evaluation():
    """Si–Si at 1 Å, from LAMMPS' pair_style zbl formula evaluated by hand with its constants."""
    from math import exp

    a = 0.46850 / (2 * 14**0.23)
    terms = [(0.18175, 3.19980), (0.50986, 0.94229), (0.28022, 0.40290), (0.02817, 0.20162)]
    bare = 14.399645 * 14 * 14 / 1.0 * sum(c * exp(-d / a) for c, d in terms)
    x = 1.0 / (2 * 1.11)
    envelope = 1 - 28 * x**6 + 48 * x**7 - 21 * x**8
    zbl = ZBL(["Si"])
    none = torch.zeros(1, dtype=torch.long)
    energy = zbl.pair_energy(none, none, torch.tensor([1.0], dtype=torch.float64))
    assert float(energy) == pytest.approx(bare * envelope, rel=1e-6)


def test_ends_at_the_sum_of_covalent_radii():
    zbl = ZBL(["Li", "S"])
    i, j = torch.tensor([0, 0]), torch.tensor([1, 1])
    r = torch.tensor([1.28 + 1.05 - 1e-3, 1.28 + 1.05 + 1e-3], dtype=torch.float64)
    inside, outside = zbl.pair_energy(i, j, r).tolist()
    assert 0.0 < inside < 1e-6
    assert outside == 0.0


def test_other_constants_and_envelope_are_used():
    zbl = ZBL(["Si"], envelope_power=5, screening=ROUNDED)
    none, r = torch.zeros(1, dtype=torch.long), torch.tensor([1.5], dtype=torch.float64)
    x = 1.5 / (2 * 1.11)
    rounded = float(zbl.pair_energy(none, none, r)) / (1 - 21 * x**5 + 35 * x**6 - 15 * x**7)
    exact = float(ZBL(["Si"]).pair_energy(none, none, r)) / (1 - 28 * x**6 + 48 * x**7 - 21 * x**8)
    assert rounded == pytest.approx(exact, rel=1e-3)
    assert rounded != pytest.approx(exact, rel=1e-6)
