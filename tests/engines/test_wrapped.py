"""Models of ours inside metatomic's wrappers run as wrappers; one rule chooses among several energies."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from metatomic.torch import load_atomistic_model
from metatomic.torch.dftd3 import DFTD3
from metatomic.torch.weighted_sum import WeightedSum
from metatomic_ase import MetatomicCalculator

from mlplugins import MLCalculator, ops
from mlplugins.cli.main import main
from mlplugins.engines import lammps
from mlplugins.errors import BadInput
from mlplugins.model_file.artifact import load
from mlplugins.model_file.card import ModelCard
from mlplugins.model_file.write import save
from mlplugins.models import lennard_jones

from .lammps_tools import write_nequip

BASELINE = {"Zn": -48400.7, "O": -2043.2}
DAMPING = {"energy": {"a1": 0.4289, "a2": 4.4407, "s8": 0.7875}}


def crystal() -> Atoms:
    atoms = bulk("Ar", cubic=True, a=5.3)
    atoms.symbols[::3] = "Kr"
    atoms.rattle(0.1, seed=3)
    atoms.set_cell(atoms.cell.array @ [[1, 0, 0], [0.1, 1.05, 0], [0.05, -0.1, 0.98]], scale_atoms=True)
    return atoms


@pytest.fixture(scope="module", params=["float32", "float64"])
def files(request, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("wrapped")
    ops.load()
    bare = write_nequip(folder / "bare.pt", request.param)
    model = load_atomistic_model(str(bare))
    wrapped = {
        "d3": DFTD3.wrap(model, damping_params=DAMPING, cutoff=7.0, cn_cutoff=6.0),
        "mix": WeightedSum.wrap(model, "energy/half", {"energy": 0.5}),
    }
    for name, wrapper in wrapped.items():
        wrapper.save(str(folder / f"{name}.pt"))
    return {"bare": bare, **{name: folder / f"{name}.pt" for name in wrapped}}


def by_metatomic(path: Path, **options: object) -> tuple[float, np.ndarray, np.ndarray]:
    atoms = crystal()
    atoms.calc = MetatomicCalculator(str(path), device="cpu", check_consistency=True, **options)
    return atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()


@pytest.mark.parametrize("name", ["bare", "d3", "mix"])
def test_ase_equals_metatomics_own_calculator(files, name):
    atoms = crystal()
    atoms.calc = MLCalculator(files[name])
    energy, forces, stress = by_metatomic(files[name])
    assert atoms.get_potential_energy() == pytest.approx(energy, rel=0, abs=1e-6)
    np.testing.assert_allclose(atoms.get_forces(), forces, rtol=0, atol=1e-6)
    np.testing.assert_allclose(atoms.get_stress(), stress, rtol=0, atol=1e-7)
    bare = by_metatomic(files["bare"])[0]
    assert (abs(energy - bare) > 0.01) == (name == "d3")


def test_a_wrapper_is_none_of_ours(files, tmp_path, capsys):
    bare, wrapper = load(files["bare"]), load(files["d3"])
    assert (bare.family, bare.n_layers, bare.exchange_width > 0) == ("nequip", 2, True)
    assert (wrapper.family, wrapper.n_layers, wrapper.exchange_width) == (None, None, 0)
    assert wrapper.cutoff == 7.0
    assert wrapper.record["elements"] == ["Ar", "Kr"]
    assert main(["info", str(files["d3"]), "--json", str(tmp_path / "i.json")]) == 0
    assert "a wrapper around a model of mlplugins (nequip)" in capsys.readouterr().out
    record = json.loads((tmp_path / "i.json").read_text())
    assert (record["family"], record["wraps"], record["layers"]) == (None, "nequip", None)


def test_variants_in_ase(files):
    energy = by_metatomic(files["bare"])[0]
    atoms = crystal()
    for variant, factor in {None: 1.0, "energy": 1.0, "half": 0.5, "energy/half": 0.5}.items():
        atoms.calc = MLCalculator(files["mix"], variant=variant)
        assert atoms.get_potential_energy() == pytest.approx(factor * energy, rel=0, abs=1e-6)
    with pytest.raises(BadInput, match="has no output 'third': Valid: energy, energy/half"):
        MLCalculator(files["mix"], variant="third")


@pytest.mark.usefixtures("native_build", "warm_start")
@pytest.mark.parametrize(("name", "keywords"), [("d3", ""), ("mix", "variant/energy half"), ("mix", "")])
def test_lammps_equals_ase(files, name, keywords):
    atoms = crystal()
    atoms.calc = MLCalculator(files[name], variant="half" if keywords else None)
    (result,) = lammps.evaluate_all(files[name], [atoms], 1, keywords)
    assert result.energy == pytest.approx(atoms.get_potential_energy(), rel=0, abs=4e-6)
    np.testing.assert_allclose(result.forces, atoms.get_forces(), rtol=0, atol=1e-5)
    np.testing.assert_allclose(result.stress, atoms.get_stress(voigt=False), rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def all_electron(tmp_path_factory) -> dict[str, Path]:
    """Models of ZnO with the energies of all electrons, −48 400 eV per zinc."""
    folder = tmp_path_factory.mktemp("zno")
    parameters = lennard_jones.Hyperparameters(epsilon=[0.1, 0.1], sigma=[1.9, 2.6], cutoff=5.0)
    description = ModelCard("lennard-jones", ["O", "Zn"], [BASELINE["O"], BASELINE["Zn"]])
    for dtype in ("float32", "float64"):
        save(lennard_jones.Model(["O", "Zn"], parameters), folder / f"{dtype}.pt", description, dtype)
    return {dtype: folder / f"{dtype}.pt" for dtype in ("float32", "float64")}


def wurtzite(step: float) -> Atoms:
    atoms = bulk("ZnO", "wurtzite", a=3.25, c=5.2) * (2, 2, 1)
    atoms.rattle(0.02, seed=1)
    atoms.positions += step * np.random.default_rng(2).normal(0, 0.02, (len(atoms), 3))
    return atoms


def test_float32_keeps_energies_in_ase_and_metatomic(all_electron):
    """The digits of 16 atoms' total in float32 are 0.03 eV apart, those of one zinc 4 meV."""
    steps = [wurtzite(step) for step in (0.0, 0.5, 1.0)]
    exact = [result.energy for result in load(all_electron["float64"]).evaluate(steps)]
    for energies in (
        [result.energy for result in load(all_electron["float32"]).evaluate(steps)],
        [_metatomic_energy(all_electron["float32"], atoms) for atoms in steps],
    ):
        np.testing.assert_allclose(np.diff(energies), np.diff(exact), rtol=0, atol=2e-5)
        assert abs(np.array(energies) - exact).max() < 5e-5
    assert load(all_electron["float32"]).dtype == "float32"


def _metatomic_energy(path: Path, atoms: Atoms) -> float:
    atoms = atoms.copy()
    atoms.calc = MetatomicCalculator(str(path), device="cpu", check_consistency=True)
    return atoms.get_potential_energy()


@pytest.mark.usefixtures("native_build", "warm_start")
def test_float32_keeps_energies_in_lammps(all_electron):
    steps = [wurtzite(step) for step in (0.0, 1.0)]
    exact = [result.energy for result in load(all_electron["float64"]).evaluate(steps)]
    found = [result.energy for result in lammps.evaluate_all(all_electron["float32"], steps, 1, "")]
    assert found[1] - found[0] == pytest.approx(exact[1] - exact[0], rel=0, abs=2e-5)
