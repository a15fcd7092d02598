"""LAMMPS gives what the model gives: energies, forces, stress and per-atom quantities, in every mode."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from mlplugins import MLCalculator
from mlplugins.engines import lammps
from mlplugins.testing.structures import standard_structures

from .conftest import (
    EPSILON,
    ONSET,
    SIGMA,
    STRUCTURES,
    crystal,
    molecule,
    triclinic,
    write_lennard_jones,
)
from .lammps_tools import TOLERANCE, assert_parity, deck, start, thermo, velocities, write_nequip

pytestmark = pytest.mark.usefixtures("native_build", "warm_start")

MODES = [(1, "fold"), (1, "ghost"), (1, "exchange"), (2, "ghost"), (2, "exchange")]


def structures() -> dict[str, Atoms]:
    """The shared structures, and mixtures of two elements."""
    mixed = standard_structures(("Ar", "Kr"))
    return {name: make() for name, make in STRUCTURES.items()} | {
        f"mixed {name}": a for name, a in mixed.items()
    }


def hard_structures() -> dict[str, Atoms]:
    """The ones where the modes differ most."""
    names = ("triclinic", "slab", "molecule", "small_cell", "mixed crystal", "mixed small_cell")
    return {name: atoms for name, atoms in structures().items() if name in names}


def test_lennard_jones_on_one_rank(argon_model):
    assert_parity(argon_model, {name: make() for name, make in STRUCTURES.items()}, 1, "", TOLERANCE)


def test_more_neighbours_than_lammps_expects(tmp_path):
    """2000 per atom by default; models of many layers have more in ghost mode."""
    model = write_lennard_jones(tmp_path / "model.pt", sigma=2.0, cutoff=16.0)
    atoms = bulk("Ar", "fcc", a=2.8)
    atoms.rattle(0.05, seed=1)
    assert_parity(model, {"dense": atoms}, 1, "", TOLERANCE)


def test_message_passing_on_two_ranks(passing_model):
    assert_parity(passing_model, {"triclinic": triclinic()}, 2, "", TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ranks", "mode", "which"),
    [
        *[(*mode, structures if mode[0] == 1 and mode[1] != "ghost" else hard_structures) for mode in MODES],
        pytest.param(2, "exchange", structures, marks=pytest.mark.exhaustive),
    ],
)
def test_message_passing_in_every_mode(passing_model, ranks, mode, which):
    cases = which()
    assert_parity(passing_model, cases, ranks, f"mode {mode}", TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ranks", "mode"),
    [(1, "ghost"), pytest.param(2, "ghost", marks=pytest.mark.exhaustive), (2, "exchange")],
)
def test_lennard_jones_across_ranks(argon_model, ranks, mode):
    assert_parity(
        argon_model, {name: make() for name, make in STRUCTURES.items()}, ranks, f"mode {mode}", TOLERANCE
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ranks", "mode"),
    [(1, "fold"), pytest.param(2, "ghost", marks=pytest.mark.exhaustive), (2, "exchange")],
)
def test_single_precision(passing_model32, ranks, mode):
    # forces of several eV/Å in float32: 1e-6 relative
    assert_parity(passing_model32, hard_structures(), ranks, f"mode {mode}", 5e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "mode"), [(1, "fold"), (2, "exchange")])
def test_three_layers(tmp_path, ranks, mode):
    """The exchange runs twice per step, forwards and backwards; the range (15 Å) exceeds the box."""
    model = write_nequip(tmp_path / "deep.pt", layers=3)
    assert_parity(model, {"crystal": crystal(), "triclinic": triclinic()}, ranks, f"mode {mode}", TOLERANCE)


def test_forces_and_stress_are_derivatives_of_the_energy(tmp_path, passing_model):
    """Central differences of LAMMPS' own energy: an error common to both engines cannot hide."""
    atoms, h = triclinic(), 1e-4
    lines = deck(tmp_path, passing_model, atoms, f"mode {MODES[0][1]}")
    lines += ["thermo_style custom step pe", "thermo_modify format float %.17g", "group one id 6", "run 0"]
    directions = ["1 0 0", "0 1 0", "0 0 1"]
    for direction in directions:
        step = np.array(direction.split(), dtype=float) * h
        for factor in (1, -2, 1):
            x, y, z = step * factor
            lines += [f"displace_atoms one move {x} {y} {z}", "run 0"]
    parameters = ["x", "y", "z", "xy", "xz", "yz"]
    for name in parameters:
        for change in (h, -2 * h, h):
            delta = f"0 {change}" if len(name) == 1 else change
            lines += [f"change_box all {name} delta {delta} remap units box", "run 0"]
    energies = np.array([table["PotEng"][0] for table in thermo(tmp_path, lines)])[1:].reshape(-1, 3)
    slopes = (energies[:, 0] - energies[:, 1]) / (2 * h)

    result = lammps.evaluate(passing_model, atoms)
    box = lammps.restricted_box(atoms)
    np.testing.assert_allclose(-slopes[:3], (result.forces @ box.rotation)[5], rtol=1e-6, atol=1e-6)
    stress = box.rotation.T @ result.stress @ box.rotation
    for name, slope in zip(parameters, slopes[3:]):
        change = np.zeros((3, 3))
        change["xyz".index(name[-1]), "xyz".index(name[0])] = 1.0  # of the cell, rows are vectors
        strain = np.linalg.solve(box.cell, change)
        assert slope == pytest.approx(atoms.get_volume() * np.sum(stress * strain), rel=1e-6, abs=1e-6), name


