"""End points of a path: of a vacancy or of two structures, atom by atom, relaxed, and the images between."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.build import minimize_rotation_and_translation
from ase.constraints import FixAtoms
from ase.filters import FrechetCellFilter
from ase.geometry import find_mic, get_distances
from ase.mep import NEB
from ase.optimize import LBFGS
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from mlplugins.dynamics import start
from mlplugins.elements import require_known
from mlplugins.engines.ase.calculator import MLCalculator
from mlplugins.errors import BadInput, RunFailed
from mlplugins.model_file.card import has_no_energy
from mlplugins.observer import Observer
from mlplugins.structures import state as states
from mlplugins.workflows._barrier_config import BarrierConfig, Hop, Site

Array = NDArray[np.float64]

FAR, MANY, FEW = 1.0, 0.5, 4
"""More than half of more than four atoms that move by more than 1 Å are no hop."""
AMBIGUOUS = 0.05
"""Two ways around a cell that differ by less than this share of their length are equally long."""
SAME = 0.1
"""End points whose atoms are all closer than this, Å, are one minimum."""
NEAR_SITE = 1.0
"""A site that is given as a position is that of an atom within so many Å."""
SAME_CELL, HELD = 1e-3, 1e-2
"""Å; of cells, of fixed atoms."""
ROUNDS, MEDIAN = 3, 8
"""Of moving back a structure that is shifted as a whole, by the median over so many atoms or more."""
IDPP_REACH = 6.0
"""Atoms that move, and those within so many Å of them, take part in the first interpolation."""
IDPP_MOVED = 0.1


class Ends(NamedTuple):
    """The two end points.

    Attributes:
        initial, final: the same atoms in the same order, without jumps across periodic boundaries.
        notes: what was taken, in sentences.
    """

    initial: Atoms
    final: Atoms
    notes: tuple[str, ...]


def given(config: BarrierConfig, calculator: MLCalculator, observer: Observer) -> Ends:
    """The end points as the configuration gives them; with `cell: relaxed` in the relaxed cell.

    Raises:
        BadInput: unreadable structures, elements that the model does not know, other atoms or cells in the
            two, sites that are none, a path that no hop takes.
    """
    model = calculator.artifacts[0]
    if has_no_energy(model.record):
        raise BadInput(
            f"'{model.path.name}' was trained without energies, of which a barrier is made: name a model "
            "with energies"
        )
    taken = start.ForModel(model.repels, tuple(model.inputs))

    def prepared(source: str) -> tuple[Atoms, tuple[str, ...]]:
        atoms, notes = start.prepare(start.read_structure(source), source, config.supercell, "thermal", taken)
        known = f", which '{model.path.name}' does not know; it knows {', '.join(model.elements)}"
        require_known(atoms.symbols, model.elements, f"structure '{source}' holds ", known)
        held = start.fixed(atoms)
        if (held.any(axis=1) != held.all(axis=1)).any():
            raise BadInput(
                f"structure '{source}': single components of atoms are fixed; a path takes atoms that are "
                "fixed whole (FixAtoms)"
            )
        return atoms, notes

    if config.structure is not None and config.hop is not None:
        crystal, notes = prepared(config.structure)
        if config.cell == "relaxed":
            _require_cell(crystal, config.structure)
            relax(crystal, "crystal", calculator, config, observer, with_cell=True)
        ends = _vacancy(crystal, config.structure, config.hop)
        notes += ends.notes
    else:
        (initial, notes), (final, more) = prepared(str(config.initial)), prepared(str(config.final))
        notes += tuple(note for note in more if note not in notes)
        _require_alike(initial, final, config)
        if config.cell == "relaxed":
            _require_cell(initial, str(config.initial))
            relax(initial, "initial structure", calculator, config, observer, with_cell=True)
            final.set_cell(initial.cell, scale_atoms=True)
        ends = _matched(initial, final, config.order == "file")
        notes += ends.notes
    _require_hop(ends, config)
    return Ends(ends.initial, ends.final, notes)


def _require_cell(atoms: Atoms, source: str) -> None:
    if not atoms.pbc.any() or atoms.cell.rank < 3:
        raise BadInput(
            f"'cell: relaxed': structure '{source}' has no periodic cell with a volume; leave it out"
        )


def relax(
    atoms: Atoms,
    name: str,
    calculator: MLCalculator,
    config: BarrierConfig,
    observer: Observer,
    with_cell: bool = False,
) -> None:
    """Bring the atoms to a minimum, or atoms and cell.

    Raises:
        RunFailed: not within `steps`.
    """
    atoms.calc = calculator
    target = FrechetCellFilter(atoms) if with_cell else atoms
    observer.start(0, config.steps)
    with LBFGS(target, logfile=None) as optimiser:
        converged = False
        for done in optimiser.irun(fmax=config.fmax / 2, steps=config.steps):
            converged = bool(done)
            observer.step(optimiser.nsteps, config.steps)
    if not converged:
        force = float(np.linalg.norm(atoms.get_forces(), axis=1).max())
        raise RunFailed(
            f"{name}: {force:.3g} eV/Å on an atom after {config.steps} steps, expected {config.fmax / 2:g}: "
            "raise 'steps', or look at the structure and the model"
        )


def relaxed(ends: Ends, calculator: MLCalculator, config: BarrierConfig, observer: Observer) -> Ends:
    """The end points as minima.

    Raises:
        RunFailed: not within `steps`; both are the same minimum.
    """
    notes = list(ends.notes)
    minima = []
    for atoms, name in ((ends.initial, "initial"), (ends.final, "final")):
        before = atoms.positions.copy()
        relax(atoms, f"{name} end point", calculator, config, observer)
        moved = np.linalg.norm(atoms.positions - before, axis=1)
        k = int(np.argmax(moved))
        said = f"{name} end point relaxed: no atom moved by more than {moved[k]:.2f} Å"
        if moved[k] > FAR:
            said = (
                f"the {name} end point moved far while it relaxed: atom {k} ({atoms.symbols[k]}) by "
                f"{moved[k]:.2f} Å; it is another minimum than the one given"
            )
        notes.append(said)
        minima.append(atoms)
    apart = np.linalg.norm(minima[1].positions - minima[0].positions, axis=1).max()
    if apart < SAME:
        raise RunFailed(
            f"both end points relax to the same minimum (no atom is farther than {apart:.2g} Å from its "
            "place in the other): there is no barrier between them with this model"
        )
    return Ends(minima[0], minima[1], tuple(notes))


def interpolated(initial: Atoms, final: Atoms, count: int) -> list[Atoms]:
    """The end points with `count` images between them, by the image-dependent pair potential.

    S. Smidstrup et al., J. Chem. Phys. 140, 214106 (2014), of the atoms that move and their neighbours; the
    others move on straight lines.
    """
    images = [initial.copy() for _ in range(count + 1)] + [final.copy()]
    way = final.positions - initial.positions
    for k, image in enumerate(images):
        image.positions = initial.positions + way * k / (count + 1)
    moving = np.linalg.norm(way, axis=1) > IDPP_MOVED
    _, apart = get_distances(initial.positions[moving], initial.positions, initial.cell, initial.pbc)
    part = np.flatnonzero(moving | (apart < IDPP_REACH).any(axis=0))
    held = FixAtoms(np.flatnonzero(start.fixed_whole(initial)[part]))
    parts = [
        Atoms(a.numbers[part], a.positions[part], cell=a.cell, pbc=a.pbc, constraint=held) for a in images
    ]
    if len(part) > 1:
        band = NEB(parts, method="improvedtangent", allow_shared_calculator=True)
        band.interpolate(method="idpp", mic=bool(initial.pbc.any()), apply_constraint=False)
    for image, moved in list(zip(images, parts))[1:-1]:
        image.positions[part] = moved.positions
    return images


def _vacancy(crystal: Atoms, source: str, hop: Hop) -> Ends:
    """The crystal without the atom at the second site, and the atom of the first site there or here."""
    species = hop.species
    same = np.flatnonzero(crystal.symbols == species)
    if len(same) < 2:
        raise BadInput(
            f"'hop.species': '{species}': expected two atoms of it or more in '{source}', got "
            f"{len(same)}; it holds {crystal.get_chemical_formula()}"
        )
    note = ""
    if hop.sites is None:
        first = int(same[0])
        others = same[same != first]
        second = int(others[np.argmin(crystal.get_distances(first, others, mic=True))])
        note = f" ('hop.sites' names none: the first {species} and its nearest neighbour)"
    else:
        first, second = (_site(crystal, site, species) for site in hop.sites)
    if first == second:
        raise BadInput(f"'hop.sites': both are atom {first}; expected two different sites")
    vector = crystal.get_distance(first, second, mic=True, vector=True)
    initial, final = crystal.copy(), crystal.copy()
    final.positions[first] += vector
    for atoms in (initial, final):
        del atoms[[second]]
    return Ends(
        initial,
        final,
        (
            f"{species} of atom {first} hops by {np.linalg.norm(vector):.3f} Å into the vacancy at atom "
            f"{second}, which is taken out{note}",
        ),
    )


def _site(crystal: Atoms, site: Site, species: str) -> int:
    """Number of the atom that is meant."""
    if isinstance(site, int):
        if site >= len(crystal):
            raise BadInput(f"'hop.sites': atom {site}; the supercell has atoms 0 to {len(crystal) - 1}")
        found = site
    else:
        _, apart = get_distances([site], crystal.positions, crystal.cell, crystal.pbc)
        found = int(np.argmin(apart))
        if apart.min() > NEAR_SITE:
            raise BadInput(
                f"'hop.sites': no atom within {NEAR_SITE:g} Å of {list(site)}; the nearest is atom {found}, "
                f"{apart.min():.2f} Å away"
            )
    if crystal.symbols[found] != species:
        raise BadInput(
            f"'hop.sites': atom {found} is {crystal.symbols[found]}, expected {species} ('hop.species')"
        )
    return found


def _require_alike(initial: Atoms, final: Atoms, config: BarrierConfig) -> None:
    formulas = initial.get_chemical_formula(), final.get_chemical_formula()
    if formulas[0] != formulas[1]:
        raise BadInput(
            f"'initial' holds {formulas[0]}, 'final' {formulas[1]}: expected the same atoms in both"
        )
    if (initial.pbc != final.pbc).any():
        raise BadInput(f"'initial' is periodic along {initial.pbc.tolist()}, 'final' {final.pbc.tolist()}")
    if initial.pbc.any() and np.abs(initial.cell.array - final.cell.array).max() > SAME_CELL:
        raise BadInput(
            f"'initial' has the cell {initial.cell.array.round(4).tolist()}, 'final' "
            f"{final.cell.array.round(4).tolist()}: expected one cell; relax both in that of one of them"
        )
    if (start.fixed(initial) != start.fixed(final)).any():
        raise BadInput("'initial' and 'final' hold other atoms fixed: expected the same ones")
    charged = states.of(initial.info), states.of(final.info)
    if charged[0] != charged[1]:
        said = " and ".join(f"charge {c:g} and spin multiplicity {s:g}" for c, s in charged)
        raise BadInput(f"'initial' and 'final' have {said}: expected one electronic state")


def _matched(initial: Atoms, final: Atoms, keep: bool = False) -> Ends:
    """The final structure with its atoms in the order and the frame of the initial one.

    Periodic: equal atoms are assigned so that the squared distances are least in sum, and the whole is moved
    back where nothing fixes it. A molecule keeps the order of its file and is turned upon the initial one;
    with `keep` all do.
    """
    notes: list[str] = []
    keep = keep or not initial.pbc.any()
    if keep and (initial.numbers != final.numbers).any():
        raise BadInput("'final': its elements come in another order than those of 'initial': reorder it")
    if not initial.pbc.any():
        if not initial.constraints:
            minimize_rotation_and_translation(initial, final)
        return Ends(initial, final, ("the atoms of the molecule keep the order of the files",))
    shift = np.zeros(3)
    free = initial.pbc.all() and not initial.constraints and len(initial) >= MEDIAN
    for _ in range(ROUNDS if free else 1):
        order, way = _assigned(initial, final, shift, keep)
        if free:
            shift -= np.median(way, axis=0)
    order, way = _assigned(initial, final, shift, keep)
    exchanged = int((order != np.arange(len(order))).sum())
    if exchanged:
        notes.append(
            f"{exchanged} atoms of 'final' are taken in another order, nearest to those of 'initial' "
            "(order: file keeps it)"
        )
    if np.linalg.norm(shift) > SAME_CELL:
        notes.append(f"'final' is moved as a whole by {np.round(shift, 3).tolist()} Å")
    moved = initial.copy()
    moved.set_positions(initial.positions + way, apply_constraint=False)
    return Ends(initial, moved, tuple(notes))


def _assigned(initial: Atoms, final: Atoms, shift: Array, keep: bool) -> tuple[NDArray[np.intp], Array]:
    """Which atom of `final` each of `initial` becomes, and the vectors to it."""
    order = np.arange(len(initial))
    for number in () if keep else set(initial.numbers.tolist()):
        a, b = np.flatnonzero(initial.numbers == number), np.flatnonzero(final.numbers == number)
        ends = initial.positions[a], final.positions[b] + shift
        _, apart = get_distances(*ends, initial.cell, initial.pbc)
        order[a] = b[linear_sum_assignment(apart**2)[1]]
    way, _ = find_mic(final.positions[order] + shift - initial.positions, initial.cell, initial.pbc)
    return order, way


def _require_hop(ends: Ends, config: BarrierConfig) -> None:
    """Refuse a path that is none of a hop."""
    initial = ends.initial
    way = ends.final.positions - initial.positions
    length = np.linalg.norm(way, axis=1)
    held = start.fixed_whole(initial) & (length > HELD)
    if held.any():
        k = int(np.argmax(held * length))
        raise BadInput(
            f"atom {k} ({initial.symbols[k]}) is fixed, and moves by {length[k]:.2f} Å from end to end: let "
            "it go, or give it one place"
        )
    far = np.flatnonzero(length > FAR)
    k = int(np.argmax(length))
    if length[k] > config.largest_move:
        raise BadInput(
            f"atom {k} ({initial.symbols[k]}) would move by {length[k]:.2f} Å, farther than 'largest_move' "
            f"({config.largest_move:g} Å): take end points that are one hop apart"
        )
    if len(far) > MANY * len(initial) and len(initial) > FEW:
        raise BadInput(
            f"{len(far)} of {len(initial)} atoms would move by more than {FAR:g} Å: 'initial' and 'final' "
            "are not one hop apart"
        )
    around = [np.where(initial.pbc, np.subtract(n, 1), 0) @ initial.cell.array for n in np.ndindex(3, 3, 3)]
    for k in map(int, far):
        others = [np.linalg.norm(way[k] + vector) for vector in around if vector.any()]
        if others and min(others) < (1 + AMBIGUOUS) * length[k]:
            raise BadInput(
                f"atom {k} ({initial.symbols[k]}) moves by half of the cell ({length[k]:.2f} Å, or "
                f"{min(others):.2f} Å the other way round): repeat the cell ('supercell')"
            )
