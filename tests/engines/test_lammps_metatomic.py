"""`pair_style metatomic`: foreign models and the upstream syntax, so that published decks run unmodified."""

from __future__ import annotations

import numpy as np
import pytest

from mlplugins import MLCalculator
from mlplugins.engines import lammps

from . import direct_model, general_model
from .conftest import STRUCTURES, crystal, triclinic
from .lammps_tools import deck, errors_of, start, thermo

pytestmark = pytest.mark.usefixtures("native_build", "warm_start")

REPORT = ["thermo_style custom step pe pxx pyy pxy fmax", "thermo_modify format float %.16g", "run 0"]


@pytest.fixture(scope="module")
def direct(tmp_path_factory):
    path = tmp_path_factory.mktemp("direct") / "direct.pt"
    direct_model.write(path)
    return path


@pytest.fixture(scope="module")
def two_lists(tmp_path_factory):
    path = tmp_path_factory.mktemp("general") / "two_lists.pt"
    general_model.write(path, per_atom=True, bohr_and_hartree=True)
    return path


def parity(model, cases, ranks, keywords):
    results = lammps.evaluate_all(model, list(cases.values()), ranks, keywords)
    for (name, atoms), result in zip(cases.items(), results):
        atoms.calc = MLCalculator(model)
        assert result.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-8 * len(atoms)), name
        np.testing.assert_allclose(result.forces, atoms.get_forces(), rtol=0, atol=1e-8, err_msg=name)
        if all(atoms.pbc):
            stress = atoms.get_stress(voigt=False)
            np.testing.assert_allclose(result.stress, stress, rtol=0, atol=1e-8, err_msg=name)


def test_two_lists_other_units(two_lists):
    """A full and a half list, bohr and hartree, energies in another order than the atoms."""
    parity(two_lists, {name: make() for name, make in STRUCTURES.items()}, 1, "check_consistency on")


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_foreign_model_with_ghosts(direct, ranks):
    parity(
        direct,
        {"crystal": crystal(), "triclinic": triclinic()},
        ranks,
        "mode ghost uncertainty_threshold off",
    )


def test_model_that_ignores_the_selection_is_refused_with_ghosts(tmp_path, two_lists):
    result = start(tmp_path, [*deck(tmp_path, two_lists, crystal(), "mode ghost"), "run 0"])
    assert result.returncode == 1
    assert "instead of the 32 that were selected" in result.stdout


def test_total_energy_that_ignores_the_selection_is_refused_with_ghosts(tmp_path):
    model = tmp_path / "total.pt"
    general_model.write(model, per_atom=False, bohr_and_hartree=False)
    result = start(tmp_path, [*deck(tmp_path, model, crystal(), "mode ghost"), "run 0"])
    assert result.returncode == 1
    assert "total energy only and ignores the selection" in result.stdout
    result = start(tmp_path, [*deck(tmp_path, model, crystal(), "mode fold"), "run 0"])
    assert result.returncode == 0


def test_published_deck(tmp_path, argon_model):
    """The upstream manual's sample, with argon."""
    lines = [
        "units metal",
        "boundary p p p",
        "atom_style atomic",
        "lattice fcc 5.3",
        "region box block 0 3 0 3 0 3",
        "create_box 1 box",
        "create_atoms 1 box",
        "labelmap atom 1 Ar",
        "mass Ar 39.948",
        f"pair_style metatomic {argon_model} device cpu check_consistency on",
        "pair_coeff * * 18",
        "velocity all create 43 42",
        "timestep 0.001 # 1fs timestep",
        "fix 1 all npt temp 43 43 $(100 * dt) iso 0 0 $(1000 * dt) drag 1.0",
        "thermo 10",
        "run 10",
    ]
    table = thermo(tmp_path, lines)[0]
    assert list(table["Step"]) == [0, 10]
    assert np.isfinite(table["Press"]).all()


def test_per_atom_energies_and_no_per_atom_stress(tmp_path, direct):
    atoms = crystal()
    lines = deck(tmp_path, direct, atoms)
    energies = [
        "compute e all pe/atom",
        "compute sum all reduce sum c_e",
        "thermo_style custom step pe c_sum",
    ]
    table = thermo(tmp_path, [*lines, *energies, "run 0"])[0]
    assert table["c_sum"][0] == pytest.approx(table["PotEng"][0], rel=1e-7)
    stress = [
        "compute s all stress/atom NULL",
        "compute m all reduce max c_s[1]",
        "thermo_style custom step c_m",
    ]
    result = start(tmp_path, [*lines, *stress, "run 0"])
    assert result.returncode == 1
    assert "per-atom stress exists for models exported by mlplugins only" in result.stdout


def test_scale_and_variant(tmp_path, direct):
    lines = deck(tmp_path, direct, triclinic())
    decks = []
    for keywords in ("", "variant double", "variant/energy double scale 0.5", "scale -1", "variant off"):
        lines[-2] = f"pair_style metatomic {direct} {keywords}"
        decks += ["clear", *lines, *REPORT]
    base, *others = thermo(tmp_path, decks)
    for factor, table in zip((2.0, 1.0, -1.0, 1.0), others):
        for name in ("PotEng", "Pxx", "Pxy"):
            assert table[name][0] == pytest.approx(factor * base[name][0], rel=1e-12)
        assert table["Fmax"][0] == pytest.approx(abs(factor) * base["Fmax"][0], rel=1e-12)


