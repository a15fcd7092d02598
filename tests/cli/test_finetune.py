"""`mlplugins finetune` from native and foreign checkpoints."""

import json
import lzma
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.io import read, write

from mlplugins import MLCalculator, checkpoints
from mlplugins.checkpoints import native
from mlplugins.cli.main import main
from mlplugins.model_file import artifact
from mlplugins.model_file.card import ModelCard
from mlplugins.model_file.write import save

from ..training import toy

REGRESSION = Path(__file__).parents[1] / "regression"
SEVENNET = REGRESSION / "sevennet_0130_even.pth"
TEXT = """
base: {{checkpoint: {base}}}
finetune: {{{finetune}}}
data: {{train: train.extxyz, validation: 0.25, test: test.extxyz}}
training: {{epochs: {epochs}, batch_size: 3, lr: {lr}, ema: 0.5, devices: 1, dtype: float64,
           schedule: {{warmup_steps: 0}}}}
"""


def metrics(directory) -> dict:
    return json.loads((directory / "metrics.json").read_text())


def config(folder, base, finetune="strategy: full", epochs=2, lr=0.001):
    path = folder / "tune.yaml"
    path.write_text(TEXT.format(base=base, finetune=finetune, epochs=epochs, lr=lr))
    return path


@pytest.fixture
def native_base(project, tmp_path):
    """A checkpoint of `mlplugins train` on argon."""
    assert main(["train", str(project(epochs=2)), "-o", str(tmp_path / "base")]) == 0
    return tmp_path / "base" / "checkpoint.ckpt"


@pytest.mark.slow
def test_from_our_own_checkpoint(native_base, tmp_path, capsys):
    out = tmp_path / "run"
    path = config(tmp_path, native_base)
    assert main(["finetune", str(path), "-o", str(out), "--json", str(tmp_path / "same.json")]) == 0
    pictures = {f"{name}.{kind}" for name in ("learning", "parity") for kind in ("png", "pdf")}
    names = {"model.pt", "checkpoint.ckpt", "metrics.json", "log.csv", *pictures}
    assert {p.name for p in out.iterdir()} == names
    result = metrics(out)
    assert result["finetune"]["strategy"] == "full"
    assert result["finetune"]["base"]["format"] == "mlplugins"
    assert result["finetune"]["base_errors"]["test"]["n_structures"] == 4
    assert result["forgetting"]["before"]["n_structures"] == result["forgetting"]["after"]["n_structures"]
    assert json.loads((tmp_path / "same.json").read_text())["forgetting"] == result["forgetting"]
    printed = capsys.readouterr().out
    for words in ("test, base", "base set, after", "energy references", "ready for ASE, LAMMPS and i-PI"):
        assert words in printed
    # extended, and then itself a base
    assert main(["finetune", str(config(tmp_path, native_base, epochs=3)), "-o", str(out)]) == 0
    assert metrics(out)["epochs"] == 3
    chained = config(tmp_path, out / "checkpoint.ckpt", "strategy: heads", epochs=1)
    assert main(["finetune", str(chained), "-o", str(tmp_path / "second")]) == 0
    assert main(["export", str(out / "checkpoint.ckpt"), "-o", str(tmp_path / "again.pt")]) == 0


def write_frames(folder, light):
    """Frames labelled by the toy model (its elements renamed), far from what the foreign checkpoints say."""
    for name, n, seed in (("train", 8, 0), ("test", 3, 1)):
        frames = [s.to_atoms() for s in toy.labelled(toy.base().potential, toy.frames(n, seed))]
        for atoms in frames:
            atoms.symbols = [light if symbol == "Ne" else "S" for symbol in atoms.symbols]
        write(folder / f"{name}.extxyz", frames)


def force_errors(folder, model) -> float:
    """MAE of the forces on the test frames, meV/Å, of an exported file."""
    errors = []
    for atoms in read(folder / "test.extxyz", ":"):
        labels, atoms.calc = atoms.get_forces(), MLCalculator(model)
        errors.append(np.abs(atoms.get_forces() - labels).mean())
    return 1000 * float(np.mean(errors))


@pytest.fixture
def lithium_sulphide(tmp_path):
    write_frames(tmp_path, "Li")
    return tmp_path


@pytest.mark.slow
def test_from_a_foreign_checkpoint_with_the_elements_of_the_data(lithium_sulphide):
    folder = lithium_sulphide
    assert main(["finetune", str(config(folder, SEVENNET, epochs=1)), "-o", str(folder / "run")]) == 0
    result = metrics(folder / "run")
    assert result["elements"] == ["Li", "S"]
    assert result["finetune"]["base"]["format"] == "SevenNet"
    assert result["finite_differences"]["max_error_meV_per_A"] < 1e-2
    error = force_errors(folder, folder / "run" / "model.pt")
    assert error == pytest.approx(result["test"]["forces"]["mae_meV_per_A"], rel=1e-9)
    path = config(folder, f"{SEVENNET}, elements: all", "strategy: heads", epochs=1)
    assert main(["finetune", str(path), "-o", str(folder / "all")]) == 0
    assert len(metrics(folder / "all")["elements"]) == 8


