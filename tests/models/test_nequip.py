import numpy as np
import pytest
import torch
from ase import Atoms

from mlplugins.errors import BadInput
from mlplugins.models import nequip
from mlplugins.models.base import TrainingStatistics
from mlplugins.models.capabilities import use_radial_tables
from mlplugins.structures.batch import graph_of
from mlplugins.testing.families import FamilySuite, VariantSuite
from mlplugins.testing.structures import standard_structures


def _model(elements, **options):
    options = {"cutoff": 4.5, "num_features": 4, "radial_mlp": [8], **options}
    model = nequip.Model(elements, nequip.Hyperparameters(**options))
    model.initialise(TrainingStatistics(average_neighbors=12.0, force_rms=0.8))
    return model


class TestNequip(FamilySuite):
    def make_model(self):
        return _model(self.elements, num_layers=3, l_max=2)


class TestNequipWithScalarBias(VariantSuite):
    def make_model(self):
        model = _model(self.elements, num_layers=2, l_max=1, parity=True, scalar_bias=True)
        for interaction in model.interactions:
            for linear in (interaction.linear_up, interaction.self_connection):
                torch.nn.init.normal_(linear.bias)
        return model


class TestNequipWithLayerNorm(VariantSuite):
    def make_model(self):
        return _model(self.elements, num_layers=2, l_max=2, layer_norm=True)


class TestNequipWithParity(VariantSuite):
    def make_model(self):
        return _model(self.elements, num_layers=2, l_max=1, parity=True)


class TestNequipDegreeThree(VariantSuite):
    def make_model(self):
        return _model(self.elements, num_layers=2, l_max=3)


class TestNequipDegreeFour(VariantSuite):
    """Beyond the fused convolution."""

    def make_model(self):
        return _model(self.elements, num_layers=2, l_max=4, num_features=2)


class TestNequipWithPairCutoffs(VariantSuite):
    """Not symmetric, the repulsion and the numbers of neighbours by element."""

    def make_model(self):
        a, b = self.elements[:2]
        cutoffs = {a: {a: 3.5, b: 4.0}, b: {a: 4.5, b: 4.2}}
        options = {"pair_cutoffs": cutoffs, "neighbors_by_element": True, "zbl": True, "zbl_power": 5}
        return _model(self.elements, num_layers=2, l_max=1, **options)


class TestNequipWithoutParity(VariantSuite):
    """All options of SevenNet-0."""

    mirror_images_are_equal = False

    def make_model(self):
        options = {"parity": "even", "self_connection": "linear", "readout_mlp": [], "xplor_onset": 4.0}
        return _model(self.elements, num_layers=3, l_max=2, **{**options, "num_features": [4, 3, 2]})


class TestNequipWithOddScalars(VariantSuite):
    def make_model(self):
        model = _model(self.elements, num_layers=4, l_max=1, parity=True, num_features=[3, 2])
        assert "0o" in model.interactions[2].irreps_out
        return model


class TestNequipWithSolidHarmonics(VariantSuite):
    def make_model(self):
        return _model(self.elements, num_layers=2, l_max=2, solid_harmonics=True)


class TestNequipWithRepulsion(VariantSuite):
    def make_model(self):
        return _model(self.elements, num_layers=1, l_max=1, zbl=True)


class TestInvariantNequip(VariantSuite):
    def make_model(self):
        return _model(self.elements, num_layers=2, l_max=0)


def test_initialise_scales_the_energy():
    torch.manual_seed(0)
    model = nequip.Model(["Li"], nequip.Hyperparameters())
    model.initialise(TrainingStatistics(average_neighbors=20.0, force_rms=0.5))
    assert model.energy_scale.tolist() == [0.5]
    assert float(model.average_neighbors) == 20.0


def test_one_layer_never_exchanges():
    assert _model(["Li"], num_layers=1).exchange_width == 0
    assert _model(["Li"], num_layers=2, l_max=1).exchange_width == 4 + 3 * 4


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"l_max": 5}, "'l_max' must be 0, 1, 2, 3 or 4, got 5"),
        ({"zbl_power": 0}, "'zbl_power' must be positive, got 0"),
        ({"pair_cutoffs": {"Li": {"H": 2.0}}}, "'pair_cutoffs' names H; the model knows Li"),
        ({"pair_cutoffs": {"Li": {"Li": 6.0}}}, r"must lie between 0 and 'cutoff' \(5 Å\), got"),
        ({"cutoff": -1.0}, "'cutoff' must be positive, got -1.0"),
        ({"num_features": [4, 0]}, "'num_features' must be positive, got 0"),
        ({"num_features": [4, 4, 4]}, r"one number or l_max \+ 1 = 2, one per degree, got \[4, 4, 4\]"),
        ({"xplor_onset": 6.0}, r"between 0 and the cutoff \(5.0 Å\), got 6.0"),
        ({"parity": "odd"}, "'parity' must be true, false or 'even', got 'odd'"),
        ({"self_connection": "none"}, "'self_connection' must be 'species' or 'linear', got 'none'"),
    ],
)
def test_bad_hyperparameters_are_refused(options, text):
    with pytest.raises(BadInput, match=text):
        nequip.Model(["Li"], nequip.Hyperparameters(**options))


def test_radial_tables_of_degree_four_are_read_by_edge():
    """In plain torch too, where rows of weights are otherwise shared by i → j and j → i."""
    atoms = standard_structures(["Li", "S"])["triclinic"]
    torch.manual_seed(0)
    model = _model(["Li", "S"], num_layers=2, l_max=4, num_features=2)
    x = graph_of(atoms, ["Li", "S"], 4.5)
    exact = model(x)["energy"]
    use_radial_tables(model, 2049)
    model.use_native_ops()
    torch.testing.assert_close(model(x)["energy"], exact, rtol=0, atol=1e-6)


def test_one_table_serves_cutoffs_of_pairs():
    """It is a function of r / c_ij, here from 3 to 4.5 Å."""
    atoms = standard_structures(["Li", "S"])["triclinic"]
    torch.manual_seed(0)
    model = _model(["Li", "S"], num_layers=2, num_features=2, pair_cutoffs={"Li": {"Li": 4.0, "S": 3.0}})
    x = graph_of(atoms, ["Li", "S"], 4.5)
    exact = model(x)["energy"]
    use_radial_tables(model, 2049)
    model.use_native_ops()
    torch.testing.assert_close(model(x)["energy"], exact, rtol=0, atol=1e-6)
    model.transform = None
    assert float((model(x)["energy"] - exact).detach().abs().max()) > 1e-3


def test_only_the_even_model_tells_mirror_images_apart():
    """Four atoms in a chiral arrangement; paths such as (1, 1, 1) make pseudoscalars where all is even."""
    positions = np.array([[0, 0, 0], [1.9, 0.2, 0], [0.1, 2.1, 0.3], [0.3, 0.4, 2.4]])
    atoms = Atoms("LiSLiS", positions=positions)
    mirrored = Atoms("LiSLiS", positions=-positions)
    for parity, different in ((True, False), (False, False), ("even", True)):
        torch.manual_seed(0)
        model = _model(["Li", "S"], num_layers=3, l_max=1, parity=parity)
        left, right = (model(graph_of(a, ["Li", "S"], 4.5))["energy"].sum() for a in (atoms, mirrored))
        assert bool((left - right).abs() > 1e-7) == different
