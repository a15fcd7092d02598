"""Direct forces along the edges: symmetries, ghosts, no net force, no net torque of pair terms."""

import numpy as np
import pytest
from ase.build import bulk

from mlplugins import MLCalculator
from mlplugins.errors import BadInput
from mlplugins.heads import LabelSizes
from mlplugins.models import mace, nequip
from mlplugins.models.base import TrainingStatistics, edge_sums
from mlplugins.structures.batch import graph_of
from mlplugins.testing.structures import standard_structures
from tests.engines import direct_model

STATISTICS = TrainingStatistics(
    average_neighbors=12.0, force_rms=0.8, labels={"direct_forces": LabelSizes((0.8,))}
)


def with_direct_forces(elements, family=nequip, head=None, **options):
    head = {"channels": 4, "width": 8, **(head or {})}
    options = {"cutoff": 4.5, "radial_mlp": [8], "heads": {"direct_forces": head}, **options}
    model = family.Model(elements, family.Hyperparameters(**options))
    model.initialise(STATISTICS)
    model.initialise_heads(STATISTICS)
    return model


def direct_forces(model, atoms):
    graph = graph_of(atoms, ["H", "O"], model.cutoff)
    return edge_sums(model.everything(graph)["direct_forces"], graph, 1)[0].detach().numpy()


@pytest.mark.parametrize("name", ["molecule", "crystal"])
@pytest.mark.parametrize("vectors", [True, False])
def test_the_net_force_is_zero_and_that_of_pair_terms_leaves_the_torque(name, vectors):
    model = with_direct_forces(["H", "O"], num_layers=2, num_features=4, head={"vectors": vectors})
    atoms = standard_structures(("H", "O"))[name]
    forces = direct_forces(model, atoms)
    size = np.abs(forces).max()
    assert size > 1e-3
    np.testing.assert_allclose(forces.sum(axis=0), 0.0, rtol=0, atol=1e-12 * size * len(atoms))
    if name == "molecule":
        torque = np.abs(np.cross(atoms.positions, forces).sum(axis=0)).max()
        assert torque > 1e-3 * size if vectors else torque < 1e-12 * size


def test_one_layer_of_scalars_is_enough_for_pair_terms():
    model = with_direct_forces(["H", "O"], mace, num_interactions=1, num_channels=4, l_max=1, correlation=1)
    assert np.abs(direct_forces(model, standard_structures(("H", "O"))["molecule"])).max() > 1e-3


@pytest.mark.parametrize("key", ["channels", "num_basis", "width"])
def test_numbers_that_are_none(key):
    with pytest.raises(BadInput, match=f"direct_forces: '{key}' must be positive, got 0"):
        with_direct_forces(["H"], num_layers=1, num_features=2, head={key: 0})


def test_the_mean_of_foreign_direct_forces_is_taken_off(tmp_path):
    """Those of this model grow with x; the stress is what it says."""
    direct_model.write(tmp_path / "direct.pt")
    atoms = bulk("Ar", "fcc", a=5.3, cubic=True)
    atoms.calc = MLCalculator(tmp_path / "direct.pt", non_conservative=True)
    x = atoms.positions[:, 0]
    expected = np.outer(x - x.mean(), direct_model.FORCE)
    np.testing.assert_allclose(atoms.get_forces(), expected, rtol=0, atol=1e-14)
    np.testing.assert_allclose(atoms.get_stress(voigt=False), direct_model.STRESS, rtol=0, atol=1e-15)
