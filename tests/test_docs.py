"""The blocks of the pages run, page by page, on small inputs; long settings are shortened.

All Python runs. In the pages to be typed along (`docs/start`, `docs/tutorials`) a block after `<!-- run -->`
is run as a shell would, one after `<!-- file: NAME -->` is the content of that file.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import ase.io
import pytest

import mlplugins
from mlplugins.cli.main import main
from mlplugins.export.metatomic import Description, save
from mlplugins.models import lennard_jones
from mlplugins.testing.walks import LatticeWalk, crystal, write_lammps_dump

from .training.argon import argon
from .training.molecules import water

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)
BLOCK = re.compile(r"^(?:<!-- (run|file: \S+) -->\n)?^```(\w*)\n(.*?)^```$", re.M | re.S)
PAGES = sorted(path.name for path in (ROOT / "docs").glob("*.md") if FENCE.search(path.read_text("utf-8")))
TYPED_ALONG = sorted(
    str(path.relative_to(ROOT / "docs"))
    for room in ("start", "tutorials")
    for path in (ROOT / "docs" / room).glob("*.md")
)
ENVIRONMENT = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
NETWORK = '"num_layers": 1, "num_features": 4, "num_basis": 4, "radial_mlp": [8]'
SHORTER = {
    "training.md": {
        '"epochs": 200': '"epochs": 2, "devices": 1',
        '"cutoff": 5.0': f'"cutoff": 5.5, {NETWORK}',
    },
    "finetune.md": {'"epochs": 50': '"epochs": 2, "devices": 1', '"rank": 4': '"rank": 1'},
    "kernels.md": {'"trials": 60': '"trials": 4'},
    "uncertainty.md": {"run/model.pt": "base/model.pt"},
    "start/lammps.md": {"run             200": "run             4"},
    "start/ase.md": {"steps=50": "steps=2", "dynamics.run(200)": "dynamics.run(4)"},
    "start/ipi.md": {"<total_steps>100<": "<total_steps>4<", "start-ipi": "start-ipi-PROCESS"},
    "tutorials/committee.md": {"dynamics.irun(500)": "dynamics.irun(20)", "-n 5": "-n 1"},
}
"""What is shortened, by page: text of the page → text that is run."""

NEEDED = {
    "training.md",
    "finetune.md",
    "convert.md",
    "ase-and-ipi.md",
    "kernels.md",
    "soap-gap.md",
    "uncertainty.md",
    "conductivity.md",
    "simulation.md",
    "check.md",
}
"""Pages of commands."""

ELSEWHERE = {"simulation.md", "check.md"}
"""Run by tests/simulation/test_from_python.py, with what they print."""


SHORT = {
    "num_features: 24": "num_features: 4",
    "l_max: 2": "l_max: 1",
    "radial_mlp: [32]": "radial_mlp: [8]",
    "epochs: 120": "epochs: 1\n  devices: 1",
    "train.extxyz": "train.extxyz@::6",
    "test.extxyz": "test.extxyz@::6",
}
"""Of the configuration that the pages train with."""


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder with a run of one epoch, to start from."""
    folder = tmp_path_factory.mktemp("base")
    ase.io.write(folder / "train.extxyz", argon(8, 2))
    network = {"num_layers": 1, "num_features": 4, "num_basis": 4, "radial_mlp": [8]}
    configuration = {
        "data": {"train": folder / "train.extxyz"},
        "model": {"family": "nequip", "cutoff": 5.5, **network},
        "training": {"epochs": 1, "devices": 1},
    }
    mlplugins.train(configuration, folder / "base")
    return folder


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    """The files that the pages name, in the working directory."""
    monkeypatch.chdir(tmp_path)
    ase.io.write("train.extxyz", argon(16, 0))
    ase.io.write("test.extxyz", argon(4, 1))
    ase.io.write("start.extxyz", argon(1, 3))
    ase.io.write("md.extxyz", argon(24, 4))
    ase.io.write("ethanol.extxyz", water(20, 0))
    for name, epsilon in {"model": 0.0104, "a": 0.0100, "b": 0.0104, "c": 0.0108}.items():
        parameters = lennard_jones.Hyperparameters(epsilon=epsilon, sigma=3.4, cutoff=5.0)
        card = Description("lennard-jones", ["Ar"], [0.0])
        save(lennard_jones.Model(["Ar"], parameters), tmp_path / f"{name}.pt", card, "float64")
    (tmp_path / "checkpoint_sevennet_0.pth").symlink_to(ROOT / "tests/regression/sevennet_0130_even.pth")
    (tmp_path / "gap.yaml").write_text(
        "data: {train: train.extxyz, validation: 0.25, test: test.extxyz}\n"
        "model: {family: soap-gap, cutoff: 5.0, n_max: 3, l_max: 2, atom_sigma: 0.6}\n"
        "training: {n_sparse: 16}\n"
    )
    walk = crystal(LatticeWalk(frames=400, ions=15, rate=0.4))
    write_lammps_dump(walk, tmp_path / "600K.lammpstrj", columns="id element x y z")
    (tmp_path / "runs.yaml").write_text(
        "{species: Li, charge: 1, timestep: 2.0, runs: [{files: [600K.lammpstrj], temperature: 600}]}\n"
    )
    return tmp_path


