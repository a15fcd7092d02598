import numpy as np
import pytest
import torch

from mlplugins.errors import BadInput
from mlplugins.models import soap_gap
from mlplugins.structures.batch import graph_of
from mlplugins.testing.families import FamilySuite, VariantSuite
from mlplugins.testing.structures import standard_structures

SMALL = {"cutoff": 4.5, "n_max": 4, "l_max": 3, "zeta": 3}


def fitted(elements, **options):
    """Sparse points from the standard structures and generic weights."""
    generator = torch.Generator().manual_seed(1)
    model = soap_gap.Model(elements, soap_gap.Hyperparameters(**{**SMALL, **options}))
    points: list[list[torch.Tensor]] = [[] for _ in elements]
    for atoms in standard_structures(elements).values():
        x = graph_of(atoms, elements, model.cutoff)
        p = model.features(x).detach()
        for index in range(len(elements)):
            points[index].extend(p[x.species == index])
    model.set_sparse([torch.stack(several[:6]) for several in points])
    with torch.no_grad():
        for weights in (model.weights, model.pair_weights):
            weights.copy_(torch.randn(weights.shape, dtype=torch.float64, generator=generator))
    return model


class TestSoapGap(FamilySuite):
    def make_model(self):
        return fitted(self.elements)


class TestPairTermAndRepulsion(VariantSuite):
    def make_model(self):
        return fitted(self.elements, two_body=8, zbl=True, radial_exponent=4)


class TestOneElementInInference(VariantSuite):
    elements = ["Cu"]

    def make_model(self):
        model = fitted(self.elements)
        model.optimise_for_inference()
        return model

    def test_second_derivatives(self, model):
        pytest.skip("in inference a model has first derivatives only")


def test_kernel_of_an_environment_with_itself_is_one():
    model = fitted(["Li", "S"])
    x = graph_of(standard_structures()["crystal"], ["Li", "S"], model.cutoff)
    p = model.features(x)
    np.testing.assert_allclose(model.kernel(p, p).diagonal().detach(), 1.0, rtol=1e-12)


@pytest.mark.parametrize("zeta", [1, 2, 3, 4, 7])
def test_sum_of_kernels_is_that_of_the_powers(zeta):
    model = fitted(["Li", "S"], zeta=zeta)
    x = graph_of(standard_structures()["crystal"], ["Li", "S"], model.cutoff)
    p = model.features(x).detach()
    found = model.sum_of_kernels(p, 1, 6, 12).detach()
    expected = (p @ model.sparse[6:12].t()) ** zeta @ model.weights[6:12].detach()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)


def test_large_weights_of_both_signs_keep_their_digits():
    """As fits have them: 1e7 eV in all, on points that nearly coincide. Extended precision is the truth."""
    generator = torch.Generator().manual_seed(3)
    model = soap_gap.Model(["Cu"], soap_gap.Hyperparameters(**SMALL))
    near = torch.rand(model.spectrum.n_features, dtype=torch.float64, generator=generator)
    points = near + 0.003 * torch.randn(240, len(near), dtype=torch.float64, generator=generator)
    points = points / torch.linalg.vector_norm(points, dim=1, keepdim=True)
    p, sparse = points[:40], points[40:]
    model.set_sparse([sparse])
    with torch.no_grad():
        model.weights.copy_(5e4 * torch.randn(200, dtype=torch.float64, generator=generator))
        model.weights.sub_(model.weights.mean())
        found = model.sum_of_kernels(p, 0, 0, 200).numpy()
        plain = (model.kernel(p, sparse) @ model.weights).numpy()
    a, b, w = (t.detach().numpy().astype(np.longdouble) for t in (p, sparse, model.weights))
    t = ((a[:, None] - b) ** 2).sum(axis=2) / 2
    truth = (1 - t) ** SMALL["zeta"] @ w
    assert np.ptp(found - truth) < 2e-11 < 2e-10 < np.ptp(plain - truth)


def test_weights_of_any_size_load():
    model = fitted(["Li", "S"], two_body=5)
    empty = soap_gap.Model(["Li", "S"], soap_gap.Hyperparameters(**SMALL, two_body=5))
    empty.load_state_dict(model.state_dict())
    x = graph_of(standard_structures()["triclinic"], ["Li", "S"], model.cutoff)
    assert torch.equal(empty(x)["energy"], model(x)["energy"])


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"l_max": 11}, "'l_max' must be 0 to 10, got 11"),
        ({"n_max": 20}, "'n_max' must be 1 to 14"),
        ({"zeta": 0}, "'zeta' must be positive, got 0"),
        ({"cutoff": 3.0, "cutoff_transition_width": 4.0}, "must not exceed the cutoff"),
        ({"two_body": -1}, "'two_body' must be zero or more"),
    ],
)
def test_wrong_parameters_are_refused(options, text):
    with pytest.raises(BadInput, match=text):
        soap_gap.Model(["Cu"], soap_gap.Hyperparameters(**options))
