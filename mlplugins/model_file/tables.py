"""Radial tables at export: cubic interpolation in place of radial networks, certified against round-off.

Tables are refined until their force error, in float64, is below what float32 costs the exact model on the
same structures. What cannot be certified within `MOST_INTERVALS` and `MOST_BYTES`
is written exact.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import fields, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from torch import Tensor

from mlplugins.elements import covalent_radius, require_known
from mlplugins.model_file.precision import DTYPES
from mlplugins.model_file.radial import AS_ASKED, RadialFunctions, RadialTables
from mlplugins.models import committee
from mlplugins.models.base import Potential, energy_derivatives
from mlplugins.models.capabilities import (
    HasRadialNetworks,
    kinks,
    learned_parts,
    of_pairs,
    radial_weights,
    require_knots,
    unfused_degree,
    untabulated,
)
from mlplugins.structures import dataset
from mlplugins.structures.batch import Batch, pack, single
from mlplugins.structures.dataset import Structure

FEWEST_INTERVALS, MOST_INTERVALS = 256, 2048
"""Between the knots of a certified table."""
MOST_BYTES = 256 << 20
"""Of all certified tables of a file, in float32; SevenNet-0 needs 40 MB."""
ORDER = 3
"""Forces of cubic tables err with this power of the distance between knots."""
SHARE = 0.5
"""Of the round-off, which the error of a certified table is to stay below: other structures ask for more."""
FEWER = "; a file of fewer elements has fewer (--elements)"
NOBLE = ("He", "Ne", "Ar", "Kr", "Xe", "Rn")


def chosen(
    exact: Potential, elements: Sequence[str], dtype: str, portable: bool, wanted: RadialTables
) -> tuple[Potential, RadialFunctions | None]:
    """The model with the radial functions that its file is to have.

    Args:
        exact: folded, in float64 and on plain ops; it is not changed.
        elements: symbols, in the order of the species index.
        dtype: precision of the file.
        portable: the file is free of our ops.
        wanted: what was asked for.

    Returns:
        `exact` itself or a copy with tables, and what to record; None for a family without radial networks.

    Raises:
        BadInput: tables of a certain number of knots of a family that has nothing to tabulate, or too few.
    """
    if isinstance(wanted.knots, int):
        require_knots(exact, wanted.knots)
    elif not any(isinstance(part, HasRadialNetworks) for part in exact.parts()):
        return exact, None
    elif wanted.knots is not None:
        return exact, RadialFunctions(why=AS_ASKED)
    elif dtype != "float32":
        return exact, RadialFunctions(why=f"as always in {dtype} unless tables are asked for")
    elif portable or unfused_degree(exact) is not None:
        return exact, RadialFunctions(why="in plain torch tables are not faster")
    elif (obstacle := untabulated(exact)) is not None:
        return exact, RadialFunctions(why=obstacle)
    structures = _read(wanted.structures, elements)
    table = _copy(exact)
    parts, found = learned_parts(table), []
    measures = [_Measure(original, elements, structures, dtype) for original in learned_parts(exact)]
    for measure in measures:
        fixed = wanted.knots if isinstance(wanted.knots, int) else None
        one = measure.error(fixed) if fixed else _certified(measure, MOST_BYTES // len(parts))
        if one.n_knots is None:
            return exact, one
        found.append(one)
    if isinstance(table, committee.Model):  # members of one shape are computed side by side
        most = max(one.n_knots or 0 for one in found)
        finer = [m.error(most) if one.n_knots != most else one for m, one in zip(measures, found)]
        found = finer if all(one.certified for one in finer) else found
    for part, one in zip(parts, found, strict=True):
        _tabulated(part, one.n_knots or 0)
    if dtype == "float32":
        found = [measure.in_float32(one) for measure, one in zip(measures, found)]
    return table, _worst(found)


def _worst(found: Sequence[RadialFunctions]) -> RadialFunctions:
    """Of the parts of a model, the largest of everything."""

    def largest(name: str) -> Any:
        values = [getattr(one, name) for one in found]
        return None if None in values else max(values)

    errors = [field.name for field in fields(RadialFunctions) if field.name not in ("why", "certified")]
    certified = all(one.certified for one in found)
    return RadialFunctions(**{name: largest(name) for name in errors}, certified=certified)


def _certified(measure: _Measure, most_bytes: int) -> RadialFunctions:
    """A table with about as few knots as suffice, or why there is none."""
    if (unseen := measure.unseen_tables()) > 0:
        return RadialFunctions(why=_unseen(unseen, measure.n_tables))
    intervals = FEWEST_INTERVALS
    while True:
        intervals = on_knots(intervals, measure.kinks)
        if (intervals + 1) * measure.bytes_per_knot > most_bytes:
            return RadialFunctions(why=_too_large(intervals + 1, measure.n_tables, most_bytes))
        found = measure.error(intervals + 1)
        if measure.excess <= SHARE:
            return found
        growth = (1.1 * measure.excess / SHARE) ** (1 / ORDER)
        if not growth * intervals <= MOST_INTERVALS:  # nor if it is not a number
            return found if found.certified else RadialFunctions(why=_not_certified(found))
        intervals = math.ceil(growth * intervals)


def _too_large(n_knots: int, n_tables: int, most_bytes: int) -> str:
    each = f", of {n_tables} kinds of pairs of elements," if n_tables > 1 else ""
    advice = FEWER if n_tables > 1 else ""
    return f"tables of {n_knots} knots{each} would take more than {most_bytes / 2**20:.3g} MiB{advice}"


def _unseen(unseen: int, n_tables: int) -> str:
    return f"{unseen} of {n_tables} kinds of pairs of elements are in no structure to measure on{FEWER}"


def _not_certified(found: RadialFunctions) -> str:
    return (
        f"tables of {found.n_knots} knots err by {found.force_eV_A:.1e} eV/Å, float32 round-off is "
        f"{found.round_off_eV_A:.1e} eV/Å, and more than {MOST_INTERVALS} knots are not tried"
    )


def on_knots(intervals: int, places: Sequence[float]) -> int:
    """The number of equal intervals of (0, 1), from `intervals` to a quarter more, whose ends miss `places`
    least.

    >>> on_knots(256, [0.9]), on_knots(256, [])
    (260, 256)
    """

    def miss(n: int) -> float:
        return round(max((abs(n * place - round(n * place)) / n for place in places), default=0.0), 9)

    return min(range(intervals, intervals + intervals // 4 + 1), key=miss)


class _Measure:
    """Errors of tables of one model, and the round-off of the exact one, on the same structures.

    Attributes:
        kinks: where its cutoff functions have kinks, in units of the cutoff.
        bytes_per_knot: of all tables, in float32.
        excess: of the last table, the largest ratio of its error to round-off among the structures.
    """

    def __init__(
        self,
        exact: Potential,
        elements: Sequence[str],
        structures: Sequence[Atoms],
        dtype: str,
    ) -> None:
        self.model = exact
        self.kinks = kinks(exact)
        self.n_tables = max([1, *(int(which.max()) + 1 for which in of_pairs(exact))])
        self.bytes_per_knot = 12 * radial_weights(exact) * self.n_tables
        self.batches = pack(
            [
                single(_structure(atoms), elements, exact.cutoff, 0.0, torch.float64)
                for atoms in structures or samples(elements, exact.cutoff)
            ]
        )
        self.exact = self._evaluate(_copy(exact))
        self.round_off: list[float] | None = None
        if dtype == "float32":
            rounded = copy.deepcopy(exact).to(DTYPES[dtype])
            self.round_off = self._differences(self._evaluate(rounded))[0]
        self.excess = math.nan

    def unseen_tables(self) -> int:
        """Tables for pairs of elements that are in no structure."""
        seen: set[int] = set()
        for which in of_pairs(self.model):
            for batch in self.batches:
                seen.update(which[batch.species[batch.centers], batch.species[batch.neighbors]].tolist())
        return self.n_tables - max(1, len(seen))

    def error(self, n_knots: int) -> RadialFunctions:
        """Of tables of `n_knots` knots."""
        table = _tabulated(_copy(self.model), n_knots)
        forces, energies = self._differences(self._evaluate(table))
        largest = max((float(f.abs().max()) for _, f in self.exact), default=0.0)
        worst = max(forces)
        if self.round_off is not None:
            pairs = zip(forces, self.round_off, strict=True)
            self.excess = max(a / b if b else (math.inf if a else 0.0) for a, b in pairs)
        return RadialFunctions(
            n_knots=n_knots,
            force_eV_A=worst,
            relative_force=worst / largest if largest else 0.0,
            energy_meV_per_atom=1e3 * max(energies),
            round_off_eV_A=None if self.round_off is None else max(self.round_off),
            certified=self.excess <= 1.0,
        )

    def in_float32(self, found: RadialFunctions) -> RadialFunctions:
        """With the error of the rounded table in float32."""
        table = _tabulated(copy.deepcopy(self.model), found.n_knots or 0)
        forces, _ = self._differences(self._evaluate(table.to(torch.float32)))
        return replace(found, float32_eV_A=max(forces))

    def _evaluate(self, model: Potential) -> list[tuple[Tensor, Tensor]]:
        """Energies (S,) and forces (N, 3) of every batch."""
        model.use_native_ops()
        dtype = next(chain(model.parameters(), model.buffers())).dtype
        return [_evaluated(model, batch, dtype) for batch in self.batches]

    def _differences(self, other: list[tuple[Tensor, Tensor]]) -> tuple[list[float], list[float]]:
        """Of every structure, from the exact model: largest of a force component, and energy per atom."""
        forces: list[float] = []
        energies: list[float] = []
        for batch, (e, f), (energy, force) in zip(self.batches, self.exact, other, strict=True):
            per_atom = (force - f).abs().amax(dim=1)
            forces += [float(per_atom[batch.system == k].max()) for k in range(batch.n_systems)]
            energies += ((energy - e).abs() / batch.n_atoms).tolist()
        return forces, energies


def _evaluated(model: Potential, batch: Batch, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    vectors = batch.vectors.to(dtype, copy=True).requires_grad_()
    graph = batch.graph(vectors)
    energy = model(graph)["energy"]
    forces, _ = energy_derivatives(energy, graph, batch.n_systems)
    total = torch.zeros(batch.n_systems, dtype=torch.float64)
    return total.index_add(0, batch.system, energy.detach().double()), forces.detach().double()


def _tabulated(part: Potential, n_knots: int) -> Potential:
    if isinstance(part, HasRadialNetworks):
        part.use_radial_tables(n_knots)
    return part


def _copy(model: Potential) -> Potential:
    """A copy that shares the tensors."""
    tensors = chain(model.parameters(), model.buffers())
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})


def _read(source: Path | str | Sequence[Atoms], known: Sequence[str]) -> list[Atoms]:
    """The structures that are named.

    Raises:
        BadInput: no such file, or an element that the model does not know.
    """
    if isinstance(source, Path | str):
        frames = dataset.frames(source)
    else:
        frames = [(atoms, f"structure {k}") for k, atoms in enumerate(source)]
    after = f"; the model to be written knows {' '.join(known)}"
    for atoms, origin in frames:
        require_known(atoms.symbols, known, f"structures: {origin} holds ", after)
    return [atoms for atoms, _ in frames]


def _structure(atoms: Atoms) -> Structure:
    return Structure(
        atoms.numbers.astype(np.int64), atoms.positions, atoms.cell.array, atoms.pbc, states=atoms.info
    )


def samples(elements: Sequence[str], cutoff: float) -> list[Atoms]:
    """Two rattled fcc crystals of all elements, one dense and one not, and diatomic molecules on such a
    lattice, whose bonds are the shortest that these elements have; 32 atoms each, or some more.

    Nearest neighbours of the crystals are as far from each other as atoms of these elements are, but not so
    close or far that an atom has more than 70 or fewer than 12 neighbours within the cutoff (Å).

    >>> [len(atoms) for atoms in samples(["Li", "S"], 5.0)]
    [32, 32, 32]
    """
    generator = np.random.default_rng(0)
    radius = {symbol: covalent_radius(symbol) for symbol in elements}
    low, high = np.array([0.44, 0.68]) * cutoff
    mean = 2 * float(np.mean(list(radius.values())))
    size = (2, 2, 2) if len(elements) <= 64 else (3, 2, 2)
    n = 8 * math.prod(size)
    every = generator.permutation([elements[k % len(elements)] for k in range(n)])
    structures = []
    for k, stretch in enumerate((1.0, 1.25)):
        d = float(np.clip(mean * stretch, low, high))
        atoms = bulk("Cu", "fcc", a=math.sqrt(2) * d, cubic=True) * size
        atoms.positions += generator.normal(0, 0.08 * d, atoms.positions.shape)
        atoms.symbols = every[k::2]
        structures.append(atoms)
    binding = [symbol for symbol in elements if symbol not in NOBLE] or elements
    smallest = sorted(binding, key=radius.__getitem__)[:8]
    pairs = [(smallest[k % len(smallest)], smallest[0]) for k in range(16)]
    lengths = generator.uniform(0.9, 1.1, 16) * [radius[a] + radius[b] for a, b in pairs]
    bonds = generator.normal(size=(16, 3))
    bonds *= (lengths / np.linalg.norm(bonds, axis=1))[:, None]
    d = float(np.clip(1.5 * mean, low, high)) * 2 ** (1 / 3)  # two atoms on every site
    sites = bulk("Cu", "fcc", a=math.sqrt(2) * d, cubic=True) * (2, 2, 1)
    ends = np.stack([sites.positions - bonds / 2, sites.positions + bonds / 2], axis=1)
    symbols = [symbol for pair in pairs for symbol in pair]
    return [*structures, Atoms(symbols, ends.reshape(-1, 3), cell=sites.cell, pbc=True)]
