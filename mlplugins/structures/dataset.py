"""Reading labelled structures from anything ASE reads, with key mapping."""

from __future__ import annotations

import bz2
import glob
import gzip
import lzma
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.stress import voigt_6_to_full_3x3_stress
from numpy.typing import NDArray

from mlplugins import files as paths
from mlplugins.errors import BadInput
from mlplugins.structures import extxyz, vasp

SLICE = re.compile(r"(-?\d{1,15}|(-?\d{1,15})?:(-?\d{1,15})?(:-?0*[1-9]\d{0,14}|:)?)$")
"""What may follow the @: a frame, or a slice whose step is not 0."""

UNCONVERGED = "mlplugins_unconverged"
NO_LABELS = {"numbers", "positions", UNCONVERGED}


@dataclass(frozen=True)
class Keys:
    """Names of the labels in the files, looked up in the calculator's results, `info` and `arrays`.

    Attributes:
        energy: total energy, eV. Where nobody named it and a frame has a `free_energy` too, that one is
            taken: in ASE's results it is the energy whose derivatives the forces are.
        forces: eV/Å; None = do not read.
        stress: eV/Å³ in ASE's sign (positive = tensile), 6 (Voigt) or 9 numbers; None = do not read.
        virial: −V·stress in eV, as QUIP and MACE write it, 6 or 9 numbers; turned into a stress.
            If it is given, the default `stress` is not read.
        named: attributes that the user chose although they may equal the default.
    """

    energy: str | None = "energy"
    forces: str | None = "forces"
    stress: str | None = "stress"
    virial: str | None = None
    named: frozenset[str] = frozenset()

    def is_named(self, label: str) -> bool:
        """Whether the user chose this key.

        >>> Keys(stress="REF_stress").is_named("stress"), Keys().is_named("stress")
        (True, False)
        """
        key = getattr(self, label)
        return key is not None and (label in self.named or key != DEFAULTS[label])


LABELS = ("energy", "forces", "stress", "virial")
DEFAULTS = {label: getattr(Keys(), label) for label in LABELS}
FREE_ENERGY = "free_energy"


@dataclass(frozen=True, eq=False)
class Structure:
    """One structure with its labels.

    Attributes:
        numbers: (N,) atomic numbers.
        positions: (N, 3), Å.
        cell: (3, 3), rows are the cell vectors, Å.
        pbc: (3,) bool.
        energy: eV, or None.
        forces: (N, 3) eV/Å, or None.
        stress: (3, 3) eV/Å³ in ASE's sign, or None; a frame that is not periodic has none (its forces say it
            all), and a stress of exactly zero beside forces that are not was never computed.
        origin: file and frame, for messages.
        available: names of all labels that the file holds for this frame.
        taken: names of those that were read.
        shaped: names of those that have the shape of forces, or as many numbers as a stress.
        energies: single numbers of this frame whose names say energy.
        unconverged: the electrons had not converged where the labels were written (VASP).
    """

    numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    cell: NDArray[np.float64]
    pbc: NDArray[np.bool_]
    energy: float | None = None
    forces: NDArray[np.float64] | None = None
    stress: NDArray[np.float64] | None = None
    origin: str = "structure"
    available: tuple[str, ...] = ()
    taken: tuple[str, ...] = ()
    shaped: tuple[str, ...] = ()
    energies: dict[str, float] = field(default_factory=dict)
    unconverged: bool = False

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def volume(self) -> float:
        """Cell volume, Å³ (0 without a full cell)."""
        return float(abs(np.linalg.det(self.cell)))

    def to_atoms(self) -> Atoms:
        """ASE `Atoms`, labels in a `SinglePointCalculator`."""
        atoms = Atoms(numbers=self.numbers, positions=self.positions, cell=self.cell, pbc=self.pbc)
        labels = {"energy": self.energy, "forces": self.forces}
        results: dict[str, Any] = {name: value for name, value in labels.items() if value is not None}
        if self.stress is not None:
            s = self.stress
            results["stress"] = np.array([s[0, 0], s[1, 1], s[2, 2], s[1, 2], s[0, 2], s[0, 1]])
        atoms.calc = SinglePointCalculator(atoms, **results)
        return atoms


