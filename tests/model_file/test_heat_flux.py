"""The heat flux of a folded graph is that of all derivatives ∂U_i/∂r_j of the unfolded one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from ase import Atoms

from mlplugins import ops
from mlplugins.model_file import heat_flux
from mlplugins.model_file.heat_flux import potential_flux
from mlplugins.model_file.write import for_inference
from mlplugins.models import lennard_jones, mace, nequip, sum, zbl
from mlplugins.structures.batch import graph_of
from mlplugins.structures.graph import Graph

from ..models.d3_tables import filled

ELEMENTS, CUTOFF = ["Ar", "Kr"], 3.9
CELL = np.array([[4.6, 0, 0], [0.8, 4.4, 0], [0.3, -0.5, 4.7]])  # less than two cutoffs
INSIDE = np.array([[0, 0, 0], [0.5, 0.5, 0.02], [0.5, 0.05, 0.5], [0.02, 0.48, 0.5]])
VELOCITIES = torch.from_numpy(np.random.default_rng(0).normal(size=(4, 3)))


def crystal() -> Atoms:
    return Atoms("Ar2Kr2", INSIDE @ CELL, cell=CELL, pbc=True)


def _nequip(layers: int) -> nequip.Model:
    sizes = {"num_layers": layers, "num_features": 2, "l_max": 2, "num_basis": 3}
    return nequip.Model(ELEMENTS, nequip.Hyperparameters(cutoff=CUTOFF, **sizes))


def _mace(interaction: str, layers: int = 2, on_weights: bool = False) -> mace.Model:
    sizes = {"num_channels": 2, "l_max": 2, "max_L": 1, "correlation": 2, "num_interactions": layers}
    kinds = {"interaction_first": interaction, "interaction": interaction}
    return mace.Model(
        ELEMENTS, mace.Hyperparameters(cutoff=CUTOFF, envelope_on_weights=on_weights, **kinds, **sizes)
    )


def _sum() -> sum.Model:
    """Terms of two layers and of one, of different ranges."""
    d3 = filled(ELEMENTS, cutoff=CUTOFF, cn_cutoff=3.8)
    return sum.Model.of([_nequip(2), zbl.Model(ELEMENTS, zbl.Hyperparameters()), d3])


MODELS = {
    "nequip, 3 layers": (lambda: _nequip(3), 3),
    "mace": (lambda: _mace("RealAgnosticDensityResidual"), 2),
    "mace, non-linear": (lambda: _mace("RealAgnosticResidualNonLinear"), 2),
    "sum": (_sum, 2),
    # i → j and j → i share what is not made in the convolution
    "mace, 1 layer": (lambda: _mace("RealAgnosticDensityResidual", 1), 1),
    "mace, envelope on weights": (lambda: _mace("RealAgnosticResidual", 2, on_weights=True), 2),
    "nequip, 1 layer": (lambda: _nequip(1), 1),
    "lennard-jones": (
        lambda: lennard_jones.Model(ELEMENTS, lennard_jones.Hyperparameters(cutoff=CUTOFF, sigma=3.0)),
        1,
    ),
}


def unfolded_flux(model: torch.nn.Module, atoms: Atoms, velocities: torch.Tensor, layers: int) -> np.ndarray:
    """Σ_i Σ_j (r_i − r_j) (∂U_i/∂r_j · v_j) over the atoms i of the cell and all images j within reach."""
    shifts = np.array(list(itertools.product(range(-4, 5), repeat=3)))
    positions = (atoms.positions + (shifts @ atoms.cell.array)[:, None]).reshape(-1, 3)
    home = np.repeat((shifts == 0).all(axis=1), len(atoms))
    near = np.linalg.norm(positions[:, None] - atoms.positions, axis=2).min(axis=1) < layers * CUTOFF + 1e-6
    r = torch.tensor(positions[near], requires_grad=True)
    v = velocities.repeat(len(shifts), 1)[torch.from_numpy(near)]
    cluster = Atoms(np.tile(atoms.numbers, len(shifts))[near], positions[near])
    graph = graph_of(cluster, ELEMENTS, CUTOFF)
    vectors = r[graph.neighbors] - r[graph.centers]
    u = model(graph._replace(vectors=vectors))["energy"]
    flux = torch.zeros(3, dtype=torch.float64)
    for i in np.flatnonzero(home[near]):
        (gradient,) = torch.autograd.grad(u[i], r, retain_graph=True)
        flux += ((r[i] - r) * (gradient * v).sum(dim=1, keepdim=True)).sum(dim=0).detach()
    return flux.numpy()


def folded_flux(model: torch.nn.Module, graph: Graph, velocities: torch.Tensor) -> np.ndarray:
    graph.vectors.requires_grad_()
    messages = model.exchange_width > 0
    return potential_flux(lambda given: model(given)["energy"], graph, velocities, messages)[1].numpy()


# D3 sends coordination numbers: no convolution reads them; atoms of non-linear blocks read their own features
COPIED = ["sum", "mace, non-linear"]


@pytest.mark.parametrize("name", MODELS)
def test_every_derivative_of_the_unfolded_crystal(name):
    ops.load()
    make, layers = MODELS[name]
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = for_inference(make(), "float64")
    found = folded_flux(model, graph_of(crystal(), ELEMENTS, CUTOFF), VELOCITIES)
    expected = unfolded_flux(model, crystal(), VELOCITIES, layers)
    assert np.abs(expected).min() > 1e-6
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10 * np.abs(expected).max())
    if layers > 1:
        graph = graph_of(crystal(), ELEMENTS, CUTOFF)
        graph.vectors.requires_grad_()
        summed = heat_flux._by_moments(lambda given: model(given)["energy"], graph, True)
        assert (summed is None) == (name in COPIED)
        # what per-edge gradients alone give is another flux
        edges = potential_flux(lambda given: model(given)["energy"], graph, VELOCITIES, False)[1].numpy()
        assert np.abs(edges - expected).max() > 1e-4 * np.abs(expected).max()


def test_copies_of_the_messages_give_the_same(monkeypatch):
    """As where the compiled ops are missing."""
    ops.load()
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = for_inference(_nequip(3), "float64")
    summed, copied = [], []
    for found in (summed, copied):
        found.append(folded_flux(model, graph_of(crystal(), ELEMENTS, CUTOFF), VELOCITIES))
        monkeypatch.setattr(heat_flux, "_by_moments", lambda *of: None)
    np.testing.assert_allclose(copied, summed, rtol=0, atol=1e-12 * np.abs(summed).max())


def test_a_model_in_single_precision():
    """Its edges come in double precision."""
    ops.load()
    fluxes = {}
    for dtype, to in (("float32", torch.float32), ("float64", torch.float64)):
        with torch.random.fork_rng():
            torch.manual_seed(7)
            model = for_inference(_nequip(3), dtype)
        graph = graph_of(crystal(), ELEMENTS, CUTOFF)
        graph.vectors.requires_grad_()

        def energies(given: Graph, model=model, to=to) -> torch.Tensor:
            return model(given._replace(vectors=given.vectors.to(to)))["energy"]

        assert heat_flux._by_moments(energies, graph, True) is not None
        fluxes[dtype] = potential_flux(energies, graph, VELOCITIES, True)[1].numpy()
    scale = np.abs(fluxes["float64"]).max()
    np.testing.assert_allclose(fluxes["float32"], fluxes["float64"], rtol=0, atol=1e-5 * scale)


def test_an_exchange_outlives_no_flux():
    """After a flux, and after one that fails, the exchange is the identity again."""
    ops.load()
    graph = graph_of(crystal(), ELEMENTS, CUTOFF)
    h = torch.randn(4, 2, dtype=torch.float64)

    def broken(given: Graph) -> torch.Tensor:
        ones = torch.ones(len(given.species), 1, requires_grad=True)
        assert torch.ops.mlplugins.ghost_exchange(ones).shape[0] >= 4
        raise ZeroDivisionError

    graph.vectors.requires_grad_()
    with pytest.raises(ZeroDivisionError):
        potential_flux(broken, graph, VELOCITIES, True)
    assert torch.equal(torch.ops.mlplugins.ghost_exchange(h), h)
    assert torch.ops.mlplugins.message_moments([]) == []
