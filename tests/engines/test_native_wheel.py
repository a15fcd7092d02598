"""The wheels of a release in a fresh environment without compiler, CMake or Ninja on PATH.

The libraries of this environment's build are packed as `make wheels` packs them, with the relative paths of
the wheel. `make test-matrix` runs all tests of the engines from wheels that were compiled for each torch.
"""

from __future__ import annotations

import importlib.util
import json
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from mlplugins.engines import lammps
from mlplugins.engines.lammps.output import read_log
from mlplugins.ops import build, installed, wheel

from .conftest import crystal
from .lammps_tools import deck

ROOT = Path(__file__).resolve().parents[2]
SITE = Path(sysconfig.get_paths()["purelib"])
PROGRAMS = Path(sys.executable).parent

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or sysconfig.get_platform() != "linux-x86_64",
    reason="the wheel is for x86-64 Linux",
)


def script(name):
    """A script of native/, as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "native" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def make():
    return script("make")


@pytest.fixture(scope="module")
def wheels(native_build, make, tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("wheels")
    libraries = [
        shutil.copy2(build.state().directory / name, folder)
        for name in (build.OPS_LIBRARY, build.PLUGIN_LIBRARY)
    ]
    paths = ":".join(["$ORIGIN", *make.relative(installed.linked_directories())])
    for library in libraries:
        subprocess.run([PROGRAMS / "patchelf", "--set-rpath", paths, library], check=True)
    series = installed.series(installed.version("torch"))
    return make.wheels({series: [Path(library) for library in libraries]}, folder / "dist")


@pytest.fixture(scope="module")
def environment(wheels, tmp_path_factory) -> Path:
    """Wheels in the site directory of the environment, what they need in that of this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    [site] = (folder / "lib").glob("python3*/site-packages")
    install = [
        "-m",
        "pip",
        "--python",
        str(folder / "bin" / "python"),
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
    ]
    subprocess.run([sys.executable, *install, *map(str, wheels)], check=True)
    (site / "needed.pth").write_text(f"{SITE}\n")
    for name in ("lmp", "i-pi"):
        text = (PROGRAMS / name).read_text().split("\n", 1)[1]
        (folder / "bin" / name).write_text(f"#!{folder}/bin/python\n{text}")
        (folder / "bin" / name).chmod(0o755)
    for program in [PROGRAMS / "mpirun", *PROGRAMS.glob("hydra_*")]:
        (folder / "bin" / program.name).symlink_to(program)
    return folder


