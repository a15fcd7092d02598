"""ASE calculator: any model.pt in ASE's molecular dynamics, optimisers, phonons, …"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.calculators.singlepoint import SinglePointCalculator
from ase.outputs import Properties, all_outputs
from ase.stress import full_3x3_to_voigt_6_stress

from mlplugins.engines.ase.state import Evaluated, Made
from mlplugins.errors import BadInput, nearest
from mlplugins.model_file.artifact import (
    Committee,
    NeighborCache,
    combine,
    evaluate_together,
    load_all,
    sources,
)
from mlplugins.model_file.card import RADIAL
from mlplugins.model_file.committee import DEVIATIONS, ModelDeviation
from mlplugins.model_file.doubts import of_first
from mlplugins.model_file.heat_flux import HeatFlux
from mlplugins.quantities import ENERGY, QUANTITIES, VOIGT
from mlplugins.structures import state as states

SKIN = 0.5
"""Default skin of the neighbour list, Å."""


_VOIGT = [3 * row + column for row, column in VOIGT]

PROBES = 8
"""Random probes of the uncertainty of forces: it is right to 25 % or better."""

UNCERTAINTIES = ("energy_uncertainty", "energies_uncertainty")
SPREADS = ("energy_uncertainty", "forces_uncertainty")

OPTIONS = ("model", "device", "skin", "variant", "extensions", "baseline", "non_conservative")
OF_ASE = ("atoms", "directory", "label")
"""Keywords of ASE's own constructor that mean something here."""


