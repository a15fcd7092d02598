"""What families offer beyond energies, and that a sum offers what its terms do."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from mlplugins import MLCalculator, models
from mlplugins.errors import BadInput
from mlplugins.model_file.card import ModelCard
from mlplugins.model_file.write import save
from mlplugins.models import capabilities, soap_gap
from mlplugins.models import sum as sums
from mlplugins.models.capabilities import (
    HasHead,
    HasLastLayer,
    HasRadialNetworks,
    PredictsVariance,
    WholeMolecule,
)
from mlplugins.structures.batch import graph_of
from mlplugins.testing.structures import standard_structures

ELEMENTS = ["Li", "S"]
GAP = {"cutoff": 4.0, "n_max": 3, "l_max": 2, "zeta": 2, "two_body": 4}
LJ = {"family": "lennard-jones", "cutoff": 5.0}
NEQUIP = {"family": "nequip", "cutoff": 3.5, "num_layers": 2, "num_features": 2, "radial_mlp": [4]}
MACE = {"family": "mace", "cutoff": 4.0, "num_channels": 2, "l_max": 1, "correlation": 2, "radial_mlp": [4]}


def gap(seed):
    """Sparse points of a crystal, and generic weights and posterior."""
    generator = torch.Generator().manual_seed(seed)
    model = soap_gap.Model(ELEMENTS, soap_gap.Hyperparameters(**GAP))
    graph = graph_of(standard_structures(ELEMENTS)["crystal"], ELEMENTS, 4.0)
    p = model.features(graph).detach()
    model.set_sparse([p[graph.species == index][:4] for index in range(2)])

    def normal(*shape):
        return 0.1 * torch.randn(*shape, dtype=torch.float64, generator=generator)

    n = len(model.weights)
    model.weights, model.pair_weights = nn.Parameter(normal(n)), nn.Parameter(normal(3, 4))
    model.whitening, model.posterior, model.pair_posterior = normal(n, 3), normal(n, 5), normal(12, 5)
    model.prior_variance = torch.ones((), dtype=torch.float64)
    model.least_variance = torch.tensor(1e-4, dtype=torch.float64)
    return model


def known(mapping):
    """A network with some posterior of its last layer."""
    family = models.family(mapping["family"])
    values = {key: value for key, value in mapping.items() if key != "family"}
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = family.Model(ELEMENTS, family.Hyperparameters(**values))
        factor = torch.randn(model.feature_width, 3, dtype=torch.float64)
    model.last_layer.set(factor, 0.02)
    model.mapping = mapping
    return model


def sum_of(*terms):
    """A sum of the given terms, or of the families that the mappings describe."""
    gap_ = {"family": "soap-gap", **GAP}
    mappings = [getattr(term, "mapping", gap_) if isinstance(term, nn.Module) else term for term in terms]
    total = sums.Model(ELEMENTS, sums.Hyperparameters(mappings))
    for made, term in zip(total.potentials(), terms):
        if isinstance(term, nn.Module):
            made.load_state_dict(term.state_dict())
    return total


def variance(model, graph):
    return model.posterior_features(graph, model(graph))


def test_each_family_declares_what_it_offers():
    kinds = (PredictsVariance, WholeMolecule, HasRadialNetworks, HasHead, HasLastLayer)
    found = {
        name: {kind.__name__ for kind in kinds if issubclass(models.family(name).Model, kind)}
        for name in models.families()
    }
    molecular = {name for name, offered in found.items() if "WholeMolecule" in offered}
    assert molecular == {"kreg", "krr-cm", "molecular-kernel", "pkreg", "sgdml"}
    assert found["soap-gap"] == {"PredictsVariance"}
    networks = {"HasRadialNetworks", "HasHead", "HasLastLayer", "PredictsVariance"}
    assert found["nequip"] == found["mace"] == networks
    assert found["lennard-jones"] == found["sum"] == set()  # a sum offers what its terms do


def test_a_deterministic_family_has_no_variance():
    model = models.family("lennard-jones").Model(ELEMENTS, models.family("lennard-jones").Hyperparameters())
    residual, psi = variance(model, graph_of(standard_structures()["crystal"], ELEMENTS, 8.5))
    assert not capabilities.predicts_variance(model)
    assert psi.shape == (len(residual), 0)
    assert float(residual.abs().max()) == 0.0


def test_only_a_calibrated_fit_has_a_variance():
    assert not capabilities.predicts_variance(soap_gap.Model(ELEMENTS, soap_gap.Hyperparameters(**GAP)))
    assert capabilities.predicts_variance(gap(1))
    assert not capabilities.predicts_variance(sum_of(LJ, NEQUIP))
    assert capabilities.predicts_variance(sum_of(LJ, gap(1)))


@pytest.mark.parametrize("name", ["crystal", "molecule", "small_cell"])
def test_variance_of_a_sum_with_one_uncertain_term_is_that_of_the_term(name):
    atoms, term = standard_structures(ELEMENTS)[name], gap(1)
    expected = variance(term, graph_of(atoms, ELEMENTS, term.cutoff))
    assert float(expected[0].detach().min()) > 0.0
    for total in (sum_of(LJ, term), sum_of(term, NEQUIP)):
        for found, value in zip(variance(total, graph_of(atoms, ELEMENTS, total.cutoff)), expected):
            torch.testing.assert_close(found, value, rtol=0, atol=1e-14)  # other order of the edges


def test_variances_of_independent_terms_add_up():
    atoms = standard_structures(ELEMENTS)["triclinic"]
    terms = gap(1), gap(2)
    graph = graph_of(atoms, ELEMENTS, 4.0)

    def variances(model):  # of the atoms, and of the structure
        residual, psi = variance(model, graph)
        return residual + psi.square().sum(1), residual.sum() + psi.sum(0).square().sum()

    for found, first, second in zip(variances(sum_of(*terms)), *map(variances, terms)):
        torch.testing.assert_close(found, first + second, rtol=1e-14, atol=0)


def test_uncertainty_of_a_sum_reaches_the_engine(tmp_path):
    """Until now a model.pt of a sum had none."""
    atoms, calculators = standard_structures(ELEMENTS)["crystal"], {}
    for name, model in (("term", gap(1)), ("sum", sum_of(gap(1), LJ))):
        save(model, tmp_path / f"{name}.pt", ModelCard("any", ELEMENTS, [0.0, 0.0]), "float64")
        calculators[name] = MLCalculator(tmp_path / f"{name}.pt")
    for quantity in ("energy_uncertainty", "energies_uncertainty"):
        expected, found = (calculators[name].get_property(quantity, atoms) for name in ("term", "sum"))
        assert np.all(np.asarray(expected) > 0.01)
        np.testing.assert_allclose(found, expected, rtol=1e-13)


def test_a_sum_is_of_a_whole_molecule_if_a_term_is():
    kernel = {"family": "kreg", "cutoff": 9.0}
    assert capabilities.of_whole_molecule(sum_of(kernel, LJ))
    assert not capabilities.of_whole_molecule(sum_of(NEQUIP, LJ))


def test_heads_of_a_sum_are_those_of_its_terms():
    total = sum_of(NEQUIP, LJ, MACE)
    first, second = capabilities.heads(total)
    assert (first, second) == (total.potentials()[0], total.potentials()[2])
    assert [len(head.readouts()) for head in (first, second)] == [1, 2]


def test_tables_of_a_sum():
    total = sum_of(NEQUIP, MACE)
    graph = graph_of(standard_structures(ELEMENTS)["crystal"], ELEMENTS, 4.0)
    tables = copy.deepcopy(total)
    capabilities.use_radial_tables(tables, 2000)
    difference = (tables(graph)["energy"] - total(graph)["energy"]).detach().abs().max()
    assert 0.0 < float(difference) < 1e-6
    with pytest.raises(BadInput, match="soap_gap has no radial network to tabulate"):
        capabilities.use_radial_tables(sum_of(NEQUIP, gap(1)), 64)
    with pytest.raises(BadInput, match="lennard_jones has no radial network to tabulate"):
        capabilities.use_radial_tables(sum_of(LJ, LJ), 64)
    capabilities.use_radial_tables(sum_of(NEQUIP, LJ), 64)  # what has no parameters is left alone
    with pytest.raises(BadInput, match="16 knots or more, got 8"):
        capabilities.use_radial_tables(total, 8)
