"""Polarizabilities, charges, shieldings, Born charges: learned, exact where promised, in every engine."""

import json
from pathlib import Path

import numpy as np
import pytest
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.units import Bohr
from ase.vibrations.placzek import PlaczekStatic
from ase.vibrations.raman import StaticRamanCalculator

import mlplugins
from mlplugins import MLCalculator
from mlplugins.checks.physics import PhysicsChecks
from mlplugins.cli.main import main
from mlplugins.engines.ipi.driver import MLDriver
from mlplugins.engines.ipi.extras import in_atomic_units
from mlplugins.errors import BadInput
from mlplugins.model_file import artifact
from mlplugins.model_file.card import has_no_energy
from tests.heads.further import (
    CONFIGURATION,
    ORDER,
    charges,
    dipole,
    molecules,
    polarizability,
    shielding,
)
from tests.simulation.argon import write_model


class Notes:
    """An observer that keeps what it is told."""

    def __init__(self):
        self.said = []

    def note(self, text):
        self.said.append(text)

    def start(self, *_):
        pass

    step = start


EXPECTED = {
    "charges": (charges, 0.4),
    "dipole": (dipole, 0.4),
    "polarizability": (polarizability, 0.3),
    "shielding": (shielding, 0.3),
    "isotropic_shielding": (lambda atoms: np.trace(shielding(atoms), axis1=1, axis2=2) / 3, 0.3),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("further")
    train, test = molecules(40, 0), molecules(8, 1)
    del train[3].info["mu"], train[7].info["alpha"], train[9].arrays["sigma"]
    write(folder / "train.extxyz", train)
    write(folder / "test.extxyz", test)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        mlplugins.train(CONFIGURATION, "run")
    mlplugins.export_checkpoint(folder / "run/checkpoint.ckpt", folder / "model64.pt", dtype="float64")
    return folder, test


@pytest.mark.long
@pytest.mark.parametrize("name", EXPECTED)
def test_what_is_learned(trained, name):
    """A tensor in another unit, order or sign would be off by more than it varies."""
    folder, test = trained
    formula, share = EXPECTED[name]
    found = artifact.load(folder / "run/model.pt").evaluate(test, wanted=[name])
    labels = np.array([formula(atoms) for atoms in test])
    error = np.sqrt(np.mean((np.array([r.get(name) for r in found]) - labels) ** 2))
    print(name, error, np.sqrt(np.mean((labels - labels.mean(axis=0)) ** 2)), np.sqrt(np.mean(labels**2)))
    assert error < share * np.sqrt(np.mean(labels**2))


@pytest.mark.long
def test_charges_add_up_and_are_those_of_the_dipole(trained):
    folder, test = trained
    for atoms in (test[0], molecules(1, 5)[0]):
        [found] = artifact.load(folder / "model64.pt").evaluate([atoms])
        assert abs(found.get("charges").sum()) < 1e-14
        points = found.get("charges") @ atoms.positions
        np.testing.assert_allclose(found.get("dipole"), points, rtol=0, atol=1e-13)


@pytest.mark.long
def test_born_charges_are_differences_of_the_dipole(trained):
    """Z_iab = ∂μ_a/∂r_ib in ASE; i-PI's rows are coordinates."""
    folder, test = trained
    atoms = test[0].copy()
    atoms.calc = MLCalculator(folder / "model64.pt")
    atoms.get_forces()
    assert "born_effective_charges" not in atoms.calc.results  # nobody asked
    z = atoms.calc.get_property("born_effective_charges", atoms)
    step, i, b = 1e-4, 1, 2
    moved = [atoms.copy(), atoms.copy()]
    for sign, each in zip((1, -1), moved):
        each.positions[i, b] += sign * step
    one, other = (r.get("dipole") for r in artifact.load(folder / "model64.pt").evaluate(moved))
    np.testing.assert_allclose(z[i, :, b], (one - other) / (2 * step), rtol=0, atol=1e-7)
    assert np.abs(z - z.transpose(0, 2, 1)).max() > 1e-3  # so the order is tested
    np.testing.assert_allclose(z.sum(axis=0), 0.0, atol=1e-13)
    write(folder / "template.xyz", atoms, columns=["symbols", "positions"])
    cell, points = np.eye(3) * 50 / Bohr, atoms.positions / Bohr
    options = {"model": str(folder / "model64.pt"), "template": str(folder / "template.xyz"), "pbc": False}
    sent = json.loads(MLDriver(**options, bec="on").compute_structure(cell, points).extras)
    np.testing.assert_allclose(sent["BEC"], z.transpose(0, 2, 1).reshape(-1, 3), rtol=0, atol=2e-7)
    without = json.loads(MLDriver(**options).compute_structure(cell, points).extras)
    assert sorted(without) == ["charges", "dipole", "isotropic_shielding", "polarizability", "shielding"]
    alpha = atoms.calc.get_property("polarizability", atoms)
    np.testing.assert_allclose(np.array(without["polarizability"]) * Bohr**3, alpha.ravel(), atol=2e-7)
    np.testing.assert_allclose(atoms.get_charges(), without["charges"], atol=2e-7)
    own = in_atomic_units(artifact.load(folder / "model64.pt").evaluate([atoms])[0])["BEC"]
    np.testing.assert_allclose(own, sent["BEC"], rtol=0, atol=2e-7)


@pytest.mark.long
def test_six_components_on_the_command_line(trained, tmp_path, capsys):
    """As docs/heads.md says: commas part keys, and the components of an order."""
    folder, test = trained
    order = ",".join(ORDER.split())
    words = [
        "evaluate",
        str(folder / "run/model.pt"),
        str(folder / "test.extxyz"),
        "--keys",
        "dipole=mu:e*bohr",
    ]
    output = ["--json", str(tmp_path / "e.json")]
    assert main([*words, f"polarizability=alpha:e^2*A^2/eV:{order}", *output]) == 0
    metrics = json.loads((folder / "run/metrics.json").read_text())["test"]["polarizability"]
    found = json.loads((tmp_path / "e.json").read_text())["polarizability"]
    assert found["rmse_mA3_per_atom"] == pytest.approx(metrics["rmse_mA3_per_atom"], rel=1e-5)
    assert main([*words[:-1], f"dipole=mu:e*bohr:{order}"]) == 2
    assert "for symmetric tensors only" in capsys.readouterr().err


@pytest.mark.long
def test_predictions_are_written_in_rows_of_nine(trained, tmp_path):
    """What `evaluate --predictions` writes is read again as labels, by the rules of data files."""
    folder, test = trained
    model = folder / "run/model.pt"
    mlplugins.evaluate(model, test, keys={"shielding": "sigma:ppm"}, predictions=tmp_path / "p.extxyz")
    (labelled := test[0].copy()).calc = SinglePointCalculator(test[0], energy=-1.0)
    notes = Notes()
    mlplugins.evaluate(model, labelled, observer=notes)
    [said] = [text for text in notes.said if "energies" in text or text.startswith("energy")]
    assert "learned no energies" in said
    again = mlplugins.evaluate(
        model, tmp_path / "p.extxyz", keys={"shielding": "predicted_shielding:ppm", "forces": None}
    )
    assert again["shielding"]["rmse_ppm"] < 1e-4
    assert "predicted_born_effective_charges" in (tmp_path / "p.extxyz").read_text()
    assert "born_effective_charges" in MLCalculator(model).implemented_properties
    other = MLCalculator(write_model(tmp_path / "argon.pt"))
    assert "born_effective_charges" not in other.implemented_properties


@pytest.mark.long
def test_no_forces_were_learned_and_no_one_moves_atoms_by_them(trained, tmp_path, capsys):
    folder, test = trained
    assert main(["info", str(folder / "run/model.pt")]) == 0
    assert "none was learned: energy and forces are zero" in " ".join(capsys.readouterr().out.split())
    [found] = artifact.load(folder / "run/model.pt").evaluate(test[:1], wanted=())
    assert found.energy == 0.0
    assert not found.forces.any()
    write(tmp_path / "water.extxyz", test[0])
    run = {"model": str(folder / "run/model.pt"), "structure": str(tmp_path / "water.extxyz")}
    with pytest.raises(BadInput, match="'model.pt' was trained without energies, so that no forces move"):
        mlplugins.simulate({**run, "temperatures": 300, "steps": 90}, tmp_path / "run")


@pytest.mark.long
def test_a_trunk_without_energies_may_change(trained, tmp_path, monkeypatch):
    """Heads alone, pre-trained on other labels: there are no energies that fine-tuning all could spoil."""
    folder, test = trained
    monkeypatch.chdir(folder)
    further = {**CONFIGURATION, "training": {"epochs": 1, "batch_size": 10, "dtype": "float64"}}
    del further["model"]
    further |= {"base": {"checkpoint": "run/checkpoint.ckpt"}, "finetune": {"strategy": "full"}}
    mlplugins.finetune(further, tmp_path / "run")
    loaded, before = artifact.load(tmp_path / "run/model.pt"), artifact.load(folder / "run/model.pt")
    [found], [old] = loaded.evaluate(test[:1]), before.evaluate(test[:1])
    assert np.abs(found.get("dipole") - old.get("dipole")).max() > 1e-6
    assert found.energy == 0.0
    assert has_no_energy(loaded.record)


@pytest.mark.long
def test_check_turns_and_mirrors_them_all(trained):
    folder, test = trained
    rows = PhysicsChecks(artifact.load(folder / "model64.pt"), test[0], "water").run(0, lambda name: None)
    names = {row.name for row in rows}
    quantities = [*EXPECTED, "born_effective_charges"]
    for kind in ("rotation", "inversion", "translation", "permutation", "extensivity"):
        assert names >= {f"{kind}: {name}" for name in quantities}
    assert names >= {"charges add up", "born_effective_charges = dμ/dr"}
    assert not [row for row in rows if not row.passed]


class Mixed(EMT):
    """Energies of another model: this one has learned none."""

    def get_property(self, name, atoms=None, allow_calculation=True):
        if name == "polarizability":
            return self.own.get_property(name, atoms)
        return super().get_property(name, atoms, allow_calculation)


@pytest.mark.long
def test_raman_in_ase(trained, tmp_path, monkeypatch):
    """The example of docs/heads.md; activities against derivatives of the polarizability along the modes."""
    folder, test = trained
    monkeypatch.chdir(tmp_path)
    atoms, calc = molecules(1, 7)[0], Mixed()
    calc.own = MLCalculator(folder / "model64.pt")
    atoms.positions *= 1.05
    text = (Path(mlplugins.__file__).parent.parent / "docs/heads.md").read_text(encoding="utf-8")
    [example] = [block for block in text.split("```")[1::2] if "StaticRamanCalculator" in block]
    lines = [line[2:] if line.startswith("  ") else line for line in example.splitlines()[1:]]
    names = {"atoms": atoms, "MLCalculator": lambda _: calc}
    exec("\n".join(lines), names)
    placzek = names["placzek"]
    assert isinstance(placzek, PlaczekStatic)
    assert StaticRamanCalculator in names.values()
    intensities = placzek.get_absolute_intensities()[-2:]  # bound ones
    modes = placzek.modes_Qq[-2:] * placzek.im_r
    for mode, intensity in zip(modes, intensities):
        pair = [atoms.copy(), atoms.copy()]
        for sign, each in zip((1, -1), pair):
            each.positions += sign * 0.01 * mode.reshape(-1, 3)
        one, other = (r.get("polarizability") for r in artifact.load(folder / "model64.pt").evaluate(pair))
        slope = (one - other) / 0.02
        mean = np.trace(slope) / 3
        rest = slope - mean * np.eye(3)
        assert intensity == pytest.approx(45 * mean**2 + 7 * 1.5 * np.sum(rest**2), rel=0.02)
