"""Physics that every potential must obey: derivatives, symmetries, locality, smoothness, conservation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.md.velocitydistribution import Stationary
from ase.md.verlet import VelocityVerlet
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from mlplugins.checks import quantities
from mlplugins.checks.result import FORCE_UNIT, Check, limits
from mlplugins.engines.ase.calculator import MLCalculator
from mlplugins.errors import MlpluginsError
from mlplugins.model_file.artifact import Artifact, Results
from mlplugins.quantities import QUANTITIES, Quantity
from mlplugins.units import ASE_TIME_PER_FS, BOLTZMANN_EV_K, FS_PER_PS

Array = NDArray[np.float64]

ATOMS_PER_CALL = 600
RATTLE_A = 0.02
DIFFERENCES = 1e-6  # relative, of finite differences
STEP_A, STRAIN = {"float64": 5e-4, "float32": 1e-2}, {"float64": 2e-4, "float32": 2e-3}
STENCIL = ((-2, 1 / 12), (-1, -2 / 3), (1, 2 / 3), (2, -1 / 12))
"""Five-point first derivative: (step, weight)."""
CUTOFF_WEIGHTS = (3.0, -3.0, 1.0)
"""Extrapolation of f(δ), f(2δ), f(3δ) to δ = 0, exact for parabolas."""
SINGLE_COORDINATES, DIRECTIONS = 8, 4
FORCE_FLOOR, STRESS_FLOOR = 0.1, 1e-3  # eV/Å, eV/Å³: below these, deviations count absolutely
NVE_TIMESTEPS_FS, NVE_TEMPERATURE_K = (0.5, 0.125, 0.03125), 300.0
NVE_FEWEST, NVE_LARGEST = 4, 256  # steps, atoms


class PhysicsChecks:
    """All checks of one structure.

    Args:
        model: the loaded file.
        atoms: structure.
        label: its name in the rows.
        unconstrained: rotations and inversion are reported, not judged.
    """

    def __init__(self, model: Artifact, atoms: Atoms, label: str, unconstrained: bool = False) -> None:
        self.model = model
        self.unconstrained = unconstrained
        self.atoms = atoms
        self.label = label
        self.random = np.random.default_rng(0)
        self.rattled = atoms.copy()
        self.rattled.positions += RATTLE_A * self.random.standard_normal((len(atoms), 3))
        self.reference = model.evaluate([self.rattled])[0]
        self.limits = limits(model, self.reference)

    def checks(self, nve_steps: int) -> Iterator[tuple[str, Callable[[], list[Check]]]]:
        """(name, function that gives rows) of all checks that apply to the structure."""
        yield "finite differences of forces", self.forces
        if self.atoms.pbc.any() and self.atoms.cell.rank == 3:
            yield "finite differences of stress", self.stress
        yield "symmetry", self.symmetry
        if not self.model.molecular:  # which refuses any other number of atoms
            yield "isolated atoms", self.isolated_atoms
            yield "extensivity", self.extensivity
            yield "smoothness at the cutoff", self.cutoff
        if self.reference.more:
            yield "further quantities", self.further
        if nve_steps > 0 and 1 < len(self.atoms) <= NVE_LARGEST:
            yield "NVE drift", lambda: self.nve(nve_steps)

    def run(self, nve_steps: int, report: Callable[[str], None]) -> list[Check]:
        """Run all checks; a model that fails inside one makes that row fail."""
        rows: list[Check] = []
        for name, function in self.checks(nve_steps):
            report(name)
            try:
                rows += function()
            except MlpluginsError as error:
                rows.append(self._row(name, np.nan, 0.0, "", note=str(error)))
        return rows

    def forces(self) -> list[Check]:
        """F = −dE/dr along some coordinates and some directions in which all atoms move."""
        n = len(self.atoms)
        chosen = self.random.choice(3 * n, min(SINGLE_COORDINATES, 3 * n), replace=False)
        collective = self.random.standard_normal((DIRECTIONS, 3 * n))
        collective /= np.linalg.norm(collective, axis=1, keepdims=True)
        directions = np.concatenate([np.eye(3 * n)[chosen], collective])
        step = STEP_A[self.model.dtype]
        moved = []
        for direction in directions:
            for k, _ in STENCIL:
                atoms = self.rattled.copy()
                atoms.positions += k * step * direction.reshape(n, 3)
                moved.append(atoms)
        slopes = self._derivatives(moved, step)
        expected = -directions @ self.reference.forces.ravel()
        scale = max(np.abs(expected).max(), FORCE_FLOOR)
        return [self._relative("forces = -dE/dr", slopes - expected, scale, step)]

    def stress(self) -> list[Check]:
        """σ = (1/V) dE/dε, six components."""
        reference = self.reference.stress
        if reference is None:
            return []
        step = STRAIN[self.model.dtype]
        pairs = [(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]
        strained = []
        for a, b in pairs:
            strain = np.zeros((3, 3))
            strain[a, b] += 0.5
            strain[b, a] += 0.5
            for k, _ in STENCIL:
                atoms = self.rattled.copy()
                atoms.set_cell(atoms.cell @ (np.eye(3) + k * step * strain), scale_atoms=False)
                atoms.positions = self.rattled.positions @ (np.eye(3) + k * step * strain)
                strained.append(atoms)
        slopes = self._derivatives(strained, step) / self.rattled.get_volume()
        expected = np.array([reference[a, b] for a, b in pairs])
        scale = max(np.abs(expected).max(), STRESS_FLOOR)
        volume = self.rattled.get_volume()
        return [self._relative("stress = dE/dε/V", slopes - expected, scale, step * volume)]

    def symmetry(self) -> list[Check]:
        """Rotation, inversion, translation and permutation of every quantity."""
        base = self.rattled
        rotations = Rotation.random(3, random_state=1).as_matrix()
        order = self._order()
        shifted = base.copy()
        shifted.positions += self.random.uniform(-2, 2, 3)
        variants = [_transformed(base, matrix) for matrix in (*rotations, -np.eye(3))]
        reference, *results = self._evaluate([base, *variants, shifted, base[order]])
        same = np.eye(3)
        learned = (np.inf, "learned, not exact") if self.unconstrained else (None, "")
        even = _without_parity(self.model.record.get("hyperparameters", {}))
        mirrored = (np.inf, "without parity by construction") if even and not self.unconstrained else learned
        rows = self._equal("rotation", [*zip(results[:3], rotations)], reference, *learned)
        rows += self._equal("inversion", [(results[3], -same)], reference, *mirrored)
        rows += self._equal("translation", [(results[4], same)], reference)
        back = _in_order(results[5], np.argsort(order))
        return rows + self._equal("permutation", [(back, same)], reference)

    def _equal(
        self,
        kind: str,
        turned: Sequence[tuple[Results, Array]],
        reference: Results,
        limit: float | None = None,
        note: str = "",
    ) -> list[Check]:
        """Rows of all quantities: results for the structure turned by a matrix, against the reference."""
        n, rows = len(reference.forces), []
        for name, quantity in QUANTITIES.items():
            expected = reference.get(name)
            if expected is None:
                continue
            worst = np.max([_deviation(quantity, got, quantity.turned(expected, q), n) for got, q in turned])
            if name == "energy":
                worst = np.max([abs(_difference(got, reference)) / n for got, _ in turned])
            allowed = self.limits.same(quantity, expected) if limit is None else limit
            rows.append(self._row(f"{kind}: {name}", worst, allowed, quantity.compared_unit, note=note))
        return rows

    def _order(self) -> NDArray[np.int64]:
        """A new order of the atoms: any, or for a model of one molecule a permutation that it knows."""
        if not self.model.molecular:
            return self.random.permutation(len(self.rattled))
        known = self.model.record.get("hyperparameters", {}).get("permutations")
        orders = known if isinstance(known, list) and known else [list(range(len(self.atoms)))]
        return np.array(orders[-1], dtype=np.int64)

    def isolated_atoms(self) -> list[Check]:
        """One atom in vacuum: finite energy, no force."""
        symbols = sorted(set(self.atoms.get_chemical_symbols()))
        results = self._evaluate([Atoms(symbol, [[0.0, 0.0, 0.0]]) for symbol in symbols])
        force = max(np.abs(result.forces).max() for result in results)
        finite = all(np.isfinite(result.energy) for result in results)
        energies = ", ".join(f"{s} {r.energy:.6g} eV" for s, r in zip(symbols, results))
        value = force if finite else np.nan
        return [self._row("isolated atoms: force", value, 1e-10, FORCE_UNIT, note=energies)]

    def extensivity(self) -> list[Check]:
        """Two cells, or two molecules beyond the range: twice the energy, the same forces, …"""
        base = self.rattled
        if base.pbc.any():
            axis = int(np.argmax(base.pbc))
            repeats = [1, 1, 1]
            repeats[axis] = 2
            double = base.repeat(repeats)
        else:
            double = base.copy()
            other = base.copy()
            other.positions[:, 0] += np.ptp(base.positions[:, 0]) + 2 * self.model.interaction_range + 10.0
            double += other
        one, two = self._evaluate([base, double])
        rows = []
        for name, quantity in QUANTITIES.items():
            if (value := one.get(name)) is not None:
                deviation = _deviation(quantity, two, quantity.of_copies(value, 2), len(double))
                limit = self.limits.same(quantity, value)
                rows.append(self._row(f"extensivity: {name}", deviation, limit, quantity.compared_unit))
        return rows

    def cutoff(self) -> list[Check]:
        """Energy and force are continuous where a neighbour enters, alone and beside a third atom.

        The jump is extrapolated from ±δ, ±2δ and ±3δ, so that finite slope and curvature do not count as one.
        """
        cutoff = self.model.cutoff
        if cutoff <= 0:
            return []
        delta = 1e-5 if self.model.dtype == "float64" else 1e-3  # a quadratic onset is no jump either
        clusters: list[Atoms] = []
        symbols = sorted(set(self.atoms.get_chemical_symbols()))
        pairs = [(a, b) for k, a in enumerate(symbols) for b in symbols[k:]]
        for a, b in pairs:
            for third in (False, True):
                for k in (1, -1, 2, -2, 3, -3):
                    clusters.append(_cluster((a, b), cutoff, k * delta, third))
        results = self._evaluate(clusters)
        energy = force = 0.0
        for start in range(0, len(results), 6):
            steps = [results[start + k : start + k + 2] for k in (0, 2, 4)]
            e = np.dot(CUTOFF_WEIGHTS, [_difference(out, in_) for out, in_ in steps])
            f = sum(w * (out.forces - in_.forces) for w, (out, in_) in zip(CUTOFF_WEIGHTS, steps))
            energy, force = max(energy, abs(float(e))), max(force, float(np.abs(f).max()))
        note = f"at {cutoff:g} Å"
        return [
            self._row("cutoff: jump of energy", energy, self.limits.jump_energy, "eV", note=note),
            self._row("cutoff: jump of force", force, self.limits.jump_force, FORCE_UNIT, note=note),
        ]

    def further(self) -> list[Check]:
        """Charges, derivatives of dipoles, direct forces."""
        given = self.rattled, self.reference, self.model
        rows = quantities.charges(*given, self._row) + quantities.born(*given, self._evaluate, self._row)
        return rows + quantities.direct_forces(*given, self._evaluate, self._row, self.limits)

    def nve(self, steps: int) -> list[Check]:
        """Linear drift of the energy in a short NVE run (the first quarter is left out).

        The energy is the one that the integrator conserves (`_conserved`): that of the model swings with it,
        and over a few steps a swing is a slope. What is left of fourth order vanishes with the time step, a
        force that is no gradient does not: a run that drifts is repeated with shorter steps before it counts.
        """
        for timestep in NVE_TIMESTEPS_FS:
            row = self._nve(steps, timestep)
            if row.passed:
                break
        return [row]

    def _nve(self, steps: int, timestep: float) -> Check:
        random = np.random.default_rng(0)
        atoms = self.rattled.copy()
        atoms.calc = MLCalculator(self.model.path, device=self.model.device)
        thermal = np.sqrt(atoms.get_masses()[:, None] * BOLTZMANN_EV_K * NVE_TEMPERATURE_K)
        atoms.set_momenta(random.standard_normal((len(atoms), 3)) * thermal)
        Stationary(atoms)
        visited: list[tuple[float, Array, Array]] = []
        dynamics = VelocityVerlet(atoms, timestep * ASE_TIME_PER_FS)
        dynamics.attach(
            lambda: visited.append((atoms.get_total_energy(), atoms.get_velocities(), atoms.get_forces()))
        )
        dynamics.run(steps)
        energies, velocities, forces = map(np.array, zip(*visited))
        conserved = _conserved(energies, velocities, forces, atoms.get_masses(), timestep * ASE_TIME_PER_FS)
        used = conserved[len(conserved) // 4 :] / len(atoms)
        time = np.arange(len(used)) * timestep / FS_PER_PS
        drift = abs(np.polyfit(time, used - used[0], 1)[0]) if np.isfinite(used).all() else np.nan
        start = f"{steps} steps of {timestep:g} fs from {NVE_TEMPERATURE_K:g} K"
        note = f"{start}, spread {np.ptp(energies) / len(atoms):.1e} eV/atom"
        # of the slope through energies that are rounded independently
        resolution = 4 * self.limits.rounding / len(atoms) * np.sqrt(12 / len(used)) / time[-1]
        return self._row("NVE drift", drift, self.limits.drift + resolution, "eV/atom/ps", note=note)

    def _evaluate(self, structures: Sequence[Atoms]) -> list[Results]:
        results: list[Results] = []
        at_once = max(1, ATOMS_PER_CALL // max(len(s) for s in structures))
        for start in range(0, len(structures), at_once):
            results += self.model.evaluate(structures[start : start + at_once])
        return results

    def _derivatives(self, moved: Sequence[Atoms], step: float) -> Array:
        results = self._evaluate(moved)
        slopes = []
        for start in range(0, len(results), len(STENCIL)):
            group = results[start : start + len(STENCIL)]
            slopes.append(sum(w * _difference(r, group[0]) for (_, w), r in zip(STENCIL, group)) / step)
        return np.array(slopes)

    def _relative(self, name: str, deviation: Array, scale: float, step: float) -> Check:
        limit = (
            DIFFERENCES if self.model.dtype == "float64" else 1e-3 + 2 * self.limits.rounding / (step * scale)
        )
        return self._row(name, float(np.abs(deviation).max() / scale), limit, "relative")

    def _row(self, name: str, value: float, limit: float, unit: str, note: str = "") -> Check:
        return Check(name, "ase", 1, float(value), limit, unit, self.label, note)


def _difference(a: Results, b: Results) -> float:
    """E_a − E_b of the same atoms, as a sum over atoms: less round-off than the difference of two totals."""
    if a.energies is None or b.energies is None:
        return a.energy - b.energy
    return float((a.energies - b.energies).sum())


def _deviation(quantity: Quantity, got: Results, expected: Array, n_atoms: int) -> float:
    """Largest difference of a component, in the `compared_unit`."""
    value = got.get(quantity.name)
    difference = np.nan if value is None else float(np.abs(value - expected).max())
    return difference / n_atoms if quantity.extensive else difference


def _conserved(energies: Array, velocities: Array, forces: Array, masses: Array, timestep: float) -> Array:
    """What velocity Verlet conserves, to fourth order in the time step.

    H − Δt² (v·dF/dt / 12 + F·F/(24 m)), from the Baker–Campbell–Hausdorff formula with −dF/dt as the
    Hessian times v.

    Args:
        energies: (T,) total energies H.
        velocities, forces: (T, N, 3).
        masses: (N,).
        timestep: of the same system of units.
    """
    rates = np.gradient(forces, timestep, axis=0, edge_order=2)
    power = (velocities * rates).sum((1, 2)) / 12 + (forces**2 / masses[:, None]).sum((1, 2)) / 24
    conserved: Array = energies - timestep**2 * power
    return conserved


def _in_order(results: Results, order: NDArray[np.int64]) -> Results:
    """Results of the atoms in another order."""
    values = {name: results.get(name) for name in (*QUANTITIES, "energies")}
    return Results.of(
        {
            name: value[order] if name == "energies" or QUANTITIES[name].per == "atom" else value
            for name, value in values.items()
            if value is not None
        }
    )


def _transformed(atoms: Atoms, matrix: Array) -> Atoms:
    """Positions and cell multiplied by an orthogonal matrix."""
    turned = atoms.copy()
    turned.set_cell(atoms.cell.array @ matrix.T, scale_atoms=False)
    turned.positions = atoms.positions @ matrix.T
    return turned


def _cluster(symbols: tuple[str, str], cutoff: float, offset: float, third: bool) -> Atoms:
    positions = [[0.0, 0.0, 0.0], [cutoff + offset, 0.0, 0.0]]
    names = list(symbols)
    if third:
        positions.append([0.5 * cutoff, 0.45 * cutoff, 0.1 * cutoff])
        names.append(symbols[0])
    return Atoms(names, positions)


def _without_parity(hyperparameters: Mapping[str, Any]) -> bool:
    """Whether a model, or a part of a `sum` or `committee`, tells mirror images apart by construction."""
    parts = [*hyperparameters.get("terms", []), *hyperparameters.get("members", [])]
    return hyperparameters.get("parity") == "even" or any(map(_without_parity, parts))
