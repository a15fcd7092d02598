"""Molecular kernels: derivatives, symmetries, refusals; kernel matrices against automatic differentiation."""

import copy

import numpy as np
import pytest
import torch
from ase import Atoms

from mlplugins import models
from mlplugins.errors import BadInput
from mlplugins.models.base import energy_derivatives
from mlplugins.models.molecular_kernel import Hyperparameters, Model, kernel_and_slope, kernel_curvature
from mlplugins.structures.batch import graph_of
from mlplugins.structures.dataset import from_atoms
from mlplugins.structures.graph import Graph
from mlplugins.training.solvers import _molecules, _symmetry
from mlplugins.training.solvers._molecules import Kernel

ELEMENTS = ["H", "O"]
NUMBERS = "OHHO"
RNG = np.random.default_rng(0)
BASE = np.array([[0.0, 0.0, 0.0], [0.9, 0.3, 0.1], [-0.8, 0.4, -0.2], [0.2, 1.5, 0.8]])
SWAP = np.array([[0, 1, 2, 3], [0, 2, 1, 3]])
OPTIONS = {
    "kreg": {"descriptor": "relative-inverse"},
    "pkreg": {"descriptor": "relative-inverse", "permutations": SWAP.tolist()},
    "krr-cm": {"descriptor": "coulomb-matrix"},
    "sgdml": {"descriptor": "inverse", "kernel": "matern52", "permutations": SWAP.tolist()},
}


def molecule(seed: int) -> Atoms:
    return Atoms(NUMBERS, BASE + np.random.default_rng(seed).normal(0, 0.1, (4, 3)))


def fitted(name: str) -> Model:
    """Random weights at a few points."""
    model = models.family(name).Model(
        ELEMENTS, models.family(name).Hyperparameters(sigma=1.3, cutoff=9.0, **OPTIONS[name])
    )
    permutations = SWAP if "permutations" in OPTIONS[name] else SWAP[:1]
    generator = torch.Generator().manual_seed(1)
    model.pairs = torch.from_numpy(_symmetry.of_pairs(permutations))
    frames = [from_atoms(molecule(seed)) for seed in range(5)]
    scale = torch.tensor([1.1, 1.1, 1.6, 1.7, 2.0, 2.0], dtype=torch.float64)
    scale = scale[model.pairs].mean(0)
    points = _molecules.points(frames, scale, torch.zeros(6, dtype=torch.float64))
    model.species = torch.tensor([ELEMENTS.index(symbol) for symbol in NUMBERS])
    model.scale, model.shift = scale, points.x.mean(0)[model.pairs].mean(0)
    model.points = points.x - model.shift
    model.values = torch.randn(5, dtype=torch.float64, generator=generator)
    if name != "krr-cm":
        model.slopes = torch.randn(5, 6, dtype=torch.float64, generator=generator)
    model.offset = torch.tensor([-3.0], dtype=torch.float64)
    model.prepare()
    return model


@pytest.fixture(params=OPTIONS)
def model(request):
    return fitted(request.param)


def energy(model, atoms):
    return float(model(graph_of(atoms, ELEMENTS, model.cutoff))["energy"].detach().sum())


def forces(model, atoms):
    x = graph_of(atoms, ELEMENTS, model.cutoff)
    x.vectors.requires_grad_()
    found, virial = energy_derivatives(model(x)["energy"], x, 1)
    return found.detach().numpy(), virial[0].detach().numpy()


def test_forces_are_finite_differences(model):
    atoms = molecule(20)
    expected, _ = forces(model, atoms)
    step = 1e-3
    for place in range(12):
        slope = 0.0
        for k, weight in ((-2, 1 / 12), (-1, -2 / 3), (1, 2 / 3), (2, -1 / 12)):
            moved = atoms.copy()
            moved.positions.flat[place] += k * step
            slope += weight * energy(model, moved) / step
        assert -slope == pytest.approx(expected.flat[place], abs=1e-8)


def test_virial_is_the_strain_derivative(model):
    atoms = molecule(21)
    _, virial = forces(model, atoms)
    strain = np.array([[0.3, 0.1, 0.0], [0.1, -0.2, 0.4], [0.0, 0.4, 0.5]])

    def at(h):
        return energy(model, Atoms(NUMBERS, atoms.positions @ (np.eye(3) + h * strain)))

    slope = (8 * (at(1e-3) - at(-1e-3)) - (at(2e-3) - at(-2e-3))) / 12e-3
    assert slope == pytest.approx(float((virial * strain).sum()), abs=1e-7)


def test_rotation_translation_reflection(model):
    atoms = molecule(22)
    expected, _ = forces(model, atoms)
    turn, _ = np.linalg.qr(RNG.normal(size=(3, 3)))
    for matrix in (turn, -turn):
        moved = Atoms(NUMBERS, atoms.positions @ matrix.T + [3.0, -2.0, 1.0])
        assert energy(model, moved) == pytest.approx(energy(model, atoms), abs=1e-11)
        np.testing.assert_allclose(forces(model, moved)[0], expected @ matrix.T, atol=1e-11)


