"""Conformance suite of a model family: subclass `FamilySuite`, give it a model, and pytest runs the physics.

Everything is in float64; a failing test says in its docstring what the failure means.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from scipy.spatial.transform import Rotation
from torch import Tensor, nn

from mlplugins.models.base import Potential, edge_sums, energy_derivatives
from mlplugins.quantities import QUANTITIES
from mlplugins.structures.batch import graph_of
from mlplugins.structures.graph import Graph
from mlplugins.testing.structures import standard_structures

STRUCTURES = sorted(standard_structures())
CORE_STRUCTURES = ("crystal", "molecule", "small_cell")
"""What the fast tests of a variant run on: many edges, no cell, edges to one's own images."""


class FamilySuite:
    """Physics that every family must obey. Override `make_model` (and `elements` if needed).

    The tests of one class share one model; a test that changes it fails.
    """

    elements = ["Li", "S"]
    mirror_images_are_equal = True

    def make_model(self) -> Potential:
        """A model in float64 with generic (not all-zero) weights."""
        raise NotImplementedError

    @pytest.fixture
    def model(self) -> Iterator[Potential]:
        model = _model_of(self)
        before = _versions(model)
        yield model
        assert _versions(model) == before, "the test changed the model that the tests of its class share"

    @pytest.fixture(params=STRUCTURES)
    def atoms(self, request: pytest.FixtureRequest) -> Atoms:
        return standard_structures(self.elements)[request.param]

    def energy(self, model: Potential, atoms: Atoms) -> float:
        return float(model(graph_of(atoms, self.elements, model.cutoff))["energy"].detach().sum())

    def predicted(self, model: Any, atoms: Atoms) -> dict[str, np.ndarray]:
        """All quantities of a structure by name; those per volume times the volume."""
        x = graph_of(atoms, self.elements, model.cutoff)
        x.vectors.requires_grad_()
        return _whole(model.everything(x), x, 1)[0]

    def energy_and_forces(self, model: Any, atoms: Atoms) -> tuple[float, np.ndarray, np.ndarray]:
        x = graph_of(atoms, self.elements, model.cutoff)
        x.vectors.requires_grad_()
        energy = model(x)["energy"]
        forces, virial = energy_derivatives(energy, x, 1)
        return float(energy.sum().detach()), forces.detach().numpy(), virial[0].detach().numpy()

    def test_forces_are_minus_gradient(self, model: Potential, atoms: Atoms) -> None:
        """Failure: the family detaches something, or is not differentiable where it should be."""
        _, forces, _ = self.energy_and_forces(model, atoms)
        direction = np.random.default_rng(1).normal(size=(len(atoms), 3))
        slope = _richardson(lambda h: self.energy(model, _displaced(atoms, h * direction)), 1e-3)
        expected = -np.sum(forces * direction)
        assert slope == pytest.approx(expected, rel=1e-6, abs=1e-8)

    def test_virial_is_strain_derivative(self, model: Potential, atoms: Atoms) -> None:
        """Failure: the energy depends on more than edge vectors, or the virial has a wrong sign."""
        _, _, virial = self.energy_and_forces(model, atoms)
        strain = np.random.default_rng(2).normal(size=(3, 3))
        strain = 0.5 * (strain + strain.T)
        slope = _richardson(lambda h: self.energy(model, _strained(atoms, h * strain)), 1e-4)
        assert slope == pytest.approx(np.sum(virial * strain), rel=1e-6, abs=1e-8)

    def test_predicts_what_it_declares(self, model: Potential) -> None:
        """Failure: `predicts` and the result of `forward` differ, so that exported files lack a quantity."""
        atoms = standard_structures(self.elements)["molecule"]
        graph = graph_of(atoms, self.elements, model.cutoff)
        found = model.everything(graph)
        assert model.predicts[0] == "energy"
        for name in model.predicts:
            rows = len(graph.vectors) if QUANTITIES[name].along_edges else len(atoms)
            assert found[name].shape == (rows, *QUANTITIES[name].shape), name

    def test_rotation_translation_inversion(self, model: Potential, atoms: Atoms) -> None:
        """Failure: wrong Clebsch–Gordan coefficients, layout or parity, or wrong `irreps` of a record."""
        before = self.predicted(model, atoms)
        rotation = Rotation.random(random_state=3).as_matrix()
        for matrix in (rotation, -rotation) if self.mirror_images_are_equal else (rotation,):
            turned = atoms.copy()
            turned.set_cell(atoms.cell.array @ matrix.T)
            turned.positions = atoms.positions @ matrix.T + [0.3, -0.2, 0.7]
            expected = {name: QUANTITIES[name].turned(value, matrix) for name, value in before.items()}
            _assert_equal(self.predicted(model, turned), expected)

    def test_permutation(self, model: Potential, atoms: Atoms) -> None:
        """Failure: the result depends on the order of the atoms."""
        order = np.random.default_rng(4).permutation(len(atoms))
        before = self.predicted(model, atoms)
        expected = {n: value[order] if QUANTITIES[n].per == "atom" else value for n, value in before.items()}
        _assert_equal(self.predicted(model, atoms[order]), expected)

    def test_supercell_is_extensive(self, model: Potential) -> None:
        """Failure: a normalisation depends on the size of the system."""
        atoms = standard_structures(self.elements)["small_cell"]
        _assert_equal(self.predicted(model, atoms * (2, 1, 2)), _of_copies(self.predicted(model, atoms), 4))

    def test_distant_fragments_add_up(self, model: Potential) -> None:
        """Failure: atoms without common neighbours influence each other."""
        molecule = standard_structures(self.elements)["molecule"]
        far = molecule.copy()
        far.translate([100.0, 0.0, 0.0])
        expected = _of_copies(self.predicted(model, molecule), 2)
        _assert_equal(self.predicted(model, molecule + far), expected)

    def test_smooth_at_cutoff(self, model: Potential) -> None:
        """Failure: energy or force jumps when a neighbour crosses the cutoff (NVE will drift)."""
        symbols = (self.elements * 3)[:3]
        step = 1e-5

        def at(distance: float) -> tuple[float, np.ndarray]:
            positions = [[0, 0, 0], [1.9, 0.4, 0], [0, 0, distance]]
            energy, forces, _ = self.energy_and_forces(model, Atoms(symbols, positions=positions))
            return energy, forces

        (inner, inner_forces), (outer, outer_forces) = at(model.cutoff - step), at(model.cutoff + step)
        assert abs(inner - outer) < 1e-9
        assert np.abs(inner_forces - outer_forces).max() < 1e-6

    def test_batch_equals_single(self, model: Potential) -> None:
        """Failure: structures of one batch influence each other."""
        structures = list(standard_structures(self.elements).values())
        singles = [self.predicted(model, atoms) for atoms in structures]
        parts = [graph_of(atoms, self.elements, model.cutoff) for atoms in structures]
        first = np.cumsum([0] + [len(atoms) for atoms in structures])
        species = torch.cat([part.species for part in parts])
        centers = torch.cat([part.centers + offset for part, offset in zip(parts, first)])
        neighbors = torch.cat([part.neighbors + offset for part, offset in zip(parts, first)])
        vectors = torch.cat([part.vectors for part in parts]).requires_grad_()
        system = torch.cat([torch.full((part.n_centers,), k) for k, part in enumerate(parts)])
        batch = Graph(species, centers, neighbors, vectors, system, len(system))
        for got, single in zip(_whole(model.everything(batch), batch, len(parts)), singles, strict=True):
            _assert_equal(got, single)

    def test_scripted_equals_eager(self, model: Potential) -> None:
        """Failure: the family is not TorchScript-able, or scripting changes its meaning."""
        scripted = torch.jit.script(model)
        with torch.jit.optimized_execution(False):
            for name, atoms in standard_structures(self.elements).items():
                x = graph_of(atoms, self.elements, model.cutoff)
                expected, got = model.everything(x), scripted(x)
                got.update(scripted.of_heads(x, got, list(model.predicts)))
                for key in model.predicts:
                    np.testing.assert_allclose(
                        got[key].detach(), expected[key].detach(), rtol=1e-12, atol=1e-12, err_msg=name
                    )

    def test_optimised_script_equals_eager(self, model: Potential) -> None:
        """Failure: energy or forces change once TorchScript has seen a few structures and fused kernels."""
        scripted = torch.jit.script(copy.deepcopy(model).requires_grad_(False))
        before = torch.jit.set_fusion_strategy([("STATIC", 2), ("DYNAMIC", 10)])  # torch's default
        try:
            for name, atoms in [*standard_structures(self.elements).items()] * 2:
                energy, forces, virial = self.energy_and_forces(model, atoms)
                got_energy, got_forces, got_virial = self.energy_and_forces(scripted, atoms)
                assert got_energy == pytest.approx(energy, rel=1e-10, abs=1e-10), name
                np.testing.assert_allclose(got_forces, forces, rtol=0, atol=1e-10, err_msg=name)
                np.testing.assert_allclose(got_virial, virial, rtol=0, atol=1e-9, err_msg=name)
        finally:
            torch.jit.set_fusion_strategy(before)

    def test_float32_stays_float32(self, model: Potential) -> None:
        """Failure: a float64 constant promotes the computation."""
        atoms = standard_structures(self.elements)["crystal"]
        single = self.make_model().to(torch.float32)
        assert (
            single(graph_of(atoms, self.elements, model.cutoff, torch.float32))["energy"].dtype
            == torch.float32
        )

    def test_ghosts_equal_folded(self, model: Potential) -> None:
        """Failure: the family forgets `exchange`, or gives edges or energy to ghosts."""
        atoms = standard_structures(self.elements)["crystal"]
        folded = graph_of(atoms, self.elements, model.cutoff)
        ghosted, owners = _with_ghosts(folded)
        model.set_exchange(_CopyFromOwner(owners))
        try:
            found = model.everything(ghosted)
        finally:
            model.set_exchange(torch.nn.Identity())
        reference = model.everything(folded)
        for name in model.predicts:
            rows = len(folded.vectors) if QUANTITIES[name].along_edges else folded.n_centers
            assert len(found[name]) == rows
            np.testing.assert_allclose(
                found[name].detach(), reference[name].detach(), rtol=0, atol=1e-10, err_msg=name
            )

    @pytest.mark.parametrize("n_ghosts", [0, 3])
    def test_empty_domain(self, model: Potential, n_ghosts: int) -> None:
        """Failure: a LAMMPS rank without atoms crashes."""
        none = torch.zeros(0, dtype=torch.long)
        ghosts = torch.zeros(n_ghosts, dtype=torch.long)
        vectors = torch.zeros(0, 3, dtype=torch.float64, requires_grad=True)
        empty = Graph(ghosts, none, none, vectors, ghosts, 0)
        energy = model.everything(empty)["energy"]
        assert energy.shape == (0,)
        forces, virial = energy_derivatives(energy, empty, 1)
        assert forces.shape == (n_ghosts, 3)
        assert float(virial.detach().abs().max()) == 0.0

    def test_second_derivatives(self, model: Potential) -> None:
        """Failure: forces cannot be trained on (double backward is wrong)."""
        atoms = standard_structures(self.elements)["small_cell"][:3]
        atoms.pbc = False
        x = graph_of(atoms, self.elements, model.cutoff)

        def total(vectors: Tensor) -> Tensor:
            return model(x._replace(vectors=vectors))["energy"].sum()

        vectors = x.vectors.requires_grad_()
        assert torch.autograd.gradcheck(total, (vectors,), atol=1e-6, rtol=1e-5)
        assert torch.autograd.gradgradcheck(total, (vectors,), atol=1e-5, rtol=1e-4)


