import numpy as np
import pytest
import torch

from mlplugins.models import nequip
from mlplugins.models.base import TrainingStatistics
from mlplugins.quantities import QUANTITIES, Results
from mlplugins.structures import batch
from mlplugins.structures.dataset import from_atoms
from mlplugins.structures.metrics import metrics
from mlplugins.training.gradient_config import LossSection
from mlplugins.training.loss import ErrorSums, Predictor, Residual, loss, residuals

from .argon import argon


@pytest.fixture
def case():
    torch.manual_seed(0)
    hyperparameters = nequip.Hyperparameters(cutoff=5.5, num_layers=2, num_features=4, radial_mlp=[8])
    model = nequip.Model(["Ar"], hyperparameters)
    model.initialise(TrainingStatistics(40.0, 0.5))
    structures = [from_atoms(a) for a in argon(3, 2)]
    return (
        model,
        structures,
        batch.concatenate([batch.single(s, ["Ar"], 5.5, 0.0, torch.float64) for s in structures]),
    )


@pytest.mark.parametrize(
    "weights",
    [
        LossSection(energy=1, forces=0, stress=0),
        LossSection(energy=0, forces=1, stress=0),
        LossSection(energy=0, forces=0, stress=1),
        LossSection(energy=1, forces=10, stress=5, huber=0.05),
    ],
)
def test_gradient_of_the_loss_is_its_finite_difference(case, weights):
    """A failure means that training follows a wrong gradient (the double backward of forces or stress)."""
    model, _, b = case
    module = Predictor(model)

    def value():
        return loss(residuals(module(b, True), b), weights)

    value().backward()
    rng = np.random.default_rng(0)
    step = 1e-6
    for name, parameter in model.named_parameters():
        if parameter.grad is None:
            continue
        direction = torch.from_numpy(rng.normal(size=parameter.shape))
        with torch.no_grad():
            parameter += step * direction
        up = value().item()
        with torch.no_grad():
            parameter -= 2 * step * direction
        down = value().item()
        with torch.no_grad():
            parameter += step * direction
        slope = float((parameter.grad * direction).sum())
        scale = float(parameter.grad.norm() * direction.norm())
        assert (up - down) / (2 * step) == pytest.approx(slope, abs=1e-6 * scale + 1e-9), name


def test_loss_is_the_formula():
    energy = torch.tensor([0.1, -0.3])
    forces = torch.tensor([[0.2, 0.0, 0.0], [0.0, -0.4, 0.0]])
    errors = {
        "energy": Residual(energy, energy, torch.ones(2)),
        "forces": Residual(forces, forces, torch.ones(2, 1)),
        "stress": Residual(torch.zeros(1, 3, 3), torch.full((1, 3, 3), 0.5), torch.ones(1, 1, 1)),
    }
    weights = LossSection(energy=2, forces=3, stress=4)
    expected = 2 * (0.01 + 0.09) / 2 + 3 * (0.04 + 0.16) / 6 + 4 * 0.25
    assert loss(errors, weights).item() == pytest.approx(expected, rel=1e-6)
    huber = loss(errors, LossSection(energy=1, forces=0, stress=0, huber=0.2)).item()
    assert huber == pytest.approx((0.01 + 0.2 * (2 * 0.3 - 0.2)) / 2, rel=1e-6)


def test_energy_counts_per_atom_and_stress_as_virial_per_atom(case):
    model, structures, b = case
    predicted = Predictor(model)(b, False)
    errors = residuals(predicted, b)
    s = structures[1]
    assert errors["energy"].learned[1].item() == pytest.approx(
        (predicted["energy"][1].item() - s.energy) / len(s), rel=1e-12
    )
    expected = (predicted["stress"][1].numpy() - s.volume * s.stress) / len(s)
    np.testing.assert_allclose(errors["stress"].learned[1].numpy(), expected, atol=1e-12)


def test_structures_without_stress_do_not_enter_the_stress_term(case):
    _, structures, b = case
    b.labels["stress"][1] = np.nan
    wrong = {name: b.labels[name] for name in ("energy", "forces")}  # of a model without direct forces
    wrong["stress"] = torch.zeros(3, 3, 3, dtype=torch.float64)
    errors = residuals(wrong, b)
    assert errors["stress"].error.shape == (2, 3, 3)
    np.testing.assert_allclose(errors["stress"].error[1].numpy(), -structures[2].stress, atol=1e-12)
    b.labels["stress"][:] = np.nan
    assert loss(residuals(wrong, b), LossSection(energy=0, forces=0, stress=1)).item() == 0.0


def test_sums_of_a_shorter_table_are_continued():
    """Checkpoints of a time when the table had fewer quantities."""
    sums = ErrorSums()
    sums.restore(torch.tensor([1.0, 2.0, 3.0, 4.0, 8.0]))  # energy alone; two last: structures, loss
    assert sums.values.tolist() == [1.0, 2.0, 3.0, *[0.0] * 3 * (len(QUANTITIES) - 1), 4.0, 8.0]
    assert sums.summary()["loss"] == 2.0
    assert set(sums.summary()) == {"loss", "energy_mae_meV_per_atom", "energy_rmse_meV_per_atom"}


def test_running_sums_agree_with_the_metrics_of_evaluate(case):
    model, structures, b = case
    module = Predictor(model)
    predicted = module(b, False)
    sums = ErrorSums()
    for s in structures:
        one = batch.single(s, ["Ar"], 5.5, 0.0, torch.float64)
        errors = residuals(module(one, False), one)
        sums.add(errors, loss(errors, LossSection()), 1)
    summary = sums.summary()
    found = [
        Results(
            energy=predicted["energy"][k].item(),
            forces=predicted["forces"][b.system == k].numpy(),
            stress=predicted["stress"][k].numpy() / s.volume,
        )
        for k, s in enumerate(structures)
    ]
    expected = metrics(structures, found)
    for quantity in ("energy", "forces", "stress"):
        for name, value in expected[quantity].items():
            assert summary[f"{quantity}_{name}"] == pytest.approx(value, rel=1e-9)
