import pytest
import torch

from mlplugins.errors import BadInput
from mlplugins.models import mace
from mlplugins.models.base import TrainingStatistics
from mlplugins.structures.graph import Graph
from mlplugins.testing.families import FamilySuite, VariantSuite


def _model(elements, **options):
    options = {"cutoff": 4.5, "num_channels": 4, "radial_mlp": [8], "l_max": 2, "readout_mlp": 3, **options}
    model = mace.Model(elements, mace.Hyperparameters(**options))
    model.initialise(TrainingStatistics(average_neighbors=12.0, force_rms=0.8))
    return model


class TestMace(FamilySuite):
    def make_model(self):
        return _model(self.elements)


class TestMaceDegreeThree(VariantSuite):
    def make_model(self):
        return _model(self.elements, l_max=3, max_L=2, correlation=2, num_channels=2)


class TestMaceThreeLayersWithRepulsion(VariantSuite):
    def make_model(self):
        return _model(
            self.elements, num_interactions=3, l_max=1, max_L=0, zbl=True, interaction_first="RealAgnostic"
        )


class TestMaceDensityAgnesi(VariantSuite):
    def make_model(self):
        return _model(
            self.elements,
            correlation=2,
            interaction_first="RealAgnosticDensity",
            interaction="RealAgnosticDensityResidual",
            distance_transform="agnesi",
            zbl=True,
        )


class TestMaceSoftOneLayer(VariantSuite):
    def make_model(self):
        return _model(self.elements, num_interactions=1, distance_transform="soft")


class TestMaceNonLinear(VariantSuite):
    """The blocks of MH-1 and OMOL behind one with a plain radial network, which takes the envelope, too."""

    def make_model(self):
        model = _model(
            self.elements,
            correlation=2,
            interaction_first="RealAgnosticDensity",
            interaction="RealAgnosticResidualNonLinear",
            sent_channels=[2, 1, 1],
            envelope_on_weights=True,
            biased_readout=True,
        )
        block = model.layers[1].interaction
        for table in (block.of_neighbor, block.of_center):
            torch.nn.init.normal_(table)
        block.beta.data.fill_(0.5)
        return model


def test_initialise_scales_the_energy():
    torch.manual_seed(0)
    model = mace.Model(["Li"], mace.Hyperparameters(num_channels=2, l_max=1))
    model.initialise(TrainingStatistics(average_neighbors=20.0, force_rms=0.5))
    assert float(model.energy_scale) == 0.5
    assert [float(layer.interaction.average_neighbors) for layer in model.layers] == [20.0, 20.0]


def test_exchange_width_is_the_hidden_row():
    assert _model(["Li"], num_interactions=1).exchange_width == 0
    assert _model(["Li"], max_L=1).exchange_width == 4 + 3 * 4


def test_an_isolated_atom_without_first_residual_has_the_shift_energy():
    """In the non-residual first block everything is built from neighbours: E0 stays exact."""
    model = _model(["Li", "S"], num_interactions=1, interaction_first="RealAgnostic").eval()
    with torch.no_grad():
        model.shift.copy_(torch.tensor([0.25, -1.5]))
    none = torch.zeros(0, dtype=torch.long)
    vectors = torch.zeros(0, 3, dtype=torch.float64)
    energy = model(Graph(torch.tensor([0, 1]), none, none, vectors, torch.tensor([0, 0]), 2))["energy"]
    torch.testing.assert_close(energy, 0.8 * model.shift, rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"l_max": 4}, "'l_max' must be 0 to 3, got 4"),
        ({"l_max": 1, "max_L": 2}, r"'max_L' must be 0 to 1 \(at most 'l_max'\), got 2"),
        ({"correlation": 4}, "'correlation' must be 1 to 3, got 4"),
        ({"cutoff": -1.0}, "'cutoff' must be positive, got -1.0"),
        ({"num_interactions": 0}, "'num_interactions' must be positive, got 0"),
        ({"interaction": "Residual"}, "'interaction' must be one of RealAgnostic, .*, got 'Residual'"),
        ({"sent_channels": []}, r"'sent_channels' must be positive numbers by degree, got \[\]"),
        ({"distance_transform": "Agnesi"}, "'distance_transform' must be one of none, agnesi, soft"),
    ],
)
def test_bad_hyperparameters_are_refused(options, text):
    with pytest.raises(BadInput, match=text):
        mace.Model(["Li"], mace.Hyperparameters(**options))
