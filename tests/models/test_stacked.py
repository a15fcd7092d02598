"""Members of a committee side by side in one network: the same numbers, or none is made."""

import copy
from dataclasses import replace

import pytest
import torch

from mlplugins.models import committee, nequip
from mlplugins.models._stacked import stacked
from mlplugins.models.capabilities import use_radial_tables
from mlplugins.structures.graph import Graph

PLAIN = nequip.Hyperparameters(
    cutoff=3.5, num_layers=3, l_max=2, num_features=3, radial_mlp=[4], readout_mlp=[5], num_basis=3
)


def _members(*each, knots=65):
    """Networks that differ in all that training changes, folded and with tables."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = []
        for k, hyperparameters in enumerate(each):
            member = nequip.Model(["Li", "S"], hyperparameters).eval().requires_grad_(False)
            member.average_neighbors.fill_(9.0 + k)
            member.energy_scale.copy_(torch.tensor([1.0 + k, 2.0]))
            member.shift.copy_(torch.randn(2))
            member.optimise_for_inference()
            if knots:
                use_radial_tables(member, knots)
            found.append(member)
        return found


def _graph():
    generator = torch.Generator().manual_seed(1)
    places = 5.0 * torch.rand(9, 3, generator=generator, dtype=torch.float64)
    near = (torch.cdist(places, places) < 3.5) & ~torch.eye(9, dtype=torch.bool)
    i, j = torch.where(near)
    v = (places[j] - places[i]).requires_grad_()
    return Graph(torch.arange(9) % 2, i, j, v, torch.zeros(9, dtype=torch.long), 9)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"parity": True, "l_max": 1, "self_connection": "linear", "num_features": [3, 2]},
        {"parity": "even", "num_layers": 2, "num_embedding": 2},
    ],
)
def test_energies_and_gradients_are_those_of_the_members(change):
    hyperparameters = replace(PLAIN, **change)
    members = _members(*[hyperparameters] * 3)
    offsets = torch.tensor([[0.1, 0.2], [0.3, -0.1], [-0.4, 0.5]], dtype=torch.float64)
    one = committee.Model.of(members, offsets).eval()
    wide = copy.deepcopy(one)
    wide.use_native_ops()
    assert one.wide is None
    assert wide.wide is not None
    assert wide.exchange_width == 3 * one.exchange_width
    results = []
    for model in (one, wide, torch.jit.script(wide)):
        graph = _graph()
        found = model(graph)
        [gradient] = torch.autograd.grad(found["energy"].square().sum(), graph.vectors)
        results.append((found["members"], found["energy"], gradient))
    assert results[0][0].std(dim=1).min() > 0.1
    assert results[0][2].abs().max() > 0.1
    for other in results[1:]:
        for ours, theirs in zip(results[0], other):
            torch.testing.assert_close(theirs, ours, rtol=1e-12, atol=1e-12)


BETWEEN = {"layer_norm", "scalar_bias", "zbl", "pair_cutoffs", "neighbors_by_element", "heads"}


@pytest.mark.parametrize(
    "change",
    [
        {"num_features": 4},
        {"num_layers": 2},
        {"cutoff": 3.4},
        {"layer_norm": True},
        {"scalar_bias": True},
        {"zbl": True},
        {"pair_cutoffs": {"Li": {"S": 3.0}}},
        {"neighbors_by_element": True},
        {"self_connection": "linear"},
        {"heads": {"dipole": {}}},
    ],
)
def test_others_stay_apart(change):
    """The second member differs in shape, or both have a part that sees all channels at once."""
    other = replace(PLAIN, **change)
    assert stacked(_members(PLAIN, other)) is None
    if set(change) & BETWEEN:
        assert stacked(_members(other, other)) is None


def test_neither_without_tables_nor_beyond_what_pays():
    assert stacked(_members(PLAIN, PLAIN, knots=0)) is None
    broad = replace(PLAIN, num_features=33, l_max=0, num_layers=1)
    assert stacked(_members(broad, broad)) is None
    assert stacked(_members(PLAIN, PLAIN)) is not None
