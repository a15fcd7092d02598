import numpy as np
import pytest
from ase.build import bulk

from mlplugins.checks.md import NVE, drift, md_checks
from mlplugins.model_file import artifact

from ..simulation.argon import write_model


def test_drift_of_a_line():
    steps = np.arange(0, 101, 10.0)
    assert drift(steps, 3 + 2e-5 * steps, 2.0, 4) == pytest.approx(2e-5 / 2e-3 / 4)
    assert np.isnan(drift(steps, np.where(steps > 50, np.nan, 1.0), 2.0, 4))


@pytest.mark.slow
@pytest.mark.usefixtures("native_build", "warm_start")
def test_argon_conserves_energy_on_one_rank_and_on_two(tmp_path):
    model = artifact.load(write_model(tmp_path / "model.pt"))
    atoms = bulk("Ar", "fcc", a=5.4, cubic=True).repeat((2, 2, 2))
    rows = md_checks(model, "argon", atoms, [1, 2], NVE(timestep=2.0, temperature=60.0, steps=2000))
    assert [(row.name, row.ranks) for row in rows] == [
        ("NVE drift", 1),
        ("NVE: first 100 steps as on 1", 2),
    ]
    assert [row for row in rows if not row.passed] == []
