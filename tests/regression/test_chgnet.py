"""CHGNet written by the example gives what chgnet gives; where chgnet is installed."""

import subprocess
import sys
from pathlib import Path

import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator

from mlplugins.checks.comparison import CompareOptions, compare

EXAMPLE = Path(__file__).parents[2] / "examples" / "09_chgnet.py"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:::")
def test_chgnet_in_ase(tmp_path):
    dynamics = pytest.importorskip("chgnet.model.dynamics", reason="needs chgnet 0.4.2")
    home = dynamics.CHGNetCalculator(use_device="cpu")
    small = [[3.0, 0.2, 0.0], [0.0, 3.1, 0.1], [0.3, 0.0, 2.9]]
    frames = [bulk("Si", "diamond", a=5.2), Atoms("LiF", [[0, 0, 0], [1.9, 0.1, 0.2]], cell=small, pbc=True)]
    for seed, atoms in enumerate(frames):
        atoms.rattle(0.05, seed=seed)
        results = {k: home.get_property(k, atoms) for k in ("energy", "forces", "stress")}
        atoms.calc = SinglePointCalculator(atoms, **results)
    subprocess.run([sys.executable, EXAMPLE, tmp_path / "chgnet.pt"], check=True)
    limits = {"energy": 5e-6, "forces": 3e-4, "stress": 1e-5}  # both compute in float32
    assert compare(tmp_path / "chgnet.pt", frames, CompareOptions(("ase",), tolerances=limits)).passed
