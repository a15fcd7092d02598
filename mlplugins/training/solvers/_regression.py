"""One molecular kernel regression: labels, linear system, model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from ase.data import atomic_numbers
from numpy.typing import NDArray
from torch import Tensor

from mlplugins.models.molecular_kernel import Model
from mlplugins.quantities import MILLI
from mlplugins.structures.batch import pack
from mlplugins.structures.dataset import Structure
from mlplugins.training.data import DataSets, graphs, symbols
from mlplugins.training.solvers import _iterative, _linear, _molecules
from mlplugins.training.solvers._molecules import Kernel, Points

Array = NDArray[np.float64]
Index = NDArray[np.int64]

CHUNK = 64
"""Structures predicted at a time."""

SHORTEST_STEP_A = 2e-3
"""Energy differences over steps this long must agree with the forces."""
TINY_STEP = 1e-7
ORDER = 7
"""Step, in units of the descriptor, and order of the differences that leave nothing but round-off of an
energy."""
FRAMES, DIRECTIONS = 6, 3


class Regularisation(NamedTuple):
    """λ added to the diagonal, of energies and of force components."""

    energies: float
    forces: float


class Prediction(NamedTuple):
    """Energies (N,) without composition baseline, eV; gradients (N, m) along the internal coordinates,
    eV/Å."""

    energies: Array
    gradients: Array


@dataclass(frozen=True)
class Molecule:
    """Shared by all fits of a run.

    Attributes:
        points: all frames.
        energies: (N,) eV, composition baseline subtracted.
        gradients: (N, m) −forces along the internal coordinates, eV/Å; empty without forces.
        scale, shift: (P,) of the descriptor.
        pairs: (K, P) permutations of the pairs.
        targets: labels that are learned from.
        blank: an unfitted model for a length scale.
        species: (n,) of the molecule; (largest number of atoms,) for sorted descriptors.
        charges: atomic number of each element of the model.
        n_atoms: (N,) of each frame.
    """

    points: Points
    energies: Array
    gradients: Array
    scale: Tensor
    shift: Tensor
    pairs: Tensor
    targets: str
    blank: Callable[[float], Model]
    species: Tensor
    charges: Tensor
    n_atoms: Array

    @property
    def learns_energies(self) -> bool:
        return "energies" in self.targets


@dataclass(frozen=True)
class KernelFit:
    """A fitted model and the report of the solver."""

    model: Model
    report: dict[str, Any]


def describe(
    frames: Sequence[Structure],
    sets: DataSets,
    pairs: Tensor,
    descriptor: str,
    targets: str,
    blank: Callable[[float], Model],
) -> Molecule:
    """Descriptors and labels of frames of one molecule."""
    scale = _scale(frames, descriptor, pairs)
    raw = _molecules.points(frames, scale, torch.zeros_like(scale))
    shift = raw.x.mean(0)[pairs].mean(0)  # one value for equivalent pairs
    points = replace(raw, x=raw.x - shift)
    energies = np.array([(s.energy or 0.0) - sets.baseline.predict(symbols(s)) for s in frames])
    gradients = np.zeros((0, points.coordinates))
    if all(s.forces is not None for s in frames):
        forces = torch.tensor(np.stack([s.forces.reshape(-1) for s in frames if s.forces is not None]))
        gradients = -torch.einsum("ndm,nd->nm", points.basis, forces).numpy()
    species = torch.tensor([sets.elements.index(symbol) for symbol in symbols(frames[0])])
    n_atoms = np.full(len(frames), float(len(species)))
    charges = _charges(sets)
    return Molecule(
        points, energies, gradients, scale, shift, pairs, targets, blank, species, charges, n_atoms
    )


def describe_sorted(frames: Sequence[Structure], sets: DataSets, blank: Callable[[float], Model]) -> Molecule:
    """Sorted Coulomb matrices and energies of any molecules, padded to the largest of all sets."""
    model = blank(1.0)
    model.charges = _charges(sets)
    model.species = torch.zeros(max(len(s) for s in [*frames, *sets.test]), dtype=torch.long)
    model.shift = torch.zeros((), dtype=torch.float64)
    rows = []
    for batch in pack(graphs(frames, sets.baseline, model.cutoff, torch.float64)):
        rows.append(model.descriptors(batch.graph())[0])
    x = torch.cat(rows)
    shift = x.mean(0)
    points = Points(
        x - shift, torch.zeros(*x.shape, 0, dtype=x.dtype), torch.zeros(len(x), 0, 0, dtype=x.dtype)
    )
    energies = np.array([(s.energy or 0.0) - sets.baseline.predict(symbols(s)) for s in frames])
    n_atoms = np.array([float(len(s)) for s in frames])
    pairs = torch.arange(x.shape[1])[None]
    none = np.zeros((0, 0))
    return Molecule(
        points,
        energies,
        none,
        shift[:0],
        shift,
        pairs,
        "energies",
        blank,
        model.species,
        model.charges,
        n_atoms,
    )


def _charges(sets: DataSets) -> Tensor:
    return torch.tensor([float(atomic_numbers[symbol]) for symbol in sets.elements], dtype=torch.float64)


def _scale(frames: Sequence[Structure], descriptor: str, pairs: Tensor) -> Tensor:
    """c_p of the descriptor; the reference geometry of RE is the frame of lowest energy."""
    i, j = np.triu_indices(len(frames[0]), 1)
    if descriptor == "inverse":
        return torch.ones(len(i), dtype=torch.float64)
    if descriptor == "coulomb-matrix":
        z = frames[0].numbers.astype(float)
        return torch.tensor(z[i] * z[j])
    lowest = min(frames, key=lambda s: s.energy or 0.0)
    distances = torch.tensor(np.linalg.norm(lowest.positions[i] - lowest.positions[j], axis=1))
    return distances[pairs].mean(0)  # one value for equivalent pairs


class System:
    """The kernel matrix of some frames, to be solved for one or more regularisations.

    Args:
        m: the molecule.
        index: frames to learn from.
        sigma: length scale.
    """

    def __init__(self, m: Molecule, index: Index, sigma: float) -> None:
        self.m, self.index = m, index
        self.blank = m.blank(sigma)
        self.points = m.points.take(index)
        n = _molecules.size(len(index), self.points.coordinates, m.targets)
        self.matrix = np.zeros((n, n))
        kernel = Kernel(self.blank.kernel, sigma, m.pairs)
        _molecules.matrix(self.points, kernel, m.targets, self.matrix)
        self.diagonal = np.diagonal(self.matrix).copy()

    def solve(self, regularisation: Regularisation) -> KernelFit:
        """Model for one regularisation.

        Raises:
            BadInput: the matrix is singular to working precision.
        """
        y, mean = labels(self.m, self.index)
        diagonal = np.full(len(y), regularisation.forces)
        if self.m.learns_energies:
            diagonal[: len(self.index)] = regularisation.energies
        factor = _linear.solve(self.matrix, self.diagonal, diagonal, y)
        # the amplitude of the kernel that fits best
        variance = max(float(y @ factor.solution) / len(y), np.finfo(np.float64).tiny)
        likelihood = -0.5 * (len(y) * np.log(2 * np.pi * np.e * variance) + factor.log_determinant)
        model = assemble(self.m, self.index, self.blank, factor.solution, mean)
        report = {
            "method": "cholesky",
            "unknowns": len(y),
            "condition": factor.condition,
            "jitter": factor.jitter,
            "residual": factor.residual,
            "log_marginal_likelihood": float(likelihood),
            **round_off_report(model, self.points),
        }
        return KernelFit(model, report)


class IterativeSystem:
    """As `System`, without its matrix: products are predictions of the model at its own training points.

    Args:
        m, index, sigma: as in `System`.
        landmarks: frames of the Nyström preconditioner.
        tolerance, most: of the conjugate gradients.
    """

    def __init__(
        self, m: Molecule, index: Index, sigma: float, landmarks: int, stop: tuple[float, int]
    ) -> None:
        self.m, self.index, self.stop = m, index, stop
        self.blank = m.blank(sigma)
        self.points = m.points.take(index)
        self.kernel = Kernel(self.blank.kernel, sigma, m.pairs)
        count = min(landmarks, len(index))
        self.landmarks = np.random.default_rng(0).permutation(len(index))[:count]

    def solve(self, regularisation: Regularisation) -> KernelFit:
        """Model for one regularisation.

        Raises:
            RunFailed: not converged.
        """
        y, mean = labels(self.m, self.index)
        diagonal = np.full(len(y), regularisation.forces)
        if self.m.learns_energies:
            diagonal[: len(self.index)] = regularisation.energies
        columns, places = _molecules.columns(self.points, self.landmarks, self.kernel, self.m.targets)
        precondition = _iterative.nystrom(columns, places, diagonal)

        def product(v: Array) -> Array:
            return self._product(v) + diagonal * v

        tolerance, most = self.stop
        solved = _iterative.conjugate_gradients(product, precondition, y, tolerance, most)
        model = assemble(self.m, self.index, self.blank, solved.solution, mean)
        report = {
            "method": "cg",
            "unknowns": len(y),
            "landmarks": len(self.landmarks),
            "iterations": solved.iterations,
            "jitter": 0.0,
            "residual": solved.residual,
            **round_off_report(model, self.points),
        }
        return KernelFit(model, report)

    def _product(self, v: Array) -> Array:
        model = _weighted(self.m, self.points, self.blank, v)
        model.offset = torch.tensor([len(self.m.pairs) * float(model.values.sum())], dtype=torch.float64)
        found = predict(model, self.points)
        parts = [found.energies] if self.m.learns_energies else []
        if "forces" in self.m.targets:
            parts.append(found.gradients.ravel())
        return np.concatenate(parts)


def labels(m: Molecule, index: Index) -> tuple[Array, float]:
    """Right-hand side of the linear system, and the mean energy that was subtracted from it."""
    mean = float(m.energies[index].mean()) if m.learns_energies else 0.0
    parts = []
    if m.learns_energies:
        parts.append(m.energies[index] - mean)
    if "forces" in m.targets:
        parts.append(m.gradients[index].ravel())
    return np.concatenate(parts), mean


def assemble(m: Molecule, index: Index, blank: Model, solution: Array, mean: float) -> Model:
    """The model of a solution of the linear system; its offset makes energies right that were not learned
    from."""
    points = m.points.take(index)
    model = _weighted(m, points, blank, solution)
    model.offset = torch.tensor([mean + len(m.pairs) * float(model.values.sum())], dtype=torch.float64)
    if not m.learns_energies:
        model.offset += float(np.mean(m.energies[index] - predict(model, points).energies))
    return model


def _weighted(m: Molecule, points: Points, model: Model, solution: Array) -> Model:
    """`model` with the weights of a solution of the linear system."""
    n, c = len(points), torch.from_numpy(solution)
    model.species, model.charges = m.species, m.charges
    model.scale, model.shift, model.pairs = m.scale, m.shift, m.pairs
    model.points = points.x
    model.values = c[:n] if m.learns_energies else c[:0]
    if "forces" in m.targets:
        slopes = c[n if m.learns_energies else 0 :].reshape(n, -1)
        model.slopes = torch.einsum("npm,nm->np", points.jacobian, slopes)
    model.prepare()
    return model


def predict(model: Model, points: Points) -> Prediction:
    """Energies and gradients of a model at some points."""
    energies, gradients = [], []
    for start in range(0, len(points), CHUNK):
        part = points.take(slice(start, start + CHUNK))
        x = part.x.detach().requires_grad_()
        energy = model.predict(x)
        (slope,) = torch.autograd.grad(energy.sum(), x)
        energies.append(energy.detach() + model.offset)
        gradients.append(torch.einsum("npm,np->nm", part.jacobian, slope))
    return Prediction(torch.cat(energies).numpy(), torch.cat(gradients).numpy())


def errors(m: Molecule, index: Index, prediction: Prediction) -> dict[str, float]:
    """RMSE of the frames `index`: energy meV/atom, forces meV/Å (as over all 3n components)."""
    n = len(m.species)
    energy = (prediction.energies - m.energies[index]) / m.n_atoms[index]
    found = {"energy_rmse_meV_per_atom": MILLI * float(np.sqrt(np.mean(energy**2)))}
    if len(m.gradients):
        squares = np.sum((prediction.gradients - m.gradients[index]) ** 2) / (3 * n * len(index))
        found["forces_rmse_meV_per_A"] = MILLI * float(np.sqrt(squares))
    return found


class RoundOff(NamedTuple):
    """Round-off of a model's energies: root mean square, eV, and the error that it gives to five-point energy
    differences over steps of `SHORTEST_STEP_A`, relative to the largest slope (at least 0.1 eV/Å)."""

    energy: float
    relative: float


def round_off(model: Model, points: Points) -> RoundOff | None:
    """Worst round-off of the energies at a few frames; None for sorted descriptors, which have no slopes.

    Flat kernels with huge weights keep good forces while round-off in the energy grows. A difference of high
    order over tiny steps removes every smooth function and leaves the round-off, √C(2n, n) times: R. Hamming,
    Numerical Methods for Scientists and Engineers, chapter 10; J. Moré, S. Wild, SIAM J. Sci. Comput. 33,
    1292 (2011).
    """
    if points.coordinates == 0:
        return None
    part = points.take(np.linspace(0, len(points) - 1, min(FRAMES, len(points))).astype(np.int64))
    rng = np.random.default_rng(0)
    q = torch.from_numpy(rng.standard_normal((len(part), DIRECTIONS, part.coordinates)))
    q = q / torch.linalg.vector_norm(q, dim=2, keepdim=True)
    direction = torch.einsum("npm,ndm->ndp", part.jacobian, q)
    x = part.x.detach().clone().requires_grad_()
    (slope,) = torch.autograd.grad(model.predict(x).sum(), x)
    largest = float(torch.einsum("ndp,np->nd", direction, slope).abs().max())
    moves = torch.from_numpy(rng.standard_normal(direction.shape))
    steps = TINY_STEP * torch.arange(ORDER + 1, dtype=torch.float64)
    moved = (part.x.detach()[:, None, None] + steps[:, None] * moves[:, :, None]).reshape(-1, x.shape[1])
    with torch.no_grad():
        energies = torch.cat([model.predict(chunk) for chunk in moved.split(CHUNK)])
    rest = np.diff(energies.reshape(len(part), DIRECTIONS, -1).numpy(), ORDER)[..., 0]
    noise = np.sqrt((rest**2).mean(axis=1) / math.comb(2 * ORDER, ORDER))
    five_point = math.sqrt(2 * (8**2 + 1)) / 12  # the root of the sum of its squared weights
    worst = float(noise.max())
    return RoundOff(worst, five_point * worst / SHORTEST_STEP_A / max(largest, 0.1))


def round_off_report(model: Model, points: Points) -> dict[str, float | None]:
    """Entries of a fit's report."""
    found = round_off(model, points)
    return {
        "difference_error": found and found.relative,
        "energy_round_off_eV": found and found.energy,
    }


def energy_weight(m: Molecule) -> tuple[float, float]:
    """Factors that turn RMSEs of energies (meV/atom) and forces (meV/Å) into parts of the spread of the
    labels."""
    energy = MILLI * float((m.energies / m.n_atoms).std())
    force = MILLI * float(np.sqrt(np.mean(m.gradients**2))) if len(m.gradients) else 0.0
    return (1.0 / energy if energy > 0 else 0.0), (1.0 / force if force > 0 else 0.0)
