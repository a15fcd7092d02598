import pytest
import torch

from mlplugins.errors import BadInput
from mlplugins.models import nequip
from mlplugins.models.base import TrainingStatistics
from mlplugins.testing.families import FamilySuite


def _model(elements, **options):
    options = {"cutoff": 4.5, "num_features": 4, "radial_mlp": [8], **options}
    model = nequip.Model(elements, nequip.Hyperparameters(**options))
    model.initialise(TrainingStatistics(average_neighbors=12.0, force_rms=0.8))
    return model


class TestNequip(FamilySuite):
    def make_model(self):
        return _model(self.elements, num_layers=3, l_max=2)


class TestNequipWithParity(FamilySuite):
    def make_model(self):
        return _model(self.elements, num_layers=2, l_max=1, parity=True)


class TestNequipDegreeThree(FamilySuite):
    def make_model(self):
        return _model(self.elements, num_layers=2, l_max=3)


class TestNequipWithRepulsion(FamilySuite):
    def make_model(self):
        return _model(self.elements, num_layers=1, l_max=1, zbl=True)


class TestInvariantNequip(FamilySuite):
    def make_model(self):
        return _model(self.elements, num_layers=2, l_max=0)


def test_initialise_scales_the_energy():
    torch.manual_seed(0)
    model = nequip.Model(["Li"], nequip.Hyperparameters())
    model.initialise(TrainingStatistics(average_neighbors=20.0, force_rms=0.5))
    assert float(model.energy_scale) == 0.5
    assert float(model.average_neighbors) == 20.0


def test_one_layer_never_exchanges():
    assert _model(["Li"], num_layers=1).exchange_width == 0
    assert _model(["Li"], num_layers=2, l_max=1).exchange_width == 4 + 3 * 4


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"l_max": 4}, "'l_max' must be 0, 1, 2 or 3, got 4"),
        ({"cutoff": -1.0}, "'cutoff' must be positive, got -1.0"),
    ],
)
def test_bad_hyperparameters_are_refused(options, text):
    with pytest.raises(BadInput, match=text):
        nequip.Model(["Li"], nequip.Hyperparameters(**options))
