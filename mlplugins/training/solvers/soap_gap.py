"""SOAP-GAP: sparse points, one least-squares problem on energies, forces and virials, predictive variance."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor, nn

from mlplugins.errors import BadInput
from mlplugins.models.base import energy_derivatives
from mlplugins.models.soap_gap import Model
from mlplugins.structures import selection
from mlplugins.structures.batch import Batch
from mlplugins.structures.metrics import metrics
from mlplugins.training import data, results
from mlplugins.training.config import Count, Positive, Section, SolverSection
from mlplugins.training.fit import Observer
from mlplugins.training.run import named_sets
from mlplugins.training.solve import Solution, Task
from mlplugins.training.solvers import _linear
from mlplugins.training.solvers._rkhs_qr import Posterior, Triangle
from mlplugins.training.solvers._rkhs_qr import solve as posterior
from mlplugins.training.solvers._soap_rows import VOIGT, Features, Rows, whiten

CANDIDATES = 20
"""Environments that compete for one sparse point."""

EDGES_AT_ONCE = 4096

SMALLEST = 1e-12
"""Errors below (eV per atom, eV/Å) are those of labels that are all equal."""

LEAST = {"energy": 10.0, "forces": 100.0, "virial": 10.0}
"""The search goes down to the default regularisation over this."""

Triangles = dict[str, Triangle]


class NoiseSection(Section):
    """Standard deviation that the model may miss its targets by.

    Attributes:
        energy: eV per atom.
        forces: eV/Å.
        virial: V σ per atom, eV.
    """

    energy: Positive = 0.001
    forces: Positive = 0.05
    virial: Positive = 0.01


class Settings(SolverSection):
    """Fit of a SOAP-GAP.

    Attributes:
        n_sparse: sparse points of every element.
        sparse_method: how they are chosen among the training environments: `fps`, `cur` or `random`.
        regularisation: expected errors; None = searched.
        search: what the search looks for: the lowest errors of the validation frames (product of the relative
            errors of energies, forces and virials), or the largest evidence of the training frames.
        refit: fit once more to training and validation frames together, with what the search found.
        uncertainty: put the predictive variance into the model file (about three times its size).
    """

    n_sparse: Count = 1000
    sparse_method: Literal["fps", "cur", "random"] = "fps"
    regularisation: NoiseSection | None = None
    search: Literal["validation", "evidence"] = "validation"
    refit: bool = True
    uncertainty: bool = True


def solve(task: Task, observer: Observer) -> Solution:
    """Choose sparse points, assemble, search the regularisation, fit, calibrate.

    Raises:
        BadInput: an element without training frames, forces as the only target, more memory than there is.
    """
    settings, sets = task.settings, task.sets
    if task.targets == "forces":
        raise BadInput(
            "training.targets: forces alone leave the energies of a local model open: use energies+forces"
        )
    present = {symbol for s in sets.train for symbol in data.symbols(s)}
    absent = [symbol for symbol in sets.elements if symbol not in present]
    if absent:
        raise BadInput(
            f"soap-gap: no training frame holds {', '.join(absent)}: if validation frames do, choose them "
            "yourself (data.validation: FILE) or change the seed; otherwise leave it out of data.elements"
        )
    model = Model(sets.elements, task.hyperparameters)
    graphs = {
        name: data.graphs(frames, sets.baseline, model.cutoff, torch.float64)
        for name, frames in named_sets(sets).items()
    }
    points = sparse_points(model, graphs["train"], settings.n_sparse, settings.sparse_method, task.seed)
    rows = Rows(model, basis(model, points))
    # triangles of three kinds of target, twice, and the stack of their solution
    _require_memory(8 * (rows.width + 1) ** 2 * 16, f"{rows.width} unknowns", len(sets.elements))
    observer.note(f"{sum(map(len, points))} sparse points, {rows.width} unknowns")
    parts = {name: assemble(rows, graphs[name], task.targets, observer) for name in ("train", "validation")}
    noise, searched = _noise(task, parts)
    first = posterior(_joined(parts["train"]), noise)
    scores = z_scores(rows, graphs["validation"], first)
    # without frames that the fit did not see: the misfit of the fit itself
    squares = float(scores.square().mean()) if sets.validation else first.misfit / first.n
    scale = math.sqrt(squares) or 1.0
    refit = settings.refit and bool(sets.validation)
    validation = None
    if refit:
        _install(model, rows, first, None)
        predicted = results.predict(model, sets.validation, graphs["validation"], sets.baseline)
        validation = metrics(sets.validation, predicted)
    final = posterior(_joined(parts["train"], parts["validation"]), noise) if refit else first
    _install(model, rows, final, scale if settings.uncertainty else None)
    report = {
        "n_sparse": {e: len(p) for e, p in zip(sets.elements, points)},
        "rank": {e: w.shape[1] for e, w in zip(sets.elements, rows.features.whitening)},
        "unknowns": rows.width,
        "targets": {kind: t.n_rows for kind, t in parts["train"].items() if t.n_rows},
        "regularisation": noise,
        "regularisation_search": searched,
        "log_evidence": final.log_evidence,
        "condition": final.condition,
        "uncertainty_scale": scale,
        "uncertainty_calibrated_on": "validation" if sets.validation else "training residuals",
        "validation_z_scores": (scores / scale).tolist(),
        "test_z_scores": (z_scores(rows, graphs["test"], final) / scale).tolist(),
        "final_fit_used": "training and validation frames" if refit else "training frames",
    }
    fitted = [*sets.train, *sets.validation] if refit else list(sets.train)
    return Solution(model.eval(), asdict(task.hyperparameters), report, fitted, validation, rows.width)


@torch.no_grad()
def sparse_points(model: Model, graphs: Sequence[Batch], n: int, method: str, seed: int) -> list[Tensor]:
    """Environments of every element, (≤ n, D) each.

    Raises:
        BadInput: more memory than there is.
    """
    generator = torch.Generator().manual_seed(seed)
    total = torch.bincount(torch.cat([g.species for g in graphs]), minlength=model.n_species).tolist()
    most = max(min(count, CANDIDATES * n) for count in total)
    _require_memory(16 * most * model.spectrum.n_features, f"{most} environments to choose from", len(total))
    points = []
    for index, count in enumerate(total):
        found = []
        for batch in data.pack(graphs, EDGES_AT_ONCE):
            atoms = torch.nonzero(batch.species == index).squeeze(1)
            kept = torch.rand(len(atoms), generator=generator) < CANDIDATES * n / count
            found.append(_environments(model, batch, atoms[kept]))
        p = torch.cat(found)
        p = p[selection.choose(p.numpy(), min(n, len(p)), method, seed)] if len(p) > n else p
        points.append(p)
    return points


def _environments(model: Model, batch: Batch, atoms: Tensor) -> Tensor:
    """Power spectra of some atoms, (A, D)."""
    place = torch.full_like(batch.species, -1)
    place[atoms] = torch.arange(len(atoms))
    edges = torch.nonzero(place[batch.centers] >= 0).squeeze(1)
    # the centres come first, the neighbours' elements stand behind them
    species = torch.cat([batch.species[atoms], batch.species[batch.neighbors[edges]]])
    neighbors = torch.arange(len(atoms), len(species))
    return model.features(species, place[batch.centers[edges]], neighbors, batch.vectors[edges], len(atoms))


def basis(model: Model, points: list[Tensor]) -> Features:
    """Whitened kernels of the sparse points, and of the pair term."""
    whitening = [whiten(model.kernel(p, p), model.delta) for p in points]
    pairs = torch.zeros(0, 0, dtype=torch.float64)
    if model.n_two_body > 0:
        distances = model.pair_basis.distances
        x = (distances.unsqueeze(1) - distances) / model.pair_basis.width
        pairs = whiten(torch.exp(-0.5 * x * x), model.two_body_delta)
    return Features(points, whitening, pairs)


def assemble(rows: Rows, graphs: Sequence[Batch], targets: str, observer: Observer) -> Triangles:
    """Triangular factors of the rows of all frames, by kind of target."""
    kinds = {"energy": True, "forces": targets != "energies", "virial": targets != "energies"}
    found = {kind: Triangle(rows.width) for kind in kinds}
    start = told = time.monotonic()
    batches = data.pack(graphs, EDGES_AT_ONCE)
    for done, batch in enumerate(batches, start=1):
        atoms = batch.n_atoms.unsqueeze(1)
        repulsion, pushes, strains = _repulsion(rows.model, batch)
        found["energy"].add(rows.energies(batch) / atoms, (batch.energy - repulsion) / batch.n_atoms)
        if kinds["forces"]:
            forces, virials = rows.forces(batch)
            found["forces"].add(forces, (batch.forces - pushes).reshape(-1))
            stressed = torch.nonzero(batch.volume > 0).squeeze(1)
            if len(stressed):
                voigt = torch.stack([batch.stress[:, a, b] for a, b in VOIGT], dim=1)  # (S, 6)
                goal = (voigt * batch.volume.unsqueeze(1) - strains) / atoms
                rows_v = virials.reshape(-1, 6, rows.width)[stressed] / atoms[stressed].unsqueeze(2)
                found["virial"].add(rows_v.reshape(-1, rows.width), goal[stressed].reshape(-1))
        if time.monotonic() - told > 10.0:
            told = time.monotonic()
            left = (told - start) * (len(batches) - done) / done
            observer.note(f"assembled {done} of {len(batches)} batches, {left:.0f} s left")
    return found


def _repulsion(model: Model, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Energies (S,), forces (N, 3) and V σ (S, 6) of the fixed short-range repulsion."""
    n = len(batch.species)
    if model.repulsion is None:
        zero = torch.zeros(batch.n_systems, dtype=torch.float64)
        return (
            zero,
            torch.zeros(n, 3, dtype=torch.float64),
            torch.zeros(batch.n_systems, 6, dtype=torch.float64),
        )
    with torch.enable_grad():
        vectors = batch.vectors.detach().clone().requires_grad_()
        r = torch.linalg.vector_norm(vectors, dim=1)
        e = model.repulsion(batch.species, batch.centers, batch.neighbors, r, n)
        edges = (batch.centers, batch.neighbors)
        forces, virial = energy_derivatives(e, vectors, edges, batch.system, batch.n_systems)
    energy = torch.zeros(batch.n_systems, dtype=e.dtype).index_add(0, batch.system, e.detach())
    return energy, forces, torch.stack([virial[:, a, b] for a, b in VOIGT], dim=1)


