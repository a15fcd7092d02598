import pytest
import torch

from mlplugins.errors import BadInput
from mlplugins.models import lennard_jones, mace, nequip
from mlplugins.nn import lora
from mlplugins.structures.batch import graph_of
from mlplugins.testing.structures import standard_structures

ELEMENTS = ["Li", "S"]
MODELS = {
    "nequip": lambda: nequip.Model(ELEMENTS, nequip.Hyperparameters(num_layers=2, num_features=6)),
    "mace": lambda: mace.Model(ELEMENTS, mace.Hyperparameters(num_channels=4, l_max=1, correlation=2)),
}


def _energy(model):
    atoms = standard_structures(ELEMENTS)["crystal"]
    return model(graph_of(atoms, ELEMENTS, 5.0))["energy"].detach()


@pytest.mark.parametrize("family", MODELS)
def test_merged_equals_unmerged_and_has_the_base_architecture(family):
    torch.manual_seed(0)
    model = MODELS[family]()
    base = {name: value.clone() for name, value in model.state_dict().items()}
    before = _energy(model)
    lora.attach(model, rank=2, alpha=3.0)
    torch.testing.assert_close(_energy(model), before, rtol=0, atol=0)  # B = 0
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(std=0.1)
    updated = _energy(model)
    assert float((updated - before).abs().max()) > 1e-3
    lora.merge(model)
    torch.testing.assert_close(_energy(model), updated, rtol=0, atol=1e-12)
    assert list(model.state_dict()) == list(base)
    torch.testing.assert_close(_energy(torch.jit.script(model.eval())), updated, rtol=0, atol=1e-12)


def test_only_the_factors_are_trained_and_the_update_has_the_rank():
    torch.manual_seed(0)
    model = MODELS["nequip"]()
    lora.attach(model, rank=2, alpha=1.0)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained
    assert all(name.endswith((".0.a", ".0.b")) for name in trained)
    weights = model.interactions[0].linear_up.weights
    before = weights.parametrizations["0"].original.clone()
    weights.parametrizations["0"][0].b.data.normal_()
    update = (weights[0] - before)[0]
    assert int(torch.linalg.matrix_rank(update)) == 2


@pytest.mark.parametrize(
    "options",
    [
        {"l_max": 2, "num_features": [128, 64, 32], "self_connection": "linear"},
        {"l_max": 3, "num_features": [128, 64, 32, 32], "self_connection": "linear"},
    ],
)
def test_under_a_tenth_of_a_universal_model_is_trained(options):
    """Rank 4, the default; SevenNet-0 and l3i5 with the elements of Li6PS5Cl."""
    model = nequip.Model(
        ["Li", "P", "S", "Cl"],
        nequip.Hyperparameters(cutoff=5.0, num_layers=5, parity="even", radial_mlp=[64, 64], **options),
    )
    n_base = sum(p.numel() for p in model.parameters())
    lora.attach(model, rank=4, alpha=4.0)
    assert 0 < sum(p.numel() for p in model.parameters() if p.requires_grad) < 0.1 * n_base


def test_refusals():
    with pytest.raises(BadInput, match="rank must be 1 or more, got 0"):
        lora.attach(MODELS["nequip"](), 0, 1.0)
    with pytest.raises(BadInput, match="no linear maps"):
        lora.attach(lennard_jones.Model(["Ar"], lennard_jones.Hyperparameters()), 2, 1.0)