def test_several_models_under_numbered_names(tmp_path, direct):
    lines = deck(tmp_path, direct, triclinic())
    first = lines + REPORT
    lines[-2:] = [
        f"pair_style hybrid/overlay metatomic_1 {direct} device cpu metatomic_2 {direct} variant double",
        "pair_coeff * * metatomic_1 18",
        "pair_coeff * * metatomic_2 18",
    ]
    one, both = thermo(tmp_path, [*first, "clear", *lines, *REPORT])
    for name in ("PotEng", "Pxx", "Fmax"):
        assert both[name][0] == pytest.approx(3 * one[name][0], rel=1e-12)


def test_uncertainty_warning(tmp_path, direct):
    lines = deck(tmp_path, direct, crystal())
    styles = {
        f"metatomic {direct}": True,  # upstream's default is 0.1 eV
        f"metatomic {direct} uncertainty_threshold off": False,
        f"metatomic {direct} uncertainty_threshold 0.3": False,
        f"metatomic {direct} variant/energy double": False,  # it is that of the other energy
        f"mlplugins {direct}": False,
        f"mlplugins {direct} uncertainty_threshold 0.2": True,
    }
    decks = []
    for style in styles:
        lines[-2] = f"pair_style {style}"
        decks += ["clear", *lines, "run 0"]
    result = start(tmp_path, decks)
    assert result.returncode == 0
    sections = result.stdout.split("mlplugins: springs")[1:]
    warning = "the uncertainty of an atomic energy is 0.25 eV, above the threshold of"
    assert [warning in section for section in sections] == list(styles.values())


def test_fix_pair_is_refused_under_respa(tmp_path, direct):
    """Which would show the uncertainties of the first step for ever."""
    lines = deck(tmp_path, direct, crystal())
    lines[-2] = f"pair_style mlplugins {direct}"
    fix, respa = "fix u all pair 1 mlplugins uncertainty 1", "run_style respa 2 2 pair 2"
    errors = errors_of(
        tmp_path,
        {
            "fix first": [*lines, fix, respa, "run 0"],
            "respa first": [*lines, respa, fix, "run 0"],
            "taken out": [*lines, fix, respa, "unfix u", "run 0"],
            "verlet": [*lines, fix, "run 0"],
        },
    )
    assert set(errors) == {"fix first", "respa first"}
    for text in errors.values():
        assert "fix pair reads its values at the first step only under run_style respa" in text


def test_direct_forces_and_stress(tmp_path, direct):
    atoms = crystal()
    atoms.rattle(0.1, seed=1)
    atoms.positions += 1.0
    lines = deck(tmp_path, direct, atoms)
    decks, values = [], ("off", "on", "forces", "stress")
    for value in values:
        lines[-2] = f"pair_style metatomic {direct} non_conservative {value}"
        decks += ["clear", *lines, *REPORT]
    results = dict(zip(values, thermo(tmp_path, decks)))
    for table in results.values():
        assert table["PotEng"][0] == pytest.approx(results["off"]["PotEng"][0], rel=1e-14)
    direct_pxx = -direct_model.STRESS[0][0] * lammps.NKTV2P_METAL
    assert results["on"]["Pxx"][0] == pytest.approx(direct_pxx, rel=1e-12)
    assert results["stress"]["Pxx"][0] == pytest.approx(direct_pxx, rel=1e-12)
    assert results["forces"]["Pxx"][0] == pytest.approx(results["off"]["Pxx"][0], rel=1e-12)
    x = atoms.positions[:, 0]
    forces = np.outer(x - x.mean(), direct_model.FORCE)  # their mean is taken off
    for value in ("on", "forces"):
        assert results[value]["Fmax"][0] == pytest.approx(np.abs(forces).max(), rel=1e-6)
    atoms.calc = MLCalculator(direct, non_conservative=True)
    np.testing.assert_allclose(atoms.get_forces(), forces, rtol=0, atol=1e-12)
    assert results["stress"]["Fmax"][0] == pytest.approx(results["off"]["Fmax"][0], rel=1e-12)


@pytest.mark.slow
def test_direct_forces_on_two_ranks(tmp_path, direct):
    lines = deck(tmp_path, direct, triclinic())
    lines[-2] = f"pair_style metatomic {direct} non_conservative forces"
    one = thermo(tmp_path, lines + REPORT)[0]
    two = thermo(tmp_path, lines + REPORT, ranks=2)[0]
    for name in ("PotEng", "Pxx", "Pxy", "Fmax"):
        assert two[name][0] == pytest.approx(one[name][0], rel=1e-10), name
    lines[-2] = f"pair_style metatomic {direct} non_conservative on"
    result = start(tmp_path, [*lines, "run 0"], ranks=2)
    assert result.returncode == 1
    assert "non_conservative stress works in mode fold" in result.stdout + result.stderr


def test_outputs_that_lammps_does_not_get_are_named(tmp_path, direct):
    """The uncertainty is watched; the two spellings of direct forces (metatomic adds one) are one output."""
    lines = deck(tmp_path, direct, triclinic())
    decks = []
    for value in ("off", "on", "forces"):
        lines[-2] = f"pair_style metatomic {direct} non_conservative {value}"
        decks += ["clear", *lines, "run 0"]
    result = start(tmp_path, decks)
    said = [line.partition("not get: ")[2] for line in result.stdout.splitlines() if "not get: " in line]
    forces, stress = ["non_conservative_force", "non_conservative_forces"], ["non_conservative_stress"]
    assert [sorted(line.split()) for line in said] == [[*forces, *stress], stress]


def test_references_are_cited(tmp_path, direct):
    start(tmp_path, [*deck(tmp_path, direct, crystal()), "run 0"])
    assert "A paper about springs" in (tmp_path / "log.lammps").read_text()
