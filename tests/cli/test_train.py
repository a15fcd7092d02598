import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from ase.io import read, write

from mlplugins.checkpoints import native
from mlplugins.cli.main import main
from mlplugins.errors import BadInput, RunFailed
from mlplugins.model_file import artifact


def train(config, directory, *more) -> int:
    return main(["train", str(config), "-o", str(directory), *more])


def weights(directory) -> torch.Tensor:
    potential = native.read(directory / "checkpoint.ckpt").potential
    return torch.cat([p.detach().ravel() for p in potential.parameters()])


def metrics(directory) -> dict:
    return json.loads((directory / "metrics.json").read_text())


def test_a_run_leaves_model_metrics_log_and_pictures(finished):
    folder, printed = finished
    out = folder / "run"
    assert {p.name for p in out.iterdir()} == {
        "model.pt",
        "checkpoint.ckpt",
        "metrics.json",
        "log.csv",
        *(f"{name}.{kind}" for name in ("learning", "parity") for kind in ("png", "pdf")),
    }
    result = metrics(out)
    assert (result["epochs"], result["steps"], result["stopped"]) == (4, 16, "all epochs done")
    assert [result[part]["n_structures"] for part in ("train", "validation", "test")] == [12, 4, 4]
    assert result["n_parameters"] > 0
    assert result["configuration"]["training"]["batch_size"] == 3
    assert set(result["versions"]) >= {"mlplugins", "torch", "python"}
    assert len(result["data_sha256"]["train"]) == 64
    assert result["finite_differences"]["max_error_meV_per_A"] < 1e-3
    assert result["finite_differences"]["max_force_meV_per_A"] > 1
    assert json.loads((folder / "o.json").read_text())["test"] == result["test"]
    with (out / "log.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert float(rows[-1]["validation_stress_rmse_meV_per_A3"]) > 0
    assert "ready for ASE, LAMMPS and i-PI" in printed


def test_exported_model_reproduces_the_validation_of_the_log(finished):
    """What is exported is what was validated: the averaged weights of the best epoch."""
    out = finished[0] / "run"
    result = metrics(out)
    with (out / "log.csv").open() as stream:
        row = list(csv.DictReader(stream))[result["best_epoch"] - 1]
    logged = float(row["validation_forces_mae_meV_per_A"])
    assert result["validation"]["forces"]["mae_meV_per_A"] == pytest.approx(logged, rel=1e-9)


@pytest.mark.slow
@pytest.mark.usefixtures("warm_start")
@pytest.mark.parametrize("kills", [[7], pytest.param([4, 11], marks=pytest.mark.exhaustive)])
def test_kill_and_start_again_gives_the_same_result(project, tmp_path, kills):
    """kill -9 in the middle; the last start ends with the weights of an undisturbed run."""
    config = project(epochs=24, more="checkpoint_seconds: 0.0, ema: 0.95")
    train(config, tmp_path / "whole")
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "mlplugins.cli.main", "train", str(config), "-o", str(out)]
    for wanted in kills:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while _rows(out / "log.csv") < wanted and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert process.poll() is None, "the run ended before it could be killed"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not (out / "model.pt").exists()
    assert main(command[3:]) == 0
    torch.testing.assert_close(weights(out), weights(tmp_path / "whole"), rtol=0, atol=1e-12)
    for name in ("best_epoch", "epochs", "steps"):
        assert metrics(out)[name] == metrics(tmp_path / "whole")[name]
    assert metrics(out)["test"]["forces"] == pytest.approx(
        metrics(tmp_path / "whole")["test"]["forces"], rel=1e-9
    )
    assert _rows(out / "log.csv") == 24


