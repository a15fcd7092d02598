"""Files that 0.1.0 wrote (`make.py` says how): models, checkpoints, campaigns; the same numbers, and usable.

Bit-equal on the machine that wrote them: the arithmetic is the same code. Elsewhere vectorised sums add in
another order, so the bounds are those of the rounding: 1e-12 (float64) and 1e-6 (float32) of the largest
value.
"""

import json
import lzma
import tarfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from ase import Atoms

from mlplugins import checkpoints
from mlplugins.analysis.trajectory import read_frames
from mlplugins.checkpoints import native
from mlplugins.cli.main import main
from mlplugins.engines import lammps
from mlplugins.model_file.artifact import load
from mlplugins.structures.batch import graph_of

pytestmark = pytest.mark.usefixtures("native_build", "warm_start")
DATA = Path(__file__).parent / "data"
RECORD = json.loads((DATA / "numbers.json").read_text())
RUNS = RECORD.pop("runs")
del RECORD["machine"]  # where they were made: for the reader
BOUNDS = {"float64": 1e-12, "float32": 1e-6}  # of the largest number


def unpack(name, folder):
    path = folder / name
    path.write_bytes(lzma.decompress((DATA / f"{name}.xz").read_bytes()))
    return path


def same(found, stored, dtype, what):
    if stored is None:
        assert found is None, what
        return
    bound = BOUNDS[dtype] * max(1e-3, float(np.abs(stored).max()))
    np.testing.assert_allclose(found, stored, rtol=0, atol=bound, err_msg=what)


def structures(numbers):
    return {name: Atoms(**values["structure"]) for name, values in numbers.items()}


def require_numbers(path, numbers, dtype):
    artifact = load(path)
    assert artifact.dtype == dtype
    for name, atoms in structures(numbers).items():
        [result] = artifact.evaluate([atoms], uncertainty=artifact.has_uncertainty)
        for key in ("energy", "energies", "forces", "stress", "uncertainty"):
            same(getattr(result, key), numbers[name][key], dtype, f"{path.name}, {name}: {key}")


def energy(potential, elements, atoms):
    potential = potential.double()
    return float(potential(graph_of(atoms, elements, potential.cutoff))["energy"].detach().sum())


@pytest.mark.parametrize("name", RECORD)
def test_a_model_gives_the_same_numbers(name, tmp_path):
    stored = RECORD[name]
    path = unpack(f"{name}.pt", tmp_path)
    require_numbers(path, stored["numbers"], stored["dtype"])
    assert load(path).family == stored["family"]


@pytest.mark.parametrize("name", [name for name in RECORD if "read" in RECORD[name]])
def test_a_model_is_read_as_a_base(name, tmp_path):
    """Weights folded for inference are unfolded: to round-off, not to the bit."""
    stored = RECORD[name]
    read = checkpoints.read(unpack(f"{name}.pt", tmp_path))
    assert (read.family, read.elements, read.baseline) == (stored["family"], ["Ar", "Kr"], [-1.25, 2.5])
    for key, atoms in structures(stored["numbers"]).items():
        found = energy(read.potential, read.elements, atoms)
        assert found == pytest.approx(stored["read"][key], rel=1e-12, abs=1e-12), key


def test_lammps_gives_the_numbers_of_the_files(tmp_path):
    for name in (
        "nequip-float64",
        "nequip-float32",
        "soap-gap-float64",
    ):  # formats 1, 3, 1 with an uncertainty
        stored = RECORD[name]
        frames = [atoms for atoms in structures(stored["numbers"]).values() if all(atoms.pbc)]
        found = lammps.evaluate_all(unpack(f"{name}.pt", tmp_path), frames)
        tolerance = 1e-8 if stored["dtype"] == "float64" else 5e-6
        for result, values in zip(found, stored["numbers"].values()):
            assert result.energy == pytest.approx(values["energy"], abs=tolerance)
            np.testing.assert_allclose(result.forces, values["forces"], rtol=0, atol=tolerance)
            np.testing.assert_allclose(result.stress, values["stress"], rtol=0, atol=tolerance)


