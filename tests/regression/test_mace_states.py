"""Charge and spin as inputs of a converted model: the numbers of mace-torch 0.3.16 in every engine."""

import lzma
from pathlib import Path

import numpy as np
import pytest
from ase.io import write
from ipi.utils.units import unit_to_internal

from mlplugins import MLCalculator, convert, info
from mlplugins.checks.md import NVE, total_energies
from mlplugins.engines import lammps
from mlplugins.engines.ipi.driver import MLDriver
from mlplugins.errors import BadInput, MlpluginsError
from mlplugins.model_file.artifact import load
from mlplugins.model_file.card import ModelCard
from mlplugins.model_file.write import save
from mlplugins.models import lennard_jones
from mlplugins.workflows.convert import Variant

from .stored import structures

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "charge_spin.model"
    path.write_bytes(lzma.decompress((DATA / "mace_charge_spin.model.xz").read_bytes()))
    return path


@pytest.fixture(scope="module")
def model(source):
    convert(source, source.parent / "model.pt", dtype="float64")
    return source.parent / "model.pt"


@pytest.fixture(scope="module")
def cases():
    """Structures with charge and spin in `info`, and mace-torch's energies and forces."""
    with np.load(DATA / "states_mace_charge_spin.npz") as home:
        found = []
        for k, (charge, spin) in enumerate(home["states"].tolist()):
            for index, atoms in enumerate(structures("charge_spin")[:2]):
                atoms.info.update(charge=charge, spin=spin)
                found.append((atoms, float(home[f"{k}/energy/{index}"]), home[f"{k}/forces/{index}"]))
    return found


def _close(energy, forces, case, relative):
    assert energy == pytest.approx(case[1], rel=relative)
    np.testing.assert_allclose(forces, case[2], rtol=0, atol=relative * float(np.abs(case[2]).max()))


def test_one_batch_of_several_states(model, cases):
    assert np.ptp([energy for _, energy, _ in cases[::2]]) > 0.1
    for case, found in zip(cases, load(model).evaluate([atoms for atoms, _, _ in cases])):
        _close(found.energy, found.forces, case, 1e-10)


def test_ase_follows_the_info_of_the_atoms(model, cases):
    atoms = cases[0][0].copy()
    atoms.calc = MLCalculator(model)
    for case in cases[::2]:
        atoms.info = dict(case[0].info)
        _close(atoms.get_potential_energy(), atoms.get_forces(), case, 1e-10)
    atoms.info = {"total_charge": -2, "spin_multiplicity": 1}
    assert atoms.get_potential_energy() == pytest.approx(cases[4][1], rel=1e-10)
    atoms.info = {}
    assert atoms.get_potential_energy() == pytest.approx(cases[0][1], rel=1e-10)
    atoms.set_initial_charges([-1.0, *[0.0] * (len(atoms) - 1)])  # as ASE's calculators of molecules take it
    with pytest.raises(
        BadInput, match="initial charges of the atoms add up to -1, and its info does not say"
    ):
        atoms.get_potential_energy()


@pytest.mark.engine
@pytest.mark.parametrize(("ranks", "mode"), [(1, "fold"), (2, "exchange")])
def test_lammps(model, cases, ranks, mode):
    chosen = cases[::2] if ranks == 1 else cases[8:9]
    found = lammps.evaluate_all(model, [c[0] for c in chosen], ranks, f"mode {mode}", of_model=load(model))
    for case, each in zip(chosen, found, strict=True):
        _close(each.energy, each.forces, case, 1e-9)


@pytest.mark.engine
def test_the_run_of_check_is_one_of_the_state(model, cases):
    """`check --md`."""
    atoms, energy, _ = cases[9]
    _, total = total_energies(load(model), atoms, NVE(temperature=1e-9, steps=0), ranks=1)
    assert total[0] == pytest.approx(energy, rel=1e-9)


