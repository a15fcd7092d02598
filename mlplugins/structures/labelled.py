"""Labelled structures of files or frames, refused where a comparison with them would mean nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ase import Atoms

from mlplugins import quantities
from mlplugins.errors import BadInput, nearest
from mlplugins.structures import dataset, labels, validation
from mlplugins.structures.components import checked_order
from mlplugins.structures.dataset import Keys, Structure


def keys_of(names: Mapping[str, str], where: str) -> Keys:
    """Names of labels in data files, those of `names` as chosen by the user.

    Args:
        names: by option, as in `quantities.labels()`.
        where: the user chose them, for messages.

    Raises:
        BadInput: a label that does not exist, or one without the unit that it needs (`NAME:UNIT`, of six
            numbers of a tensor `NAME:UNIT:xx,xy,xz,yy,yz,zz`).

    >>> keys_of({"energy": "E0"}, "keys").energy
    'E0'
    >>> keys_of({"dipole": "mu:Debye"}, "keys").units
    {'dipole': 'Debye'}
    """
    known = [label.option for label in quantities.labels()]
    for label in names:
        if label not in known:
            raise BadInput(f"{where}: unknown label '{label}': {nearest(label, known)}")
    plain, units, orders = dict(names), {}, {}
    for label in [q.name for q in quantities.QUANTITIES.values() if q.file_units and q.name in names]:
        place = f"{where}: {label}={names[label]}"
        plain[label], *more = names[label].split(":", 2)
        units[label] = file_unit(label, more[0] if more else None, place)
        if len(more) > 1 and not quantities.QUANTITIES[label].symmetric:
            raise BadInput(f"{place}: an order of components is for symmetric tensors only; leave it out")
        if len(more) > 1:
            orders[label] = checked_order(more[1], place)
    return replace(Keys(), named=frozenset(names), units=units, orders=orders, **plain)


def file_unit(name: str, unit: str | None, where: str) -> str:
    """The unit of a quantity in data files, which is never guessed.

    Raises:
        BadInput: none, or one in which it is not measured.
    """
    known = quantities.QUANTITIES[name].file_units
    for one in known:
        if unit is not None and _plain(unit) == _plain(one):
            return one
    raise BadInput(
        f"{where}: expected the unit of the labels '{name}' in the files, one of {', '.join(known)} (--keys: "
        f"{name}=NAME:UNIT), got {'none' if unit is None else repr(unit)}; published sets are often off by a "
        "unit: compare one value with a calculation of your own"
    )


def _plain(unit: str) -> str:
    """A unit however it is written.

    >>> _plain("e²Å²/eV") == _plain("e^2 * A^2/eV"), _plain("bohr**3")
    (True, 'bohr^3')
    """
    for written, plain in {"**": "^", "*": "", "·": "", " ": "", "Å": "a", "³": "^3", "²": "^2"}.items():
        unit = unit.replace(written, plain)
    return unit.lower().replace("angstrom", "a")


def read(data: Any, keys: Keys, where: str) -> dict[str, list[Structure]]:
    """The labelled structures of every source, by its name.

    Args:
        data: files that ASE reads (`file@:100` takes the first 100 frames), or frames (`ase.Atoms`).
        keys: names of the labels.
        where: the user named them, for messages.

    Raises:
        BadInput: no such file, absent or wrong labels.
    """
    sources = [data] if isinstance(data, Path | str | Atoms) else list(data)
    frames = [item for item in sources if isinstance(item, Atoms)]
    if not sources or (frames and len(frames) < len(sources)):
        raise BadInput(f"data: expected files or frames (ase.Atoms), got {sources!r}")
    if frames:
        parts = {"frames": [dataset.from_atoms(atoms, keys, f"frame {k}") for k, atoms in enumerate(frames)]}
    else:
        parts = {str(source): dataset.read(source, keys) for source in sources}
    structures = [s for part in parts.values() for s in part]
    for part in parts.values():
        validation.check(part, keys, need_forces=any(s.forces is not None for s in part))
    labels.require_named(structures, keys, where)
    labels.check_flags(structures)
    return parts
