"""The learning loop: what it learns, what it refuses, and that it continues from whatever a kill leaves."""

import json
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write

from mlplugins import MLCalculator
from mlplugins.cli import main
from mlplugins.errors import BadInput, RunFailed
from mlplugins.observer import Silent
from mlplugins.workflows import _learn_given as given
from mlplugins.workflows import _learn_judge as judging
from mlplugins.workflows import _learn_round as rounds
from mlplugins.workflows import learn as module
from mlplugins.workflows._learn_config import load
from mlplugins.workflows.learn import learn
from tests import warm

REGULARISATION = {"energy": 1e-3, "forces": 0.02, "virial": 0.01}
GAP = {"family": "soap-gap", "cutoff": 3.8, "n_max": 3, "l_max": 2, "two_body": 6}


def _config(folder, **changes):
    """Copper: cold frames at the start, exploration near and above melting."""
    cell = bulk("Cu", cubic=True) * (2, 1, 1)
    frames = [cell.copy() for _ in range(6)]
    for seed, atoms in enumerate(frames):
        atoms.rattle(0.03, seed=seed)
    write(folder / "start.extxyz", frames)
    write(folder / "cu.extxyz", cell)
    content = {
        "start": {"frames": str(folder / "start.extxyz")},
        "labels": {"kind": "emt"},
        "model": GAP,
        "training": {"n_sparse": 60, "regularisation": REGULARISATION},
        "uncertainty": {"method": "gp"},
        "explore": {
            "structures": [str(folder / "cu.extxyz")],
            "temperatures": [2500],
            "steps": 60,
            "segments": 2,
            "timestep": 4.0,
            "stop_above": 3.0,
        },
        "select": {"n": 6, "per_trajectory": 6, "cutoff": 3.8},
        "until": {"expected_error": 0.1, "rounds": 2},
    }
    return {**content, **changes}


