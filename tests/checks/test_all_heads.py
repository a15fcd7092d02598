"""One model with every head: physical, and the same in three engines on one and two ranks."""

import pytest
import torch
from ase.build import bulk

from mlplugins.checks.suite import CheckOptions, check
from mlplugins.heads import LabelSizes
from mlplugins.model_file.card import ModelCard
from mlplugins.model_file.write import save
from mlplugins.models import nequip
from mlplugins.models.base import TrainingStatistics

pytestmark = pytest.mark.usefixtures("native_build", "warm_start")

SMALL = {"width": 4, "channels": 2}
HEADS = {
    "charges": SMALL,
    "dipole": SMALL,
    "polarizability": {"width": 4, "products": 2},
    "shielding": {"width": 4, "products": 2},
    "isotropic_shielding": {"width": 4, "products": 0},
    "direct_forces": {"width": 4, "channels": 2},
    "energy/scan": {"width": 4},
}
SIZES = {
    "charges": LabelSizes((0.3,)),
    "dipole": LabelSizes((1.0,)),
    "polarizability": LabelSizes((1.0, 1.0)),
    "shielding": LabelSizes((10.0, 5.0, 5.0)),
    "isotropic_shielding": LabelSizes((10.0,)),
    "direct_forces": LabelSizes((0.3,)),
    "energy/scan": LabelSizes((0.2,)),
}


@pytest.fixture
def model(tmp_path):
    options = {"cutoff": 4.2, "num_layers": 2, "num_features": 4, "heads": HEADS, "energy_name": "pbe"}
    with torch.random.fork_rng():
        torch.manual_seed(2)
        potential = nequip.Model(["Ar", "Kr"], nequip.Hyperparameters(**options))
    statistics = TrainingStatistics(12.0, 0.3, SIZES)
    potential.initialise(statistics)
    potential.initialise_heads(statistics)
    card = ModelCard(
        "nequip",
        ["Ar", "Kr"],
        [-1.0, -2.0],
        details={"hyperparameters": options},
        baselines={"scan": [-3.0, 5.0]},
    )
    save(potential, tmp_path / "model.pt", card, "float64")
    return tmp_path / "model.pt"


def test_every_head_in_three_engines_on_two_ranks(model):
    atoms = bulk("Ar", "fcc", a=5.3, cubic=True)
    atoms.numbers[::3] = 36
    atoms.rattle(0.15, seed=4)
    report = check(model, [atoms], CheckOptions(ranks=(1, 2), nve_steps=0))
    assert [row for row in report.rows if not row.passed] == []
    found = {
        (row.name.partition(" ")[0], row.engine, row.ranks) for row in report.rows if " = ASE" in row.name
    }
    of_all = {"energy", "forces", "stress", "energy/pbe", "energy/scan", "dipole", "polarizability"}
    of_atoms = {"charges", "shielding", "isotropic_shielding", "born_effective_charges"}
    assert found == {
        *((name, "lammps", ranks) for name in of_all for ranks in (1, 2)),
        *((name, "ipi", 1) for name in of_all | of_atoms),
    }
    turned = {row.name.partition(": ")[2] for row in report.rows if row.name.startswith("rotation")}
    assert turned > {*HEADS} - {"energy/scan"}
