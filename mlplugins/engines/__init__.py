"""Engines: one folder each, found by its name; each loads a `model.pt`, never a model class."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, cast

from mlplugins.errors import BadInput, nearest

if TYPE_CHECKING:
    from mlplugins.engines.base import Engine


def available() -> list[str]:
    """Names of the engines, of which none is imported.

    >>> available()
    ['ase', 'ipi', 'lammps']
    """
    return sorted(entry.name for entry in pkgutil.iter_modules(__path__) if entry.ispkg)


def load(name: str) -> Engine:
    """The engine of that name: the file `engine.py` of its folder.

    Raises:
        BadInput: no such engine; the nearest valid name is said.

    >>> load("ase").TITLE
    'ASE'
    """
    if name not in available():
        raise BadInput(f"unknown engine '{name}': {nearest(name, available())}")
    return cast("Engine", importlib.import_module(f"mlplugins.engines.{name}.engine"))
