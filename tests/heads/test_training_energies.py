"""Training of several energies: levels of theory in files of their own, states in the same frames."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

import mlplugins
from mlplugins import MLCalculator
from mlplugins.errors import BadInput
from mlplugins.model_file import artifact
from mlplugins.models import nequip
from mlplugins.structures.batch import concatenate
from mlplugins.training import config, data
from mlplugins.training.gradient_config import LossSection
from mlplugins.training.loss import Predictor, loss, residuals
from mlplugins.training.results import predict

LEVELS = {"pbe": (20.0, 0.96, 0.0), "scan": (26.0, 0.93, -11.0)}  # spring constant, bond length, eV per atom
CONFIGURATION = {
    "data": {"train": {name: f"{name}.extxyz" for name in LEVELS}, "test": "test.extxyz"},
    "model": {"family": "nequip", "cutoff": 3.0, "num_layers": 1, "num_features": 8, "radial_mlp": [8]},
    "training": {"epochs": 20, "batch_size": 5, "lr": 0.02, "ema": 0.9, "dtype": "float64"},
}


def springs(atoms, level):
    """Energy and forces of water of springs."""
    k, bond, offset = LEVELS[level]
    energy, forces = 3 * offset, np.zeros((3, 3))
    for i, j, stiff, r0 in ((0, 1, k, bond), (0, 2, k, bond), (1, 2, 6.0, 1.52)):
        v = atoms.positions[j] - atoms.positions[i]
        r = np.linalg.norm(v)
        energy += 0.5 * stiff * (r - r0) ** 2
        forces[i] += stiff * (r - r0) * v / r
        forces[j] -= stiff * (r - r0) * v / r
    return energy, forces


def molecules(n, seed, level, head=None):
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(n):
        atoms = Atoms("OH2", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
        atoms.positions += rng.normal(0, 0.06, (3, 3))
        energy, forces = springs(atoms, level)
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        atoms.info["head"] = head or level
        frames.append(atoms)
    return frames


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("levels")
    for name in LEVELS:
        write(folder / f"{name}.extxyz", molecules(15, 0, name))
    write(folder / "test.extxyz", [a for name in LEVELS for a in molecules(8, 1, name)])
    return folder


@pytest.fixture(scope="module")
def trained(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        mlplugins.train(CONFIGURATION, "run")
    return folder / "run"


def report(run):
    return json.loads((run / "metrics.json").read_text())


@pytest.mark.long
def test_two_levels_in_one_model(folder, trained, tmp_path, monkeypatch):
    """Each is learned about as well as by a model of its own; their zeros are 33 eV per molecule apart."""
    monkeypatch.chdir(folder)
    found = report(trained)
    assert any("15 frames of pbe, 15 frames of scan" in text for text in found["warnings"])
    assert found["test"]["n_structures"] == 16
    alone = {**CONFIGURATION, "data": {"train": "scan.extxyz", "test": "test.extxyz@8:"}}
    mlplugins.train(alone, tmp_path / "alone")
    single = report(tmp_path / "alone")["test"]
    for name in LEVELS:
        own = found["test"]["energies"][name]
        assert own["n_structures"] == 8
        for quantity, error in (("energy", "rmse_meV_per_atom"), ("forces", "rmse_meV_per_A")):
            assert own[quantity][error] < 2 * single[quantity][error]
        size = np.sqrt(np.mean([springs(atoms, name)[1] ** 2 for atoms in molecules(8, 1, name)]))
        assert 1e-3 * own["forces"]["rmse_meV_per_A"] < 0.1 * size


def test_a_trained_file_and_its_checkpoint_hold_both(folder, trained, tmp_path):
    """The energies of test frames through the engine, each by its name, also from the checkpoint."""
    errors = report(trained)["test"]["energies"]
    mlplugins.export_checkpoint(trained / "checkpoint.ckpt", tmp_path / "again.pt")
    mlplugins.convert(trained / "model.pt", tmp_path / "converted.pt")
    for path in (trained / "model.pt", tmp_path / "again.pt", tmp_path / "converted.pt"):
        for name in LEVELS:
            calculator = MLCalculator(path, variant=name)
            off = [
                (calculator.get_property("energy", atoms) - springs(atoms, name)[0]) / 3
                for atoms in molecules(8, 1, name)
            ]
            rmse = 1e3 * np.sqrt(np.mean(np.square(off)))
            assert rmse == pytest.approx(errors[name]["energy"]["rmse_meV_per_atom"], rel=1e-3)


@pytest.mark.long
def test_states_in_the_same_frames(folder, tmp_path, monkeypatch):
    """Labels of several energies under names of their own; random frames stay together."""
    monkeypatch.chdir(tmp_path)
    frames = molecules(10, 2, "pbe")
    for k, atoms in enumerate(frames):
        for state, level in (("0", "pbe"), ("1", "scan")):
            energy, forces = springs(atoms, level)
            atoms.info[f"E{state}"], atoms.arrays[f"F{state}"] = energy, forces
        del atoms.info["head"]
        atoms.calc = None
        if k == 3:
            del atoms.info["E1"], atoms.arrays["F1"]
    write("states.extxyz", frames)
    energies = {f"s{k}": {"keys": {"energy": f"E{k}", "forces": f"F{k}"}} for k in (0, 1)}
    given = {**CONFIGURATION, "energies": energies, "data": {"train": "states.extxyz", "validation": 0.3}}
    sets = data.load(config.parse(given, "test"))
    assert len(sets.train) + len(sets.validation) == 19
    assert not {s.origin for s in sets.train} & {s.origin for s in sets.validation}
    assert {s.head for s in sets.train} == {"", "s1"}
    assert sets.baseline.predict(["O", "H", "H"], "s1") - sets.baseline.predict(["O", "H", "H"]) < -30
    first = next(s for s in sets.train if s.head == "s1" and s.origin.endswith("frame 0"))
    np.testing.assert_allclose(first.forces, frames[0].arrays["F1"])
    _gaps(sets, config.parse(given, "test"), {f"states.extxyz, frame {k}": a for k, a in enumerate(frames)})
    asked = {**given, "training": {**given["training"], "epochs": 1, "loss": {"gap": 2.0}}}
    mlplugins.train(asked, "run")
    found = report(tmp_path / "run")["validation"]
    assert found["gap"]["rmse_meV"] > 0
    swapped = {"s0": energies["s1"], "s1": {**energies["s0"], "coupled": True}}
    mlplugins.train({**asked, "energies": swapped}, "coupled")
    loaded = artifact.load(tmp_path / "coupled/model.pt")
    [lowest] = loaded.evaluate([frames[0]], wanted=loaded.energies)
    assert lowest.energy == float(lowest.get("energy/s0")) < float(lowest.get("energy/s1"))
    assert loaded.record["baselines_eV"]["s1"] == loaded.record["baseline_eV"]
    wrong = {**energies, "s1": {**energies["s1"], "coupled": True}}
    for base, of, said in (("coupled", energies, "those of the base"), ("run", wrong, "those asked for")):
        further = {"base": {"checkpoint": f"{base}/model.pt"}, "finetune": {"strategy": "full"}}
        further |= {"data": given["data"], "energies": of}
        with pytest.raises(BadInput, match=f"coupled: {said} are eigenvalues of one matrix"):
            mlplugins.finetune(further, "refused")
    with pytest.raises(BadInput, match="the energy of 's1' is 32.* eV below that of the state before"):
        mlplugins.train({**asked, "energies": wrong}, "refused")
    one = {**asked, "energies": ["pbe", "scan"], "data": {"train": str(folder / "test.extxyz")}}
    with pytest.raises(BadInput, match="loss: {gap: 2}: gaps are learned of frames with the labels of two"):
        mlplugins.train(one, "refused")


def _gaps(sets, configuration, frames):
    """The label of a gap is the difference of two labels of one frame; the error of what is predicted is the
    difference of the errors of two energies, and the loss its square, not per atom."""
    labelled = [s for s in sets.train if s.head == "s1"]
    assert all(s.get("gap") is None for s in sets.train if s.head == "")
    for s in labelled:
        info = frames[s.origin].info
        assert s.get("gap") == pytest.approx(info["E1"] - info["E0"], abs=1e-9)
    heads = {"energy/s1": {}}
    options = nequip.Hyperparameters(cutoff=3.0, num_layers=1, num_features=4, heads=heads, energy_name="s0")
    potential = nequip.Model(sets.baseline.elements, options).double()
    batch = concatenate(data.graphs(labelled, sets.baseline, 3.0, torch.float64))
    predicted = Predictor(potential, ["gap"])(batch, True)
    error = residuals(predicted, batch)["gap"].error.detach()
    [lower, upper] = (
        predict(
            potential, [replace(s, head=head) for s in labelled], _graphs(labelled, head, sets), sets.baseline
        )
        for head in ("", "s1")
    )
    for k, s in enumerate(labelled):
        gap = upper[k].energy - lower[k].energy
        assert upper[k].get("gap") == pytest.approx(gap, abs=1e-9)
        assert float(error[k]) == pytest.approx(gap - s.get("gap"), abs=1e-9)
    only = LossSection(energy=0, forces=0, stress=0, gap=3.0)
    value = float(loss(residuals(predicted, batch), only, {}).detach())
    assert value == pytest.approx(3.0 * float(error.square().mean()))


def _graphs(structures, head, sets):
    return data.graphs([replace(s, head=head) for s in structures], sets.baseline, 3.0, torch.float64)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"energies": ["pbe", "hse"]}, "data: head 'scan': expected one of pbe, hse"),
        (
            {"data": {"train": "test.extxyz"}, "energies": ["scan", "hse"]},
            "head 'pbe': expected one of scan, hse",
        ),
        (
            {"data": {"train": {"scan": "pbe.extxyz", "pbe": "scan.extxyz"}}},
            "it says head=pbe, but its file is",
        ),
        ({"energies": ["pbe", "scan", "hse"]}, "no training frame has an energy of 'hse'"),
        ({"energies": ["pbe", "pbe"]}, "expected different names"),
        ({"energies": {"pbe": {"width": 8}, "scan": {}}}, "pbe: width: the first energy has the readout of"),
        (
            {
                "data": {
                    **CONFIGURATION["data"],
                    "baseline": dict.fromkeys([*LEVELS, "hse"], {"O": 0.0, "H": 0.0}),
                }
            },
            "data.baseline: hse: expected one of pbe, scan",
        ),
        (
            {"heads": {"charges": {"unit": "e", "channels": 4}, "dipole": {"unit": "Debye", "channels": 8}}},
            "heads: dipole: channels: 8, but the charges, whose flow it takes, have 4",
        ),
        ({"energies": ["a/b"]}, "expected names of letters, digits"),
        ({"model": {"family": "lennard-jones"}}, "'lennard-jones' has one energy: choose nequip or mace"),
        (
            {
                "energies": {"pbe": {}, "scan": {"coupled": True}},
                "data": {
                    **CONFIGURATION["data"],
                    "baseline": {"pbe": {"O": 0.0, "H": 0.0}, "scan": {"O": 1.0, "H": 0.0}},
                },
            },
            "data.baseline: coupled energies have one zero: expected the same energies of the elements for",
        ),
        ({"add": {"d3": "pbe-bj"}}, "d3 is the dispersion of one functional"),
        (
            {"data": {**CONFIGURATION["data"], "baseline": {"O": -1.0, "H": 0.0}}},
            "expected the energies of the elements of pbe as one mapping for each energy",
        ),
    ],
)
def test_what_is_refused(folder, tmp_path, monkeypatch, change, said):
    monkeypatch.chdir(folder)
    with pytest.raises(BadInput) as refused:
        mlplugins.train({**CONFIGURATION, **change}, tmp_path / "refused")
    assert said in str(refused.value)


def test_frames_that_say_nothing_are_of_the_first_energy(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frames = [*molecules(3, 3, "pbe"), *molecules(3, 4, "scan")]
    for atoms in frames[:3]:
        del atoms.info["head"]
    write("mixed.extxyz", frames)
    given = {
        **CONFIGURATION,
        "energies": ["pbe", "scan"],
        "data": {"train": "mixed.extxyz", "validation": 0.0},
    }
    sets = data.load(config.parse(given, "test"))
    assert [s.head for s in sets.train] == ["", "", "", "scan", "scan", "scan"]
    assert any(
        "3 frame(s) whose `info` names no head are taken as of 'pbe'" in text for text in sets.warnings
    )


def test_elements_and_energies_of_each(tmp_path, monkeypatch):
    """Heads called by numbers; energies 33 eV apart are no outliers; an element that one has never seen."""
    monkeypatch.chdir(tmp_path)
    frames = [*molecules(6, 3, "pbe", head="0"), *molecules(6, 4, "scan", head="1")]
    frames[-1].numbers[0] = 16
    write("numbers.extxyz", frames)
    given = {**CONFIGURATION, "energies": ["0", "1"], "data": {"train": "numbers.extxyz", "validation": 0.0}}
    sets = data.load(config.parse(given, "test"))
    assert [s.head for s in sets.train] == [""] * 6 + ["1"] * 6
    said = [text for text in sets.warnings if "holds S" in text]
    assert len(said) == 1
    assert "no frame of '0' holds S" in said[0]
    assert not any("away from the rest" in text for text in sets.warnings)


@pytest.mark.long
def test_uncertainties_are_judged_by_frames_of_the_first_energy(folder, trained, tmp_path):
    """Of energies and of forces; the posterior is none of the other energy."""
    first = molecules(8, 1, "pbe")
    mlplugins.uncertainty(trained / "model.pt", folder / "pbe.extxyz", tmp_path / "u.pt", first)
    found = mlplugins.evaluate(tmp_path / "u.pt", folder / "test.extxyz")["uncertainty"]
    assert {name: quality["n"] for name, quality in found.items()} == {"energy": 8, "forces": 8 * 9}
    alone = mlplugins.evaluate(tmp_path / "u.pt", first)["uncertainty"]
    for name, quality in found.items():
        assert quality["z_rms"] == pytest.approx(alone[name]["z_rms"], rel=1e-4)


def test_evaluation_of_each_energy(folder, trained):
    """Each frame is compared with the energy that it names; all with one that the user names."""
    found = mlplugins.evaluate(trained / "model.pt", folder / "test.extxyz")
    inside = report(trained)["test"]["energies"]
    for name in LEVELS:
        for quantity, kinds in (("energy", "rmse_meV_per_atom"), ("forces", "rmse_meV_per_A")):
            assert found["energies"][name][quantity][kinds] == pytest.approx(
                inside[name][quantity][kinds], rel=1e-3
            )
    with pytest.raises(
        BadInput, match="head 'hse': 'model.pt' has the energies pbe, scan: leave the frame out"
    ):
        mlplugins.evaluate(trained / "model.pt", molecules(1, 1, "pbe", head="hse"))
    scan = artifact.load(trained / "model.pt", output="scan")
    off = mlplugins.evaluate(scan, molecules(4, 1, "pbe"))["energy"]["mae_meV_per_atom"]
    assert off == pytest.approx(11e3, rel=0.1)


@pytest.mark.long
def test_a_further_energy_on_a_trained_model(folder, trained, tmp_path, monkeypatch):
    """With the trunk as it is the energies of the base stay; a new one begins as the first of them."""
    monkeypatch.chdir(folder)
    frames = molecules(15, 5, "scan", head="hse")
    write("hse.extxyz", frames)
    given = {
        "base": {"checkpoint": str(trained / "checkpoint.ckpt")},
        "finetune": {"strategy": "heads"},
        "energies": ["pbe", "scan", "hse"],
        "data": {"train": "hse.extxyz", "validation": 0.2},
        "training": {"epochs": 20, "batch_size": 3, "dtype": "float64", "lr": 0.02, "ema": 0.5},
    }
    mlplugins.finetune(given, tmp_path / "run")
    before, after = (artifact.load(path / "model.pt") for path in (trained, tmp_path / "run"))
    assert after.energies == (*before.energies, "energy/hse")
    [old] = before.evaluate([frames[0]], wanted=before.energies)
    [new] = after.evaluate([frames[0]], wanted=after.energies)
    for name in before.energies:
        assert float(new.get(name)) == pytest.approx(float(old.get(name)), abs=1e-9)
    metrics = report(tmp_path / "run")
    first = metrics["finetune"]["base_errors"]["train"]["forces"]["rmse_meV_per_A"]
    assert metrics["train"]["forces"]["rmse_meV_per_A"] < 0.9 * first
    with pytest.raises(
        BadInput, match="the base has pbe, scan: name them, 'pbe' first, and then what is new"
    ):
        mlplugins.finetune({**given, "energies": ["pbe", "hse"]}, tmp_path / "refused")
    with pytest.raises(BadInput, match="'lora' trains one energy"):
        mlplugins.finetune({**given, "finetune": {"strategy": "lora"}}, tmp_path / "refused")
    alone = {name: given[name] for name in ("base", "data", "training")} | {"finetune": {"strategy": "lora"}}
    with pytest.raises(BadInput, match="'lora' trains one energy, and the base has pbe, scan: choose"):
        mlplugins.finetune(alone, tmp_path / "refused")