def test_lammps_runs_a_molecule_by_tags(tmp_path):
    """Format 2: the atoms of a molecular kernel come in the order of their IDs."""
    path, stored = unpack("sgdml-float64.pt", tmp_path), RECORD["sgdml-float64"]["numbers"]["free"]
    atoms = Atoms(**stored["structure"])
    atoms.center(vacuum=20.0)
    atoms.pbc = True
    [result] = lammps.evaluate_all(path, [atoms])
    assert result.energy == pytest.approx(stored["energy"], abs=1e-8)
    np.testing.assert_allclose(result.forces, stored["forces"], rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", RUNS)
def test_a_checkpoint_gives_the_same_energies(name, tmp_path):
    stored = RUNS[name]
    read = native.read(unpack(f"{name}-checkpoint.ckpt", tmp_path))
    assert (read.family, read.elements, read.baseline) == (stored["family"], ["Ar"], stored["baseline"])
    for key, atoms in structures(stored["model"]).items():
        same(energy(read.potential, ["Ar"], atoms), stored["energy"][key], "float64", key)


@pytest.mark.parametrize("name", RUNS)
def test_a_checkpoint_is_exported_to_the_same_numbers(name, tmp_path):
    path = unpack(f"{name}-checkpoint.ckpt", tmp_path)
    assert main(["export", str(path), "-o", str(tmp_path / "model.pt")]) == 0
    require_numbers(tmp_path / "model.pt", RUNS[name]["model"], "float64")


def run(folder, verb, name, epochs=None):
    text = (DATA / f"{name}.yaml").read_text()
    for file in ("train.extxyz", "test.extxyz"):
        (folder / file).write_bytes((DATA / file).read_bytes())
    if epochs:
        text = text.replace("epochs: 2", f"epochs: {epochs}")
    (folder / f"{name}.yaml").write_text(text)
    return main([verb, str(folder / f"{name}.yaml"), "-o", str(folder / name)])


@pytest.mark.parametrize("name", ["nequip", "lora", "delta"])
def test_training_goes_on(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for base in {"nequip", name}:
        (tmp_path / base).mkdir()
        unpack(f"{base}-checkpoint.ckpt", tmp_path).rename(tmp_path / base / "checkpoint.ckpt")
    assert run(tmp_path, "train" if name == "nequip" else "finetune", name, epochs=3) == 0
    metrics = json.loads((tmp_path / name / "metrics.json").read_text())
    assert metrics["epochs"] == 3


@pytest.mark.parametrize("base", ["nequip-checkpoint.ckpt", "nequip-trained.pt"])
def test_fine_tuning_starts_from_either_file(base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nequip").mkdir()
    unpack(base, tmp_path).rename(
        tmp_path / "nequip" / "checkpoint.ckpt"
    )  # found by what it holds, not its name
    assert run(tmp_path, "finetune", "lora") == 0
    metrics = json.loads((tmp_path / "lora" / "metrics.json").read_text())
    assert metrics["finetune"]["base"]["family"] == "nequip"


@pytest.mark.parametrize("engine", ["lammps", "ase", pytest.param("ipi", marks=pytest.mark.slow)])
def test_a_campaign_is_finished_and_can_be_lengthened(engine, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with tarfile.open(DATA / "campaigns.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    [trajectory] = (p for p in Path(engine).rglob("*") if p.name in TRAJECTORIES)
    before = np.array([frame.positions for frame in read_frames(trajectory)])
    assert len(before) == 13
    written = trajectory.stat().st_mtime_ns
    command = ["simulate", "md.yaml", "--engine", engine, "-o", engine]
    assert main(command) == 0
    assert trajectory.stat().st_mtime_ns == written
    assert "80 of 80" in capsys.readouterr().out
    Path("md.yaml").write_text(yaml.safe_dump({**yaml.safe_load(Path("md.yaml").read_text()), "steps": 100}))
    assert main(command) == 0
    after = np.array([frame.positions for frame in read_frames(trajectory)])
    assert len(after) == 21
    np.testing.assert_array_equal(after[:13], before)


TRAJECTORIES = ("trajectory.lammpstrj", "trajectory.traj", "simulation.pos_0.xyz")
