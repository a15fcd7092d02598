"""Dipoles and direct forces from labels to predictions: units, masks, loss, files, ASE, i-PI, metatomic."""

import csv
import json

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.units import Bohr, Debye
from metatomic.torch import ModelOutput
from metatomic_ase import MetatomicCalculator

import mlplugins
from mlplugins import MLCalculator
from mlplugins.engines.ipi.extras import in_atomic_units
from mlplugins.errors import BadInput
from mlplugins.model_file import artifact

CHARGE = 0.4  # of H, e
CONFIGURATION = {
    "data": {"train": "train.extxyz", "validation": 0.1, "test": "test.extxyz"},
    "heads": {"dipole": {"unit": "Debye", "key": "mu", "width": 8}, "direct_forces": {"channels": 4}},
    "model": {"family": "nequip", "cutoff": 3.0, "num_layers": 2, "num_features": 4, "radial_mlp": [16]},
    "training": {"epochs": 30, "batch_size": 5, "lr": 0.03, "ema": 0.9, "dtype": "float64"},
}


def dipole(atoms) -> np.ndarray:
    """Of fixed charges that add up to zero, e·Å."""
    return CHARGE * (atoms.positions[1] + atoms.positions[2] - 2 * atoms.positions[0])


def molecules(n, seed):
    """Water with springs and charges."""
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(n):
        atoms = Atoms("OH2", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
        atoms.positions = atoms.positions @ np.linalg.qr(rng.normal(size=(3, 3)))[0]
        atoms.positions += rng.normal(0, 0.06, (3, 3))
        energy, forces = 0.0, np.zeros((3, 3))
        for i, j, k, r0 in ((0, 1, 20.0, 0.96), (0, 2, 20.0, 0.96), (1, 2, 6.0, 1.52)):
            v = atoms.positions[j] - atoms.positions[i]
            r = np.linalg.norm(v)
            energy += 0.5 * k * (r - r0) ** 2
            forces[i] += k * (r - r0) * v / r
            forces[j] -= k * (r - r0) * v / r
        atoms.info |= {"mu": dipole(atoms) / Debye, "six": np.arange(6.0), "skew": np.arange(9.0)}
        atoms.arrays["ones"] = np.ones(3)
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        frames.append(atoms)
    return frames


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("heads")
    train, test = molecules(40, 0), molecules(10, 1)
    del train[3].info["mu"], train[7].info["mu"]
    write(folder / "train.extxyz", train)
    write(folder / "test.extxyz", test)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        mlplugins.train(CONFIGURATION, "run")
    return folder, test


def test_what_is_learned_of_labels_in_debye(trained):
    folder, test = trained
    metrics = json.loads((folder / "run/metrics.json").read_text())
    size = {"dipole": np.sqrt(np.mean([(dipole(a) / 3) ** 2 for a in test]))}
    size["direct_forces"] = np.sqrt(np.mean([a.get_forces() ** 2 for a in test]))
    errors = {
        "dipole": metrics["test"]["dipole"]["rmse_me_A_per_atom"],
        "direct_forces": metrics["test"]["direct_forces"]["rmse_meV_per_A"],
    }
    for name, error in errors.items():
        assert 1e-3 * error < 0.4 * size[name], name  # a unit of 2.5 or 4.8 would be 0.6 or more
    assert any("48 of 50 frames have the label 'dipole'" in text for text in metrics["warnings"])
    with (folder / "run/log.csv").open() as stream:
        last = list(csv.DictReader(stream))[-1]
    for name in ("dipole_rmse_me_A_per_atom", "direct_forces_rmse_meV_per_A"):
        assert float(last[f"validation_{name}"]) > 0


def test_evaluation_in_debye_and_in_atomic_units(trained):
    folder, test = trained
    inside = json.loads((folder / "run/metrics.json").read_text())["test"]["dipole"]
    for atoms in test:
        atoms.info["au"] = dipole(atoms) / Bohr
    for name in ("mu:Debye", "au:e*Bohr"):
        found = mlplugins.evaluate(folder / "run/model.pt", test, keys={"dipole": name})
        for kind, value in inside.items():
            assert found["dipole"][kind] == pytest.approx(value, rel=1e-6)


def test_engines_agree(trained):
    folder, test = trained
    model, atoms = folder / "run/model.pt", test[0].copy()
    atoms.calc = MLCalculator(model)
    atoms.get_forces()
    assert "dipole" not in atoms.calc.results  # nobody asked
    own = atoms.get_dipole_moment()
    np.testing.assert_allclose(own, dipole(atoms), rtol=0, atol=0.1)
    loaded = artifact.load(model)
    [results] = loaded.evaluate([atoms])
    np.testing.assert_allclose(np.array(in_atomic_units(results)["dipole"]) * Bohr, own, rtol=0, atol=1e-9)
    assert loaded.evaluate([atoms], wanted=())[0].more is None
    direct = MLCalculator(model, non_conservative=True)
    forces = direct.get_property("forces", atoms)
    np.testing.assert_allclose(forces, results.get("direct_forces"), rtol=0, atol=1e-13)
    assert np.abs(forces - atoms.get_forces()).max() > 1e-4  # of another origin
    with pytest.raises(BadInput, match="direct forces are no derivatives of the energy: leave non_conserv"):
        direct.get_hessian(atoms)
    np.testing.assert_allclose(direct.get_property("energy", atoms), results.energy, rtol=0, atol=1e-12)
    output = {"mlplugins::dipole": ModelOutput(unit="Debye", sample_kind="system")}
    other = MetatomicCalculator(str(model), additional_outputs=output, non_conservative="forces")
    other.calculate(atoms, ["energy", "forces"], [])
    np.testing.assert_allclose(other.results["forces"], forces, rtol=0, atol=1e-10)
    moment = other.additional_outputs["mlplugins::dipole"].block().values[0, :, 0].detach()
    np.testing.assert_allclose(moment * Debye, own, rtol=0, atol=1e-6)


def test_direct_stress_is_the_virial_of_the_direct_forces(trained):
    folder, test = trained
    cell = Atoms(test[0].symbols, test[0].positions, cell=np.diag([3.2, 3.4, 3.6]), pbc=True) * (2, 1, 1)
    [results] = artifact.load(folder / "run/model.pt").evaluate([cell])
    cell.calc = MetatomicCalculator(str(folder / "run/model.pt"), non_conservative=True)
    np.testing.assert_allclose(cell.get_stress(voigt=False), results.get("direct_stress"), rtol=0, atol=1e-10)
    cell.calc = MLCalculator(folder / "run/model.pt", non_conservative=True)
    np.testing.assert_allclose(cell.get_stress(voigt=False), results.get("direct_stress"), rtol=0, atol=1e-13)
    stresses = cell.get_stresses().sum(axis=0)
    np.testing.assert_allclose(stresses, cell.get_stress(), rtol=0, atol=1e-12)


def test_a_checkpoint_and_a_file_hold_their_heads(trained, tmp_path):
    folder, test = trained
    [expected] = artifact.load(folder / "run/model.pt").evaluate([test[0]])
    for again in (mlplugins.export_checkpoint, mlplugins.convert):
        source = "run/checkpoint.ckpt" if again is mlplugins.export_checkpoint else "run/model.pt"
        again(folder / source, tmp_path / "again.pt")
        [found] = artifact.load(tmp_path / "again.pt").evaluate([test[0]])
        for name in ("dipole", "direct_forces"):
            np.testing.assert_allclose(found.get(name), expected.get(name), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("heads", "said"),
    [
        (
            {"dipole": {"key": "mu"}},
            "expected the unit of the labels 'dipole' in the files, one of e*A, Debye, e*Bohr",
        ),
        ({"dipole": {"key": "mu", "unit": "D"}}, "got 'D'; published sets are often off by a unit"),
        ({"dipole": {"key": "moo", "unit": "Debye"}}, "heads: dipole: no frame holds 'moo'"),
        ({"quadrupole": {}}, "no head predicts 'quadrupole'"),
        (
            {"polarizability": {"unit": "A^3", "key": "six"}},
            "six numbers of a symmetric tensor, whose order nobody",
        ),
        ({"polarizability": {"unit": "A^3", "key": "six", "order": "xx yy"}}, "expected the order of six"),
        ({"dipole": {"unit": "e*A", "key": "mu", "order": "x y z"}}, "for symmetric tensors only"),
        ({"polarizability": {"unit": "A^3", "key": "skew"}}, "expected a symmetric tensor, but"),
        (
            {"charges": {"unit": "e", "key": "ones"}},
            "the charges add up to 3.000 e, those of the model to 0 e",
        ),
        ({"dipole": {"unit": "Debye", "key": "mu", "depth": 2}}, "heads: dipole: unknown key 'depth'"),
        ({**CONFIGURATION["heads"]}, "direct_forces learns from forces, of which no training frame has any"),
    ],
)
def test_what_is_refused(trained, tmp_path, monkeypatch, heads, said):
    folder, _ = trained
    monkeypatch.chdir(folder)
    data = {**CONFIGURATION["data"], "keys": {"energy": None} if "direct_forces" in heads else {}}
    with pytest.raises(BadInput) as refused:
        mlplugins.train({**CONFIGURATION, "heads": heads, "data": data}, tmp_path / "refused")
    assert said in str(refused.value)
    assert not (tmp_path / "refused").exists()


def test_dipoles_that_mean_something_else_are_told(trained, tmp_path, monkeypatch):
    folder, test = trained
    monkeypatch.chdir(tmp_path)
    for atoms in (frames := molecules(4, 3)):
        atoms.info["charge"] = 1
    write("charged.extxyz", frames)
    data = {"train": "charged.extxyz", "validation": 0.0}
    given = {**CONFIGURATION, "data": data, "training": {"epochs": 1}}
    with pytest.raises(BadInput, match="dipole of a structure of charge 1 e depends on the origin"):
        mlplugins.train(given, "refused")
    section = {"unit": "e*A", "key": "mu", "origin": "centre of mass"}
    mlplugins.train({**given, "heads": {"dipole": section}}, "run")
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert any("e times the length of their molecules" in text for text in metrics["warnings"])


@pytest.mark.long
def test_families_without_features_and_files_without_heads(trained, tmp_path, monkeypatch):
    folder, test = trained
    monkeypatch.chdir(folder)
    with pytest.raises(BadInput, match="'kreg' has no features for heads"):
        mlplugins.train({**CONFIGURATION, "model": {"family": "kreg"}, "training": {}}, tmp_path / "refused")
    with pytest.raises(BadInput, match="dipole=mu: expected the unit of the labels 'dipole'"):
        mlplugins.evaluate("run/model.pt", test, keys={"dipole": "mu"})
    plain = {**CONFIGURATION, "heads": {}, "training": {"epochs": 1}}
    mlplugins.train(plain, tmp_path / "plain")
    with pytest.raises(
        BadInput, match=r"'model.pt' predicts no direct forces \(output non_conservative_force\)"
    ):
        MLCalculator(tmp_path / "plain/model.pt", non_conservative=True)