@pytest.mark.slow
@pytest.mark.usefixtures("warm_start")
def test_interrupt_writes_a_checkpoint_and_says_how_to_continue(project, tmp_path):
    config, out = project(epochs=100000), tmp_path / "run"
    command = [sys.executable, "-m", "mlplugins.cli.main", "train", str(config), "-o", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while _rows(out / "log.csv") < 3 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not (out / "checkpoint.ckpt").exists()
    process.send_signal(signal.SIGTERM)
    printed, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "the same command continues" in printed
    assert "interrupted" in errors
    assert native.read(out / "checkpoint.ckpt").elements == ["Ar"]


def _rows(path) -> int:
    return max(0, len(path.read_text().splitlines()) - 1) if path.exists() else 0


@pytest.mark.slow
@pytest.mark.usefixtures("warm_start")
def test_two_processes_train_together(project, tmp_path):
    """Data-parallel on two CPU processes: every rank has the same weights, one writes the files."""
    config = project(epochs=4, more="accelerator: cpu")
    config.write_text(config.read_text().replace("devices: 1", "devices: 2"))
    out = tmp_path / "run"
    command = [sys.executable, "-m", "mlplugins.cli.main", "train", str(config), "-o", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    result = metrics(out)
    assert result["steps"] == 4 * 2  # 12 frames, 2 ranks, 3 per rank and step
    assert _rows(out / "log.csv") == 4
    assert done.stdout.count("ready for ASE, LAMMPS and i-PI") == 1


@pytest.mark.long
def test_a_longer_run_continues_and_another_configuration_is_refused(project, finished, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(finished[0] / "run", out)
    assert train(project(epochs=5), out) == 0
    assert (metrics(out)["epochs"], _rows(out / "log.csv")) == (5, 5)
    other = project(epochs=3, more="ema: 0.5", name="other.yaml")
    assert train(other, out) == 2
    assert train(other, out, "--restart") == 0
    assert metrics(out)["steps"] == 12
    assert (out / "checkpoint.old.ckpt").exists()


def test_other_data_are_refused(project, finished, tmp_path, capsys):
    out = tmp_path / "run"
    config = project(epochs=4)
    shutil.copytree(finished[0] / "run", out)
    frames = read(tmp_path / "train.extxyz", ":")
    write(tmp_path / "train.extxyz", frames[1:])
    assert train(config, out) == 2
    error = capsys.readouterr().err
    assert "belongs to another run" in error
    assert "train data" in error


def _without_forces(frames):
    for atoms in frames:
        del atoms.calc.results["forces"]


def _nan(frames):
    frames[3].calc.results["forces"][2, 1] = np.nan


def _mixed(frames):
    frames[4].pbc = False


def _flat(frames):
    frames[2].cell[2] = 0.0


def _leak(frames):
    frames[1] = read("test.extxyz", "0")


def _relabelled(frames):
    frames[1] = frames[0].copy()
    frames[1].calc = frames[2].calc


def _element(frames):
    frames[:] = [atoms for atoms in frames]
    test = read("test.extxyz", ":")
    test[0].symbols[1] = "Kr"
    write("test.extxyz", test)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_without_forces, ["train.extxyz, frame 0", "no forces", "energy, stress", "data.keys"]),
        (_nan, ["train.extxyz, frame 3", "forces is nan at atom 2", "finite"]),
        (_mixed, ["mixed pbc", "train.extxyz, frame 4 has F F F", "data.mixed_pbc: true"]),
        (_flat, ["train.extxyz, frame 2", "zero volume"]),
        (_leak, ["duplicate frames", "1 test frame", "train.extxyz, frame 1"]),
        (_relabelled, ["duplicate frames with different labels", "frame 0", "frame 1"]),
        (_element, ["test.extxyz, frame 0", "Kr not among the model's Ar"]),
    ],
)
def test_bad_data_are_refused_before_anything_is_written(
    project, tmp_path, monkeypatch, capsys, spoil, words
):
    monkeypatch.chdir(tmp_path)
    frames = read("train.extxyz", ":")
    spoil(frames)
    write("train.extxyz", frames)
    assert train(project(), tmp_path / "run") == 2
    error = capsys.readouterr().err
    for word in words:
        assert word in error
    assert not (tmp_path / "run").exists()


def test_energies_alone_are_enough_if_forces_have_no_weight(project, tmp_path):
    frames = read(tmp_path / "train.extxyz", ":")
    _without_forces(frames)
    write(tmp_path / "train.extxyz", frames)
    assert train(project(more="loss: {forces: 0}"), tmp_path / "run") == 0
    assert metrics(tmp_path / "run")["train"]["forces"] is None


def test_bad_configuration_and_family_without_parameters(project, tmp_path, capsys):
    config = project()
    config.write_text(config.read_text().replace("batch_size", "batchsize"))
    assert train(config, tmp_path / "run") == 2
    assert "unknown key 'training.batchsize': did you mean 'batch_size'?" in capsys.readouterr().err
    config.write_text("data: {train: train.extxyz}\nmodel: {family: lennard-jones}\n")
    assert train(config, tmp_path / "run") == 2
    assert "'lennard-jones' has no trainable parameters" in capsys.readouterr().err