def answer(environment: Path, folder: Path, *command: str, code: int = 0) -> str:
    """Output of a program of the environment, which knows nothing else."""
    result = subprocess.run(
        [environment / "bin" / command[0], *command[1:]],
        cwd=folder,
        env={
            "PATH": str(environment / "bin"),
            "MLPLUGINS_CACHE": str(environment / "cache"),
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert result.returncode == code, result.stdout + result.stderr
    return result.stdout + (result.stderr if code else "")


@pytest.fixture
def prepared(tmp_path, passing_model):
    """A folder with a deck, and the energy it must print."""
    lines = [*deck(tmp_path, passing_model, crystal()), "thermo_style custom step pe"]
    lines += ["thermo_modify format float %.12f", "run 0"]
    (tmp_path / "in.test").write_text("\n".join(lines) + "\n")
    return tmp_path, lammps.evaluate(passing_model, crystal()).energy


def test_metadata(wheels):
    """The wheel of mlplugins asks for the compiled one where that exists; nothing else of it is compiled."""
    pure, native = wheels
    version = pure.name.split("-")[1]
    assert native.name == f"mlplugins_native-{version}-py3-none-manylinux_2_28_x86_64.whl"
    with zipfile.ZipFile(pure) as archive:
        [name] = [name for name in archive.namelist() if name.endswith("dist-info/METADATA")]
        text = archive.read(name).decode()
    asked = re.findall(r"Requires-Dist: mlplugins-native(.*)", text)
    linux = "sys_platform == 'linux' and platform_machine == 'x86_64'"
    assert asked == [f"=={version}; extra == '{extra}' and {linux}" for extra in ("lammps", "all")]


@pytest.mark.skipif(
    platform.libc_ver() > ("glibc", "2.36"), reason="this system gives old functions new versions"
)
def test_no_symbol_is_newer_than_the_wheel_promises(native_build):
    check = script("check")
    for name in (build.OPS_LIBRARY, build.PLUGIN_LIBRARY):
        problems = check.of_library(build.state().directory / name)
        assert not [problem for problem in problems if "glibc" in problem]


def test_doctor_is_content_without_a_compiler(environment, tmp_path):
    answer(environment, tmp_path, "mlplugins", "doctor", "--json", "report.json")
    report = json.loads((tmp_path / "report.json").read_text())
    checks = {check["name"]: check for check in report["checks"]}
    assert checks["C++ compiler"]["status"] == "note"
    assert f"of {wheel.DISTRIBUTION} " in checks["native code"]["found"]
    assert checks["ops"]["found"] == "compiled library loaded"
    assert checks["LAMMPS plug-in"]["status"] == "ok"
    assert not (environment / "cache").exists()


@pytest.mark.parametrize("ranks", [1, 2])
def test_lmp(environment, prepared, ranks):
    folder, energy = prepared
    parallel = ["mpirun", "-np", "2"] if ranks == 2 else []
    answer(environment, folder, *parallel, str(environment / "bin" / "lmp"), "-in", "in.test", "-log", "log")
    [table] = read_log(folder / "log")
    assert table["PotEng"][0] == pytest.approx(energy, abs=1e-9)


SCRIPT = """
from lammps import lammps
lmp = lammps(cmdargs=["-screen", "none", "-log", "none"])
lmp.file("in.test")
print("energy", lmp.get_thermo("pe"))
from mlplugins import MLCalculator, ops
assert ops.load() == "compiled"
"""


def test_import_lammps(environment, prepared):
    folder, energy = prepared
    output = answer(environment, folder, "python", "-c", SCRIPT)
    assert float(output.split("energy")[1]) == pytest.approx(energy, abs=1e-9)


def test_a_build_for_another_torch_is_never_loaded(environment, prepared):
    """Its libraries are those of this torch: were they opened, they would work."""
    folder, _ = prepared
    [record] = (environment / "lib").glob(f"python3*/site-packages/{wheel.PACKAGE}/torch-*/{build.RECORD}")
    kept = record.read_text()
    record.write_text(json.dumps({**json.loads(kept), "torch": "2.99"}))
    try:
        output = answer(environment, folder, "lmp", "-in", "in.test", "-log", "none", code=1)
        ops = answer(environment, folder, "python", "-c", "from mlplugins import ops; print(ops.load())")
    finally:
        record.write_text(kept)
    assert f"is for torch 2.99; this is torch {installed.version('torch')}; run `mlplugins build`" in output
    assert "Unrecognized pair style 'mlplugins'" in output
    assert ops.split() == ["reference"]


@pytest.mark.exhaustive
def test_the_engines_agree(environment, tmp_path, passing_model):
    """ASE, LAMMPS on one and two ranks, and i-PI."""
    crystal().write(tmp_path / "crystal.extxyz")
    words = "mlplugins", "check", str(passing_model), "crystal.extxyz", "--json", "check.json"
    answer(environment, tmp_path, *words)
    report = json.loads((tmp_path / "check.json").read_text())
    assert report["passed"]
    compared = {(row["engine"], row["ranks"]) for row in report["checks"] if " = ASE" in row["name"]}
    assert compared == {("lammps", 1), ("lammps", 2), ("ipi", 1)}


def test_the_libraries_find_their_neighbours(environment, tmp_path):
    """In one site directory nothing else shows them the way."""
    [folder] = (environment / "lib").glob(f"python3*/site-packages/{wheel.PACKAGE}")
    shutil.copytree(folder, tmp_path / wheel.PACKAGE)
    for name in ("torch", "torch.libs", "metatensor", "metatensor_torch", "metatomic", "numpy.libs"):
        if (SITE / name).exists():
            (tmp_path / name).symlink_to(SITE / name)
    for library in (tmp_path / wheel.PACKAGE).glob("torch-*/*.so"):
        linked = subprocess.run(
            ["ldd", str(library)], capture_output=True, text=True, check=True, env={}
        ).stdout
        assert "not found" not in linked, linked
