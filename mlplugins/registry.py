"""Discovery: one file is one family, reader, engine or command, found by its name without importing it."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from importlib import resources
from types import ModuleType

from mlplugins.errors import BadInput, nearest


def available(package: str, hidden: tuple[str, ...] = ()) -> list[str]:
    """Names of the files of a sub-package, underscores as dashes; `_private` and `hidden` files left out.

    >>> "lennard-jones" in available("mlplugins.models")
    True
    """
    folders = importlib.import_module(package).__path__
    stems = [entry.name for entry in pkgutil.iter_modules(folders) if not entry.ispkg]
    return sorted(stem.replace("_", "-") for stem in stems if not stem.startswith("_") and stem not in hidden)


def load(package: str, name: str, kind: str, hidden: tuple[str, ...] = ()) -> ModuleType:
    """Import `package.name`; an unknown name is a `BadInput` that names the nearest valid one.

    >>> load("mlplugins.models", "lennard-jones", "model family").__name__
    'mlplugins.models.lennard_jones'
    """
    names = available(package, hidden)
    if name.replace("_", "-") not in names:
        raise BadInput(f"unknown {kind} '{name}': {nearest(name, names)}")
    return importlib.import_module(f"{package}.{name.replace('-', '_')}")


def summary(package: str, name: str) -> str:
    """First line of a file's docstring, read without importing the file.

    >>> summary("mlplugins", "registry")[:9]
    'Discovery'
    """
    source = resources.files(package).joinpath(name.replace("-", "_") + ".py").read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(source)) or ""
    return docstring.splitlines()[0] if docstring else ""