class VariantSuite(FamilySuite):
    """`FamilySuite` for an option of a family: all of it, the costly part among the slow tests."""

    @pytest.fixture(
        params=[
            name if name in CORE_STRUCTURES else pytest.param(name, marks=pytest.mark.slow)
            for name in STRUCTURES
        ]
    )
    def atoms(self, request: pytest.FixtureRequest) -> Atoms:
        return standard_structures(self.elements)[request.param]

    @pytest.mark.slow
    def test_optimised_script_equals_eager(self, model: Potential) -> None:
        super().test_optimised_script_equals_eager(model)


_models: dict[type, Potential] = {}


def _model_of(suite: FamilySuite) -> Potential:
    if type(suite) not in _models:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            _models[type(suite)] = suite.make_model().to(torch.float64).eval()
    return _models[type(suite)]


def _versions(model: nn.Module) -> list[tuple[str, int]]:
    """Name and number of in-place changes of every tensor."""
    return [(name, tensor._version) for name, tensor in model.state_dict(keep_vars=True).items()]


class _CopyFromOwner(torch.nn.Module):
    """What LAMMPS' forward communication does, for one process."""

    def __init__(self, owners: Tensor) -> None:
        super().__init__()
        self.owners = owners

    def forward(self, h: Tensor) -> Tensor:
        return h.index_select(0, self.owners)