def read(source: str | Path | Sequence[str | Path], keys: Keys | None = None) -> list[Structure]:
    """Read one file, a glob pattern, or several of them; ASE's `file@slice` picks frames (`md.traj@::10`).

    >>> frames = read("examples/data/li6ps5cl_pbe/test.extxyz@:2")
    >>> len(frames), len(frames[0]), frames[0].stress.shape
    (2, 52, (3, 3))

    Raises:
        BadInput: no such file, a format ASE does not know, a damaged file, no frames, a label of wrong shape.
    """
    return [from_atoms(atoms, keys, origin) for atoms, origin in frames(source)]


def frames(source: str | Path | Sequence[str | Path]) -> list[tuple[Atoms, str]]:
    """As `read`, the frames as ASE gives them, each with its file and number.

    Raises:
        BadInput: no such file, a format ASE does not know, a damaged file, no frames.
    """
    sources = [source] if isinstance(source, str | Path) else list(source)
    found = [frame for item in sources for path, index in files(str(item)) for frame in _file(path, index)]
    if not found:
        raise BadInput(f"{', '.join(map(str, sources))}: no frames found")
    return found


def files(source: str) -> list[tuple[str, str]]:
    """Files and frame slices that `source` stands for.

    Raises:
        BadInput: no such file, a slice that is none.
    """
    if paths.exists(source, file=True):
        return [(source, ":")]
    name, _, index = source.partition("@") if "@" in Path(source).name else (source, "", "")
    index = index or ":"
    if not SLICE.match(index):
        raise BadInput(f"'{source}': expected a slice such as @:50 or @::10 after '@', got '@{index}'")
    if paths.exists(name, file=True):
        return [(name, index)]
    found = sorted(glob.glob(name))
    if not found:
        raise BadInput(f"no such data file: '{name}'")
    return [(path, index) for path in found]


def _file(path: str, index: str) -> Iterator[tuple[Atoms, str]]:
    first, step = _frame_numbers(index)
    try:
        with _uncompressed(path) as plain:
            result = extxyz.read(plain, index)
            marks = vasp.unconverged(plain)
    except BadInput as error:
        raise BadInput(str(error).replace(plain, path)) from error
    except Exception as error:  # ASE's readers raise anything, from KeyError to struct.error
        raise BadInput(
            f"{path}: ASE cannot read it ({type(error).__name__}: {error}); "
            "extxyz, ASE .traj and .db are formats that hold energies and forces"
        ) from error
    several = result if isinstance(result, list) else [result]
    chosen = marks[_slice(index)]
    for number, atoms in enumerate(several):
        if len(chosen) == len(several) and chosen[number]:
            atoms.info[UNCONVERGED] = True
        yield atoms, f"{path}, frame {first + step * number}"


@contextmanager
def _uncompressed(path: str) -> Iterator[str]:
    """The file, unpacked if need be: ASE seeks in it, which takes minutes in a long compressed file."""
    source = Path(path)
    unpack: Any = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}.get(source.suffix)
    if unpack is None:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / source.stem
        with unpack(source, "rb") as packed, plain.open("wb") as stream:
            shutil.copyfileobj(packed, stream)
        yield str(plain)


def _frame_numbers(index: str) -> tuple[int, int]:
    parts = [int(part) if part else None for part in index.split(":")]
    return parts[0] or 0, (parts[2] if len(parts) > 2 else None) or 1


def _slice(index: str) -> slice:
    if ":" not in index:
        return slice(int(index), int(index) + 1 or None)
    return slice(*(int(part) if part else None for part in index.split(":")))


def from_atoms(atoms: Atoms, keys: Keys | None = None, origin: str = "structure") -> Structure:
    """Labelled structure from ASE `Atoms`; absent labels become None.

    Raises:
        BadInput: a label whose shape cannot be what its key says.
    """
    keys = keys or Keys()
    labels = _labels(atoms)
    forces = labels.get(keys.forces or "")
    if forces is not None:
        forces = _reshaped(forces, (len(atoms), 3), f"{origin}: forces (key '{keys.forces}')")
    energy_key = _energy_key(labels, keys)
    stress, tensor_keys = _stress(labels, keys, atoms, origin)
    if stress is not None and not stress.any() and forces is not None and forces.any():
        stress = None
    return Structure(
        numbers=np.array(atoms.numbers, dtype=np.int64),
        positions=np.array(atoms.positions, dtype=np.float64),
        cell=np.array(atoms.cell.array, dtype=np.float64),
        pbc=np.array(atoms.pbc, dtype=bool),
        energy=_number(labels.get(energy_key or ""), energy_key, origin),
        forces=forces,
        stress=stress,
        origin=origin,
        available=tuple(sorted(set(labels) - NO_LABELS)),
        taken=tuple(k for k in (energy_key, keys.forces, *tensor_keys) if k in labels),
        shaped=tuple(name for name, value in labels.items() if _is_shaped(value, len(atoms))),
        energies=_energies(labels),
        unconverged=UNCONVERGED in labels,
    )