@pytest.mark.engine
def test_ipi_takes_the_state_of_the_template_or_of_options(model, cases, tmp_path):
    atoms, energy, _ = cases[9]
    bohr = unit_to_internal("length", "angstrom", 1.0)
    cell = np.eye(3) * 100.0 * bohr
    write(tmp_path / "charged.extxyz", atoms)
    write(tmp_path / "plain.xyz", atoms, format="xyz")
    for template, options in (("charged.extxyz", {}), ("plain.xyz", {"charge": "-1", "spin": "2"})):
        driver = MLDriver(model=str(model), template=str(tmp_path / template), pbc="false", **options)
        assert "charge -1, spin 2" in driver.describe()
        potential = driver(cell, atoms.positions * bohr)[0]
        assert potential == pytest.approx(energy * unit_to_internal("energy", "electronvolt", 1.0), rel=1e-10)
    with pytest.raises(BadInput, match="charge is 5, and the model knows whole numbers from -2 to 2"):
        MLDriver(model=str(model), template=str(tmp_path / "plain.xyz"), charge=5)
    atoms.info = {"spin": "up"}  # for models that take a spin only
    write(tmp_path / "words.extxyz", atoms)
    card = ModelCard("lennard-jones", sorted({*atoms.symbols}), [0.0] * len({*atoms.symbols}))
    save(lennard_jones.Model(card.elements, lennard_jones.Hyperparameters()), tmp_path / "lj.pt", card)
    driver = MLDriver(model=str(tmp_path / "lj.pt"), template=str(tmp_path / "words.extxyz"))
    assert "spin" not in driver.describe()


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ({"charge": 3}, "structure 0: its charge is 3, and the model knows whole numbers from -2 to 2"),
        ({"charge": 0.5}, "its charge is 0.5, and the model knows whole numbers"),
        ({"charge": "minus one"}, "charge: expected one number for the structure, got 'minus one'"),
        ({"spin": 2, "multiplicity": 3}, "spin 2, multiplicity 3: expected one spin multiplicity"),
        ({"spin": 0}, r"its spin is 0: expected the multiplicity 2S \+ 1"),
        ({"spin": 1.5}, "its spin is 1.5: expected the multiplicity"),
    ],
)
def test_states_that_the_model_cannot_take_are_refused(model, cases, state, text):
    atoms = cases[0][0].copy()
    atoms.info = state
    with pytest.raises(BadInput, match=text):
        load(model).evaluate([atoms])


@pytest.mark.long
def test_a_file_made_for_one_charge_keeps_the_spin_as_input(source, cases, tmp_path):
    """In LAMMPS the keyword of the fixed one is taken only with its value."""
    fixed = tmp_path / "fixed.pt"
    convert(source, fixed, head=Variant(charge=-1), dtype="float64")
    assert info(fixed)["inputs"] == {"spin_multiplicity": [None, None]}
    case = cases[8]
    [found] = lammps.evaluate_all(fixed, [case[0]], keywords="charge -1 spin 2")
    _close(found.energy, found.forces, case, 1e-9)
    with pytest.raises(
        MlpluginsError, match=r"was converted for charge -1, not 0; convert it without --charge"
    ):
        lammps.evaluate_all(fixed, [case[0]], keywords="charge 0")
    atoms = case[0].copy()
    atoms.info = {"charge": 0}
    with pytest.raises(BadInput, match="the model is of charge -1"):
        load(fixed).evaluate([atoms])


@pytest.mark.long
def test_lammps_refuses_what_the_model_does_not_know(model, cases):
    with pytest.raises(
        MlpluginsError, match=r"keyword 'charge': the model knows whole numbers from -2 to 2, got 3"
    ):
        lammps.evaluate_all(model, [cases[0][0]], keywords="charge 3")
    with pytest.raises(
        MlpluginsError, match=r"keyword 'spin': expected the multiplicity 2S \+ 1, .* got '0'"
    ):
        lammps.evaluate_all(model, [cases[0][0]], keywords="spin 0")