@pytest.mark.parametrize("mode", ["exchange", pytest.param("ghost", marks=pytest.mark.slow)])
def test_empty_rank(tmp_path, passing_model, mode):
    """All atoms on the first rank, the second has neither atoms nor ghosts."""
    atoms = molecule()
    atoms.set_cell([80.0, 30.0, 30.0])
    atoms.pbc = True
    atoms.positions += 15.0 - atoms.positions.mean(0)
    lines = deck(tmp_path, passing_model, atoms, f"mode {mode}")
    lines.insert(1, "processors 2 1 1")
    lines += ["thermo_style custom step pe pxx pyz fmax", "thermo_modify format float %.16g", "run 0"]
    result = start(tmp_path, lines, ranks=2)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "2 by 1 by 1 MPI processor grid" in result.stdout
    row = lammps.read_log(tmp_path / "log.lammps")[0]
    atoms.calc = MLCalculator(passing_model)
    assert row["PotEng"][0] == pytest.approx(atoms.get_potential_energy(), abs=TOLERANCE)
    assert row["Fmax"][0] == pytest.approx(abs(atoms.get_forces()).max(), abs=TOLERANCE)
    pressure = -atoms.get_stress() * lammps.NKTV2P_METAL
    assert [row["Pxx"][0], row["Pyz"][0]] == pytest.approx([pressure[0], pressure[3]], abs=1e-3)
    assert abs(row["Pxx"][0]) > 1.0


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.exhaustive)])
def test_unused_atom_type(tmp_path, passing_model, ranks):
    atoms = crystal()
    lines = deck(tmp_path, passing_model, atoms, elements=["Kr", "Ar"])
    table = thermo(
        tmp_path, [*lines, "thermo_style custom step pe", "thermo_modify format float %.16g", "run 0"], ranks
    )[0]
    atoms.calc = MLCalculator(passing_model)
    assert table["PotEng"][0] == pytest.approx(atoms.get_potential_energy(), abs=1e-7)


def test_atomic_numbers_instead_of_symbols(tmp_path, passing_model):
    atoms = standard_structures(("Ar", "Kr"))["crystal"]
    lines = deck(tmp_path, passing_model, atoms)
    lines[-1] = "pair_coeff * * 18 36"
    table = thermo(
        tmp_path, [*lines, "thermo_style custom step pe", "thermo_modify format float %.16g", "run 0"]
    )[0]
    atoms.calc = MLCalculator(passing_model)
    assert table["PotEng"][0] == pytest.approx(atoms.get_potential_energy(), abs=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "mode"), [(1, "fold"), (2, "exchange"), (2, "ghost")])
def test_types_the_model_does_not_see(tmp_path, passing_model, ranks, mode):
    """`NULL` types of pair_style hybrid: the model acts on the other atoms only."""
    atoms = standard_structures(("Ar", "Kr"))["triclinic"] * (2, 1, 1)
    lines = deck(tmp_path, passing_model, atoms)[:-2]
    lines += [
        f"pair_style hybrid mlplugins {passing_model} mode {mode} lj/cut 5.0",
        "pair_coeff * * mlplugins Ar NULL",
        "pair_coeff * 2 lj/cut 0.0 3.0",
        "thermo_style custom step pe press",
        "thermo_modify format float %.16g",
        "run 0",
    ]
    table = thermo(tmp_path, lines, ranks)[0]
    seen = atoms[[atom.index for atom in atoms if atom.symbol == "Ar"]]
    seen.calc = MLCalculator(passing_model)
    assert table["PotEng"][0] == pytest.approx(seen.get_potential_energy(), abs=1e-7)
    pressure = -seen.get_stress()[:3].mean() * lammps.NKTV2P_METAL
    assert table["Press"][0] == pytest.approx(pressure, rel=1e-6)


