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

from mlplugins.config import Count, Positive, Section
from mlplugins.errors import BadInput
from mlplugins.models.soap_gap import Model
from mlplugins.quantities import MILLI
from mlplugins.structures import selection
from mlplugins.structures.batch import Batch, pack
from mlplugins.structures.graph import Graph
from mlplugins.structures.metrics import metrics, z_statistics
from mlplugins.training import data, folds, learning_curve, results
from mlplugins.training.config import SolverSection
from mlplugins.training.fit import TrainingObserver
from mlplugins.training.run import named_sets
from mlplugins.training.solve import Solution, SolverTask
from mlplugins.training.solvers import _linear
from mlplugins.training.solvers._calibration import Calibration, calibrate, scores
from mlplugins.training.solvers._rkhs_qr import Grams, Posterior, Triangle
from mlplugins.training.solvers._rkhs_qr import solve as posterior
from mlplugins.training.solvers._soap_rows import VOIGT, Features, Rows, repulsion, whiten

CANDIDATES = 20
"""Environments that compete for one sparse point."""

EDGES_AT_ONCE = 4096

FOLDS = 5
"""Groups of frames of the cross-validation that calibrates the variance."""

SHARE = 0.1
"""Sparse points per training atom above which only the validation frames calibrate: frames whose own atoms
are sparse points are described by them even when left out, and their variance comes out too small."""

TRIALS = 25
"""Regularisations tried."""

SMALLEST = 1e-12
"""Errors below (eV per atom, eV/Å) are those of labels that are all equal."""

LEAST = {"energy": 10.0, "forces": 100.0, "virial": 10.0}
"""The search goes down to the default regularisation over this."""

CURVE = {"energy": "energy_rmse_meV_per_atom", "forces": "forces_rmse_meV_per_A"}
"""Errors of the learning curve."""

Triangles = dict[str, Triangle]


class NoiseSection(Section):
    """Expected standard deviations of the errors of the model.

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
        learning_curve: numbers of training frames to fit to besides, with errors on the validation set.
    """

    n_sparse: Count = 1000
    sparse_method: Literal["fps", "cur", "random"] = "fps"
    regularisation: NoiseSection | None = None
    search: Literal["validation", "evidence"] = "validation"
    refit: bool = True
    uncertainty: bool = True
    learning_curve: list[Count] = []


def solve(task: SolverTask, observer: TrainingObserver) -> Solution:
    """Choose sparse points, assemble, search the regularisation, fit, calibrate.

    Raises:
        BadInput: an element without training frames, forces as the only target, more memory than there is.
    """
    settings, sets = task.settings, task.sets
    _require_data(task)
    model = Model(sets.elements, task.hyperparameters)
    graphs = {
        name: data.graphs(frames, sets.baseline, model.cutoff, torch.float64)
        for name, frames in named_sets(sets).items()
    }
    points = sparse_points(model, graphs["train"], settings.n_sparse, settings.sparse_method, task.seed)
    rows = Rows(model, basis(model, points))
    # triangles of every group, the stack of their solution and its copy, products of the triangles
    _require_memory(
        8 * (rows.width + 1) ** 2 * (4 * FOLDS + 10), f"{rows.width} unknowns", len(sets.elements)
    )
    observer.note(f"{sum(map(len, points))} sparse points, {rows.width} unknowns")
    chosen = _groups(graphs["train"], graphs["validation"], task.seed)
    groups = [assemble(rows, group, task.targets, observer) for group in chosen]
    refit = settings.refit and bool(sets.validation)
    trained = Grams(groups[:-1] if sets.validation else groups)
    noise, searched = _noise(task, trained, groups[-1])
    validation = None
    if refit:
        install(model, rows, trained.solve(noise), None)
        predicted = results.predict(model, sets.validation, graphs["validation"], sets.baseline)
        validation = metrics(sets.validation, predicted)
    fitted = groups if refit or not sets.validation else groups[:-1]
    final = posterior({kind: [group[kind] for group in fitted] for kind in groups[0]}, noise)
    held = list(zip(chosen, groups))
    n_atoms = sum(len(s) for s in sets.train)
    if sets.validation and sum(map(len, points)) > SHARE * n_atoms:
        held = held[-1:]
    calibration = calibrate(rows, held, fitted, final, noise)
    install(model, rows, final, calibration if settings.uncertainty else None)
    report = {
        **_describe(sets.elements, rows, final),
        "targets": {kind: n for kind, n in trained.n_rows.items() if n},
        "regularisation": noise,
        "regularisation_search": searched,
        "final_fit_used": "training and validation frames" if refit else "training frames",
        **calibration.report(),
    }
    z = {"left out in turn": (calibration.before, calibration.after)}
    if sets.test:
        test = scores(rows, graphs["test"], final.mean, final.factor)
        z["test"] = test.errors / np.sqrt(test.variances), calibration.z(test)
        report["test_z_before_calibration"], report["test_z"] = map(z_statistics, z["test"])
        report["test_z_scores"] = z["test"][1].tolist()
    curve = learning(task, model, graphs, noise, observer)
    if len(curve) > 1:
        sizes, names = [row["n_train"] for row in curve], list(curve[0])[1:]
        laws = {name: learning_curve.fit(sizes, [row[name] for row in curve]) for name in names}
        report["learning_curve"] = {name: law._asdict() for name, law in laws.items()}
    frames = [*sets.train, *sets.validation] if refit else list(sets.train)
    hyperparameters = asdict(task.hyperparameters)
    return Solution(model.eval(), hyperparameters, report, frames, validation, rows.width, curve, z)