@pytest.mark.long
@pytest.mark.parametrize(
    ("file", "format_", "more"),
    [
        ("mace_two_heads.model.xz", "MACE", ", head: b"),
        pytest.param("nequip_average.ckpt.xz", "NequIP", "", marks=pytest.mark.exhaustive),
        ("nequip_parity.nequip.zip.xz", "NequIP", ""),
    ],
)
def test_from_mace_and_nequip(tmp_path, file, format_, more):
    """One energy in the exported file, which is the tuned one."""
    write_frames(tmp_path, "O")
    base = tmp_path / file.removesuffix(".xz")
    base.write_bytes(lzma.decompress((REGRESSION / "data" / file).read_bytes()))
    path = config(tmp_path, f"{base}{more}", "strategy: full", epochs=4, lr=0.01)
    assert main(["finetune", str(path), "-o", str(tmp_path / "run")]) == 0
    result = metrics(tmp_path / "run")
    assert result["finetune"]["base"]["format"] == format_
    assert result["elements"] == ["O", "S"]
    assert artifact.load(tmp_path / "run" / "model.pt").outputs.keys() == {"energy", "feature", "features"}
    before = result["finetune"]["base_errors"]["test"]["forces"]["mae_meV_per_A"]
    error = force_errors(tmp_path, tmp_path / "run" / "model.pt")
    assert error == pytest.approx(result["test"]["forces"]["mae_meV_per_A"], rel=1e-9)
    assert error < 0.99 * before


@pytest.mark.slow
def test_from_a_converted_model(lithium_sulphide):
    """model.pt → fine-tuned as from the checkpoint that it was made of; one from a fine-tuning run, too."""
    folder = lithium_sulphide
    assert main(["convert", str(SEVENNET), "-o", str(folder / "base.pt"), "--dtype", "float64"]) == 0
    errors = []
    for base, out in ((SEVENNET, folder / "first"), (folder / "base.pt", folder / "second")):
        assert main(["finetune", str(config(folder, base, epochs=1)), "-o", str(out)]) == 0
        result = metrics(out)
        assert (result["elements"], result["finetune"]["base"]["format"]) == (["Li", "S"], "SevenNet")
        errors.append(result["test"]["forces"]["rmse_meV_per_A"])
    assert errors[1] == pytest.approx(errors[0], rel=1e-6)
    chained = config(folder, folder / "second" / "model.pt", "strategy: heads", epochs=1)
    assert main(["finetune", str(chained), "-o", str(folder / "third")]) == 0
    assert metrics(folder / "third")["elements"] == ["Li", "S"]


@pytest.mark.long
@pytest.mark.parametrize(
    ("file", "backbone"),
    [("sevennet", "interactions."), ("mace_density_agnesi_zbl.model.xz", "layers.0.interaction")],
)
def test_heads_leave_a_foreign_backbone_alone(tmp_path, file, backbone):
    """Bit for bit, in the precision of the training."""
    base = SEVENNET
    if file != "sevennet":
        base = tmp_path / "m.model"
        base.write_bytes(lzma.decompress((REGRESSION / "data" / file).read_bytes()))
    write_frames(tmp_path, "Li" if file == "sevennet" else "O")
    path = config(tmp_path, base, "strategy: heads")
    assert main(["finetune", str(path), "-o", str(tmp_path / "run")]) == 0
    tuned = native.read(tmp_path / "run" / "checkpoint.ckpt")
    old = checkpoints.read(base, tuned.elements).potential.to(torch.float64)
    n_heads = old.n_layers + 1
    new, same = tuned.potential.state_dict(), set()
    for name, value in old.state_dict().items():
        # reading the weights of a contraction solves a least-squares problem, to the last bits
        solved = "contraction" in name and torch.allclose(new[name], value, rtol=1e-12, atol=1e-13)
        if solved or torch.equal(new[name], value):
            same.add(name)
        else:
            assert old.stage(name) == n_heads, name
    assert any(name.startswith(backbone) for name in same)
    assert len(same) < len(new)


DYNAMICS = """
base: {{checkpoint: {base}}}
finetune: {{strategy: distill, dynamics: {{{dynamics}}}}}
data: {{train: train.extxyz, validation: 0.25}}
model: {{family: nequip, cutoff: 3.5, num_layers: 1, num_features: 3, radial_mlp: [4]}}
training: {{epochs: 2, batch_size: 3, devices: 1, dtype: float64}}
"""


