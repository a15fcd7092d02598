"""Reading labelled structures from anything ASE reads, with key mapping."""

from __future__ import annotations

import bz2
import glob
import gzip
import lzma
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, make_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.stress import voigt_6_to_full_3x3_stress
from numpy.typing import NDArray

from mlplugins import files as paths
from mlplugins import quantities
from mlplugins.errors import BadInput
from mlplugins.quantities import QUANTITIES, VOIGT, Quantity
from mlplugins.structures import components, extxyz, vasp
from mlplugins.structures.recognition import recognised

SLICE = re.compile(r"(-?\d{1,15}|(-?\d{1,15})?:(-?\d{1,15})?(:-?0*[1-9]\d{0,14}|:)?)$")
"""What may follow the @: a frame, or a slice whose step is not 0."""

UNCONVERGED = "mlplugins_unconverged"
ISOLATED = "IsolatedAtom"
"""The `config_type` of isolated atoms, as MACE and GAP have it."""

STATE = re.compile(
    r"(?:(?:total|tot|net)_?)?(?:charge|spin|multiplicity)|spin_multiplicity|head|functional|xc|level|theory",
    re.IGNORECASE,
)
"""Names of what tells electronic states or levels of theory apart."""

NO_LABELS = {"numbers", "positions", "config_type", UNCONVERGED}


_Names: Any = make_dataclass(
    "_Names",
    [
        *((label.option, "str | None", field(default=label.key)) for label in quantities.labels()),
        ("named", "frozenset[str]", field(default=frozenset())),
        ("units", "Mapping[str, str]", field(default_factory=dict)),
        ("orders", "Mapping[str, str]", field(default_factory=dict)),
    ],
    frozen=True,
)