def _energy_key(labels: dict[str, Any], keys: Keys) -> str | None:
    if keys.energy is not None and not keys.is_named("energy") and FREE_ENERGY in labels:
        return FREE_ENERGY
    return keys.energy


def _energies(labels: dict[str, Any]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in labels.items()
        if "energy" in name.lower() and isinstance(value, float | np.floating) and np.isfinite(value)
    }


def _is_shaped(value: Any, n_atoms: int) -> bool:
    numbers = isinstance(value, np.ndarray | list | tuple) and np.asarray(value).dtype.kind in "fi"
    return numbers and (np.shape(value) == (n_atoms, 3) or np.size(value) in (6, 9))


def _stress(
    labels: dict[str, Any], keys: Keys, atoms: Atoms, origin: str
) -> tuple[NDArray[np.float64] | None, list[str]]:
    """The stress from whichever keys count, and these keys."""
    stress_key = keys.stress if keys.virial is None or keys.is_named("stress") else None
    used = [key for key in (stress_key, keys.virial) if key in labels]
    if not used or not atoms.pbc.any():
        return None, used
    volume = abs(np.linalg.det(atoms.cell.array))
    found = []
    if stress_key in labels:
        found.append(_tensor(labels[stress_key], f"{origin}: stress (key '{stress_key}')"))
    if keys.virial in labels:
        if volume < 1e-9:
            raise BadInput(f"{origin}: a virial (key '{keys.virial}') needs a cell with a volume, got none")
        found.append(-_tensor(labels[keys.virial], f"{origin}: virial (key '{keys.virial}')") / volume)
    if len(found) == 2:
        size = max(float(np.abs(x).max()) for x in found)
        if float(np.abs(found[0] - found[1]).max()) > 1e-2 * size + 1e-6:
            raise BadInput(
                f"{origin}: stress (key '{stress_key}') and virial (key '{keys.virial}') contradict each "
                f"other: largest component {np.abs(found[0]).max():.4g} eV/Å³ and, from −virial/V, "
                f"{np.abs(found[1]).max():.4g} eV/Å³. Set the wrong one to null in data.keys"
            )
    return found[0], used


def _labels(atoms: Atoms) -> dict[str, Any]:
    """All labels of a frame by name; the calculator's results win over `info`, `info` over `arrays`."""
    labels: dict[str, Any] = dict(atoms.arrays)
    for nested in ("data", "key_value_pairs"):  # ASE databases
        if isinstance(atoms.info.get(nested), dict):
            labels.update(atoms.info[nested])
    labels.update(atoms.info)
    if atoms.calc is not None:
        labels.update({name: value for name, value in atoms.calc.results.items() if value is not None})
    return labels


def _number(value: Any, key: str | None, origin: str) -> float | None:
    if value is None:
        return None
    try:
        return float(np.asarray(value, dtype=np.float64).reshape(()))
    except (TypeError, ValueError) as error:
        raise BadInput(f"{origin}: energy (key '{key}'): expected one number, got {value!r}") from error


def _reshaped(value: Any, shape: tuple[int, ...], name: str) -> NDArray[np.float64]:
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise BadInput(f"{name}: expected numbers of shape {shape}, got {value!r}") from error
    if array.shape != shape:
        raise BadInput(f"{name}: expected shape {shape}, got {array.shape}")
    return array


def _tensor(value: Any, name: str) -> NDArray[np.float64]:
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise BadInput(f"{name}: expected 6 (xx yy zz yz xz xy) or 9 numbers, got {value!r}") from error
    if array.size == 6:
        return np.asarray(voigt_6_to_full_3x3_stress(array.reshape(6)), dtype=np.float64)
    if array.size != 9:
        raise BadInput(f"{name}: expected 6 (xx yy zz yz xz xy) or 9 numbers, got {array.size}")
    tensor = array.reshape(3, 3)
    return 0.5 * (tensor + tensor.T)