@pytest.mark.slow
@pytest.mark.usefixtures("native_build", "warm_start")
def test_a_student_of_structures_from_the_teachers_dynamics(tmp_path, capsys):
    """LAMMPS runs the teacher; the student learns the teacher's labels of those frames."""
    solid = bulk("NaCl", "rocksalt", a=5.2).repeat((2, 2, 1))
    solid.symbols = ["Li" if s == "Na" else "S" for s in solid.symbols]
    solid.rattle(0.05, seed=1)
    write(tmp_path / "train.extxyz", solid)
    dynamics = "temperatures: [150, 300], steps: 40, dump_interval: 10, timestep: 0.5"
    path, out = tmp_path / "d.yaml", tmp_path / "run"
    path.write_text(DYNAMICS.format(base=SEVENNET, dynamics=dynamics))
    assert main(["finetune", str(path), "-o", str(out)]) == 0
    assert "dynamics of the base in lammps: 2 runs" in capsys.readouterr().out
    result = metrics(out)
    n = result["train"]["n_structures"] + result["validation"]["n_structures"]
    assert n >= 1 + 2 * 4
    trajectory = read(out / "dynamics" / "lammps" / "T0300_seed1" / "trajectory.lammpstrj", ":")
    spread = np.ptp([atoms.positions for atoms in trajectory], axis=0).max()
    assert 0.01 < spread < 2.0
    teacher, student = artifact.load(out / "dynamics" / "teacher.pt"), artifact.load(out / "model.pt")
    assert (teacher.elements, student.elements) == (("Li", "S"), ("Li", "S"))
    # extended: the MD is not run again
    before = (out / "dynamics" / "lammps" / "T0300_seed1" / "trajectory.lammpstrj").stat().st_mtime_ns
    path.write_text(path.read_text().replace("epochs: 2", "epochs: 3"))
    assert main(["finetune", str(path), "-o", str(out)]) == 0
    assert (out / "dynamics" / "lammps" / "T0300_seed1" / "trajectory.lammpstrj").stat().st_mtime_ns == before
    assert metrics(out)["epochs"] == 3


@pytest.mark.parametrize(
    ("dynamics", "text"),
    [
        ("steps: 100", "finetune.dynamics: missing key 'temperatures'"),
        ("temperatures: 300, stepz: 100", "unknown key 'stepz': did you mean 'steps'?"),
        ("temperatures: 300, steps: 100, model: m.pt", "leave 'model' out: the base runs"),
        ("temperatures: 300, steps: 100, structure: no.xyz", "no such structure file"),
    ],
)
def test_wrong_dynamics_are_refused_before_anything_is_written(lithium_sulphide, capsys, dynamics, text):
    path, out = lithium_sulphide / "d.yaml", lithium_sulphide / "run"
    path.write_text(DYNAMICS.format(base=SEVENNET, dynamics=dynamics))
    assert main(["finetune", str(path), "-o", str(out)]) == 2
    assert text in capsys.readouterr().err
    assert not out.exists()


def test_heads_are_named_where_there_are_several(tmp_path, capsys):
    write_frames(tmp_path, "O")
    base = tmp_path / "two.model"
    base.write_bytes(lzma.decompress((REGRESSION / "data" / "mace_two_heads.model.xz").read_bytes()))
    assert main(["finetune", str(config(tmp_path, base)), "-o", str(tmp_path / "run")]) == 2
    assert "has the heads a, b; choose one" in capsys.readouterr().err
    path = config(tmp_path, f"{SEVENNET}, head: a")
    assert main(["finetune", str(path), "-o", str(tmp_path / "run")]) == 2
    assert "task 'a' of a SevenNet of one fidelity" in capsys.readouterr().err


def test_bad_input_is_refused_before_anything_is_written(lithium_sulphide, capsys):
    folder, out = lithium_sulphide, lithium_sulphide / "run"

    def refused(path, *words):
        assert main(["finetune", str(path), "-o", str(out)]) == 2
        error = capsys.readouterr().err
        for word in words:
            assert word in error
        assert not out.exists()

    refused(config(folder, "nothing.pth"), "no such checkpoint: 'nothing.pth'")
    refused(config(folder, folder / "train.extxyz"), "train.extxyz")
    refused(config(folder, SEVENNET, "strategy: frozen"), "unknown strategy 'frozen'", "Valid: ")
    refused(config(folder, SEVENNET, "strategy: heads, rank: 3"), "'rank' is an option of 'lora'")
    refused(config(folder, SEVENNET, "strategy: freeze:9"), "the base has 3 layers")
    refused(config(folder, f"{SEVENNET}, elements: [Li, P]"), "the data hold S, which the list leaves out")
    refused(config(folder, SEVENNET, "strategy: replay, structures: no.xyz"), "no such data file: 'no.xyz'")
    model = folder / "model.pt"
    potential = toy.base().potential
    save(potential, model, ModelCard("nequip", toy.ELEMENTS, [0.0, 0.0]), "float64")
    refused(config(folder, model), "not an intact model.pt (KeyError: 'hyperparameters')")
    frames = [s.to_atoms() for s in toy.labelled(potential, toy.frames(4, 0))]
    write(folder / "train.extxyz", frames)
    write(folder / "test.extxyz", [s.to_atoms() for s in toy.labelled(potential, toy.frames(2, 1))])
    refused(config(folder, SEVENNET), "train.extxyz, frame 0", "Ar, Ne that the base does not know")
