"""Exported models are folded: what depends on the weights alone is computed at export, not at every step."""

import copy

import numpy as np
import pytest
import torch

from mlplugins import MLCalculator
from mlplugins.model_file.card import ModelCard
from mlplugins.model_file.write import save
from mlplugins.models import lennard_jones, mace, nequip
from mlplugins.models.base import TrainingStatistics, energy_derivatives
from mlplugins.nn.contraction import SymmetricContraction
from mlplugins.nn.linear import Linear
from mlplugins.nn.radial import RadialMLP
from mlplugins.structures.batch import graph_of
from mlplugins.testing.structures import standard_structures

ELEMENTS = ["Li", "S"]
NEQUIP = {"cutoff": 4.5, "num_layers": 2, "num_features": 4, "radial_mlp": [8, 8]}
MACE = {"cutoff": 4.5, "num_channels": 4, "l_max": 2, "radial_mlp": [8], "readout_mlp": 3, "zbl": True}
DENSITY = {"interaction_first": "RealAgnosticDensity", "interaction": "RealAgnosticDensityResidual"}
FAMILIES = {
    "nequip": lambda: nequip.Model(ELEMENTS, nequip.Hyperparameters(**NEQUIP)),
    "nequip even": lambda: nequip.Model(
        ELEMENTS, nequip.Hyperparameters(**NEQUIP, parity="even", self_connection="linear")
    ),
    "mace": lambda: mace.Model(ELEMENTS, mace.Hyperparameters(**MACE)),
    "mace density": lambda: mace.Model(
        ELEMENTS, mace.Hyperparameters(**MACE, **DENSITY, distance_transform="agnesi")
    ),
    "lennard-jones": lambda: lennard_jones.Model(ELEMENTS, lennard_jones.Hyperparameters()),
}


@pytest.fixture(params=list(FAMILIES))
def potential(request):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = FAMILIES[request.param]().double().eval()
    model.initialise(TrainingStatistics(average_neighbors=12.0, force_rms=0.8))
    return model


def _evaluate(potential, atoms):
    x = graph_of(atoms, ELEMENTS, potential.cutoff)
    x.vectors.requires_grad_()
    energy = potential(x)["energy"]
    forces, _ = energy_derivatives(energy, x, 1)
    return energy.detach(), forces


def test_a_folded_model_is_the_same_function(potential):
    """The same products of the same numbers: not one bit may differ."""
    folded = copy.deepcopy(potential)
    folded.optimise_for_inference()
    folded.optimise_for_inference()  # twice is once
    for name, atoms in standard_structures(ELEMENTS).items():
        for a, b in zip(_evaluate(potential, atoms), _evaluate(folded, atoms)):
            assert torch.equal(a, b), name


def test_a_folded_model_recomputes_nothing(potential):
    folded = copy.deepcopy(potential).requires_grad_(False)
    folded.optimise_for_inference()
    for module in folded.modules():
        if isinstance(module, RadialMLP):
            for matrix, weight in zip(module.matrices(), module.weights):
                assert matrix is weight
        if isinstance(module, SymmetricContraction):
            assert module.folded_weights()[0] is module.coefficients
            assert not [*module.parameters()]
        if isinstance(module, Linear):
            assert module.folded


@pytest.mark.parametrize("portable", [False, True])
def test_export_folds_a_copy(potential, tmp_path, portable):
    before = {name: tensor.clone() for name, tensor in potential.state_dict().items()}
    save(potential, tmp_path / "model.pt", ModelCard("any", ELEMENTS, [0.5, -1.0]), "float64", portable)
    after = potential.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(parameter.requires_grad for parameter in potential.parameters())

    atoms = standard_structures(ELEMENTS)["crystal"]
    energy, forces = _evaluate(potential, atoms)
    expected = energy.numpy() + np.where(atoms.symbols == "Li", 0.5, -1.0)
    atoms.calc = MLCalculator(tmp_path / "model.pt")
    np.testing.assert_allclose(atoms.get_potential_energies(), expected, rtol=0, atol=1e-10)
    np.testing.assert_allclose(atoms.get_forces(), forces.numpy(), rtol=0, atol=1e-10)


def test_the_file_holds_no_weights_that_nothing_reads(tmp_path):
    """Weights and bases of the symmetric contraction are gone once they are folded."""
    model = FAMILIES["mace"]()
    save(model, tmp_path / "model.pt", ModelCard("mace", ELEMENTS, [0.0, 0.0]), "float64")
    names = [name for name, _ in torch.jit.load(tmp_path / "model.pt").named_parameters()]
    names += [name for name, _ in torch.jit.load(tmp_path / "model.pt").named_buffers()]
    assert any(name.endswith("contraction.coefficients") for name in names)
    assert not [name for name in names if ".paths.0" in name]