class MLCalculator(Calculator):
    """Energy, forces and stress of a model.pt (any metatomic model), or of a committee of models.

    Several models, or a committee in one file, give their mean, and `results` then holds the sample standard
    deviation (divided by M − 1) over them, `energy_uncertainty` (eV) and `forces_uncertainty` ((N, 3), eV/Å),
    and the model deviation as LAMMPS and DeePMD-kit give it (divided by M), `max_devi_f`, … `devi_f` ((N,),
    eV/Å). `committee.members` has every result.
    One model that predicts its own uncertainty gives, when asked for by `get_property`,
    `energy_uncertainty`, `energies_uncertainty` ((N,), eV) and, of networks, `forces_uncertainty` ((N, 3),
    eV/Å), from `probes` random ones (8, one backward pass each; 0: exactly, as many as there are features).
    What is in the set `along` is computed with every energy, instead of by a second evaluation of the same
    structure; energies' own of a network are in it from the first time on, since they cost nothing.

    Args:
        model: file, or a list of files for a committee.
        device: `cpu`, `cuda`, `cuda:1`, …
        skin: the neighbour list is reused until an atom has moved by half of this, Å; 0 switches it off.
        variant: which energy of a model that has several (`pbe` of `energy/pbe`); None means `energy`, or the
            only one there is. The others are computed by the way if somebody asks for them, by
            `get_property("energy/scan")`, and then in `results`.
        extensions: directory of TorchScript extensions that a model of others needs.
        baseline: whether energies include the composition energies; without them, energies and chemical
            potentials are relative to the isolated atoms as the model counts them (`mlplugins info`).
        non_conservative: forces and stress are those that the model predicts directly, which cost no backward
            pass and are no derivatives of its energy: dynamics with them alone drifts (see docs/heads.md).
        kwargs: `atoms`, `directory` and `label`, as of every calculator of ASE.

    A model that takes the charge and spin multiplicity of a structure reads them from `atoms.info`: `charge`
    (e; default 0) and `spin_multiplicity` or `spin` (2S + 1; default 1).

    `stresses` (per atom, models of mlplugins only) are the virials of the neighbour vectors, half to either
    atom, over the volume of the cell with the opposite sign: they add up to `stress`, as in ASE's own LJ.

    Raises:
        BadInput: an unknown keyword, an unreadable model, an element that it does not know, …
        RunFailed: the model gave NaN or infinity; the text names the closest pair of atoms.

    >>> import tempfile
    >>> from mlplugins.model_file.card import ModelCard
    >>> from mlplugins.model_file.write import save
    >>> from mlplugins.models import lennard_jones
    >>> argon = lennard_jones.Model(["Ar"], lennard_jones.Hyperparameters(epsilon=0.0104, sigma=3.4))
    >>> file = tempfile.mkdtemp() + "/model.pt"
    >>> save(argon, file, ModelCard("lennard-jones", ["Ar"], [0.0]), "float64")

    >>> from ase.build import bulk
    >>> from mlplugins import MLCalculator
    >>> atoms = bulk("Ar", "fcc", a=5.3, cubic=True)
    >>> atoms.calc = MLCalculator(file)
    >>> round(atoms.get_potential_energy(), 4), atoms.get_stress().shape
    (-0.3248, (6,))
    """

    implemented_properties = [
        "free_energy",
        *(
            name
            for quantity in QUANTITIES.values()
            if quantity.name == "energy" or (quantity.derivative and quantity.derivative.of == "energy")
            for name in (quantity.ase, quantity.ase_per_atom)
            if name is not None
        ),
    ]

    def __init__(
        self,
        model: str | Path | Sequence[str | Path],
        device: str = "cpu",
        skin: float = SKIN,
        variant: str | None = None,
        extensions: str | Path | None = None,
        baseline: bool = True,
        non_conservative: bool = False,
        **kwargs: Any,
    ) -> None:
        _refuse_unknown(kwargs)
        self._state: Evaluated | None = None
        if not isinstance(baseline, bool):
            raise BadInput(f"MLCalculator: baseline: expected True or False, got {baseline!r}")
        if not isinstance(non_conservative, bool):
            raise BadInput(
                f"MLCalculator: non_conservative: expected True or False, got {non_conservative!r}"
            )
        self._artifacts = load_all(model, device, variant, extensions, baseline, non_conservative)
        self._lists = NeighborCache(skin)
        self.committee: Committee | None = None
        self._compared = False
        self._asked: set[str] = set()  # what is computed only if somebody wants it, and somebody did
        self._probes = PROBES
        self.along: set[str] = set()
        super().__init__(**kwargs)
        paths = [str(artifact.path) for artifact in self._artifacts]
        self._n_models = sum(artifact.n_members for artifact in self._artifacts)
        if self._n_models > 1:
            self.implemented_properties = [
                *self.implemented_properties,
                *dict.fromkeys((*UNCERTAINTIES, *SPREADS, *DEVIATIONS)),
            ]
        elif self._artifacts[0].has_uncertainty:
            own = [*UNCERTAINTIES, *([SPREADS[1]] if self._artifacts[0].has_force_uncertainty else [])]
            self.implemented_properties = [*self.implemented_properties, *own]
        common = set.intersection(*(set(artifact.more) for artifact in self._artifacts))
        more = [q.ase or name for name, q in QUANTITIES.items() if name in common]
        more += [e for e in self._artifacts[0].energies if all(e in a.energies for a in self._artifacts)]
        if more:
            self.implemented_properties = [*self.implemented_properties, *more]
        self.parameters.update({"model": paths, "device": str(device), "skin": float(skin)})
        for name, value in {"variant": variant, "extensions": extensions}.items():
            if value is not None:
                self.parameters[name] = str(value)
        if not baseline:
            self.parameters["baseline"] = False
        if non_conservative:
            self.parameters["non_conservative"] = True
        self._made = Made.of(self)

    def __repr__(self) -> str:
        """Which models these are, e.g. `<MLCalculator model.pt: nequip for Li P S Cl, float32 on cpu>`."""
        first = self._artifacts[0]
        known = " ".join(first.elements) if len(first.elements) <= 12 else f"{len(first.elements)} elements"
        names = ", ".join(artifact.path.name for artifact in self._artifacts)
        several = f", committee of {self._n_models}" if self._n_models > 1 else ""
        several += "" if self.parameters.get("baseline", True) else ", without composition energies"
        several += ", direct forces" if self.parameters.get("non_conservative") else ""
        kind = first.family or "metatomic model"
        return f"<MLCalculator {names}: {kind} for {known}, {first.dtype} on {first.device}{several}>"

    def annotated(self, atoms: Atoms) -> Atoms:
        """A copy of `atoms` with energy, forces and stress, and the spread of a committee for files.

        ASE writes only its own properties of a calculator. Written by `ase.io.write("md.extxyz", …,
        append=True)`, the copy also has `energy_uncertainty` (eV) and `max_devi_f`, … in `info`, and
        `forces_uncertainty` ((N, 3), eV/Å) and `devi_f` in `arrays`; `Trajectory` keeps those in `info`.

        Raises:
            BadInput: one model only, which has no spread.
        """
        self._require_several("spread")
        forces = self.get_property("forces", atoms)
        result = atoms.copy()
        results = {name: value for name, value in self.results.items() if name in all_outputs}
        result.calc = SinglePointCalculator(result, **results)
        for name in (SPREADS[0], *DEVIATIONS[:-1]):
            result.info[name] = self.results[name]
        result.new_array(SPREADS[1], self.results[SPREADS[1]].reshape(forces.shape))
        result.new_array(DEVIATIONS[-1], self.results[DEVIATIONS[-1]])
        return result

    def model_deviation(
        self, atoms: Atoms, relative: float | None = None, relative_v: float | None = None
    ) -> ModelDeviation:
        """The deviation of the models, as `pair_style mlplugins` writes it.

        Args:
            atoms: structure.
            relative: eV/Å; see `ModelDeviation` and `Committee.deviation`.
            relative_v: eV per atom.

        Raises:
            BadInput: one model only; an ε that is not positive.
        """
        self._require_several("model deviation")
        self.get_property("energy", atoms)
        if self.committee is None:
            raise BadInput(f"{self!r}: there are no results")
        return self.committee.deviation(relative, relative_v)

    def _require_several(self, what: str) -> None:
        if self._n_models < 2:
            raise BadInput(f"{self!r}: one model has no {what}; give MLCalculator a list of models")

    def heat_flux(self, atoms: Atoms, baseline: bool = False) -> HeatFlux:
        """Heat flux J of a structure with velocities, exact for any number of layers, not divided by volume.

        J = Σ_i (½ m_i v_i² + U_i) v_i + Σ_ij (r_i − r_j) (∂U_i/∂r_j · v_j): `convective` and `potential`, in
        ASE's units: eV Å over ASE's unit of time (times `ase.units.fs`: eV Å/fs; over the volume: the flux).
        Of a committee: the mean.

        Args:
            atoms: with velocities.
            baseline: whether U_i includes the composition energies, which carry no heat.

        Raises:
            BadInput: a model without energies of atoms that depend on vectors of edges (of
                others, of whole molecules, portable files of several layers).
            RunFailed: the model gave NaN or infinity.

        >>> import tempfile
        >>> from mlplugins.model_file.card import ModelCard
        >>> from mlplugins.model_file.write import save
        >>> from mlplugins.models import lennard_jones
        >>> argon = lennard_jones.Model(["Ar"], lennard_jones.Hyperparameters(epsilon=0.0104, sigma=3.4))
        >>> file = tempfile.mkdtemp() + "/model.pt"
        >>> save(argon, file, ModelCard("lennard-jones", ["Ar"], [0.0]), "float64")

        >>> from ase.build import bulk
        >>> from mlplugins import MLCalculator
        >>> atoms = bulk("Ar", "fcc", a=5.3, cubic=True)
        >>> atoms.set_velocities([[0.01, 0, 0]] * 4)  # of all atoms alike: E v and the work of the pressure
        >>> flux = MLCalculator(file).heat_flux(atoms)
        >>> flux.potential[0].round(6), flux.convective[0].round(6)
        (np.float64(-0.000463), np.float64(-0.003168))
        """
        if baseline and not self.parameters.get("baseline", True):
            raise BadInput(
                f"{self!r}: baseline=True, but this calculator leaves the composition energies out"
            )
        velocities, masses = atoms.get_velocities(), atoms.get_masses()
        of_files = [
            artifact.heat_flux(atoms, velocities, masses, baseline, self._lists)
            for artifact in self._artifacts
        ]
        return HeatFlux(*self._mean(of_files))

    def get_hessian(self, atoms: Atoms) -> np.ndarray:
        """Second derivatives of the energy, (N, 3, N, 3), eV/Å², without finite differences.

        `ase.vibrations.VibrationsData(atoms, calc.get_hessian(atoms))` gives frequencies. Less than half an
        evaluation of forces for each coordinate of a message-passing model, about two of others, of sums with
        D3 and of members of different cutoffs. Of a committee: the mean. A file with radial tables is
        warned of: their second derivatives have steps.

        Raises:
            BadInput: a model of others or of a whole molecule.
            RunFailed: a family without second derivatives; the model gave NaN or infinity.

        >>> import tempfile
        >>> from mlplugins.model_file.card import ModelCard
        >>> from mlplugins.model_file.write import save
        >>> from mlplugins.models import lennard_jones
        >>> argon = lennard_jones.Model(["Ar"], lennard_jones.Hyperparameters(epsilon=1.0, sigma=1.0))
        >>> file = tempfile.mkdtemp() + "/model.pt"
        >>> save(argon, file, ModelCard("lennard-jones", ["Ar"], [0.0]), "float64")

        >>> from mlplugins import MLCalculator
        >>> dimer = Atoms("Ar2", [[0, 0, 0], [0, 0, 2 ** (1 / 6)]])  # 72 ε/(2^(1/3) σ²)
        >>> MLCalculator(file).get_hessian(dimer)[0, 2, 1, 2].round(4)
        np.float64(-57.1464)
        """
        for artifact in self._artifacts:
            if (artifact.record.get(RADIAL) or {}).get("n_knots"):
                warnings.warn(
                    f"{artifact.path.name} has radial tables: second derivatives err by up to about 1e-3 of "
                    "the largest; `--radial-tables off`, or float64, writes an exact file",
                    stacklevel=2,
                )
        mean = self._mean([artifact.hessian(atoms, self._lists) for artifact in self._artifacts])
        return mean.reshape(len(atoms), 3, len(atoms), 3)

    def _mean(self, of_files: Sequence[Any]) -> np.ndarray:
        """Over all models: a file counts as often as it has members."""
        weights = [artifact.n_members for artifact in self._artifacts]
        mean: np.ndarray = np.average(of_files, axis=0, weights=weights)
        return mean

    @property
    def atoms(self) -> Atoms | None:
        """The structure of the results: a new object with its elements, positions, cell and periodicity."""
        return None if self._state is None else self._state.atoms()

    @atoms.setter
    def atoms(self, atoms: Atoms | None) -> None:
        self._state = None if atoms is None else Evaluated.of(atoms)

    @property
    def probes(self) -> int:
        """Random probes of `forces_uncertainty` of one model; 0: exactly."""
        return self._probes

    @probes.setter
    def probes(self, probes: int) -> None:
        if probes != self._probes and self._n_models == 1:
            self.results.pop(SPREADS[1], None)
        self._probes = probes

    def set(self, **kwargs: Any) -> dict[str, Any]:
        """Refused: ASE would note other parameters, and the model would stay what it is.

        Raises:
            BadInput: any keyword.
        """
        if kwargs:
            given = ", ".join(f"{name}={value!r}" for name, value in kwargs.items())
            raise BadInput(f"{self!r}: set({given}) would change nothing: make a new MLCalculator")
        return {}

    @property
    def artifacts(self) -> tuple[Any, ...]:
        """The loaded model files (`mlplugins.model_file.artifact.Artifact`)."""
        return self._artifacts

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Compute energy, forces and stress at once; per-atom stresses and what heads predict only if asked
        for, the latter from then on always."""
        # ASE's own method copies all of the atoms and asks the disk for a folder, in every step
        atoms = self.atoms if atoms is None else atoms
        self._made.require_parameters(self)
        if atoms is None:
            raise BadInput(f"{self!r}: no structure was given, and there are no results of an earlier one")
        self.atoms, self.results = atoms, {}  # if this fails, those of the last structure are not of this one
        if said := self._unsaid(atoms):
            raise BadInput(f"{self!r}: {said}")
        stresses = "stresses" in properties
        self._ask({*properties, *self.along})
        own = self._own_uncertainties(properties)
        if own:
            probes = self.probes if SPREADS[1] in own else None
            self.committee = combine(
                self._artifacts[0].evaluate([atoms], stresses, self._lists, True, self._asked, probes)
            )
        else:
            (self.committee,) = evaluate_together(
                self._artifacts, [atoms], stresses, self._lists, self._asked
            )
        self._compare(atoms, self.committee)
        mean = self.committee.mean
        results: dict[str, Any] = {
            "energy": mean.energy,
            "free_energy": mean.energy,
            "forces": mean.forces,
        }
        if mean.energies is not None:
            results["energies"] = mean.energies
        if mean.stress is not None:
            results["stress"] = mean.stress.take(_VOIGT)  # symmetric
            if mean.virials is not None:
                volume = atoms.get_volume()
                results["stresses"] = full_3x3_to_voigt_6_stress(-mean.virials / volume)
        elif "stress" in properties or stresses:
            raise PropertyNotImplementedError(
                "stress: this structure has no periodic cell with a volume (set atoms.cell and atoms.pbc)"
            )
        for name in mean.more or ():
            if name in QUANTITIES:
                results[QUANTITIES[name].ase or name] = mean.get(name)
            else:
                results[name] = float(mean.get(name))
        if own:
            given = (mean.uncertainty, mean.uncertainties, mean.forces_uncertainty)
            results |= {k: v for k, v in zip((*UNCERTAINTIES, SPREADS[1]), given) if v is not None}
        if self._n_models > 1:
            results |= _spreads(self.committee)
        self.results = results

    def _ask(self, wanted: Collection[str]) -> None:
        """From now on compute these of what is computed only if somebody wants it."""
        for name in self.along:
            if name not in self.implemented_properties:
                known = ", ".join(dict.fromkeys(self.implemented_properties))
                raise BadInput(f"{self!r}: along: it has no '{name}', expected some of {known}")
        self._asked |= {name for name, q in QUANTITIES.items() if (q.ase or name) in wanted}
        self._asked |= {name for name in wanted if name.startswith(ENERGY)}

    def _own_uncertainties(self, properties: Sequence[str]) -> frozenset[str]:
        """What one model is to say of its uncertainty along with an energy."""
        if self._n_models > 1:
            return frozenset()
        wanted = frozenset({*properties, *self.along} & {*UNCERTAINTIES, *SPREADS})
        if wanted and (self._artifacts[0].record.get("uncertainty") or {}).get("method") == "llpr":
            self.along.add(SPREADS[0])
        return wanted

    def _compare(self, atoms: Atoms, committee: Committee) -> None:
        """Warn, once, of a structure unlike those of the training, and of a committee that is none."""
        if not self._compared:
            self._compared = True
            for said in of_first(self._artifacts, sources(self._artifacts), atoms, committee):
                warnings.warn(said, stacklevel=3)

    def check_state(self, atoms: Atoms, tol: float = 0.0) -> list[str]:
        """Changes among the properties of the atoms that a model depends on."""
        old, new = self._state, Evaluated.of(atoms)
        if old is None or len(old.numbers) != len(new.numbers):
            return list(all_changes)
        changes = [name for name, before, now in zip(Evaluated._fields, old, new) if before != now]
        return changes + (["initial_charges"] if self._unsaid(atoms) else [])

    def _unsaid(self, atoms: Atoms) -> str:
        """What the atoms say of their charge or spin in a way that the model does not see."""
        inputs = {name for artifact in self._artifacts for name in artifact.inputs}
        return states.unsaid(atoms, inputs) if inputs else ""

    def export_properties(self) -> Properties:
        """ASE's standard properties (the uncertainties are not among them)."""
        return Properties({name: value for name, value in self.results.items() if name in all_outputs})

    def __getstate__(self) -> dict[str, Any]:
        self._made.require_parameters(self)
        # neighbour lists and TorchScript modules cannot be copied: a copy loads the same files again
        state = self.__dict__.copy()
        del state["_artifacts"], state["_lists"]
        return state | {"along": {*self.along}, "_asked": {*self._asked}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        given = self.parameters
        self._artifacts = load_all(
            given["model"],
            given["device"],
            given.get("variant"),
            given.get("extensions"),
            given.get("baseline", True),
            given.get("non_conservative", False),
        )
        self._lists = NeighborCache(self.parameters["skin"])
        self._made.require_files(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> MLCalculator:
        self._made.require_parameters(self)
        copy = type(self)(**self.parameters)
        self._made.require_files(copy)
        copy.results = {
            key: np.array(value) if isinstance(value, np.ndarray) else value
            for key, value in self.results.items()
        }
        copy._state, copy._probes, copy.along = self._state, self._probes, {*self.along}
        copy.committee = self.committee
        memo[id(self)] = copy
        return copy


def _spreads(committee: Committee) -> dict[str, Any]:
    """What the results of several models hold beside their mean."""
    found: dict[str, Any] = dict(zip(SPREADS, (committee.energy_spread, committee.forces_spread)))
    if committee.energies_spread is not None:
        found[UNCERTAINTIES[1]] = committee.energies_spread
    deviation = committee.deviation()
    return found | {name: getattr(deviation, name) for name in DEVIATIONS}


def _refuse_unknown(keywords: Mapping[str, Any]) -> None:
    """Refuse keywords that ASE would keep without a word."""
    for name in keywords:
        if name in OF_ASE:
            continue
        if "dtype" in name:
            raise BadInput(
                f"MLCalculator: unknown keyword '{name}': the file says in which precision it computes: "
                "`mlplugins convert model.pt --dtype float64 -o model64.pt` writes one in another"
            )
        raise BadInput(f"MLCalculator: unknown keyword '{name}': {nearest(name, OPTIONS + OF_ASE)}")