def _joined(*several: Triangles) -> dict[str, list[Triangle]]:
    return {kind: [t[kind] for t in several] for kind in several[0]}


def _errors(triangles: Triangles, found: Posterior) -> dict[str, float]:
    """RMSE of every kind of target: eV per atom, eV/Å, eV per atom."""
    return {kind: t.rmse(found.mean) for kind, t in triangles.items() if t.n_rows}


def _noise(task: Task, parts: dict[str, Triangles]) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Regularisation as given, or the best found by Nelder–Mead in log σ; and the trials."""
    settings = task.settings
    given = (settings.regularisation or NoiseSection()).model_dump()
    if settings.regularisation is not None:
        return given, []
    kinds = [kind for kind, t in parts["train"].items() if t.n_rows]
    by_validation = settings.search == "validation" and bool(task.sets.validation)
    trials: list[dict[str, Any]] = []

    def cost(x: Any) -> float:
        noise = {**given, **{kind: float(math.exp(v)) for kind, v in zip(kinds, x)}}
        found = posterior(_joined(parts["train"]), noise)
        errors = _errors(parts["validation"], found)
        value = (
            sum(math.log(max(e, SMALLEST)) for e in errors.values()) if by_validation else -found.log_evidence
        )
        trials.append({**{k: noise[k] for k in kinds}, "validation_rmse": errors, "objective": value})
        return value if math.isfinite(value) else 1e30

    start = [math.log(given[kind]) for kind in kinds]
    simplex = [start] + [
        [s + (math.log(4.0) if k == j else 0.0) for k, s in enumerate(start)] for j in range(len(kinds))
    ]
    n_trials = 40 if parts["train"]["energy"].width < 1500 else 15
    # without noise the weights grow until energies lose their digits, and the variance loses its meaning
    bounds = [(s - math.log(LEAST[kind]), s + math.log(1000.0)) for kind, s in zip(kinds, start)]
    options: Any = {"initial_simplex": simplex, "maxfev": n_trials, "xatol": 0.1, "fatol": 1e-3}
    best = minimize(cost, np.array(start), method="Nelder-Mead", bounds=bounds, options=options)
    return {**given, **{kind: float(math.exp(v)) for kind, v in zip(kinds, best.x)}}, trials


@torch.no_grad()
def z_scores(rows: Rows, graphs: Sequence[Batch], found: Posterior) -> Tensor:
    """Errors of the energies over their predicted standard deviations, of frames that the fit did not see."""
    scores = [torch.zeros(0, dtype=torch.float64)]
    for batch in data.pack(graphs, EDGES_AT_ONCE):
        phi = rows.atoms(batch)
        many = phi[:, : rows.n_many]
        residual = (rows.model.delta**2 - many.square().sum(dim=1)).clamp_min(0.0)
        total = torch.zeros(batch.n_systems, dtype=phi.dtype).index_add(0, batch.system, residual)
        summed = rows.energies(batch)
        psi = torch.linalg.solve_triangular(found.factor.t(), summed.t(), upper=False)
        std = torch.sqrt(total + psi.square().sum(dim=0))
        repulsion, _, _ = _repulsion(rows.model, batch)
        scores.append((summed @ found.mean - (batch.energy - repulsion)) / std)
    return torch.cat(scores)


@torch.no_grad()
def _install(model: Model, rows: Rows, found: Posterior, scale: float | None) -> None:
    """Write weights and, with `scale`, the predictive variance into the model."""
    features = rows.features
    model.set_sparse(features.points)
    columns = features.columns
    weights = [w @ found.mean[a:b] for w, (a, b) in zip(features.whitening, columns)]
    model.weights = nn.Parameter(torch.cat(weights))
    if rows.n_pairs:
        pair = found.mean[rows.n_many :].reshape(rows.n_pairs, -1) @ features.pairs.t()
        model.pair_weights = nn.Parameter(pair)
    model.has_uncertainty = scale is not None
    if scale is None:
        return
    inverse = scale * torch.linalg.solve_triangular(
        found.factor, torch.eye(rows.width, dtype=torch.float64), upper=True
    )
    model.posterior = torch.cat([w @ inverse[a:b] for w, (a, b) in zip(features.whitening, columns)])
    rank = max(w.shape[1] for w in features.whitening)
    model.whitening = scale * torch.cat(
        [nn.functional.pad(w, (0, rank - w.shape[1])) for w in features.whitening]
    )
    model.prior_variance = torch.tensor((scale * model.delta) ** 2, dtype=torch.float64)
    if rows.n_pairs:
        blocks = inverse[rows.n_many :].reshape(rows.n_pairs, -1, rows.width)
        model.pair_posterior = (features.pairs @ blocks).reshape(-1, rows.width)


def _require_memory(need: int, what: str, n_elements: int) -> None:
    """Refuse what does not fit.

    Raises:
        BadInput: with the size and the two ways out.
    """
    free = _linear.available_bytes()
    if need > free:
        raise BadInput(
            f"soap-gap: {what} need {need / 1e9:.1f} GB, {free / 1e9:.1f} GB are free: lower "
            f"training.n_sparse (points of each of {n_elements} elements), or fit on a larger machine"
        )