def _whole(found: dict[str, Tensor], graph: Graph, n: int) -> list[dict[str, np.ndarray]]:
    """All quantities of each of `n` structures; those per volume times the volume."""
    forces, virials = energy_derivatives(found["energy"], graph, n)
    derived = {("energy", "positions"): forces, ("energy", "strain"): virials}
    for name in [name for name in found if name in QUANTITIES and QUANTITIES[name].along_edges]:
        found[name], derived[name, "strain"] = edge_sums(found[name], graph, n)
    values: list[dict[str, np.ndarray]] = [{} for _ in range(n)]
    for name, quantity in QUANTITIES.items():
        value = found.get(name) if quantity.derivative is None else derived.get(quantity.derivative)
        if value is None:
            continue
        array = value.detach().numpy()
        for k, each in enumerate(values):
            if quantity.derivative is not None and quantity.per == "system":
                each[name] = array[k]
            else:
                rows = array[(graph.system == k).numpy()]
                each[name] = rows if quantity.per == "atom" else rows.sum(axis=0)
    return values


def _of_copies(values: dict[str, np.ndarray], n: int) -> dict[str, np.ndarray]:
    """Of `n` copies; the volume grows with them."""
    found = {name: QUANTITIES[name].of_copies(value, n) for name, value in values.items()}
    return {name: value * n if QUANTITIES[name].per_volume else value for name, value in found.items()}


