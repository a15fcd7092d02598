"""Heads on the features of both families: symmetries, ghosts, TorchScript; what they are made of."""

import numpy as np
import pytest
import torch

from mlplugins import heads
from mlplugins.errors import BadInput
from mlplugins.heads import LabelSizes
from mlplugins.models import mace, nequip
from mlplugins.models import sum as sums
from mlplugins.models.base import TrainingStatistics
from mlplugins.structures.batch import graph_of
from mlplugins.testing.families import VariantSuite
from mlplugins.testing.structures import standard_structures

STATISTICS = TrainingStatistics(
    average_neighbors=12.0,
    force_rms=0.8,
    labels={"dipole": LabelSizes((0.3,)), "direct_forces": LabelSizes((0.8,))},
)
HEADS = {"dipole": {"width": 8}}
BOTH = {**HEADS, "direct_forces": {"channels": 4, "width": 8}}
TENSORS = {"polarizability": {"width": 8}, "shielding": {"width": 8}, "isotropic_shielding": {"width": 8}}
CHARGES = {"charges": {"channels": 4, "width": 8}}
POINTS = {"dipole": {"atomic": False}}


def with_heads(elements, family=nequip, **options):
    options = {"cutoff": 4.5, "radial_mlp": [8], "heads": HEADS, **options}
    model = family.Model(elements, family.Hyperparameters(**options))
    model.initialise(STATISTICS)
    model.initialise_heads(STATISTICS)
    return model


class TestNequip(VariantSuite):
    def make_model(self):
        return with_heads(self.elements, num_layers=2, num_features=4, l_max=2, heads={**BOTH, **TENSORS})

    test_second_derivatives = None  # of the energy, which has no heads
    test_optimised_script_equals_eager = None


class TestCharges(VariantSuite):
    """Beside a dipole of the same charges; those that flow over the border of a domain are refused."""

    def make_model(self):
        return with_heads(self.elements, num_layers=1, num_features=4, heads={**CHARGES, **POINTS})

    test_second_derivatives = None
    test_optimised_script_equals_eager = None

    def test_ghosts_equal_folded(self, model):
        with pytest.raises(RuntimeError, match="charges: other processes hold flows into these atoms"):
            super().test_ghosts_equal_folded(model)


class TestSum(TestNequip):
    """Of two terms with heads, of which one has a shorter cutoff, and one without: mace and nequip."""

    def make_model(self):
        first = with_heads(self.elements, mace, num_channels=2, l_max=1, correlation=1, heads=BOTH)
        second = with_heads(self.elements, num_layers=2, num_features=2, cutoff=3.5, heads=BOTH)
        plain = nequip.Model(self.elements, nequip.Hyperparameters(num_layers=1, num_features=2, cutoff=4.0))
        return sums.Model.of([first, plain, second])


def test_a_sum_adds_the_heads_of_its_terms():
    atoms = standard_structures(("H", "O"))["molecule"]
    terms = [with_heads(["H", "O"], num_layers=2, num_features=4, cutoff=4.5) for _ in range(2)]
    graph = graph_of(atoms, ["H", "O"], 4.5)
    parts = [term.everything(graph)["dipole"].detach().numpy() for term in terms]
    total = sums.Model.of(terms).everything(graph)["dipole"].detach().numpy()
    np.testing.assert_allclose(total, parts[0] + parts[1], rtol=0, atol=1e-14)


def test_only_what_is_wanted_is_computed():
    model = with_heads(["H", "O"], num_layers=2, num_features=4)
    called = []
    model.heads["dipole"].register_forward_hook(lambda *_: called.append(True))
    graph = graph_of(standard_structures(("H", "O"))["molecule"], ["H", "O"], 4.5)
    found = model(graph)
    assert model.of_heads(graph, found, ["energy"]) == {}
    assert not called
    assert list(model.of_heads(graph, found, ["dipole"])) == ["dipole"]
    assert called


def test_the_size_of_the_labels_is_that_of_the_fresh_head():
    model = with_heads(["H", "O"], num_layers=2, num_features=4)
    atoms = standard_structures(("H", "O"))["crystal"]
    graph = graph_of(atoms, ["H", "O"], 4.5)
    before = model.everything(graph)["dipole"]
    model.initialise_heads(TrainingStatistics(12.0, 0.8, {"dipole": LabelSizes((0.6,))}))
    torch.testing.assert_close(model.everything(graph)["dipole"], 2 * before)


def test_the_head_belongs_to_the_last_stage():
    for model in (
        with_heads(["H"], num_layers=2, num_features=2),
        with_heads(["H"], mace, num_channels=2, l_max=1, correlation=1),
    ):
        names = [name for name in model.state_dict() if name.startswith("heads.")]
        assert names
        assert {model.stage(name) for name in names} == {model.n_layers + 1}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"num_layers": 1, "heads": {"dipole": {"atomic": False, "channels": 0}}},
            "'channels' of charges must",
        ),
        ({"num_layers": 1}, "dipole needs features of irrep 1o, and no layer of the model has them"),
        ({"num_layers": 2, "l_max": 0}, "irrep 1o"),
        ({"num_layers": 2, "parity": "even"}, "with parity: even no feature has a parity"),
        ({"num_layers": 2, "heads": {"dipol": {}}}, "no head predicts 'dipol': did you mean 'dipole'"),
        ({"num_layers": 2, "heads": {"dipole": {"with": 3}}}, "dipole: unknown key 'with'"),
        ({"num_layers": 2, "heads": {"dipole": {"width": 0}}}, "'width' must be positive, got 0"),
    ],
)
def test_what_a_head_cannot_be_made_of(options, said):
    with pytest.raises(BadInput, match=said.replace("(", r"\(")):
        with_heads(["H"], **options)


def test_there_is_a_head_for_every_record_that_names_one():
    for name in heads.predictable():
        assert heads.settings(name)() is not None


def test_charges_of_a_model_that_takes_a_charge_add_up_to_it():
    options = {"num_channels": 2, "l_max": 1, "correlation": 1, "heads": CHARGES}
    model = with_heads(["H", "O"], mace, state={"charge": [-2, 2]}, **options)
    atoms = standard_structures(("H", "O"))["molecule"]
    for charge in (0, -1):
        atoms.info["charge"] = charge
        charges = model.everything(graph_of(atoms, ["H", "O"], model.cutoff))["charges"].detach()
        assert float(charges.sum()) == pytest.approx(charge, abs=1e-13)