PER_ATOM = [
    "compute e all pe/atom",
    "compute k all ke/atom",
    "compute s all stress/atom NULL virial",
    "compute c all centroid/stress/atom NULL virial",
    "compute J all heat/flux k e c",
    "thermo_style custom step pe press c_J[1] c_J[2] c_J[3] c_J[4]",
    "thermo_modify format float %.16g",
    "dump d all custom 1 atoms.dump id fx fy fz c_e c_s[*] c_c[*]",
    "dump_modify d format float %.16g sort id",
    "run 0",
]


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_stock_lennard_jones_agrees_per_atom(tmp_path, ranks):
    """Inside the onset of the switch the model is plain Lennard-Jones: LAMMPS' own style is the reference."""
    atoms = molecule()
    model = write_lennard_jones(tmp_path / "long.pt", cutoff=9.0)
    assert atoms.get_all_distances().max() < ONSET * 9.0
    lines = deck(tmp_path, model, atoms, velocities=velocities(atoms, 300))
    ours = thermo(tmp_path, lines + PER_ATOM, ranks)[0]
    rows = lammps.read_dump(tmp_path / "atoms.dump")
    lines[-2:] = ["pair_style lj/cut 12.0", f"pair_coeff * * {EPSILON} {SIGMA}"]
    stock = thermo(tmp_path, lines + PER_ATOM, ranks)[0]
    expected = lammps.read_dump(tmp_path / "atoms.dump")
    np.testing.assert_allclose(rows[:, :5], expected[:, :5], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(rows[:, 5:], expected[:, 5:], rtol=1e-8, atol=1e-6)  # bar Å³
    assert abs(expected[:, 5:]).max() > 1e3
    for name in ours:
        np.testing.assert_allclose(ours[name], stock[name], rtol=1e-8, atol=1e-12, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_heat_flux_of_a_many_body_model(tmp_path, ranks):
    """J = d/dt Σ r_i E_i of a free cluster, from positions and energies one step before and after."""
    model = write_nequip(tmp_path / "one_layer.pt", layers=1)
    atoms = Atoms(
        "Ar5Kr3", molecule().positions.tolist() + [[5.0, 3.4, 0.4], [2.0, 6.0, 2.5], [4.6, 1.0, 5.0]]
    )
    step = 1e-6  # ps
    lines = deck(tmp_path, model, atoms, velocities=velocities(atoms, 3000))
    lines += PER_ATOM[:-3]
    lines += [
        "fix 1 all nve",
        f"timestep {step}",
        "thermo 1",
        "thermo_style custom step c_J[1] c_J[2] c_J[3]",
        "thermo_modify format float %.16g",
        *[f"variable m{a} atom {a}*(c_e+c_k)" for a in "xyz"],
        "compute m all reduce sum v_mx v_my v_mz",
        "fix m all ave/time 1 1 1 c_m[1] c_m[2] c_m[3] file moments.txt format ' %.16g'",
        "run 2",
    ]
    table = thermo(tmp_path, lines, ranks)[0]
    moments = np.loadtxt(tmp_path / "moments.txt")[:, 1:]
    derivative = (moments[2] - moments[0]) / (2 * step)
    flux = np.array([table[f"c_J[{k}]"][1] for k in (1, 2, 3)])
    np.testing.assert_allclose(flux, derivative, rtol=1e-5, atol=1e-5 * np.abs(derivative).max())


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.exhaustive)])
def test_hybrid_overlay_is_the_sum(tmp_path, passing_model, ranks):
    atoms = crystal()
    lines = deck(tmp_path, passing_model, atoms)
    report = ["thermo_style custom step pe pxx pxy fnorm", "thermo_modify format float %.16g", "run 0"]
    ours = thermo(tmp_path, lines + report, ranks)[0]
    head = lines[:-2]
    stock_lines = ["pair_style lj/cut 8.0", "pair_coeff * * 0.02 3.0"]
    stock = thermo(tmp_path, head + stock_lines + report, ranks)[0]
    both_lines = [
        f"pair_style hybrid/overlay mlplugins {passing_model} lj/cut 8.0",
        "pair_coeff * * mlplugins Ar",
        "pair_coeff * * lj/cut 0.02 3.0",
    ]
    both = thermo(tmp_path, head + both_lines + report, ranks)[0]
    for name in ("PotEng", "Pxx", "Pxy"):
        assert both[name][0] == pytest.approx(ours[name][0] + stock[name][0], rel=1e-10), name


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.exhaustive)])
def test_real_units(tmp_path, passing_model, ranks):
    atoms = triclinic()
    lines = deck(tmp_path, passing_model, atoms)
    report = ["thermo_style custom step pe pxx pyz fnorm", "thermo_modify format float %.16g", "run 0"]
    metal = thermo(tmp_path, lines + report, ranks)[0]
    lines[0] = "units real"
    real = thermo(tmp_path, lines + report, ranks)[0]
    kcal_mol = 23.060549  # LAMMPS' own factor
    atmosphere = 1.01325  # bar
    assert real["PotEng"][0] == pytest.approx(metal["PotEng"][0] * kcal_mol, rel=1e-9)
    assert real["Fnorm"][0] == pytest.approx(metal["Fnorm"][0] * kcal_mol, rel=1e-9)
    # the two unit systems round nktv2p on their own
    for name in ("Pxx", "Pyz"):
        assert real[name][0] * atmosphere == pytest.approx(metal[name][0], rel=2e-6), name
