"""Nequix models give here what they give in nequix, in double precision (outputs stored by `make_nequix.py`).

The published models are in the reference data.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write

from mlplugins import finetune
from mlplugins.checkpoints import nequix
from mlplugins.cli.main import main
from mlplugins.engines.lammps import single_point
from mlplugins.errors import BadInput
from mlplugins.model_file import artifact
from tests.regression.stored import assert_checkpoint_is_home, structures

DATA = Path(__file__).parent / "data"
SMALL = ["nequix_norm", "nequix_species"]
PUBLISHED = {"elements_nequix_mp_1": "mp-1", "elements_nequix_oam_1": "oam-1"}


def published(name: str) -> Path:
    if "MLPLUGINS_REFERENCE_DATA" not in os.environ:
        pytest.skip("needs MLPLUGINS_REFERENCE_DATA")
    return Path(os.environ["MLPLUGINS_REFERENCE_DATA"]) / "nequix" / f"nequix-{name}.nqx"


@pytest.mark.parametrize("index", range(3))
@pytest.mark.parametrize("case", SMALL)
def test_small_models(case, index):
    checkpoint = nequix.read(DATA / f"{case}.nqx")
    assert_checkpoint_is_home(checkpoint, case, index, structures(case)[index])


@pytest.mark.parametrize("case", SMALL)
def test_elements_in_another_order_are_the_same_model(case):
    checkpoint = nequix.read(DATA / f"{case}.nqx", ["S", "H", "O"])
    assert_checkpoint_is_home(checkpoint, case, 0, structures(case)[0])


@pytest.mark.long
@pytest.mark.reference
@pytest.mark.parametrize("case", PUBLISHED)
def test_published_models(case):
    """89 elements; the second file has the numbers of its configuration after the weights."""
    checkpoint = nequix.read(published(PUBLISHED[case]))
    for index, atoms in enumerate(structures(case)):
        assert_checkpoint_is_home(checkpoint, case, index, atoms)


@pytest.mark.long
@pytest.mark.reference
@pytest.mark.parametrize("name", PUBLISHED.values())
def test_published_models_in_float32(name, tmp_path):
    """A converted file of nine elements against the package's own calculator (float32): both round."""
    path = published(name)
    words = ["-o", str(tmp_path / "m.pt"), "--elements", "Li", "P", "S", "Cl", "Na", "Si", "H", "O", "Cu"]
    assert main(["convert", str(path), *words]) == 0
    frames = read(path.parent / f"reference-{name}.extxyz", index=":")
    for atoms, result in zip(frames, artifact.load(tmp_path / "m.pt").evaluate(frames), strict=True):
        assert result.energy == pytest.approx(atoms.get_potential_energy(), rel=1e-6)
        np.testing.assert_allclose(result.forces, atoms.get_forces(), rtol=0, atol=2e-5)
        if atoms.pbc.all():
            volume = atoms.get_volume()
            virial = atoms.get_stress(voigt=False) * volume
            np.testing.assert_allclose(result.stress * volume, virial, rtol=0, atol=2e-5 * len(atoms))


@pytest.mark.usefixtures("native_build", "warm_start")
def test_check_passes_in_all_engines(tmp_path, monkeypatch):
    """In float64; LAMMPS on 1 rank, and on 2 with features exchanged."""
    monkeypatch.setattr(single_point, "LARGEST_GHOST", 0)
    words = ["-o", str(tmp_path / "m.pt"), "--dtype", "float64"]
    assert main(["convert", str(DATA / "nequix_norm.nqx"), *words]) == 0
    write(tmp_path / "a.extxyz", structures("nequix_norm")[0])
    words = [str(tmp_path / "m.pt"), str(tmp_path / "a.extxyz"), "--nve-steps", "10"]
    assert main(["check", *words, "--json", str(tmp_path / "check.json")]) == 0
    rows = json.loads((tmp_path / "check.json").read_text())["checks"]
    compared = {(row["engine"], row["ranks"]) for row in rows if "= ASE" in row["name"]}
    assert compared == {("lammps", 1), ("lammps", 2), ("ipi", 1)}


