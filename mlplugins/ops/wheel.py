"""The native code of the wheel mlplugins-native: one folder per torch series, built for one LAMMPS.

A library is never loaded to see whether it fits: one of another torch may end the process. The record
beside it (`build.json`) is compared instead.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from mlplugins.ops import installed
from mlplugins.ops.installed import ABSENT, Key, series

DISTRIBUTION = "mlplugins-native"
PACKAGE = "mlplugins_native"
SERIES = ("metatomic-torch", "metatensor-torch", "metatensor-core")
"""Packages whose later patch releases keep the interface (their CMake files promise `SameMinorVersion`)."""


class Offer(NamedTuple):
    """What the wheel offers this installation.

    Attributes:
        directory: the build that fits; None if none does.
        plugin: it serves the installed LAMMPS.
        reason: what it is, or why none fits; empty if the wheel is not installed.
    """

    directory: Path | None
    plugin: bool
    reason: str


def offer(key: Key) -> Offer:
    """The build of mlplugins-native that fits an installation, or why there is none."""
    root = installed.package_directory(PACKAGE)
    if root is None:
        return Offer(None, False, "")
    title = f"{DISTRIBUTION} {installed.version(DISTRIBUTION)}"
    records = {folder: _record(folder) for folder in sorted(root.glob("torch-*"), key=_minor)}
    if not records:
        return Offer(None, False, f"{title} is empty: reinstall it")
    torch = key.packages["torch"]
    for folder, record in records.items():
        if record.get("torch") == series(torch):
            unfit = _unfit(record, key)
            if unfit:
                return Offer(None, False, f"{title} does not fit: {'; '.join(unfit)}")
            plugin = key.packages["lammps"] != ABSENT
            what = "ops and LAMMPS plug-in" if plugin else "ops only (lammps is not installed)"
            compiler = record.get("compiler", "unknown compiler")
            return Offer(folder, plugin, f"{what} of {title} for torch {record['torch']}, {compiler}")
    known = ", ".join(str(record.get("torch")) for record in records.values())
    return Offer(None, False, f"{title} is for torch {known}; this is torch {torch}")


def foreign_libraries(directory: Path) -> list[Path]:
    """Directories of linked libraries that a build in the wheel cannot find by its relative paths.

    Empty where the wheel is in the same site directory as torch, metatensor and metatomic.
    """
    site = directory.parents[1]
    folders = [path / "lib" for path in installed.linked_directories().values()]
    return [folder for folder in folders if site.resolve() not in folder.resolve().parents]


def _minor(folder: Path) -> tuple[int, ...]:
    numbers = folder.name.removeprefix("torch-").split(".")
    return tuple(int(number) if number.isdigit() else 0 for number in numbers)


def _record(folder: Path) -> dict[str, Any]:
    try:
        record = json.loads((folder / "build.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _unfit(record: dict[str, Any], key: Key) -> list[str]:
    """All that speaks against a build for the right torch series."""
    problems = []
    lammps = key.packages["lammps"]
    if lammps not in (ABSENT, record.get("lammps")):
        problems.append(f"it is for LAMMPS {record.get('lammps')}, this is {lammps}")
    for name in SERIES:
        built, here = str(record.get(name)), key.packages[name]
        if series(here) != series(built) or _numbers(here) < _numbers(built):
            problems.append(f"it needs {name} {series(built)}.x from {built}, this is {here}")
    if record.get("sources") != key.sources:
        problems.append("it was built from other sources of mlplugins")
    return problems


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("+")[0].split(".") if part.isdigit())
