"""Molecular kernels (KREG, pKREG, KRR-CM, sGDML): fit in closed form, with a search of σ and λ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Literal, cast

import numpy as np
import torch
from pydantic import Field
from scipy.spatial.distance import pdist

from mlplugins.config import Count, Positive, Section
from mlplugins.errors import BadInput, RunFailed
from mlplugins.model_file.write import for_inference
from mlplugins.models.molecular_kernel import Hyperparameters, Model
from mlplugins.quantities import MILLI
from mlplugins.structures.dataset import Structure
from mlplugins.structures.metrics import metrics
from mlplugins.training import data, folds, learning_curve, results
from mlplugins.training.config import SolverSection
from mlplugins.training.fit import TrainingObserver
from mlplugins.training.search import Trial, Variable, search
from mlplugins.training.solve import Solution, SolverTask
from mlplugins.training.solvers import _linear, _molecules, _regression, _symmetry
from mlplugins.training.solvers._regression import (
    Index,
    IterativeSystem,
    KernelFit,
    Molecule,
    Regularisation,
    System,
)

LARGEST_DIFFERENCE_ERROR = 5e-8
"""Round-off may give energy differences this error without a penalty in the search."""

WEIGHED_DIFFERENCE_ERROR = 1e-5
"""Round-off beyond that, up to this share of the error on held-out frames, must pay: it is chosen where
nothing else comes within a factor of two. Beyond this share the fit is refused."""

DOUBTFUL_DIFFERENCE_ERROR = 2.5e-7
"""Final fits with a larger error of their energy differences get a warning."""

TIE = 0.02
"""Trials whose errors, in the final fit, exceed the lowest by up to this share are equal: the best
conditioned of them is chosen. A regularisation adds its error in quadrature, and that share grows while the
rest of the error shrinks, about as 1/N: the margin of a search with fewer frames is narrower by the square of
their ratio."""

SEARCH_ITERATIONS = 1000
"""Conjugate gradients that take longer count as refused in the search."""

SEARCHED_SIGMA = (0.1, 50.0)
"""Length scales that are searched, in units of the median distance of two training descriptors."""

Bounds = Annotated[list[Positive], Field(min_length=2, max_length=2)]


class SearchSection(Section):
    """How hyper-parameters that are not given are chosen.

    Attributes:
        method: `grid`, `nelder-mead`, `bfgs`, `tpe` (optuna).
        objective: `validation` (sum of the relative RMSEs of the learned labels on held-out frames) or
            `likelihood` (log marginal likelihood, the amplitude of the kernel at its best value).
        trials: evaluations.
        folds: 1 = the validation set; more = cross-validation over training and validation frames together.
        nested: outer folds of a nested cross-validation, which is only reported; 0 = none. Each outer fold
            is predicted by a fit to the others whose search (`folds`, at least 2) has not seen it.
        stratified: folds evenly over the energies.
        sigma, regularisation: bounds; None = from the data.
        unknowns: the search uses as many frames as give a linear system of this size.
    """

    method: Literal["grid", "nelder-mead", "bfgs", "tpe"] = "grid"
    objective: Literal["validation", "likelihood"] = "validation"
    trials: Count = 60
    folds: Count = 1
    nested: Annotated[int, Field(ge=0)] = 0
    stratified: bool = True
    sigma: Bounds | None = None
    regularisation: Bounds = [1e-14, 1e-4]
    unknowns: Count = 3000


class Settings(SolverSection):
    """The `training` section.

    Attributes:
        regularisation: λ added to the diagonal of the kernel matrix; None = searched.
        force_regularisation: λ of the force components; None = as `regularisation`.
        search: of what is not given.
        learning_curve: numbers of training frames to fit to besides, with errors on the validation set.
        memory_gb: memory that the kernel matrix may take; None = what the machine has free.
        method: `cholesky`; `cg`, conjugate gradients without the matrix; `auto`, the first if its matrix
            fits.
        tolerance: relative residual of the conjugate gradients.
        iterations: of the conjugate gradients, at most.
        landmarks: frames of their preconditioner.
    """

    regularisation: Positive | None = None
    force_regularisation: Positive | None = None
    search: SearchSection = SearchSection()
    learning_curve: list[Count] = []
    memory_gb: Positive | None = None
    method: Literal["auto", "cholesky", "cg"] = "auto"
    tolerance: Positive = 1e-6
    iterations: Count = 5000
    landmarks: Count = 50


@dataclass(frozen=True)
class Setup:
    """A run: settings, the molecule with all frames, which of them are for training and validation."""

    task: SolverTask
    settings: Settings
    m: Molecule
    train: Index
    validation: Index

    def iterative(self, frames: int) -> bool:
        """Whether the linear system of so many frames is solved without its matrix."""
        method = self.settings.method
        return method == "cg" or (method == "auto" and self.needed_bytes(frames) > self.free_bytes())

    def system(self, index: Index, sigma: float, iterations: int | None = None) -> System | IterativeSystem:
        """The linear system of some frames, stored or not."""
        s = self.settings
        if self.iterative(len(index)):
            stop = (s.tolerance, iterations or s.iterations)
            return IterativeSystem(self.m, index, sigma, s.landmarks, stop)
        return System(self.m, index, sigma)

    def unknowns(self, frames: int) -> int:
        """Unknowns of the linear system of so many frames."""
        return _molecules.size(frames, self.m.points.coordinates, self.m.targets)

    def needed_bytes(self, frames: int) -> int:
        """Memory of its matrix."""
        return _linear.memory_bytes(self.unknowns(frames))

    def free_bytes(self) -> int:
        """Memory that a matrix may take."""
        given = self.settings.memory_gb
        return _linear.available_bytes() if given is None else int(given * 1e9)

    def regularisation(self, value: float) -> Regularisation:
        """λ of energies and force components."""
        return Regularisation(value, self.settings.force_regularisation or value)


def solve(task: SolverTask, observer: TrainingObserver) -> Solution:
    """Search what is not given, then fit to training and validation frames together.

    Raises:
        BadInput: mixed compositions, periodic frames, a group of permutations or a matrix that is too large.
    """
    setup, parameters = prepare(task)
    _warn_of_twins(setup, observer)
    observer.note(announcement(setup))
    sigma, value, trials, nested = choose(setup, parameters.sigma, observer)
    report: dict[str, Any] = {"sigma": sigma, "regularisation": setup.regularisation(value)._asdict()}
    report["permutations"] = len(setup.m.pairs)
    validation = None
    if len(setup.validation):
        # what the validation set says, before its frames are learned from too
        first = setup.system(setup.train, sigma).solve(setup.regularisation(value))
        validation = _validation_errors(setup, first.model)
    both = np.concatenate([setup.train, setup.validation])
    final = setup.system(both, sigma).solve(setup.regularisation(value))
    report |= final.report
    written = cast(Model, for_inference(final.model, "float64"))
    report |= _regression.round_off_report(written, setup.m.points.take(both))
    chosen_by_validation = bool(trials) and setup.settings.search.objective == "validation"
    report["final_fit"] = (
        f"{len(setup.train)} training and {len(setup.validation)} validation frames together; the "
        "validation errors are those of a fit to the training frames alone"
        + (", optimistic as the hyper-parameters were chosen by them" if chosen_by_validation else "")
        if len(setup.validation)
        else f"{len(setup.train)} training frames"
    )
    observer.note(f"final fit: {report['final_fit']}")
    if trials:
        report["search"] = [
            {**t.values, "score": t.score if math.isfinite(t.score) else None} for t in trials
        ]
        parts = _parts(setup, setup.train, setup.validation, setup.settings.search.folds)
        report["search_frames"] = [{"fitted": len(a), "held_out": len(b)} for a, b in parts]
    if nested:
        report["nested_cross_validation"] = nested
    curve = curve_rows(setup, sigma, value, report)
    _warn(report, observer)
    frames = [*task.sets.train, *task.sets.validation]
    hyperparameters = asdict(replace(parameters, sigma=sigma))
    return Solution(final.model, hyperparameters, report, frames, validation, final.report["unknowns"], curve)


def prepare(task: SolverTask) -> tuple[Setup, Hyperparameters]:
    """Check the frames, find the permutations, compute descriptors and labels."""
    frames = [*task.sets.train, *task.sets.validation]
    largest, n_train = max(task.settings.learning_curve, default=0), len(task.sets.train)
    if largest > n_train or (largest and not task.sets.validation):
        raise BadInput(
            f"training.learning_curve: expected up to {n_train} training frames and a validation set, got "
            f"{largest} and {len(task.sets.validation)} validation frames"
        )
    given: Hyperparameters = task.hyperparameters
    mixed = given.descriptor == "sorted-coulomb-matrix"
    _molecules.require_molecule(frames, task.sets.test, mixed)
    if mixed and task.targets != "energies":
        raise BadInput(
            "model.descriptor: a sorted Coulomb matrix has no smooth forces: set training.targets: energies, "
            "or another descriptor"
        )
    if given.kernel == "laplacian" and task.targets != "energies":
        raise BadInput(
            "model.kernel: the Laplacian kernel has no second derivatives: set training.targets: energies"
        )
    if mixed:
        permutations = np.zeros((1, 0), dtype=np.int64)
    elif given.permutations == "detect":
        permutations = _symmetry.detect(frames)
    elif isinstance(given.permutations, str):
        permutations = np.arange(len(frames[0]))[None]
    else:
        permutations = _symmetry.given(given.permutations, frames[0].numbers)
    parameters = replace(
        given, cutoff=_cutoff(given, [*frames, *task.sets.test]), permutations=permutations.tolist()
    )
    if len(permutations) == 1:
        parameters = replace(parameters, permutations="none")

    def blank(sigma: float) -> Model:
        return Model(task.sets.elements, replace(parameters, sigma=sigma))

    if mixed:
        m = _regression.describe_sorted(frames, task.sets, blank)
    else:
        pairs = torch.from_numpy(_symmetry.of_pairs(permutations))
        m = _regression.describe(frames, task.sets, pairs, parameters.descriptor, task.targets, blank)
    setup = Setup(task, task.settings, m, np.arange(n_train), np.arange(n_train, len(frames)))
    return setup, parameters


def announcement(setup: Setup) -> str:
    """Announcement of the memory of the final fit, before it is allocated.

    Raises:
        BadInput: more memory than there is.
    """
    frames = len(setup.train) + len(setup.validation)
    needed, free, method = setup.needed_bytes(frames), setup.free_bytes(), setup.settings.method
    text = f"kernel matrix of {frames} frames: {setup.unknowns(frames)} unknowns, {needed / 1e9:.3g} GB"
    if needed > free and method == "cholesky":
        raise BadInput(
            f"{text}, but {free / 1e9:.3g} GB are free: give fewer frames (data.train: file@:N), or set "
            "training.method: cg (conjugate gradients without the matrix, slower)"
        )
    if method == "cg" or needed > free:
        columns = 8 * setup.unknowns(frames) * setup.unknowns(min(frames, setup.settings.landmarks))
        text += f", not stored: conjugate gradients with a preconditioner of {3 * columns / 1e9:.3g} GB"
    return f"{text}; {len(setup.m.pairs)} permutation(s)"


# --- choice of σ and λ --------------------------------------------------------------------------------------


def choose(
    setup: Setup, sigma: float | None, observer: TrainingObserver
) -> tuple[float, float, list[Trial], dict[str, Any] | None]:
    """σ, λ, the trials, and the outcome of a nested cross-validation if one was asked for."""
    settings = setup.settings
    if sigma is not None and settings.regularisation is not None:
        return sigma, settings.regularisation, [], None
    pool = np.concatenate([setup.train, setup.validation])
    parts = _parts(setup, setup.train, setup.validation, settings.search.folds)
    if settings.search.objective == "likelihood" and setup.iterative(max(len(index) for index, _ in parts)):
        raise BadInput(
            "training.search.objective: likelihood needs the factorised matrix: set training.method: "
            "cholesky, or objective: validation"
        )
    nested = _nested(setup, sigma, pool) if settings.search.nested else None
    best, trials = _search(setup, sigma, parts, len(pool))
    observer.note(_reason(setup, best, trials, len(parts[0][0])))
    return best["sigma"], best["regularisation"], trials, nested


def _reason(setup: Setup, best: dict[str, float], trials: list[Trial], fitted: int) -> str:
    """Why these values were chosen, in one line."""
    chosen = next(t.score for t in trials if all(best[name] == x for name, x in t.values.items()))
    refused = sum(math.isinf(t.score) for t in trials)
    likely = setup.settings.search.objective == "likelihood"
    what = "-log likelihood per unknown" if likely else "error on held-out frames over the labels' spread"
    return (
        f"search: {len(trials)} trials, fitted to {fitted} of {len(setup.train) + len(setup.validation)} "
        f"frames, {refused} refused for round-off: sigma {best['sigma']:.4g} and regularisation "
        f"{best['regularisation']:.2g} have the lowest {what} ({min(t.score for t in trials):.3g}), or equal "
        f"it ({chosen:.3g}) with the largest regularisation"
    )


Part = tuple[Index, Index]
"""Frames to fit to, and frames to measure the error on."""


def _parts(setup: Setup, train: Index, validation: Index, count: int) -> list[Part]:
    search_, seed = setup.settings.search, setup.task.seed
    if count == 1 and len(validation) == 0 and search_.objective == "validation":
        raise BadInput(
            "a search needs held-out frames: set data.validation, training.search.folds: 5 "
            "(cross-validation) or training.search.objective: likelihood; or give model.sigma and "
            "training.regularisation"
        )
    if count > 1:
        pool = np.sort(np.concatenate([train, validation]))
        groups = folds.folds(setup.m.energies[pool], count, seed, search_.stratified)
        pairs = [(np.setdiff1d(pool, pool[g]), pool[g]) for g in groups]
    else:
        pairs = [(train, validation)]
    most = max(2, search_.unknowns // setup.unknowns(1))
    return [(_some(setup, a, most), _some(setup, b, most)) for a, b in pairs]


def _some(setup: Setup, index: Index, most: int) -> Index:
    if len(index) <= most:
        return index
    return index[folds.holdout(setup.m.energies[index].tolist(), most, setup.task.seed)]


def _search(
    setup: Setup, sigma: float | None, parts: list[Part], final: int
) -> tuple[dict[str, float], list[Trial]]:
    """Values for a fit to `final` frames, and all trials."""
    settings, fixed = setup.settings, {}
    variables = []
    if sigma is None:
        low, high = settings.search.sigma or _sigma_bounds(setup.m)
        variables.append(Variable("sigma", low, high, 10))
    else:
        fixed["sigma"] = sigma
    if settings.regularisation is None:
        low, high = settings.search.regularisation
        variables.append(Variable("regularisation", low, high, 6))
    else:
        fixed["regularisation"] = settings.regularisation
    systems: dict[float, list[System | IterativeSystem]] = {}
    iterations = min(settings.iterations, SEARCH_ITERATIONS)

    def score(values: dict[str, float]) -> float:
        values = {**fixed, **values}
        length = values["sigma"]
        if length not in systems:
            systems.clear()  # one length scale at a time: the grid varies λ first
            systems[length] = [setup.system(index, length, iterations) for index, _ in parts]
        lam = setup.regularisation(values["regularisation"])
        try:
            scores = [_score(setup, s.solve(lam), part) for s, part in zip(systems[length], parts)]
        except (BadInput, RunFailed):
            return math.inf
        return float(np.mean(scores))

    trials = search(settings.search.method, variables, score, settings.search.trials, setup.task.seed)
    lowest = min(t.score for t in trials)
    limit = lowest * (1.0 + TIE * min(1.0, len(parts[0][0]) / final) ** 2)
    if settings.search.objective == "likelihood":  # a factor e of the likelihood
        limit = lowest + 1.0 / setup.unknowns(len(parts[0][0]))
    equal = [{**fixed, **t.values} for t in trials if t.score <= limit]
    return max(equal, key=lambda v: (v["regularisation"], -v["sigma"])), trials


def _score(setup: Setup, fit: KernelFit, part: Part) -> float:
    """Relative errors of the learned labels, or −log likelihood per unknown; infinite where a jitter was
    needed or round-off rules."""
    if fit.report["jitter"] > 0.0:
        return math.inf
    found = _regression.errors(setup.m, part[1], _regression.predict(fit.model, setup.m.points.take(part[1])))
    weights = _regression.energy_weight(setup.m)
    error = 0.0
    if setup.m.learns_energies:
        error += weights[0] * found["energy_rmse_meV_per_atom"]
    if "forces" in setup.m.targets:
        error += weights[1] * found["forces_rmse_meV_per_A"]
    round_off = fit.report["difference_error"] or 0.0
    if round_off > max(LARGEST_DIFFERENCE_ERROR, WEIGHED_DIFFERENCE_ERROR * error):
        return math.inf
    if setup.settings.search.objective == "likelihood":
        return -float(fit.report["log_marginal_likelihood"]) / fit.report["unknowns"]
    return error if round_off <= LARGEST_DIFFERENCE_ERROR else 2.0 * error


def _sigma_bounds(m: Molecule) -> tuple[float, float]:
    sample = m.points.x[:500]
    distances = torch.pdist(sample) if len(sample) > 1 else torch.ones(1, dtype=torch.float64)
    middle = float(distances.median())
    return SEARCHED_SIGMA[0] * middle, SEARCHED_SIGMA[1] * middle


def _nested(setup: Setup, sigma: float | None, pool: Index) -> dict[str, Any]:
    """Errors on outer folds that neither fit nor search has seen."""
    count = setup.settings.search.nested
    groups = folds.folds(setup.m.energies[pool], count, setup.task.seed + 1, setup.settings.search.stratified)
    rows = []
    for group in groups:
        outer = pool[group]
        rest = np.setdiff1d(pool, outer)
        parts = _parts(setup, rest, rest[:0], max(2, setup.settings.search.folds))
        best, _ = _search(setup, sigma, parts, len(rest))
        fit = setup.system(rest, best["sigma"]).solve(setup.regularisation(best["regularisation"]))
        prediction = _regression.predict(fit.model, setup.m.points.take(outer))
        rows.append(_regression.errors(setup.m, outer, prediction))
    return {
        "folds": count,
        **{name: float(np.mean([r[name] for r in rows])) for name in rows[0]},
        **{f"{name}_deviation": float(np.std([r[name] for r in rows], ddof=1)) for name in rows[0]},
    }


# --- reports ------------------------------------------------------------------------------------------------


def _metrics(setup: Setup, fit: KernelFit, index: Index) -> dict[str, Any]:
    return _regression.errors(setup.m, index, _regression.predict(fit.model, setup.m.points.take(index)))


def _validation_errors(setup: Setup, model: Model) -> dict[str, Any]:
    sets = setup.task.sets
    graphs = data.graphs(sets.validation, sets.baseline, model.cutoff, torch.float64)
    return metrics(sets.validation, results.predict(model, sets.validation, graphs, sets.baseline))


def curve_rows(setup: Setup, sigma: float, value: float, report: dict[str, Any]) -> list[dict[str, float]]:
    """Errors on the validation set of fits to the first frames of a random order; the power law goes to the
    report."""
    sizes = sorted(set(setup.settings.learning_curve))
    if not sizes:
        return []
    order = np.random.default_rng(setup.task.seed).permutation(setup.train)
    rows: list[dict[str, float]] = []
    for n in sizes:
        fit = setup.system(order[:n], sigma).solve(setup.regularisation(value))
        rows.append({"n_train": float(n), **_metrics(setup, fit, setup.validation)})
    names = [name for name in rows[0] if name != "n_train"]
    if len(sizes) > 1:
        laws = {name: learning_curve.fit(sizes, [row[name] for row in rows]) for name in names}
        report["learning_curve"] = {name: law._asdict() for name, law in laws.items()}
    return rows


def _warn_of_twins(setup: Setup, observer: TrainingObserver) -> None:
    m, frames = setup.m, [*setup.task.sets.train, *setup.task.sets.validation]
    found = _symmetry.twins(m.points.x.numpy(), m.pairs.numpy())
    if found:
        gaps = [abs(m.energies[i] - m.energies[j]) for i, j in found]
        i, j = found[int(np.argmax(gaps))]
        apart = f" ({MILLI * max(gaps):.2g} meV apart)" if m.learns_energies else ""
        observer.note(
            f"{len(found)} pair(s) of frames have the same distances, e.g. {frames[i].origin} and "
            f"{frames[j].origin}{apart}: the kernel matrix is nearly "
            "singular and only training.regularisation separates them; drop one of each"
        )


def _warn(report: dict[str, Any], observer: TrainingObserver) -> None:
    if (report["difference_error"] or 0.0) > DOUBTFUL_DIFFERENCE_ERROR:
        observer.note(
            f"round-off of the energies is {report['energy_round_off_eV']:.1e} eV: differences over "
            f"{_regression.SHORTEST_STEP_A:g} Å deviate from the forces by {report['difference_error']:.1e} "
            "(relative); the kernel is too flat: shorten model.sigma or raise training.regularisation"
        )
    if report["jitter"] > 0.0:
        observer.note(
            f"a jitter of {report['jitter']:.1e} was added to the diagonal: nearly equal frames, or a flat "
            "kernel"
        )


def _cutoff(parameters: Any, frames: Sequence[Structure]) -> float:
    """As given, or twice the largest extent of a frame, and 5 Å more.

    Raises:
        BadInput: atoms farther apart than the range given.
    """
    if parameters.cutoff is not None:
        for s in frames:
            farthest = float(pdist(s.positions).max(initial=0.0))
            if farthest >= parameters.cutoff:
                raise BadInput(
                    f"model.cutoff: {s.origin} has atoms {farthest:.3g} Å apart, got a range of "
                    f"{parameters.cutoff:g} Å: raise it, or leave it out"
                )
        return float(parameters.cutoff)
    extent = max(float(np.linalg.norm(s.positions - s.positions.mean(0), axis=1).max()) for s in frames)
    return float(np.ceil(4.0 * extent + 5.0))
