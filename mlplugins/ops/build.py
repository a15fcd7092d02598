"""Which build of the native code is used: the user's own, else that of the wheel mlplugins-native.

The user's builds are in a cache, one directory per combination of versions and sources, under
`MLPLUGINS_CACHE` (default `~/.cache/mlplugins`). Nothing here imports torch: LAMMPS calls
`lammps_plugin_directory` at every start.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from mlplugins.ops import installed, wheel
from mlplugins.ops.installed import Key

OPS_LIBRARY = "libmlplugins_ops.so"
PLUGIN_LIBRARY = "mlpluginsplugin.so"  # LAMMPS loads every *plugin.so of the directory
RECORD = "build.json"


class State(NamedTuple):
    """State of the build for the present installation.

    Attributes:
        status: `current`, `stale` (built for something else) or `missing`.
        directory: where the current build is, or would be.
        reason: one sentence.
        plugin: a current build holds the LAMMPS plug-in.
        wheel: it is the one of mlplugins-native.
    """

    status: str
    directory: Path
    reason: str
    plugin: bool
    wheel: bool = False


def cache_root() -> Path:
    """Directory of all builds (`MLPLUGINS_CACHE`, else the user's cache directory)."""
    chosen = os.environ.get("MLPLUGINS_CACHE")
    if chosen:
        return Path(chosen).expanduser().resolve()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "mlplugins"


def state() -> State:
    """Is there a build for this installation, and if not, why?"""
    key = installed.current_key()
    directory = cache_root() / key.digest()
    record = record_of(directory)
    if record is not None:
        plugin = (directory / PLUGIN_LIBRARY).is_file()
        what = "ops and LAMMPS plug-in" if plugin else "ops only (lammps was not installed)"
        return State("current", directory, f"{what}, {record.get('compiler', 'unknown compiler')}", plugin)
    offer = wheel.offer(key)
    if offer.directory is not None:
        return State("current", offer.directory, offer.reason, offer.plugin, wheel=True)
    for other in _records():
        if other.get("prefix") == key.prefix:
            return State("stale", directory, _with(_difference(other, key), offer.reason), False)
    return State("missing", directory, _with("never built for this Python environment", offer.reason), False)


def ops_library() -> Path | None:
    """The compiled ops of a current build; None if there is none or `MLPLUGINS_OPS=off`."""
    if os.environ.get("MLPLUGINS_OPS", "").lower() == "off":
        return None
    found = state()
    return found.directory / OPS_LIBRARY if found.status == "current" else None


def lammps_plugin_directory() -> str:
    """Entry point of the group `lammps.plugins`: the directory that LAMMPS searches for plug-ins.

    Never raises (that would break `import lammps` for everybody) and never compiles. It also loads what
    LAMMPS and the plug-in cannot find by themselves: libmpi in a virtual environment, and torch where
    mlplugins-native is in another site directory.
    """
    try:
        with contextlib.suppress(Exception):
            _preload(_mpi_libraries(), ctypes.RTLD_GLOBAL)
        found = state()
        if found.status == "current" and found.plugin:
            if found.wheel:
                _show_libraries(wheel.foreign_libraries(found.directory))
            return str(found.directory)
        _hint(found)
        empty = cache_root() / "empty"
        with contextlib.suppress(OSError):
            empty.mkdir(parents=True, exist_ok=True)
        return str(empty)
    except BaseException:  # anything that escapes would end the host's import
        return os.devnull


def _starts_lmp() -> bool:
    """The program `lmp` is a script that imports lammps and starts the real program as a child process."""
    return os.path.basename(sys.argv[0] if sys.argv else "").startswith("lmp")


def _mpi_libraries() -> list[Path]:
    places = [Path(sys.prefix)]
    with contextlib.suppress(metadata.PackageNotFoundError):
        # in lib/, two levels above the site directory
        places.append(Path(str(metadata.distribution("mpich").locate_file(""))).parents[2])
    names = ("libmpi.so.12", "libmpi.so.40", "libmpi.so")
    found = [place / "lib" / name for place in places for name in names if (place / "lib" / name).is_file()]
    return found[:1]


def _preload(libraries: list[Path], mode: int = ctypes.RTLD_LOCAL) -> None:
    """Load libraries into this process, so that those that need them find them by name."""
    if not _starts_lmp():
        for path in libraries:
            ctypes.CDLL(str(path), mode=mode)


def _show_libraries(folders: list[Path]) -> None:
    """Make torch and metatomic known to a plug-in that is in another site directory than these packages."""
    if not folders:
        return
    # the child process of `lmp` reads the variable; this process has already done so at its start
    known = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    os.environ["LD_LIBRARY_PATH"] = ":".join([*filter(None, known), *map(str, folders)])
    names = ("c10", "torch_cpu", "torch", "metatensor", "metatensor_torch", "metatomic_torch")
    paths = [folder / f"lib{name}.so" for name in names for folder in folders]
    _preload([path for path in paths if path.is_file()])


def _hint(found: State) -> None:
    first_rank = all(os.environ.get(name, "0") == "0" for name in ("PMI_RANK", "OMPI_COMM_WORLD_RANK"))
    if first_rank and _starts_lmp():
        print(f"mlplugins: no LAMMPS plug-in: {found.reason}; run `mlplugins build`", file=sys.stderr)


def record_of(directory: Path) -> dict[str, str] | None:
    """Record of a complete build in the cache; None if there is none."""
    try:
        record = json.loads((directory / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if (directory / OPS_LIBRARY).is_file() else None


def _records() -> Iterator[dict[str, str]]:
    """Records of all builds in the cache, newest first."""
    with contextlib.suppress(OSError):
        paths = sorted(cache_root().glob(f"*/{RECORD}"), key=lambda path: -path.stat().st_mtime)
        for path in paths:
            record = record_of(path.parent)
            if record is not None:
                yield record


def _with(reason: str, wheels: str) -> str:
    return f"{reason}; {wheels}" if wheels else reason


def _difference(record: dict[str, str], key: Key) -> str:
    changes = [
        f"{name} {record.get(name, 'none')} → {version}"
        for name, version in key.packages.items()
        if record.get(name, "none") != version
    ]
    if record.get("sources") != key.sources:
        changes.append("other mlplugins sources")
    return "built for " + ", ".join(changes) if changes else "the build is incomplete"