def _changed(tmp_path: Path, change) -> Path:
    line, _, arrays = (DATA / "nequix_norm.nqx").read_bytes().partition(b"\n")
    config = json.loads(line)
    arrays = change(config, arrays) or arrays
    path = tmp_path / "changed.nqx"
    path.write_bytes(json.dumps(config).encode() + b"\n" + arrays)
    return path


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda c, a: a[:-40], "not an intact Nequix model|truncated"),
        (lambda c, a: a[: len(a) // 2], "truncated|not an intact Nequix model"),
        (lambda c, a: c.update(n_layers=2), "expected numbers"),
        (lambda c, a: c.update(radial_mlp_size=9), "expected numbers"),
        (lambda c, a: c.update(hidden_irreps="8x0e + 4x1e"), "with its natural parity"),
        (lambda c, a: c.update(lmax=2), "each degree up to lmax once"),
        (
            lambda c, a: c.update(lmax=4, hidden_irreps="4x0e+4x1o+4x2e+4x3o+4x4e"),
            "only whole numbers up to 3",
        ),
        (lambda c, a: c.update(radial_polynomial_p=5.5), "expected a whole number"),
        (lambda c, a: c.update(radial_mlp_size=10**7), "more than"),
        (lambda c, a: c.pop("scale") and None, "has no entry scale"),
        (lambda c, a: a + a[:400], "expected numbers"),
        (lambda c, a: c.update(add_repulsion=True), "'add_repulsion: True' is unknown"),
    ],
)
def test_changed_files_are_refused(change, text, tmp_path):
    with pytest.raises(BadInput, match=text):
        nequix.read(_changed(tmp_path, change))


def test_options_that_are_off_or_of_the_training_change_nothing(tmp_path):
    options = {
        "add_repulsion": False,
        "batch_size": 128,
        "seed": 1,
        "wandb_project": "x",
        "lr_scheduler": "cos",
    }
    changed = _changed(tmp_path, lambda c, a: c.update(**options))
    found, own = (nequix.read(path).potential.state_dict() for path in (changed, DATA / "nequix_norm.nqx"))
    assert all(torch.equal(found[name], own[name]) for name in own)


@pytest.mark.parametrize("length", [20, 200])
def test_a_file_that_ends_in_its_configuration_is_refused(tmp_path, length, capsys):
    path = tmp_path / "cut.nqx"
    path.write_bytes((DATA / "nequix_norm.nqx").read_bytes()[:length])
    assert main(["convert", str(path), "-o", str(tmp_path / "m.pt")]) == 2
    assert "cut.nqx: not an intact Nequix model" in capsys.readouterr().err
    assert not (tmp_path / "m.pt").exists()


def test_a_task_is_refused(tmp_path, capsys):
    words = ["-o", str(tmp_path / "m.pt"), "--task", "PBE"]
    assert main(["convert", str(DATA / "nequix_norm.nqx"), *words]) == 2
    assert "a format without heads" in capsys.readouterr().err


@pytest.mark.long
def test_fine_tuning_a_converted_model(tmp_path):
    """The training errors fall; layer norm and readout are trained with the rest."""
    base = tmp_path / "m.pt"
    assert main(["convert", str(DATA / "nequix_norm.nqx"), "-o", str(base)]) == 0
    model, frames = artifact.load(base), []
    for k in range(6):
        atoms = structures("nequix_norm")[0]
        atoms.rattle(0.05, seed=k)
        found = model.evaluate([atoms])[0]
        atoms.calc = SinglePointCalculator(atoms, energy=found.energy, forces=1.5 * found.forces)
        frames.append(atoms)
    write(tmp_path / "frames.extxyz", frames)
    content = {
        "data": {"train": str(tmp_path / "frames.extxyz"), "validation": 0.2},
        "base": {"checkpoint": str(base)},
        "finetune": {"strategy": "full"},
        "training": {"epochs": 20, "batch_size": 5, "lr": 0.02, "devices": 1},
    }
    trained = finetune(content, tmp_path / "run")
    before = trained.metrics["finetune"]["base_errors"]["train"]["forces"]["rmse_meV_per_A"]
    assert trained.metrics["train"]["forces"]["rmse_meV_per_A"] < 0.9 * before
    start = nequix.read(DATA / "nequix_norm.nqx").potential.state_dict()
    end = trained.potential.state_dict()
    moved = {name for name, value in start.items() if not torch.equal(value.float(), end[name].float())}
    assert any("norm" in name for name in moved)
    assert any("readout" in name for name in moved)