def _auxiliary(folder):
    """Warm networks, beside which a second one learns from energies alone; what is unusual is a candidate."""
    content = _config(folder, model={"family": "nequip", "cutoff": 3.8, "num_layers": 1, "num_features": 4})
    content |= {"training": {"epochs": 4, "lr": 0.02}, "warm": 0.5, "test": str(folder / "start.extxyz")}
    content["uncertainty"] = {"method": "auxiliary", "threshold": "mad"}
    content["explore"] = {**content["explore"], "temperatures": [300], "steps": 20, "segments": 1}
    content["select"] = {**content["select"], "n": 2, "checks": 2}
    frames = read(folder / "start.extxyz", ":")
    for atoms in frames:
        atoms.rattle(0.03, seed=9)
    write(folder / "begin.extxyz", frames)
    content["start"] = {"frames": str(folder / "begin.extxyz")}
    return content


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A loop of two rounds, of which the second was asked for when the first was over."""
    folder = tmp_path_factory.mktemp("learned")
    config = _config(folder)
    with warm.starts():
        short = learn({**config, "until": {**config["until"], "rounds": 1}}, folder / "loop")
        assert "1 rounds" in short.stopped
        found = learn(config, folder / "loop")
    assert found.final["n_train"] == short.final["n_train"] + found.rounds[1]["n_chosen"] - 1
    return found, folder


@pytest.mark.long
def test_it_learns_what_the_exploration_meets(learned):
    found, _ = learned
    assert "2 rounds ('until.rounds')" in found.stopped
    first, second = found.rounds
    assert min(first["n_chosen"], second["n_chosen"]) >= 4  # at least the checks
    assert second["n_train"] > first["n_train"]
    data = read(found.folder / "dataset.extxyz", ":")
    hot = [atoms for atoms in data if np.abs(atoms.get_forces()).max() > 1.0][-3:]
    assert len(hot) == 3
    for atoms in data[:3]:  # labels are those of the code
        forces = atoms.get_forces()
        atoms.calc = EMT()
        np.testing.assert_allclose(forces, atoms.get_forces(), atol=1e-6)
    errors = {}
    for name in ("round_00/model_0/model.pt", "model.pt"):
        calculator = MLCalculator(found.folder / name)
        errors[name] = np.mean([np.square(_forces(a, calculator) - _forces(a, EMT())).mean() for a in hot])
    assert errors["model.pt"] < 0.25 * errors["round_00/model_0/model.pt"]


def _forces(atoms, calculator):
    atoms = atoms.copy()
    atoms.calc = calculator
    return atoms.get_forces()


@pytest.mark.long
def test_the_surprise_is_before_learning(learned):
    """Recomputed here from the model of the round and the labels."""
    found, _ = learned
    for each in found.rounds:
        folder = found.folder / f"round_{each['round']:02d}"
        calculator = MLCalculator(folder / "model_0" / "model.pt")
        errors = [_forces(a, calculator) - _forces(a, EMT()) for a in read(folder / "selected.extxyz", ":")]
        rmse = np.sqrt(np.mean(np.concatenate(errors) ** 2))
        assert each["surprise"]["forces_rmse_eV_A"] == pytest.approx(rmse, rel=1e-3)


@pytest.mark.long
def test_nothing_set_aside_is_learned_from(learned):
    found, _ = learned
    held = {atoms.info["label_hash"] for atoms in read(found.folder / "final/held_out.extxyz", ":")}
    assert len(held) == 4  # two of the start, one of every round
    for path in [*found.folder.glob("round_*/train.extxyz"), found.folder / "final/train.extxyz"]:
        assert not held & {atoms.info["label_hash"] for atoms in read(path, ":")}


@pytest.mark.long
def test_the_report(learned):
    found, _ = learned
    text = (found.folder / "report.html").read_text()
    assert "target of 0.1 eV/Å was not reached" in text
    assert text.count("<img") == 2
    assert "check: least certain" in text


@pytest.mark.long
def test_the_same_call_continues_from_any_file(learned, tmp_path, warm_start):
    """As a kill leaves a round: whatever was to come is missing, a segment has a half-written folder."""
    found, folder = learned
    loop = tmp_path / "loop"
    shutil.copytree(found.folder, loop)
    last = loop / "round_01"
    before = {path.name: path.stat().st_mtime_ns for path in loop.glob("labels/*/label.extxyz")}
    for name in ("round.json", "surprise.json", "selected.extxyz", "explore/0_T2500_0.json"):
        (last / name).unlink()
    (last / "explore/0_T2500_0.work/ase").mkdir(parents=True)
    (last / "explore/0_T2500_0.work/ase/junk").touch()
    for path in ("model.pt", "dataset.extxyz", "report.html", "final/final.json"):
        (loop / path).unlink()
    again = learn(_config(folder), loop)
    assert (loop / "dataset.extxyz").read_bytes() == (found.folder / "dataset.extxyz").read_bytes()
    assert again.final == found.final
    assert len(list(loop.glob("labels/*/attempt_*"))) == len(list(loop.glob("labels/*/label.extxyz")))
    assert before == {path.name: path.stat().st_mtime_ns for path in loop.glob("labels/*/label.extxyz")}


DAMAGED = (
    "learn.json",
    "labels/labels.json",
    "labels/*/label.extxyz",
    "final/final.json",
    "final/train.extxyz",
)
OF_A_ROUND = ("selected.extxyz", "surprise.json", "round.json", "explore/0_T2500_0.extxyz")


@pytest.mark.long
def test_damaged_files_are_named_and_made_again_as_the_message_says(learned, tmp_path, warm_start):
    """One after the other, half of each file gone; no label is lost, and the end is the same."""
    found, folder = learned
    loop = tmp_path / "loop"
    shutil.copytree(found.folder, loop)
    names = [next(iter(sorted(loop.glob(name)))) for name in DAMAGED]
    names += [loop / "round_01" / name for name in OF_A_ROUND]
    for path in names:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (loop / "round_00" / "selected.extxyz").unlink()
    (loop / "model.pt").unlink()
    named = []
    for _ in range(len(names) + 3):
        try:
            again = learn(_config(folder), loop)
            break
        except BadInput as error:
            said = str(error)
        match = re.match(r"'([^']*)' is (damaged|missing)", said)
        assert match, said
        named.append(match[1])
        if "write null into it" in said:
            Path(named[-1]).write_text("null")
        else:
            for path in re.search(r"remove (.*?), and", said)[1].replace("it", named[-1]).split(", "):
                Path(path).unlink()
    assert len(set(named)) == len(named) > len(names) - 2  # those of a round may go with one another
    ours, theirs = (read(path / "dataset.extxyz", ":") for path in (loop, found.folder))
    assert [a.info["label_hash"] for a in ours] == [a.info["label_hash"] for a in theirs]
    assert again.final["n_train"] == found.final["n_train"]
    assert (loop / "model.pt").is_file()
    assert len(list(loop.glob("labels/*/attempt_*"))) == len(theirs) + 1


@pytest.mark.long
def test_another_configuration_is_refused(learned):
    found, folder = learned
    other = _config(folder)
    other["explore"] = {**other["explore"], "temperatures": [900]}
    with pytest.raises(BadInput, match=r"'explore.temperatures' was \[2500.0\], is \[900.0\]"):
        learn(other, found.folder)
    (folder / "elsewhere").mkdir(exist_ok=True)
    (folder / "elsewhere" / "thesis.tex").touch()
    with pytest.raises(BadInput, match="holds no learning loop"):
        learn(_config(folder), folder / "elsewhere")


def test_the_choice_is_far_from_what_is_there(tmp_path):
    """Of frames alike one is taken, and none that is like a frame learned from, however uncertain."""
    loop = rounds.Loop(load(_config(tmp_path)), tmp_path)
    known = bulk("Cu", cubic=True, a=3.6)
    pool = [bulk("Cu", cubic=True, a=a) for a in (3.601, 3.602, 3.9, 3.901, 3.902, 3.4)]
    for k, atoms in enumerate(pool):
        atoms.info["expected_error"] = 1.0 - 0.1 * k
    chosen = rounds._chosen(loop, 0, pool, 2, rounds.Sets([known], []))
    lengths = sorted(atoms.cell.lengths()[0] for atoms in chosen)
    assert lengths == pytest.approx([3.4, 3.9], abs=0.003)
    assert all(atoms.info["reason"] == "farthest of 6" for atoms in chosen)


def test_frames_at_which_runs_were_left_come_last(tmp_path):
    loop = rounds.Loop(load(_config(tmp_path)), tmp_path)
    frames = [bulk("Cu") for _ in range(4)]
    for atoms, error in zip(frames, (0.2, 50.0, 2.9, 1.0)):
        atoms.info["expected_error"] = error
    ranked = sorted(frames, key=lambda atoms: rounds._rank(loop, atoms))
    assert [atoms.info["expected_error"] for atoms in ranked] == [2.9, 1.0, 0.2, 50.0]


@pytest.mark.long
def test_rounds_with_an_auxiliary_model_begin_with_those_before(tmp_path, warm_start):
    """Warm: for a part of the epochs; the model of all labels begins anew. The auxiliary
    model learns from energies alone, the first one drives, and is what the loop gives."""
    content = _auxiliary(tmp_path)
    frames = read(tmp_path / "begin.extxyz", ":")
    found = learn(content, tmp_path / "loop")
    assert len(found.rounds) == 2
    for number, weight in enumerate((True, False)):
        runs = {}
        for name in ("round_00", "round_01", "final"):
            metrics = json.loads((found.folder / name / f"model_{number}/metrics.json").read_text())
            training = metrics["configuration"]["training"]
            assert (training["loss"]["forces"] > 0) == (training["loss"]["stress"] > 0) == weight
            base = metrics["configuration"].get("base", {}).get("checkpoint")
            runs[name] = base, metrics["epochs"], training["lr"]
        assert runs["round_00"] == runs["final"] == (None, 4, 0.02)
        before = str(found.folder / f"round_00/model_{number}")
        assert runs["round_01"] == (before, 2, 0.02)
    folder = found.folder / "round_00"
    said = json.loads((folder / "calibration.json").read_text())
    energies = [
        [MLCalculator(folder / f"model_{k}/model.pt").get_potential_energy(atoms) for atoms in frames_of_test]
        for k in range(2)
        for frames_of_test in [read(folder / "held_out.extxyz", ":")]
    ]
    apart = np.abs(np.subtract(*energies))
    limit = np.median(apart) + 3 * np.median(np.abs(apart - np.median(apart)))
    assert said["unusual"] == pytest.approx(limit, rel=1e-5)
    for each in found.rounds:
        explored = [
            a
            for run in each["runs"]
            for name in run["files"]
            for a in read(found.folder / f"round_{each['round']:02d}/explore" / name, ":")
        ]
        above = [a.info["expected_error"] > each["scale"] * said["unusual"] for a in explored]
        assert sum(above) == each["n_above"]
    driver = MLCalculator(found.folder / "final/model_0/model.pt")
    assert MLCalculator(found.model).get_potential_energy(frames[0]) == driver.get_potential_energy(frames[0])


def test_labels_computed_elsewhere(tmp_path, capsys):
    """The command says what it waits for; with the labels it goes on (to the next wait)."""
    content = _config(tmp_path, labels={"kind": "emt", "jobs": 1})
    path = tmp_path / "learn.yaml"
    path.write_text(json.dumps(content))
    words = ["learn", str(path), "-o", str(tmp_path / "loop"), "--json", str(tmp_path / "out.json")]
    assert main.main(words) == 1
    assert "waiting for 6 labels: submit" in capsys.readouterr().out
    assert json.loads((tmp_path / "out.json").read_text())["waiting"] == 6


def test_most_labels_failing_ends_the_loop(tmp_path):
    loop = module.Loop(load(_config(tmp_path)), tmp_path)
    failed = [{"reason": "the SCF did not converge", "folder": "labels/abc"}] * 5
    with pytest.raises(RunFailed, match="5 of 8 labels failed, e.g. the SCF did not converge"):
        module._require_labels(loop, {"round": 3, "failed": failed, "n_chosen": 8})
    module._require_labels(loop, {"round": 3, "failed": failed, "n_chosen": 12})


def test_too_few_frames_are_refused(tmp_path):
    """Before anything is recorded; and too few labels, with the reason of those that failed."""
    content = _config(tmp_path)
    few = {**content, "start": {"frames": str(tmp_path / "start.extxyz@:3")}}
    with pytest.raises(BadInput, match="1 different frames to learn from, once 2 are set aside; .* least 2"):
        learn(few, tmp_path / "loop")
    assert not (tmp_path / "loop" / "learn.json").exists()
    wrong = {**content, "labels": {"kind": "emt", "max_force": 1e-3}}
    with warm.starts(), pytest.raises(RunFailed, match="0 labelled frames .* 6 failed, e.g. a force of"):
        learn(wrong, tmp_path / "loop")


@pytest.mark.long
def test_labels_of_another_level_of_theory_are_refused(tmp_path, monkeypatch):
    """Start frames that have energies 0.2 eV/atom apart from those of the code, then its own; then a test."""
    config = _config(tmp_path)
    config["start"]["labelled"] = True
    folder = tmp_path / "loop"
    monkeypatch.setattr(module, "_until_enough", lambda loop, start, test, done: len(start))
    frames = read(config["start"]["frames"], ":")
    single = Atoms("Cu", cell=[9, 9, 9], pbc=True)  # as of other settings, which is usual
    single.calc = SinglePointCalculator(single, energy=-7.0, forces=np.zeros((1, 3)))
    for shift in (0.2, 0.0):
        labelled = [single]
        for atoms in frames:
            copy = atoms.copy()
            copy.calc = EMT()
            energy, forces = copy.get_potential_energy() + shift * len(copy), copy.get_forces()
            copy.calc = SinglePointCalculator(copy, energy=energy, forces=forces)
            labelled.append(copy)
        write(tmp_path / "start.extxyz", labelled)
        if shift:
            text = r"{kind: emt}' differ by 0.2 eV/atom and .* one level of theory"
            with warm.starts(), pytest.raises(BadInput, match=text):
                learn(config, folder)
            assert [path.name for path in folder.iterdir()] == ["lock"]  # free for other settings
        else:
            for _ in range(2):
                assert learn(config, folder) == 7
            assert (folder / f"start{given.CHECKED}").exists()
            assert len(list((folder / "labels").glob("*/label.extxyz"))) == 7
    of_test = {"frames": str(tmp_path / "test.extxyz"), "labelled": True}
    atoms = frames[0].copy()
    atoms.rattle(0.02)
    atoms.calc = EMT()
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    for shift in (5.0, 0.0):
        atoms.calc = SinglePointCalculator(atoms, energy=energy + shift, forces=forces)
        write(of_test["frames"], atoms)
        if shift:
            with pytest.raises(
                BadInput, match=r"'test.labelled': of the frame with 8 atoms .* 0.625 eV/atom"
            ):
                learn({**config, "test": of_test}, tmp_path / "with_test")
        else:
            learn({**config, "test": of_test}, tmp_path / "with_test")
            assert len(list((tmp_path / "with_test/labels").glob("*/label.extxyz"))) == 8


@pytest.mark.long
def test_what_a_training_says_of_the_labels_is_passed_on(tmp_path):
    """Labels with energies in hartree: their differences and the work of the forces disagree."""
    config = load(_config(tmp_path))
    frames = []
    for seed in range(14):
        atoms = bulk("Cu", cubic=True) * (2, 1, 1)
        atoms.rattle(0.05, seed=0)
        atoms.rattle(0.01, seed=seed)
        atoms.calc = EMT()
        energy, forces = atoms.get_potential_energy() / 27.2114, atoms.get_forces()
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        frames.append(atoms)
    heard = []

    class Listener(Silent):
        def note(self, text):
            heard.append(text)

    loop = rounds.Loop(config, tmp_path, Listener())
    rounds.train(loop, tmp_path / "round", rounds.Sets(frames[2:], frames[:2]))
    assert [text for text in heard if text.startswith("training: ") and "hartree" in text]


@pytest.mark.long
def test_frames_of_an_ion_are_labelled_as_an_ion(tmp_path):
    """The charge of a structure is that of the frames that are explored from it."""
    content = _config(tmp_path, until={"expected_error": 0.1, "rounds": 1})
    content["explore"] |= {"steps": 20, "segments": 2}
    for name in ("start", "cu"):
        frames = read(tmp_path / f"{name}.extxyz", ":")
        for atoms in frames:
            atoms.info["charge"] = 1
        write(tmp_path / f"{name}.extxyz", frames)
    with warm.starts():
        learn(content, tmp_path / "loop")
    labels = [read(path) for path in (tmp_path / "loop" / "labels").glob("*/label.extxyz")]
    assert len(labels) > 6
    assert all(atoms.info["charge"] == 1 for atoms in labels)


def test_expected_errors_have_the_size_of_the_true_ones():
    rng = np.random.default_rng(0)
    deviations = rng.uniform(0.1, 2.0, 4000)
    errors = np.abs(rng.normal(0.0, 3.0 * deviations))
    part = judging.Surprise(deviations, errors, np.ones((3, 2)), np.zeros(3))
    assert judging.scale_of(part) == pytest.approx(3.0, rel=0.05)
    assert part.record(3.0)["ratio_rms"] == pytest.approx(1.0, rel=0.05)


KILLS = 30
DRIVER = """
import sys, json, warnings
warnings.simplefilter("ignore")
from mlplugins.workflows.learn import learn
learn(json.load(open(sys.argv[1])), sys.argv[2])
"""


def _number_of_files(folder):
    try:
        return sum(1 for _ in folder.rglob("*"))
    except OSError:  # one went while they were counted
        return 0


@pytest.mark.exhaustive
@pytest.mark.parametrize("content", [_config, _auxiliary])
def test_killed_at_random_moments(content, tmp_path, warm_start):
    """The same data set as undisturbed, each label computed once. Moments are counted in files that appear,
    and a random part of a second more: on any machine they are spread over the whole loop."""
    (tmp_path / "learn.json").write_text(json.dumps(content(tmp_path)))
    found = learn(json.loads((tmp_path / "learn.json").read_text()), tmp_path / "undisturbed")
    (tmp_path / "driver.py").write_text(DRIVER)
    loop = tmp_path / "loop"
    words = [sys.executable, str(tmp_path / "driver.py"), str(tmp_path / "learn.json"), str(loop)]
    rng, kills = random.Random(0), 0
    while kills < KILLS and not (loop / "dataset.extxyz").exists():
        driver = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
        wanted = _number_of_files(loop) + rng.randint(1, 3)
        while driver.poll() is None and _number_of_files(loop) < wanted:
            time.sleep(0.02)
        time.sleep(rng.uniform(0.0, 0.3))
        if driver.poll() is None:
            kills += 1
        driver.kill()
        error = driver.communicate()[1]
        assert driver.returncode in (0, -signal.SIGKILL), error
    driver = subprocess.run(words, capture_output=True, text=True)
    assert driver.returncode == 0, driver.stderr
    print(f"{kills} kills")
    assert kills > KILLS // 2  # a few large steps may end it sooner
    ours, theirs = (read(path / "dataset.extxyz", ":") for path in (loop, found.folder))
    assert [a.info["label_hash"] for a in ours] == [a.info["label_hash"] for a in theirs]
    for a, b in zip(ours, theirs):
        assert a.get_potential_energy() == b.get_potential_energy()
        np.testing.assert_array_equal(a.get_forces(), b.get_forces())
    assert MLCalculator(loop / "model.pt").get_potential_energy(ours[-1]) == pytest.approx(
        MLCalculator(found.model).get_potential_energy(ours[-1]), abs=1e-9
    )
    for path in Path(loop / "labels").glob("*/structure.extxyz"):
        assert (path.parent / "label.extxyz").exists()
        assert not list(path.parent.glob("attempt_*/outcome.json"))