class Keys(_Names):
    """Names of the labels in the files, looked up in the calculator's results, `info` and `arrays`.

    Attributes:
        energy: total energy, eV. Where nobody named it and a frame has a `free_energy` too, that one is
            taken: in ASE's results it is the energy whose derivatives the forces are.
        forces: eV/Å; None = do not read.
        stress: eV/Å³ in ASE's sign (positive = tensile), 6 (Voigt) or 9 numbers; None = do not read.
        virial: −V·stress in eV, as QUIP and MACE write it, 6 or 9 numbers; turned into a stress.
            If it is given, the default `stress` is not read.
        ...: of every further label in the table of `mlplugins.quantities`.
        named: attributes that the user chose although they may equal the default.
        units: of the labels of quantities with `file_units`, by attribute: one of these.
        orders: of the six numbers of symmetric tensors among them, by attribute: `xx xy xz yy yz zz`.
    """

    def is_named(self, option: str) -> bool:
        """Whether the user chose this key.

        >>> Keys(stress="REF_stress").is_named("stress"), Keys().is_named("stress")
        (True, False)
        """
        key = getattr(self, option)
        return key is not None and (option in self.named or not self.is_default(option))

    def is_default(self, option: str) -> bool:
        """Whether a key, named or not, is the default: configurations copied from the manual name those."""
        return bool(getattr(self, option) == getattr(type(self)(), option))


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
        more: labels of the other quantities of the table, by name.
        origin: file and frame, for messages.
        available: names of all labels that the file holds for this frame.
        taken: names of those that were read.
        shapes: shapes of those that are numbers.
        energies: single numbers of this frame whose names say energy.
        states: what the frame says of its electronic state (charge, spin, …), numbers or text.
        unconverged: the electrons had not converged where the labels were written (VASP).
        config_type: what kind of structure the file says it is, e.g. `IsolatedAtom`.
        weight: factor in the loss.
        kinetic: (3, 3) Σ p⊗p/m of the momenta that the frame holds, eV, or None.
        head: which of several energies its labels are of, by name; "" for the first, or the only one.
    """

    numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    cell: NDArray[np.float64]
    pbc: NDArray[np.bool_]
    energy: float | None = None
    forces: NDArray[np.float64] | None = None
    stress: NDArray[np.float64] | None = None
    more: Mapping[str, Any] = field(default_factory=dict)
    origin: str = "structure"
    available: tuple[str, ...] = ()
    taken: tuple[str, ...] = ()
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    energies: dict[str, float] = field(default_factory=dict)
    states: Mapping[str, Any] = field(default_factory=dict)
    unconverged: bool = False
    config_type: str | None = None
    weight: float = 1.0
    kinetic: NDArray[np.float64] | None = None
    head: str = ""

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def volume(self) -> float:
        """Cell volume, Å³ (0 without a full cell)."""
        return float(abs(np.linalg.det(self.cell)))

    def to_atoms(self) -> Atoms:
        """ASE `Atoms`, labels in a `SinglePointCalculator`, charge, spin, … in `info`."""
        atoms = Atoms(numbers=self.numbers, positions=self.positions, cell=self.cell, pbc=self.pbc)
        atoms.info |= {name: value for name, value in self.states.items() if not isinstance(value, str)}
        results = {}
        for quantity in QUANTITIES.values():
            value = self.get(quantity.name)
            if value is not None and quantity.ase is not None:
                results[quantity.ase] = np.array([value[c] for c in VOIGT]) if quantity.symmetric else value
        atoms.calc = SinglePointCalculator(atoms, **results)
        return atoms

    @property
    def is_isolated_atom(self) -> bool:
        """Whether it is one atom, alone: its energy is a reference, not one of a material."""
        return len(self) == 1 and (self.config_type == ISOLATED or not self.pbc.any())

    def get(self, name: str) -> Any:
        """Label of a quantity of the table; None if there is none. What learns from another quantity does so
        from labels of the first energy only."""
        if self.head and name in QUANTITIES and QUANTITIES[name].learns:
            return None
        name = QUANTITIES[name].learns or name if name in QUANTITIES else name
        return self.more[name] if name in self.more else getattr(self, name, None)

    def labelled(self, values: Mapping[str, Any]) -> Structure:
        """The same structure with these labels, by name of the quantity, and no others."""
        found = {name: values.get(name) for name in QUANTITIES}
        own: dict[str, Any] = {name: found.pop(name) for name in ("energy", "forces", "stress")}
        more = {name: value for name, value in found.items() if value is not None}
        return replace(self, **own, more=more)


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
    """Labelled structure from ASE `Atoms`; missing labels become None.

    Raises:
        BadInput: a label whose shape cannot be what its key says.
    """
    keys = keys or Keys()
    labels = _labels(atoms)
    values: dict[str, Any] = {}
    taken: list[str] = []
    for quantity in quantities.with_labels():
        values[quantity.name], used = _value(quantity, labels, keys, atoms, origin)
        taken += used
    stress, forces = values["stress"], values["forces"]
    if stress is not None and not stress.any() and forces is not None and forces.any():
        values["stress"] = None
    return Structure(
        numbers=np.array(atoms.numbers, dtype=np.int64),
        positions=np.array(atoms.positions, dtype=np.float64),
        cell=np.array(atoms.cell.array, dtype=np.float64),
        pbc=np.array(atoms.pbc, dtype=bool),
        origin=origin,
        available=tuple(sorted(set(labels) - NO_LABELS)),
        taken=tuple(taken),
        shapes={name: np.shape(value) for name, value in labels.items() if _is_numeric(value)},
        energies=_energies(labels),
        states={name: value for name, value in labels.items() if _is_state(name, value)},
        unconverged=UNCONVERGED in labels,
        config_type=str(labels["config_type"]) if isinstance(labels.get("config_type"), str) else None,
        kinetic=_kinetic(atoms),
    ).labelled(values)


def _kinetic(atoms: Atoms) -> NDArray[np.float64] | None:
    if not atoms.has("momenta"):
        return None
    momenta = atoms.get_momenta()
    return np.asarray(momenta.T @ (momenta / atoms.get_masses()[:, None]))


def _value(
    quantity: Quantity, labels: Mapping[str, Any], keys: Keys, atoms: Atoms, origin: str
) -> tuple[Any, list[str]]:
    """The label of a quantity from whichever keys count, None if there is none, and these keys."""
    used = _used(quantity, labels, keys, len(atoms))
    if not used or (quantity.per_volume and not atoms.pbc.any()):
        return None, list(used.values())
    shape = quantity.full_shape(len(atoms))
    found = {}
    for label in quantity.labels:
        if label.option in used:
            key = used[label.option]
            name = f"{origin}: {label.option} (key '{key}')"
            if quantity.symmetric and quantity.file_units:
                array = components.tensor(labels[key], keys.orders.get(label.option), name)
            else:
                array = (_tensor if quantity.symmetric else _reshaped)(labels[key], shape, name)
            if quantity.file_units:
                array = array * quantity.file_units[keys.units[label.option]]
            if label.is_virial:
                array = -array / _volume(atoms, f"{origin}: a {label.option} (key '{key}')")
            found[label.option] = array
    _require_agreement(found, used, origin)
    first = next(iter(found.values()))
    return (first if shape else float(first)), list(used.values())


def _used(quantity: Quantity, labels: Mapping[str, Any], keys: Keys, n_atoms: int) -> dict[str, str]:
    """Keys of a quantity that the frame has, by option; the default only where no other was named, and what
    is called like it where there is no default either."""
    own = quantity.name
    given = {label.option: getattr(keys, label.option) for label in quantity.labels}
    if any(key is not None for option, key in given.items() if option != own) and not keys.is_named(own):
        given[own] = None
    if given[own] is not None and not keys.is_named(own):
        given[own] = next((key for key in quantity.other_keys if key in labels), given[own])
    used = {option: key for option, key in given.items() if key is not None and key in labels}
    if used or given[own] is None or any(keys.is_named(label.option) for label in quantity.labels):
        return used
    return recognised(quantity, labels, n_atoms)


def _volume(atoms: Atoms, name: str) -> float:
    volume = float(abs(np.linalg.det(atoms.cell.array)))
    if volume < 1e-9:
        raise BadInput(f"{name} needs a cell with a volume, got none")
    return volume


def _require_agreement(found: dict[str, Any], used: dict[str, str], origin: str) -> None:
    """Refuse two labels of one quantity that contradict each other."""
    if len(found) < 2:
        return
    (first, a), (second, b) = found.items()
    size = max(float(np.abs(x).max()) for x in (a, b))
    if float(np.abs(a - b).max()) > 1e-2 * size + 1e-6:
        raise BadInput(
            f"{origin}: {first} (key '{used[first]}') and {second} (key '{used[second]}') contradict each "
            f"other: largest component {np.abs(a).max():.4g} eV/Å³ and, from −{second}/V, "
            f"{np.abs(b).max():.4g} eV/Å³. Set the wrong one to null in data.keys"
        )


def _energies(labels: dict[str, Any]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in labels.items()
        if "energy" in name.lower() and isinstance(value, float | np.floating) and np.isfinite(value)
    }


def _is_state(name: str, value: Any) -> bool:
    return bool(STATE.fullmatch(name)) and isinstance(value, str | int | float | np.number)


def _is_numeric(value: Any) -> bool:
    if isinstance(value, list | tuple):
        try:
            value = np.asarray(value)
        except ValueError:  # of unequal lengths
            return False
    return isinstance(value, int | float | np.ndarray | np.number) and np.asarray(value).dtype.kind in "fi"


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


def _reshaped(value: Any, shape: tuple[int, ...], name: str) -> NDArray[np.float64]:
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        expected = f"numbers of shape {shape}" if shape else "one number"
        raise BadInput(f"{name}: expected {expected}, got {value!r}") from error
    if shape == () and array.size == 1:
        return array.reshape(())
    if shape == ():
        raise BadInput(f"{name}: expected one number, got {value!r}")
    if len(shape) == 3 and array.shape == (shape[0], shape[1] * shape[2]):  # nine numbers, row by row
        return array.reshape(shape)
    if array.shape != shape:
        raise BadInput(f"{name}: expected shape {shape}, got {array.shape}")
    return array


def _tensor(value: Any, shape: tuple[int, ...], name: str) -> NDArray[np.float64]:
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