@pytest.mark.parametrize("name", OPTIONS)
def test_only_the_symmetrised_presets_ignore_a_swap_of_equivalent_atoms(name):
    model, atoms = fitted(name), molecule(23)
    difference = abs(energy(model, atoms) - energy(model, atoms[SWAP[1]]))
    if name in ("pkreg", "sgdml"):
        assert difference < 1e-11
    else:
        assert difference > 1e-4


def test_a_batch_equals_its_molecules(model):
    frames = [molecule(seed) for seed in (30, 31, 32)]
    parts = [graph_of(atoms, ELEMENTS, model.cutoff) for atoms in frames]
    system = torch.arange(3).repeat_interleave(4)
    shifted = [
        torch.cat([getattr(part, name) + 4 * k for k, part in enumerate(parts)])
        for name in ("centers", "neighbors")
    ]
    species, vectors = (torch.cat([getattr(part, name) for part in parts]) for name in ("species", "vectors"))
    found = model(Graph(species, *shifted, vectors, system, 12))["energy"].detach()
    expected = torch.cat([model(part)["energy"].detach() for part in parts])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    shuffled = torch.randperm(len(vectors), generator=torch.Generator().manual_seed(0))
    edges = (index[shuffled] for index in (*shifted, vectors))
    again = model(Graph(species, *edges, system, 12))["energy"]
    torch.testing.assert_close(again.detach(), expected, rtol=0, atol=1e-12)


def test_script_equals_eager_and_state_survives(model):
    atoms = molecule(24)
    scripted = torch.jit.script(copy.deepcopy(model))
    x = graph_of(atoms, ELEMENTS, model.cutoff)
    assert torch.equal(scripted(x)["energy"], model(x)["energy"])
    fresh = Model(ELEMENTS, Hyperparameters(sigma=1.3, cutoff=9.0, kernel=model.kernel))
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(x)["energy"], model(x)["energy"])


@pytest.mark.parametrize("native", [False, True])
def test_the_exported_form_is_the_same_function(model, native):
    """Gradients computed with the energy (`optimise_for_inference`) against automatic differentiation."""
    optimised = copy.deepcopy(model)
    optimised.optimise_for_inference()
    if native:
        optimised.use_native_ops()
    optimised = torch.jit.script(optimised)
    for seed in (40, 41):
        atoms = molecule(seed)
        assert energy(optimised, atoms) == pytest.approx(energy(model, atoms), abs=1e-11)
        for found, expected in zip(forces(optimised, atoms), forces(model, atoms)):
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11)


def test_molecules_need_no_neighbour_list(model):
    """`molecules` of the exported form against edges and automatic differentiation; its refusals."""
    optimised = copy.deepcopy(model)
    optimised.optimise_for_inference()
    assert optimised.takes_molecules
    optimised = torch.jit.script(optimised)
    frames = [molecule(seed) for seed in (50, 51, 52)]
    species = graph_of(frames[0], ELEMENTS, model.cutoff).species
    positions = torch.from_numpy(np.stack([a.positions for a in frames]))
    optimised.require_molecules(species.repeat(3), torch.tensor([4, 4, 4]))
    found, gradient = optimised.molecules(positions)
    for atoms, e, g in zip(frames, found, gradient):
        assert float(e) == pytest.approx(energy(model, atoms), abs=1e-11)
        np.testing.assert_allclose(-g.numpy(), forces(model, atoms)[0], rtol=0, atol=1e-11)
    with pytest.raises((RuntimeError, torch.jit.Error), match="order of the training frames"):
        optimised.require_molecules(species[[1, 0, 2, 3]], torch.tensor([4]))
    with pytest.raises((RuntimeError, torch.jit.Error), match="farther apart than 9"):
        optimised.molecules(positions * 9)


def test_second_derivatives(model):
    x = graph_of(molecule(25), ELEMENTS, model.cutoff)

    def total(vectors):
        return model(x._replace(vectors=vectors))["energy"].sum()

    assert torch.autograd.gradgradcheck(total, (x.vectors.requires_grad_(),), atol=1e-6)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda a: a[[1, 0, 2, 3]], "in the order of the training frames"),
        (lambda a: a[:3], "not those of the molecule"),
        (lambda a: a + Atoms(NUMBERS, a.positions + 4.0), "not those of the molecule"),
        (lambda a: Atoms(NUMBERS, a.positions * [[1], [1], [1], [9]]), "farther apart than 9"),
        (lambda a: Atoms(NUMBERS, a.positions, cell=[6, 6, 6], pbc=True), "periodic images"),
    ],
)
def test_what_is_not_the_molecule_is_refused(model, change, expected):
    with pytest.raises(RuntimeError, match=expected):
        energy(model, change(molecule(26)))


def test_two_molecules_divided_otherwise_are_refused():
    """Four and two atoms have as many pairs as three and three."""
    model = Model(["H"], Hyperparameters(sigma=1.0, cutoff=9.0))
    model.species, model.points = torch.zeros(3, dtype=torch.long), torch.rand(2, 3, dtype=torch.float64)
    edges = [(a, b) for group in (range(4), range(4, 6)) for a in group for b in group if a != b]
    centers, neighbors = torch.tensor(edges).unbind(1)
    vectors = torch.rand(len(edges), 3, dtype=torch.float64)
    system = torch.tensor([0, 0, 0, 0, 1, 1])
    with pytest.raises(RuntimeError, match="not those of the molecule"):
        model(Graph(torch.zeros(6).long(), centers, neighbors, vectors, system, 6))