def _describe(elements: list[str], rows: Rows, found: Posterior) -> dict[str, Any]:
    """For metrics.json."""
    features = rows.features
    return {
        "n_sparse": {e: len(p) for e, p in zip(elements, features.points)},
        "rank": {e: w.shape[1] for e, w in zip(elements, features.whitening)},
        "unknowns": rows.width,
        "log_evidence": found.log_evidence,
        "condition": found.condition,
    }


def _require_data(task: SolverTask) -> None:
    settings, sets = task.settings, task.sets
    if task.targets == "forces":
        raise BadInput(
            "training.targets: forces alone leave the energies of a local model open: use energies+forces"
        )
    largest = max(settings.learning_curve, default=0)
    if largest > len(sets.train) or (largest and not sets.validation):
        raise BadInput(
            f"training.learning_curve: expected up to {len(sets.train)} training frames and a validation "
            f"set, got {largest} and {len(sets.validation)} validation frames"
        )
    present = {symbol for s in sets.train for symbol in data.symbols(s)}
    absent = [symbol for symbol in sets.elements if symbol not in present]
    if absent:
        raise BadInput(
            f"soap-gap: no training frame holds {', '.join(absent)}: if validation frames do, choose them "
            "yourself (data.validation: FILE) or change the seed; otherwise leave it out of data.elements"
        )


def _groups(train: Sequence[Batch], validation: Sequence[Batch], seed: int) -> list[list[Batch]]:
    """Frames that are left out together in cross-validation; those of the validation set are the last."""
    n = FOLDS - bool(validation)
    if len(train) < n:
        parts = [[g] for g in train]
    else:
        energies = [float(g.labels["energy"].sum() / g.n_atoms.sum()) for g in train]
        parts = [[train[k] for k in part] for part in folds.folds(energies, n, seed, stratified=True)]
    return [*parts, list(validation)] if validation else parts


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
        for batch in pack(graphs, EDGES_AT_ONCE):
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
    system = torch.cat([batch.system[atoms], batch.system[batch.neighbors[edges]]])
    centers, vectors = place[batch.centers[edges]], batch.vectors[edges]
    return model.features(Graph(species, centers, neighbors, vectors, system, len(atoms)))


def basis(model: Model, points: list[Tensor]) -> Features:
    """Whitened kernels of the sparse points, and of the pair term."""
    whitening = [whiten(model.kernel(p, p), model.delta) for p in points]
    pairs = torch.zeros(0, 0, dtype=torch.float64)
    if model.n_two_body > 0:
        distances = model.pair_basis.distances
        x = (distances.unsqueeze(1) - distances) / model.pair_basis.width
        pairs = whiten(torch.exp(-0.5 * x * x), model.two_body_delta)
    return Features(points, whitening, pairs)


def assemble(rows: Rows, graphs: Sequence[Batch], targets: str, observer: TrainingObserver) -> Triangles:
    """Triangular factors of the rows of all frames, by kind of target."""
    kinds = {"energy": True, "forces": targets != "energies", "virial": targets != "energies"}
    found = {kind: Triangle(rows.width) for kind in kinds}
    start = told = time.monotonic()
    batches = pack(graphs, EDGES_AT_ONCE)
    for done, batch in enumerate(batches, start=1):
        atoms = batch.n_atoms.unsqueeze(1)
        fixed, pushes, strains = repulsion(rows.model, batch)
        found["energy"].add(rows.energies(batch) / atoms, (batch.labels["energy"] - fixed) / batch.n_atoms)
        if kinds["forces"]:
            forces, virials = rows.forces(batch)
            found["forces"].add(forces, (batch.labels["forces"] - pushes).reshape(-1))
            stressed = torch.nonzero(batch.has("stress")).squeeze(1)
            if len(stressed):
                voigt = torch.stack([batch.labels["stress"][:, a, b] for a, b in VOIGT], dim=1)  # (S, 6)
                goal = (voigt * batch.volume.unsqueeze(1) - strains) / atoms
                rows_v = virials.reshape(-1, 6, rows.width)[stressed] / atoms[stressed].unsqueeze(2)
                found["virial"].add(rows_v.reshape(-1, rows.width), goal[stressed].reshape(-1))
        if time.monotonic() - told > 10.0:
            told = time.monotonic()
            left = (told - start) * (len(batches) - done) / done
            observer.note(f"assembled {done} of {len(batches)} batches, {left:.0f} s left")
    return found