def test_output_folder_that_is_a_file(project, tmp_path, capsys):
    (tmp_path / "run").write_text("")
    assert train(project(), tmp_path / "run") == 2
    assert "a file; expected the name of a folder" in capsys.readouterr().err


def test_export_dtype_and_portable(project, tmp_path):
    config = project()
    config.write_text(config.read_text() + "export: {dtype: float32, portable: true}\n")
    train(config, tmp_path / "run")
    model = artifact.load(tmp_path / "run" / "model.pt")
    assert model.dtype == "float32"
    assert model.record["portable"] is True
    assert model.record["configuration"]["seed"] == 3


@pytest.mark.slow
def test_the_demo_data_are_learned_in_seconds(li6ps5cl, tmp_path):
    """Force error well below the spread of the forces (0.75 eV/Å rms) and of no training (MAE 510 meV/Å)."""
    config = tmp_path / "c.yaml"
    config.write_text(
        f"data: {{train: {li6ps5cl}/train.extxyz, test: {li6ps5cl}/test.extxyz}}\n"
        "model: {family: nequip, cutoff: 4.5, num_layers: 2, num_features: 8, radial_mlp: [16]}\n"
        "training: {epochs: 12, batch_size: 2, devices: 1}\n"
    )
    assert train(config, tmp_path / "run") == 0
    result = metrics(tmp_path / "run")
    forces = np.concatenate([a.get_forces().ravel() for a in read(li6ps5cl / "test.extxyz", ":")])
    assert result["test"]["forces"]["mae_meV_per_A"] < 0.4 * 1000 * np.abs(forces).mean()
    assert result["composition_rank"] == 1
    assert len(set(result["composition_eV"].values())) == 1
    assert "1 independent composition(s) for 4 elements" in result["warnings"][0]


def test_errors_of_this_file_are_the_expected_classes():
    assert BadInput.exit_code == 2
    assert RunFailed.exit_code == 1


@pytest.mark.long
def test_a_committee_is_trained_with_several_seeds(project, tmp_path, capsys):
    """In folders of their own, which the same command finds finished, and in one file."""
    config, out = project(epochs=1), tmp_path / "run"
    assert train(config, out, "--committee", "2", "--json", str(tmp_path / "o.json")) == 0
    members = [out / f"member_{k}" for k in (1, 2)]
    assert [metrics(member)["configuration"]["seed"] for member in members] == [3, 4]
    first, second = map(weights, members)
    assert (first - second).abs().max() > 0.01
    atoms = read(tmp_path / "test.extxyz", 0)
    each = [artifact.load(member).evaluate([atoms])[0].energy for member in members]
    found = artifact.load(out / "model.pt").evaluate([atoms], uncertainty=True)[0]
    assert found.energy == pytest.approx(np.mean(each), abs=1e-12)
    assert found.uncertainty == pytest.approx(np.std(each, ddof=1), abs=1e-12)
    record = json.loads((tmp_path / "o.json").read_text())
    assert [member["configuration"]["seed"] for member in record["members"]] == [3, 4]
    assert record["committee"]["n_members"] == 2
    before = (out / "member_1" / "model.pt").stat().st_mtime_ns
    capsys.readouterr()
    assert train(config, out, "--committee", "2") == 0
    assert "this run is finished" in capsys.readouterr().out
    assert (out / "member_1" / "model.pt").stat().st_mtime_ns == before
    assert train(config, out) == 2
    assert "holds a committee" in capsys.readouterr().err
    assert train(config, members[0], "--committee", "2") == 2
    assert "holds the run of a single model" in capsys.readouterr().err


def test_committees_that_cannot_be_trained(project, tmp_path, capsys):
    assert train(project(), tmp_path / "run", "--committee", "1") == 2
    assert "expected two members or more, got 1" in capsys.readouterr().err
    closed = tmp_path / "closed.yaml"
    closed.write_text("data: {train: train.extxyz}\nmodel: {family: soap-gap, cutoff: 4.0}\n")
    assert train(closed, tmp_path / "run", "--committee", "2") == 2
    assert "solved in closed form" in capsys.readouterr().err
    joint = tmp_path / "joint.yaml"
    member = "{family: nequip, cutoff: 4.0, num_layers: 1, num_features: 2}"
    joint.write_text(
        f"data: {{train: train.extxyz}}\nmodel: {{family: committee, members: [{member}, {member}]}}\n"
    )
    assert train(joint, tmp_path / "run") == 2
    assert "its members are trained apart" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
