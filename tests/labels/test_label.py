"""Labelling frames: what comes out, what is refused, and what a store looks like after failures and kills."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.io import read, write

from mlplugins.cli import main
from mlplugins.errors import BadInput
from mlplugins.labels import espresso, fingerprint, label
from mlplugins.labels._contract import LabelFailed
from mlplugins.labels._store import LabelStore
from mlplugins.labels.calculator import labelled
from mlplugins.structures import state
from tests import warm

EMT_KIND = {"kind": "emt"}


@pytest.fixture(autouse=True)
def _warm(warm_start):
    """Workers are forks of this process."""


def _copper(count, seed=0):
    frames = []
    for number in range(count):
        atoms = bulk("Cu", cubic=True, a=3.6 + 0.01 * number)
        atoms.rattle(0.05, seed=seed + number)
        frames.append(atoms)
    return frames


def test_labels_are_those_of_the_code(tmp_path):
    frames = _copper(3)
    found = label(frames, EMT_KIND, tmp_path / "out.extxyz", tmp_path / "store")
    assert not found.failed
    assert not found.waiting
    for asked, got in zip(frames, read(tmp_path / "out.extxyz", ":")):
        asked.calc = EMT()
        assert got.get_potential_energy() == pytest.approx(asked.get_potential_energy(), abs=1e-6)
        np.testing.assert_allclose(got.get_forces(), asked.get_forces(), atol=1e-6)
        np.testing.assert_allclose(got.get_stress(), asked.get_stress(), atol=1e-7)
        assert str(got.info["label_code"]).startswith("EMT")


class Smeared(Calculator):
    """Springs to the origin with electrons whose entropy varies, as of VASP, GPAW and CASTEP: the forces are
    derivatives of the free energy."""

    implemented_properties = ("energy", "free_energy", "forces")

    def calculate(self, atoms, properties, changes):
        square = float((atoms.positions**2).sum())
        self.results = {"free_energy": square, "energy": 1.3 * square, "forces": -2.0 * atoms.positions}


def test_the_energy_of_a_label_is_the_one_that_its_forces_differentiate():
    def found(x):
        return labelled(Smeared(), Atoms("Cu2", [[x, 0, 0], [0, 1, 0]]), "springs")

    slope = (found(0.501).energy - found(0.499).energy) / 0.002
    assert found(0.5).forces[0, 0] == pytest.approx(-slope, rel=1e-9)
    copper = _copper(1)[0]
    assert labelled(EMT(), copper, "EMT").energy == pytest.approx(EMT().get_potential_energy(copper))


def test_fixed_atoms_have_forces(tmp_path):
    """A constraint belongs to a dynamics, not to a label."""
    free = _copper(1)[0]
    held = free.copy()
    held.set_constraint(FixAtoms([0, 1]))
    label([held], EMT_KIND, tmp_path / "out.extxyz", tmp_path / "store")
    free.calc = EMT()
    got = read(tmp_path / "out.extxyz").calc.results["forces"]
    assert np.linalg.norm(free.get_forces()[:2], axis=1).min() > 0.1
    np.testing.assert_allclose(got, free.get_forces(), atol=1e-6)


def test_nothing_is_labelled_twice(tmp_path):
    """Not a frame that is there twice, nor one that another call labelled."""
    frames = _copper(4)
    label(frames[:3], EMT_KIND, store=tmp_path)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/label.extxyz")}
    found = label([*frames, frames[0].copy()], EMT_KIND, store=tmp_path)
    assert len(found.frames) == 4
    assert all(path.stat().st_mtime_ns == before for path, before in times.items())
    assert len(list(tmp_path.glob("*/attempt_*"))) == 4


def test_a_store_of_other_settings_is_refused(tmp_path):
    lj = {"kind": "calculator", "calculator": "ase.calculators.lj.LennardJones", "arguments": {"sigma": 2.2}}
    label(_copper(1), lj, store=tmp_path)
    with pytest.raises(BadInput, match="'arguments' was {'sigma': 2.2}, is {'sigma': 2.3}"):
        label(_copper(1), {**lj, "arguments": {"sigma": 2.3}}, store=tmp_path)
    label(_copper(1), {**lj, "parallel": 2, "timeout": 5.0}, store=tmp_path)  # how, not what


def test_what_cannot_be_a_label_is_a_failure_with_its_reason(tmp_path):
    """Forces beyond all sense; an element that EMT does not know; the good frame between them is labelled."""
    squeezed = Atoms("Cu2", [[0, 0, 0], [0.5, 0, 0]], cell=[9, 9, 9], pbc=True)
    found = label([squeezed, _copper(1)[0], bulk("Fe")], EMT_KIND, tmp_path / "out.extxyz")
    assert len(found.frames) == 1
    reasons = [item["reason"] for item in found.failed]
    assert "'max_force' is 100 eV/Å" in reasons[0]
    assert "NotImplementedError: No EMT-potential for Fe" in reasons[1]
    record = json.loads((Path(found.failed[0]["folder"]) / "failed.json").read_text())
    assert record["attempts"][0]["reason"] == reasons[0]
    assert found.store == tmp_path / "out.labels"


def test_energies_far_from_their_composition_are_not_given_out(tmp_path):
    frames = [Atoms("Cu", cell=[9, 9, 9], pbc=True, positions=[[k, 0, 0]]) for k in range(5)]
    for number, atoms in enumerate(frames):
        atoms.info["charge"] = number
    command = "cp structure.extxyz o.xyz && sed -i 's/charge=4/energy=9/; s/charge=./energy=1/' o.xyz"
    command += " && sed -i 's/pos:R:3/pos:R:3:forces:R:3/; s/0.00000000 *0.00000000$/0 0 0 0 0/' o.xyz"
    settings = {"kind": "command", "command": command, "output": "o.xyz"}
    found = label(frames, settings, store=tmp_path)
    assert [item["reason"][:18] for item in found.failed] == ["9 eV per atom; the"]
    assert len(found.frames) == 4


def test_attempts_with_other_settings(tmp_path):
    """The second attempt has the settings of `retries`; the first stays for inspection."""
    good = "cp ../../good.extxyz out.extxyz; echo converged"
    frame = _copper(1)[0]
    frame.calc = EMT()
    frame.get_potential_energy()
    frame.get_forces()
    settings = {
        "kind": "command",
        "command": "echo electrons lost; exit 3",
        "output": "out.extxyz",
        "converged": "converged",
    }
    store = tmp_path / "s"
    failed = label([frame], settings, store=store)
    assert failed.failed[0]["reason"] == "command.log does not say 'converged'"
    folder = Path(failed.failed[0]["folder"])
    write(store / "good.extxyz", frame)
    # further settings are further attempts: nobody has to delete anything
    again = label([frame], {**settings, "retries": [{"command": good}]}, store=store)
    assert not again.failed
    assert again.frames[0].get_potential_energy() == pytest.approx(frame.get_potential_energy())
    assert again.frames[0].info["label_attempt"] == 2
    outcome = json.loads((folder / "attempt_1" / "outcome.json").read_text())
    assert outcome["lines"] == ["electrons lost"]
    assert not (folder / "failed.json").exists()


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("sleep 60", "'sh' ran longer than 0.3 s"),
        ("kill -9 $PPID; sleep 1", "ended by signal 9 (Killed)"),
    ],
)
def test_codes_that_hang_or_take_the_process_with_them(tmp_path, command, reason):
    """The next structure is labelled all the same."""
    frame, other = _copper(2)
    other.calc = EMT()
    other.get_forces()
    write(tmp_path / "good.extxyz", other)
    run = f"if cmp -s structure.extxyz ../../../bad; then {command}; else cp ../../../good.extxyz o.xyz; fi"
    write(tmp_path / "bad", frame, format="extxyz")
    settings = {"kind": "command", "command": run, "output": "o.xyz", "timeout": 0.3}
    found = label([frame, other], settings, store=tmp_path / "s")
    assert len(found.frames) == 1
    assert reason in found.failed[0]["reason"]


def test_results_of_another_structure_are_refused(tmp_path):
    frame, other = _copper(2)
    other.calc = EMT()
    other.get_forces()
    write(tmp_path / "other.extxyz", other)
    settings = {"kind": "command", "command": f"cp {tmp_path}/other.extxyz o.extxyz", "output": "o.extxyz"}
    found = label([frame], settings, store=tmp_path / "s")
    assert "computed another cell" in found.failed[0]["reason"]


def test_labels_by_hand(tmp_path):
    """Folders are written, the command waits, and continues when results are there."""
    frames = _copper(2)
    settings = {"kind": "files", "command": "cat POSCAR > seen", "structure": "POSCAR", "jobs": 1}
    found = label(frames, settings, tmp_path / "out.extxyz")
    assert found.waiting == 2
    assert not (tmp_path / "out.extxyz").exists()
    subprocess.run(["sh", str(found.script)], check=True)
    folders = [path.parent for path in found.store.glob("*/seen")]
    assert len(folders) == 2
    for folder in folders:
        atoms = read(folder / "POSCAR", format="vasp")
        atoms.calc = EMT()
        atoms.get_forces()
        write(folder / "result.extxyz", atoms)
    done = label(frames, settings, tmp_path / "out.extxyz")
    assert (done.waiting, len(done.frames)) == (0, 2)
    np.testing.assert_allclose(done.frames[0].positions, frames[0].positions, atol=1e-6)


@pytest.mark.long
def test_jobs_of_a_scheduler(tmp_path):
    """Each job of the array labels its part."""
    frames = _copper(3)
    found = label(frames, {**EMT_KIND, "jobs": 2}, store=tmp_path)
    assert found.waiting == 3
    subprocess.run(["sh", str(found.script), "1"], check=True, env=os.environ)
    rest = label(frames, {**EMT_KIND, "jobs": 2}, store=tmp_path)
    assert (len(rest.frames), rest.waiting) == (1, 2)
    subprocess.run(["sh", str(rest.script), "0"], check=True, env=os.environ)
    assert label(frames, {**EMT_KIND, "jobs": 2}, store=tmp_path).waiting == 1


def test_a_job_labels_all_of_its_part(tmp_path):
    """Also with a launcher that reads its standard input, as srun and mpirun do, and after another call."""
    frames = _copper(3)
    copy = "cat > /dev/null; echo 0 > result.extxyz"
    settings = {"kind": "files", "command": copy, "jobs": 1}
    found = label(frames, settings, store=tmp_path / "store")
    script = found.script.read_text()
    label(frames[:1], settings, store=tmp_path / "store")
    subprocess.run(["sh", "-c", script, "job"], check=True, env=os.environ)
    assert len(list((tmp_path / "store").glob("*/result.extxyz"))) == 3


def test_charge_and_spin_by_any_name_are_part_of_a_structure(tmp_path):
    one, other, wrong = _copper(1) + _copper(1) + _copper(1)
    one.info |= {"total_charge": 1, "spin": 2, "config_type": "ion"}
    other.info |= {"charge": -1}
    wrong.info |= {"charge": 1, "total_charge": 2}
    assert fingerprint(one) != fingerprint(other)
    [labelled] = label([one], EMT_KIND, tmp_path / "out.extxyz", tmp_path / "store").frames
    assert state.of(labelled.info) == state.ElectronicState(1.0, 2.0)
    assert read(tmp_path / "out.extxyz").info["config_type"] == "ion"
    with pytest.raises(BadInput, match="charge 1, total_charge 2: expected one"):
        label([wrong], EMT_KIND, store=tmp_path / "store")


def test_espresso_is_for_one_charge_and_for_crystals(tmp_path):
    [ion] = _copper(1)
    ion.info["charge"] = 1
    settings = espresso.Settings(kind="espresso", pseudo_dir=".", pseudopotentials={"Cu": "Cu.upf"})
    with pytest.raises(LabelFailed, match="charge of 1, 'tot_charge' of 'input_data' is 0"):
        espresso.compute(settings, ion, tmp_path)
    ion.pbc = [True, True, False]
    charged = settings.model_copy(update={"input_data": {"system": {"tot_charge": 1}}})
    with pytest.raises(LabelFailed, match="pbc T T F, but pw.x computes .*assume_isolated"):
        espresso.compute(charged, ion, tmp_path)


def test_another_model_labels(tmp_path):
    from mlplugins.model_file.card import ModelCard
    from mlplugins.model_file.write import save
    from mlplugins.models import lennard_jones

    copper = lennard_jones.Model(["Cu"], lennard_jones.Hyperparameters(epsilon=0.4, sigma=2.3))
    save(copper, tmp_path / "m.pt", ModelCard("lennard-jones", ["Cu"], [0.0]), "float64")
    (tmp_path / "labels.yaml").write_text("kind: model\nmodel: m.pt\nstore: here\n")
    found = label(_copper(1), tmp_path / "labels.yaml")
    assert found.store == tmp_path / "here"
    assert found.frames[0].info["label_code"] == "lennard-jones m.pt"
    assert np.abs(found.frames[0].get_forces()).max() > 1e-3


def test_tblite(tmp_path):
    pytest.importorskip("tblite", reason="needs tblite (the extra labels)")
    water = Atoms("OH2", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    found = label([water], {"kind": "tblite", "retries": [{"method": "GFN1-xTB"}]}, store=tmp_path)
    assert found.frames[0].get_potential_energy() == pytest.approx(-137.97, abs=0.02)  # -5.0704 hartree
    failed = label([water], {"kind": "tblite", "max_iterations": 2}, store=tmp_path / "b").failed
    assert "SCF not converged" in failed[0]["reason"]
    water.set_cell([8, 8, 8])
    water.pbc = [True, True, False]
    slab = label([water], {"kind": "tblite"}, store=tmp_path / "c").failed
    assert "pbc T T F, but tblite computes the structure as periodic in all three" in slab[0]["reason"]


WRONG = {
    "no kind": ({}, "missing key 'kind'"),
    "another kind": ({"kind": "cp2"}, "did you mean 'cp2k'"),
    "a wrong key": ({"kind": "emt", "time_out": 3}, "did you mean 'timeout'"),
    "no input": ({"kind": "cp2k", "input": "no.inp"}, "no such file"),
    "no calculator": ({"kind": "calculator", "calculator": "ase.Foo"}, "'ase.Foo'"),
    "a retry of what cannot change": ({"kind": "emt", "retries": [{"store": "x"}]}, "same in every attempt"),
    "a wrong retry": ({"kind": "emt", "retries": [{"metod": 1}]}, "'retries', 1: unknown key 'metod'"),
    "no program": (
        {"kind": "command", "command": "x", "output": "o", "structure": "a.qq"},
        "format of 'a.qq'",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_settings_are_refused_before_the_work(tmp_path, case):
    settings, message = WRONG[case]
    with pytest.raises(BadInput, match=message.replace("(", r"\(")):
        label(_copper(1), settings, store=tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_wrong_frames_and_folders(tmp_path):
    nan = bulk("Cu")
    nan.positions[0, 0] = np.nan
    with pytest.raises(BadInput, match="not finite"):
        label([nan], EMT_KIND, store=tmp_path / "s")
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(BadInput, match="holds no labels"):
        label(_copper(1), EMT_KIND, store=tmp_path)


def test_the_command(tmp_path, capsys):
    write(tmp_path / "f.extxyz", [_copper(1)[0], bulk("Fe")])
    (tmp_path / "l.yaml").write_text("kind: emt\n")
    words = ["label", f"{tmp_path}/f.extxyz", "--config", f"{tmp_path}/l.yaml", "-o", f"{tmp_path}/o.extxyz"]
    assert main.main([*words, "--json", f"{tmp_path}/l.json"]) == 1
    printed = capsys.readouterr().out
    assert "1 labelled by EMT" in printed
    assert "No EMT-potential for Fe" in printed
    assert json.loads((tmp_path / "l.json").read_text())["n_labelled"] == 1
    assert len(read(tmp_path / "o.extxyz", ":")) == 1


DRIVER = """
import sys
from ase.io import read
from mlplugins.labels import label
settings = {"kind": "command", "command": sys.argv[2], "output": "o.extxyz", "parallel": 2}
label(read(sys.argv[1], ":"), settings, store=sys.argv[3])
"""


def _killed(folder, kills, count):
    """Label with a command that takes a moment and counts its ends, the driver killed at random moments."""
    frames = _copper(count)
    for atoms in frames:
        atoms.calc = EMT()
        atoms.get_forces()
    write(folder / "frames.extxyz", frames)
    (folder / "driver.py").write_text(DRIVER)
    by_name = folder / "known"
    by_name.mkdir()
    store = folder / "store"
    names = []
    for atoms in frames:
        names.append(LabelStore(store).add(atoms))
        write(by_name / f"{names[-1]}.extxyz", atoms)
    for path in store.iterdir():  # the store is the driver's to make
        (path / "structure.extxyz").unlink()
        path.rmdir()
    command = (
        'n=$(basename $(dirname "$PWD")); sleep 0.1; '
        + f"cp {by_name}/$n.extxyz o.extxyz; echo $n >> {folder}/log"
    )
    words = [sys.executable, str(folder / "driver.py"), str(folder / "frames.extxyz"), command, str(store)]
    rng = random.Random(1)
    for _ in range(kills):
        driver = subprocess.Popen(words, start_new_session=True, stderr=subprocess.DEVNULL)
        try:
            driver.wait(rng.uniform(0.1, 1.0))
        except subprocess.TimeoutExpired:
            os.kill(driver.pid, signal.SIGKILL)
            driver.wait()
    driver = subprocess.run(words, capture_output=True, text=True)
    assert driver.returncode == 0, driver.stderr
    return frames, names, store, (folder / "log").read_text().split()


def _check_killed(folder, kills, count):
    frames, names, store, log = _killed(folder, kills, count)
    for atoms, name in zip(frames, names):
        got = read(store / name / "label.extxyz")
        assert got.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
        # whoever labels holds the lock: no code runs to its end twice, but for one that ended in the moment
        # of the kill, before its label was written
        ends = log.count(name)
        interrupted = len(list((store / name).glob("attempt_*"))) - 1
        assert 1 <= ends <= 1 + interrupted, name
    assert not list(store.glob("*/failed.json"))
    assert not list(store.glob("*/attempt_*/outcome.json"))


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path):
    _check_killed(tmp_path, kills=4, count=6)


@pytest.mark.exhaustive
def test_killed_at_thirty_random_moments(tmp_path):
    _check_killed(tmp_path, kills=30, count=40)


@pytest.mark.long
def test_a_worker_ends_with_its_driver(tmp_path):
    """An orphan would label on, unseen, against whoever comes next."""
    write(tmp_path / "f.extxyz", _copper(1))
    (tmp_path / "driver.py").write_text(DRIVER)
    command = f"echo $$ > {tmp_path}/pid; exec sleep 60"
    words = [
        sys.executable,
        str(tmp_path / "driver.py"),
        str(tmp_path / "f.extxyz"),
        command,
        str(tmp_path / "s"),
    ]
    driver = warm.Popen(words)
    deadline = time.monotonic() + 20
    pid = tmp_path / "pid"
    while not (pid.exists() and pid.read_text().strip()) and time.monotonic() < deadline:
        time.sleep(0.02)
    driver.kill()
    driver.wait()
    child = int(pid.read_text())
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(f"/proc/{child}").exists()


def test_what_would_be_labelled_as_something_else_is_refused(tmp_path):
    """A crystal whose flags were lost is no cluster; charges that add up to those of an ion say so."""
    crystal = bulk("Cu", cubic=True, a=3.6)
    crystal.pbc = False
    with pytest.raises(BadInput, match="frame 0: pbc F F F, but across its faces"):
        label([crystal], EMT_KIND, store=tmp_path / "a")
    fractions = bulk("Cu", cubic=True, a=3.6)
    fractions.positions = fractions.get_scaled_positions()
    with pytest.raises(BadInput, match="frame 0: all 4 atoms lie between 0 and 1 Å"):
        label([fractions], EMT_KIND, store=tmp_path / "b")
    ion = Atoms("CuAu", [[0, 0, 0], [0, 0, 2.5]], charges=[1.2, -0.2])
    with pytest.raises(BadInput, match=r"initial charges of the atoms add up to 1, .*\['charge'\] = 1, or 0"):
        label([ion], EMT_KIND, store=tmp_path / "c")
    ion.info["charge"] = 0
    assert len(label([ion], EMT_KIND, store=tmp_path / "d").frames) == 1
    slab = bulk("Cu", cubic=True, a=3.6)
    slab.pbc = [True, True, False]
    slab.cell[2, 2] = 20.0
    assert len(label([slab], EMT_KIND, store=tmp_path / "e").frames) == 1
