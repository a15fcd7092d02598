"""The uncertainty of an energy in the Python engines, against metatomic's own way (which LAMMPS takes)."""

import numpy as np
import pytest
from metatomic.torch import ModelEvaluationOptions, ModelOutput, load_atomistic_model

from mlplugins.model_file.artifact import load
from mlplugins.model_file.card import ModelCard
from mlplugins.model_file.write import save
from mlplugins.testing.structures import standard_structures
from tests.model_file.test_write import _system
from tests.models.test_capabilities import ELEMENTS, LJ, MACE, NEQUIP, gap, known, sum_of


class Counting:
    """Counts the calls of a program and passes them on."""

    def __init__(self, potential):
        self.potential, self.counts = potential, {"energies": 0, "variances": 0}

    def __call__(self, *arguments):
        self.counts["energies"] += 1
        return self.potential(*arguments)

    def posterior_features(self, *arguments):
        self.counts["variances"] += 1
        return self.potential.posterior_features(*arguments)


@pytest.fixture(scope="module", params=["soap-gap", "sum", "network", "sum with a network"])
def path(request, tmp_path_factory):
    made = {
        "soap-gap": lambda: gap(1),
        "sum": lambda: sum_of(gap(1), LJ, gap(2)),
        "network": lambda: known(NEQUIP),
        "sum with a network": lambda: sum_of(LJ, known(MACE), known(NEQUIP)),
    }
    potential = made[request.param]()
    path = tmp_path_factory.mktemp("model") / "model.pt"
    save(potential, path, ModelCard(request.param, ELEMENTS, [1.0, 2.0]), "float64")
    return path


def test_one_evaluation_gives_the_uncertainties_of_atoms_and_structures(path):
    artifact = load(path)
    program = artifact._model._program
    program.potential = counting = Counting(program.potential)
    frames = [standard_structures(ELEMENTS)[name] for name in ("crystal", "molecule")]
    results = artifact.evaluate(frames, uncertainty=True)
    assert counting.counts == {"energies": 1, "variances": 1}
    assert all(result.uncertainty > 0.01 and result.uncertainties.min() > 0.01 for result in results)
    artifact.evaluate(frames)
    assert counting.counts == {"energies": 2, "variances": 1}


def test_the_uncertainties_are_those_of_metatomic(path):
    frames = [standard_structures(ELEMENTS)[name] for name in ("crystal", "molecule", "small_cell")]
    model = load_atomistic_model(str(path))
    systems = [_system(model, atoms) for atoms in frames]
    found = {}
    for kind in ("atom", "system"):
        outputs = {"energy_uncertainty": ModelOutput(unit="eV", sample_kind=kind)}
        options = ModelEvaluationOptions(length_unit="angstrom", outputs=outputs)
        block = model(systems, options, check_consistency=True)["energy_uncertainty"].block()
        found[kind] = block.values[:, 0].detach().numpy()
    results = load(path).evaluate(frames, uncertainty=True)
    np.testing.assert_allclose([r.uncertainty for r in results], found["system"], rtol=1e-12)
    np.testing.assert_allclose(np.concatenate([r.uncertainties for r in results]), found["atom"], rtol=1e-12)