def _errors(triangles: Triangles, found: Posterior) -> dict[str, float]:
    """RMSE of every kind of target: eV per atom, eV/Å, eV per atom."""
    return {kind: t.rmse(found.mean) for kind, t in triangles.items() if t.n_rows}


def _noise(
    task: SolverTask, trained: Grams, held: Triangles
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Regularisation as given, or the best found by Nelder–Mead in log σ; and the trials."""
    settings = task.settings
    given = (settings.regularisation or NoiseSection()).model_dump()
    if settings.regularisation is not None:
        return given, []
    kinds = [kind for kind, n in trained.n_rows.items() if n]
    by_validation = settings.search == "validation" and bool(task.sets.validation)
    trials: list[dict[str, Any]] = []

    def cost(x: Any) -> float:
        noise = {**given, **{kind: float(math.exp(v)) for kind, v in zip(kinds, x)}}
        found = trained.solve(noise)
        errors = _errors(held, found) if task.sets.validation else {}
        value = (
            sum(math.log(max(e, SMALLEST)) for e in errors.values()) if by_validation else -found.log_evidence
        )
        trials.append({**{k: noise[k] for k in kinds}, "validation_rmse": errors, "objective": value})
        return value if math.isfinite(value) else 1e30

    start = [math.log(given[kind]) for kind in kinds]
    simplex = [start] + [
        [s + (math.log(4.0) if k == j else 0.0) for k, s in enumerate(start)] for j in range(len(kinds))
    ]
    # without noise the weights grow until energies lose their digits, and the variance loses its meaning
    bounds = [(s - math.log(LEAST[kind]), s + math.log(1000.0)) for kind, s in zip(kinds, start)]
    options: Any = {"initial_simplex": simplex, "maxfev": TRIALS, "xatol": 0.1, "fatol": 1e-3}
    best = minimize(cost, np.array(start), method="Nelder-Mead", bounds=bounds, options=options)
    return {**given, **{kind: float(math.exp(v)) for kind, v in zip(kinds, best.x)}}, trials


def learning(
    task: SolverTask,
    model: Model,
    graphs: dict[str, list[Batch]],
    noise: dict[str, float],
    observer: TrainingObserver,
) -> list[dict[str, float]]:
    """Errors on the validation set of fits to the first frames of a random order, each with sparse points of
    its own and the regularisation found."""
    sizes, settings = sorted(set(task.settings.learning_curve)), task.settings
    order = np.random.default_rng(task.seed).permutation(len(graphs["train"]))
    curve = []
    for n in sizes:
        part = [graphs["train"][k] for k in order[:n]]
        points = sparse_points(model, part, settings.n_sparse, settings.sparse_method, task.seed)
        rows = Rows(model, basis(model, points))
        found = Grams([assemble(rows, part, task.targets, observer)]).solve(noise)
        errors = _errors(assemble(rows, graphs["validation"], task.targets, observer), found)
        named = {CURVE[kind]: MILLI * e for kind, e in errors.items() if kind in CURVE}
        curve.append({"n_train": float(n), **named})
        observer.note(", ".join(f"{name} {value:.4g}" for name, value in curve[-1].items()))
    return curve


@torch.no_grad()
def install(model: Model, rows: Rows, found: Posterior, calibration: Calibration | None) -> None:
    """Write weights and, with `calibration`, the predictive variance into the model."""
    features = rows.features
    model.set_sparse(features.points)
    columns = features.columns
    weights = [w @ found.mean[a:b] for w, (a, b) in zip(features.whitening, columns)]
    model.weights = nn.Parameter(torch.cat(weights))
    if rows.n_pairs:
        pair = found.mean[rows.n_many :].reshape(rows.n_pairs, -1) @ features.pairs.t()
        model.pair_weights = nn.Parameter(pair)
    if calibration is None:
        return
    scale = calibration.scale
    inverse = scale * torch.linalg.solve_triangular(
        found.factor, torch.eye(rows.width, dtype=torch.float64), upper=True
    )
    model.posterior = torch.cat([w @ inverse[a:b] for w, (a, b) in zip(features.whitening, columns)])
    rank = max(w.shape[1] for w in features.whitening)
    model.whitening = scale * torch.cat(
        [nn.functional.pad(w, (0, rank - w.shape[1])) for w in features.whitening]
    )
    model.prior_variance = torch.tensor((scale * model.delta) ** 2, dtype=torch.float64)
    model.least_variance = torch.tensor(calibration.floor**2, dtype=torch.float64)
    if rows.n_pairs:
        blocks = inverse[rows.n_many :].reshape(rows.n_pairs, -1, rows.width)
        model.pair_posterior = (features.pairs @ blocks).reshape(-1, rows.width)


def _require_memory(need: int, what: str, n_elements: int) -> None:
    """Refuse a fit that needs more memory than there is.

    Raises:
        BadInput: with the size and the two ways out.
    """
    free = _linear.available_bytes()
    if need > free:
        raise BadInput(
            f"soap-gap: {what} need {need / 1e9:.1f} GB, {free / 1e9:.1f} GB are free: lower "
            f"training.n_sparse (points of each of {n_elements} elements), or fit on a larger machine"
        )