def _assert_equal(got: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        # relative for numbers per structure, which grow with it
        relative = 0.0 if QUANTITIES[name].per == "atom" else 1e-10
        np.testing.assert_allclose(got[name], value, rtol=relative, atol=1e-10, err_msg=name)


def _with_ghosts(folded: Graph) -> tuple[Graph, Tensor]:
    """Replace every second edge's neighbour by a ghost of it; returns the inputs and each node's owner."""
    n = folded.n_centers
    neighbors = folded.neighbors.clone()
    chosen = torch.arange(0, len(neighbors), 2)
    owners = torch.cat([torch.arange(n), neighbors[chosen]])
    neighbors[chosen] = n + torch.arange(len(chosen))
    species = folded.species[owners]
    system = torch.zeros(len(owners), dtype=torch.long)
    return Graph(species, folded.centers, neighbors, folded.vectors, system, n), owners


def _richardson(f: Callable[[float], float], h: float) -> float:
    """Derivative of f at 0, fourth order: (4 D(h/2) − D(h)) / 3."""
    coarse = (f(h) - f(-h)) / (2 * h)
    fine = (f(h / 2) - f(-h / 2)) / h
    return (4 * fine - coarse) / 3


def _displaced(atoms: Atoms, displacement: np.ndarray) -> Atoms:
    moved = atoms.copy()
    moved.positions += displacement
    return moved


def _strained(atoms: Atoms, strain: np.ndarray) -> Atoms:
    deformed = atoms.copy()
    deformation = np.eye(3) + strain
    deformed.set_cell(atoms.cell.array @ deformation)
    deformed.positions = atoms.positions @ deformation
    return deformed
