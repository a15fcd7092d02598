"""One more head is one record in one file: model, file, engines and checks know it."""

import numpy as np
import pytest
import torch
from metatomic.torch import ModelOutput
from metatomic_ase import MetatomicCalculator

from mlplugins import MLCalculator, heads
from mlplugins.checks.physics import PhysicsChecks
from mlplugins.engines.ipi.extras import in_atomic_units
from mlplugins.heads import LabelSizes
from mlplugins.model_file import artifact
from mlplugins.model_file.card import ModelCard
from mlplugins.model_file.write import save
from mlplugins.models import nequip
from mlplugins.models.base import TrainingStatistics
from mlplugins.quantities import QUANTITIES, Quantity
from mlplugins.testing.structures import standard_structures
from tests.heads.test_tensor import with_heads

QUADRUPOLE = Quantity(
    name="quadrupole",
    noun="quadrupole moment",
    symbol="Q",
    unit="e*A^2",
    irreps="2e",
    shape=(3, 3),
    symmetric=True,
    extensive=True,
    additive=True,
    output="mlplugins::quadrupole",
    ipi="quadrupole",
    head="tensor",
    file_units={"e*A^2": 1.0},
)


@pytest.fixture
def record(monkeypatch):
    monkeypatch.setitem(QUANTITIES, "quadrupole", QUADRUPOLE)


@pytest.mark.usefixtures("record")
def test_a_head_more_is_its_record(tmp_path):
    assert "quadrupole" in heads.predictable()
    options = {"num_layers": 2, "num_features": 4, "heads": {"quadrupole": {"width": 4}}}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = with_heads(["H", "O"], nequip, **options)
    model.initialise_heads(TrainingStatistics(12.0, 0.8, {"quadrupole": LabelSizes((0.5,))}))
    path = tmp_path / "model.pt"
    save(model, path, ModelCard("nequip", ["H", "O"], [0.0, 0.0], details={"hyperparameters": {}}), "float64")
    loaded = artifact.load(path)
    assert loaded.more == ("quadrupole",)
    assert not loaded.unused
    atoms = standard_structures(("H", "O"))["molecule"]
    rows = PhysicsChecks(loaded, atoms, "molecule").run(0, lambda name: None)
    kinds = ("rotation", "inversion", "translation", "permutation", "extensivity")
    assert {row.name for row in rows} >= {f"{kind}: quadrupole" for kind in kinds}
    assert not [row for row in rows if "quadrupole" in row.name and not row.passed]
    own = MLCalculator(path).get_property("quadrupole", atoms)
    assert np.abs(own).max() > 1e-3
    assert abs(np.trace(own)) < 1e-13
    sent = in_atomic_units(loaded.evaluate([atoms])[0])["quadrupole"]
    np.testing.assert_allclose(np.reshape(sent, (3, 3)) * 0.529177210544**2, own, rtol=1e-8)
    wanted = {"mlplugins::quadrupole": ModelOutput(unit="e*A^2", sample_kind="system")}
    other = MetatomicCalculator(str(path), additional_outputs=wanted)
    other.calculate(atoms, ["energy"], [])
    block = other.additional_outputs["mlplugins::quadrupole"].block()
    np.testing.assert_allclose(block.values[0, :, :, 0].detach(), own, rtol=0, atol=1e-13)