def test_a_large_periodic_cell_is_a_vacuum(model):
    atoms = molecule(27)
    boxed = Atoms(NUMBERS, atoms.positions, cell=[20, 20, 20], pbc=True)
    assert energy(model, boxed) == pytest.approx(energy(model, atoms), abs=1e-12)


def test_ghosts_are_refused_and_an_empty_rank_is_not(model):
    x = graph_of(molecule(28), ELEMENTS, model.cutoff)
    with pytest.raises(RuntimeError, match="one rank"):
        model(x._replace(n_centers=3))
    none = torch.zeros(0, dtype=torch.long)
    vectors = torch.zeros(0, 3, dtype=torch.float64)
    assert model(Graph(none, none, none, vectors, none, 0))["energy"].shape == (0,)


@pytest.mark.parametrize(
    "wrong", [{"descriptor": "soap"}, {"kernel": "linear"}, {"sigma": -1.0}, {"permutations": "some"}]
)
def test_wrong_hyperparameters_are_named(wrong):
    with pytest.raises(BadInput, match=next(iter(wrong))):
        Model(ELEMENTS, Hyperparameters(**wrong))


# --- kernel matrices ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gaussian", "matern52"])
def test_derivatives_of_the_kernel(name):
    s = torch.tensor([0.0, 1e-8, 0.3, 2.0], dtype=torch.float64, requires_grad=True)
    less_one, slope = kernel_and_slope(name, 0.7, s)
    d = torch.sqrt(s.detach())
    u = np.sqrt(5.0) * d / 0.7
    exact = {"gaussian": torch.exp(-(d**2) / (2 * 0.49)), "matern52": (1 + u + u**2 / 3) * torch.exp(-u)}[
        name
    ]
    torch.testing.assert_close(less_one.detach() + 1, exact, rtol=0, atol=1e-15)
    (first,) = torch.autograd.grad(less_one.sum(), s, retain_graph=True)
    (second,) = torch.autograd.grad(slope.sum(), s)
    torch.testing.assert_close(slope.detach()[1:], first[1:], rtol=1e-6, atol=0)
    torch.testing.assert_close(kernel_curvature(name, 0.7, s.detach())[2:], second[2:], rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", ["gaussian", "matern52"])
@pytest.mark.parametrize("count", [1, 2])
def test_block_matrix_is_the_hessian_of_the_kernel(name, count):
    """∂²k/∂r∂r' of three atoms by automatic differentiation, permutations of the second molecule included."""
    permutations = np.array([[0, 1, 2], [0, 2, 1]])[:count]
    frames = [from_atoms(Atoms("OHH", BASE[:3] + RNG.normal(0, 0.1, (3, 3)))) for _ in range(3)]
    pairs = torch.from_numpy(_symmetry.of_pairs(permutations))
    scale = torch.tensor([1.0, 1.0, 1.5], dtype=torch.float64)
    points = _molecules.points(frames, scale, torch.zeros(3, dtype=torch.float64))
    n = _molecules.size(3, 3, "energies+forces")
    found = np.zeros((n, n))
    _molecules.matrix(points, Kernel(name, 1.1, pairs), "energies+forces", found)
    i, j = torch.triu_indices(3, 3, 1)

    def kernel(r, other):
        def descriptor(q):
            return scale / torch.linalg.vector_norm(q[i] - q[j], dim=1)

        x, y = descriptor(r.reshape(3, 3)), other.reshape(3, 3)
        s = torch.stack([(x - descriptor(y[list(p)])).square().sum() for p in permutations.tolist()])
        u = torch.sqrt(5.0 * s / 1.1**2)
        matern = (1 + u + u**2 / 3) * torch.exp(-u)
        return (torch.exp(-s / (2 * 1.1**2)) if name == "gaussian" else matern).sum()

    a, b = (torch.tensor(frames[k].positions.reshape(-1)) for k in (0, 2))
    hessian = torch.autograd.functional.hessian(kernel, (a, b))[0][1]
    expected = points.basis[0].T @ hessian @ points.basis[2]
    np.testing.assert_allclose(found[3:6, 9:12], expected, atol=1e-12)
    slope = torch.autograd.functional.jacobian(lambda r: kernel(a, r), b) @ points.basis[2]
    np.testing.assert_allclose(found[0, 9:12], slope, atol=1e-12)
    other = torch.autograd.functional.jacobian(lambda r: kernel(r, b), a) @ points.basis[0]
    np.testing.assert_allclose(found[2, 3:6], other, atol=1e-12)  # E of frame 2 with F of frame 0
    columns, places = _molecules.columns(points, np.arange(3), Kernel(name, 1.1, pairs), "energies+forces")
    upper = np.triu(found)
    np.testing.assert_allclose(columns, (upper + np.triu(upper, 1).T)[:, places], atol=1e-13)
