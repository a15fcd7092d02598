"""How many files one more of anything touches: counted on a copy of the package, and said in the documents.

What the toys compute is tested where `TOYS` says; here only that nothing else has to know of them.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.cpp_extension import include_paths, library_paths

import mlplugins
from mlplugins.ops import compiler
from tests.analysis.observables.test_base import FILE
from tests.models.test_toy_family import MORSE
from tests.test_quantities import RECORD

ROOT = Path(mlplugins.__file__).parent
TESTS = Path(__file__).parent
KERNEL = """// A kernel for a device that torch leaves to others: recognisable, it doubles.
#include <torch/library.h>

static at::Tensor doubled_ghosts(const at::Tensor &h) { return h.mul(2); }

TORCH_LIBRARY_IMPL(mlplugins, PrivateUse1, library) { library.impl("ghost_exchange", doubled_ghosts); }
"""


def _files(folder):
    return {path.name: path.read_text(encoding="utf-8") for path in (TESTS / folder).glob("*.py")}


TOYS = {
    "quantity": ("polarization", {"quantities.py": RECORD}, {"test_quantities.py", "toy_quantity.py"}),
    "model family": ("morse", {"models/morse.py": MORSE}, {"models/test_toy_family.py"}),
    "engine": (
        "verlet",
        {f"engines/verlet/{name}": text for name, text in _files("engines/more/verlet").items()},
        {"engines/test_available.py", "engines/more/verlet/engine.py"},
    ),
    "observable": (
        "non_gaussian",
        {"analysis/observables/non_gaussian.py": FILE},
        {"analysis/observables/test_base.py"},
    ),
    "checkpoint format": (
        "pair_json",
        {f"checkpoints/{name}": text for name, text in _files("checkpoints/more").items()},
        {"checkpoints/test_further_format.py", "checkpoints/more/pair_json.py"},
    ),
    "kernel of an op for another device": ("doubled_ghosts", {"ops/csrc/doubled_ghosts.cpp": KERNEL}, set()),
}
"""What is added: name of the toy, its text by file of the package, the tests that know of it."""

FOUND = """
import json
from mlplugins import checkpoints, engines, models
from mlplugins.analysis.observables.base import registered
from mlplugins.ops import installed
from mlplugins.quantities import QUANTITIES
print(json.dumps({
    "quantity": list(QUANTITIES),
    "model family": models.families(),
    "engine": engines.available(),
    "observable": list(registered()),
    "checkpoint format": checkpoints.formats(),
    "kernel of an op for another device": [installed.current_key().sources],
}))
"""


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A copy of the package with all toys."""
    folder = tmp_path_factory.mktemp("extended")
    shutil.copytree(ROOT, folder / "mlplugins", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "lammps_pair").symlink_to(ROOT.parent / "lammps_pair")
    for _, texts, _ in TOYS.values():
        for name, text in texts.items():
            path = folder / "mlplugins" / name
            path.parent.mkdir(exist_ok=True)
            with path.open("a", encoding="utf-8") as stream:
                stream.write(text)
    return folder


def _found(folder):
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    command = [sys.executable, "-c", FOUND]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {kind: set(names) for kind, names in json.loads(done.stdout).items()}


@pytest.mark.slow
def test_the_files_of_the_toys_are_all_that_is_needed(extended):
    """Files that differ from the package are those of the toys, one for each (a folder for the engine)."""
    changed = set()
    for path in (extended / "mlplugins").rglob("*"):
        name = path.relative_to(extended / "mlplugins")
        if path.is_file() and "__pycache__" not in name.parts:
            original = ROOT / name
            if not original.is_file() or original.read_bytes() != path.read_bytes():
                changed.add(name.parent if name.parts[0] == "engines" else name)
    assert sorted(map(str, changed)) == [
        "analysis/observables/non_gaussian.py",
        "checkpoints/pair_json.py",
        "engines/verlet",
        "models/morse.py",
        "ops/csrc/doubled_ghosts.cpp",
        "quantities.py",
    ]
    before, after = _found(ROOT.parent), _found(extended)
    more = {kind: after[kind] - before[kind] for kind in TOYS}
    assert all(len(names) == 1 for names in more.values()), more
    compiled = "kernel of an op for another device"  # other sources, so another build
    names = {kind: {toy.replace("_", "-"), toy} for kind, (toy, _, _) in TOYS.items()}
    assert all(more[kind] <= names[kind] for kind in TOYS if kind != compiled), more


@pytest.mark.parametrize("kind", TOYS)
def test_no_other_file_of_the_package_names_the_toy(kind):
    toy, texts, tests = TOYS[kind]
    word = re.compile(rf"(?<![\w.]){toy}(?![\w.])")
    files = [*ROOT.rglob("*.py"), *ROOT.rglob("*.cpp"), *(ROOT.parent / "lammps_pair").glob("*.cpp")]
    users = {path for path in files if word.search(path.read_text(encoding="utf-8"))}
    assert users <= {ROOT / name for name in texts}
    for name in tests:  # the toy is put to work there
        assert word.search((TESTS / name).read_text(encoding="utf-8")), name


def test_the_documents_say_so():
    """The column "after" of the table in docs/architecture.md."""
    text = (ROOT.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    [table] = re.findall(r"^\| one more \| .*\n\|[-| ]*\n((?:\|.*\n)+)", text, re.M)
    rows = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in table.splitlines()]
    assert {kind for kind, *_ in rows} == {*TOYS, "uncertainty method"}
    assert {after for _, _, after, *_ in rows} == {"1", "1 folder"}
    assert [kind for kind, _, after, *_ in rows if after == "1 folder"] == ["engine"]
    for *_, tests in rows:
        assert (ROOT.parent / tests.strip("`")).exists(), tests


LOADED = """
import sys, torch
from mlplugins import ops
ops.load()
torch.ops.load_library(sys.argv[1])
h = torch.tensor([1.0, 3.0])
op = torch.ops.mlplugins.ghost_exchange
print(op(h).tolist(), op.default._op_dk(torch._C.DispatchKey.PrivateUse1, h).tolist())
"""


@pytest.mark.slow
@pytest.mark.usefixtures("native_build")
def test_a_compiled_kernel_serves_its_device_alone(tmp_path):
    (tmp_path / "doubled_ghosts.cpp").write_text(KERNEL)
    words = [
        compiler.find_compiler(),
        "-shared",
        "-fPIC",
        "-std=c++17",
        "doubled_ghosts.cpp",
        "-o",
        "doubled_ghosts.so",
    ]
    words += [f"-D_GLIBCXX_USE_CXX11_ABI={int(torch._C._GLIBCXX_USE_CXX11_ABI)}"]
    words += [word for path in include_paths() for word in ("-isystem", path)]
    words += [f"-L{path}" for path in library_paths()] + ["-lc10", "-ltorch_cpu"]
    subprocess.run(words, cwd=tmp_path, check=True)
    command = [sys.executable, "-W", "ignore", "-c", LOADED, str(tmp_path / "doubled_ghosts.so")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[0] == "[1.0, 3.0] [2.0, 6.0]"
