"""The Python blocks of the README's pages run, page by page, on small inputs; long settings are shortened."""

import re
from pathlib import Path

import ase.io
import pytest

import mlplugins
from mlplugins.export.metatomic import Description, save
from mlplugins.models import lennard_jones
from mlplugins.testing.walks import LatticeWalk, crystal, write_lammps_dump

from .training.argon import argon
from .training.molecules import water

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)
PAGES = sorted(path.name for path in (ROOT / "docs").glob("*.md") if FENCE.search(path.read_text("utf-8")))
NETWORK = '"num_layers": 1, "num_features": 4, "num_basis": 4, "radial_mlp": [8]'
SHORTER = {
    "training.md": {
        '"epochs": 200': '"epochs": 2, "devices": 1',
        '"cutoff": 5.0': f'"cutoff": 5.5, {NETWORK}',
    },
    "finetune.md": {'"epochs": 50': '"epochs": 2, "devices": 1', '"rank": 4': '"rank": 1'},
    "kernels.md": {'"trials": 60': '"trials": 4'},
    "convert.md": {"RadialTables(1025)": "RadialTables(129)"},
}
"""What is shortened, by page: text of the page → text that is run."""

NEEDED = {
    "training.md",
    "finetune.md",
    "convert.md",
    "ase-and-ipi.md",
    "kernels.md",
    "soap-gap.md",
    "conductivity.md",
    "simulation.md",
    "check.md",
}
"""Pages of commands."""

ELSEWHERE = {"simulation.md", "check.md"}
"""Run by tests/simulation/test_from_python.py, with what they print."""


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
    if page in ("finetune.md", "convert.md"):
        (inputs / "base").symlink_to(request.getfixturevalue("base") / "base")
    text = (ROOT / "docs" / page).read_text("utf-8")
    blocks = FENCE.findall(text)
    for old, new in SHORTER.get(page, {}).items():
        assert any(old in block for block in blocks), f"{page} does not say {old}"
        blocks = [block.replace(old, new) for block in blocks]
    names = {"__name__": page}
    for block in blocks:
        exec(compile(block, page, "exec"), names)