def test_the_pages_of_commands_have_an_example():
    assert set(PAGES) >= NEEDED


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted(set(PAGES) - ELSEWHERE))
def test_the_python_of_a_page_runs(page, inputs, request):
    if page in ("finetune.md", "convert.md", "uncertainty.md"):
        (inputs / "base").symlink_to(request.getfixturevalue("base") / "base")
    text = (ROOT / "docs" / page).read_text("utf-8")
    blocks = FENCE.findall(text)
    for old, new in SHORTER.get(page, {}).items():
        assert any(old in block for block in blocks), f"{page} does not say {old}"
        blocks = [block.replace(old, new) for block in blocks]
    names = {"__name__": page}
    for block in blocks:
        exec(compile(block, page, "exec"), names)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A copy of `examples/` whose training is short, and the potential of it."""
    folder = tmp_path_factory.mktemp("examples")
    for path in (ROOT / "examples").iterdir():
        if path.is_file():
            shutil.copy(path, folder)
    (folder / "data").symlink_to(ROOT / "examples/data")
    text = (folder / "01_train.yaml").read_text("utf-8")
    for old, new in SHORT.items():
        assert old in text
        text = text.replace(old, new)
    (folder / "01_train.yaml").write_text(text, "utf-8")
    mlplugins.train(folder / "01_train.yaml", folder / "potential")
    return folder


def test_the_pages_to_be_typed_along_are_found():
    assert {"start/lammps.md", "start/analyst.md", "tutorials/first-potential.md"} <= set(TYPED_ALONG)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:logm result may be inaccurate:RuntimeWarning")  # of ASE: error 5e-13
@pytest.mark.parametrize("page", TYPED_ALONG)
def test_a_page_is_typed_along(page, trained, tmp_path, monkeypatch, native_build):
    for path in trained.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / page).read_text("utf-8")
    for old, new in SHORTER.get(page, {}).items():
        assert old in text, f"{page} does not say {old}"
        text = text.replace(old, new.replace("PROCESS", str(os.getpid())))
    names = {"__name__": page}
    servers = []
    for mark, language, block in BLOCK.findall(text):
        if language == "python":
            exec(compile(block, page, "exec"), names)
        elif mark.startswith("file: "):
            Path(mark.removeprefix("file: ")).write_text(block, "utf-8")
        elif mark == "run":
            for line in block.splitlines():
                _run(line, servers)
    for server in servers:
        assert server.wait(timeout=60) == 0


def _run(line, servers):
    """A line of a shell: commands of mlplugins in this process, programs of engines in theirs."""
    words = shlex.split(line, comments=True)
    if words[0] == "mlplugins":
        assert main(words[1:]) == 0, line
    elif words[-1] == "&":
        servers.append(subprocess.Popen(words[:-1], stdout=subprocess.DEVNULL, env=ENVIRONMENT))
    else:
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, timeout=120, env=ENVIRONMENT)
