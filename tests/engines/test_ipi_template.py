"""The i-PI driver's template: the order of the atoms, periodicity, units; no alarm about good input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, make_supercell
from ase.io import write
from ase.md.langevin import Langevin
from ipi.utils.units import unit_to_internal, unit_to_user

from mlplugins import MLCalculator
from mlplugins.engines.ipi.driver import MLDriver
from mlplugins.engines.ipi.template import compare, read_template
from mlplugins.engines.ipi.xyz import upright, write_xyz
from mlplugins.errors import BadInput, RunFailed

from . import direct_model
from .conftest import crystal

BOHR = unit_to_user("length", "angstrom", 1.0)
ANOTHER_ORDER = "stand in another order than those of the template"


def salt(seed: int = 3) -> Atoms:
    """Rock salt of Ar and Kr in a skewed cell, atoms in alternating order."""
    atoms = make_supercell(bulk("ArKr", "rocksalt", a=5.6), np.array([[3, 0, 0], [0, 2, 1], [0, 0, 2]]))
    atoms.rattle(0.05, seed=seed)
    return atoms


def by_element(atoms: Atoms) -> Atoms:
    return atoms[np.argsort(atoms.numbers, kind="stable")]


def sent(atoms: Atoms) -> tuple[np.ndarray, np.ndarray]:
    """Cell and positions as i-PI sends them: columns, bohr."""
    lengths = [np.asarray(atoms.cell).T, atoms.positions]
    return tuple(unit_to_internal("length", "angstrom", x) for x in lengths)


def words(template: Atoms, first: Atoms, folder: Path, name: str = "t.extxyz") -> str:
    """What `compare` says of a template file and a first structure."""
    write(folder / name, template)
    return compare(read_template(str(folder / name)), np.asarray(first.cell), first.positions)


def test_sorted_template_is_refused(passing_model, tmp_path):
    atoms = salt()
    write(tmp_path / "sorted.extxyz", by_element(atoms))
    write(tmp_path / "right.extxyz", atoms)
    driver = MLDriver(model=str(passing_model), template=str(tmp_path / "sorted.extxyz"))
    with pytest.raises(BadInput, match=ANOTHER_ORDER) as error:
        driver(*sent(atoms))
    # Ar stands first in the sorted file; atoms 1, 3, … are Kr in i-PI's
    assert f"{len(atoms) // 2} of {len(atoms)} atoms" in str(error.value)
    assert "atom 1 of i-PI is where the template has its atom 12 (Kr)" in str(error.value)
    with pytest.raises(BadInput, match=ANOTHER_ORDER):  # asked again: still refused
        driver(*sent(atoms))
    atoms.calc = MLCalculator(passing_model)
    right = MLDriver(model=str(passing_model), template=str(tmp_path / "right.extxyz"))
    energy = unit_to_user("energy", "electronvolt", right(*sent(atoms))[0])
    assert energy == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
    trusting = MLDriver(model=str(passing_model), template=str(tmp_path / "sorted.extxyz"), order="trust")
    other = atoms.copy()
    other.numbers = by_element(atoms).numbers
    other.calc = MLCalculator(passing_model)
    energy = unit_to_user("energy", "electronvolt", trusting(*sent(atoms))[0])
    assert energy == pytest.approx(other.get_potential_energy(), abs=1e-9)


@pytest.mark.parametrize("change", ["wrapped", "far", "turned", "digits", "strained", "plain", "moved"])
def test_another_order_is_seen(tmp_path, change):
    """However i-PI has turned, wrapped or displaced the structure."""
    atoms = salt()
    first = upright(atoms).atoms if change == "turned" else atoms.copy()
    template = by_element(atoms)
    if change == "wrapped":
        template.wrap()
    elif change == "far":
        first.positions += 7 * first.cell[1]
        first.positions[3] -= 100 * first.cell[0]
    elif change == "digits":
        template.positions = template.positions.round(3)
    elif change == "strained":
        first.set_cell(first.cell.array * 1.03, scale_atoms=True)
    elif change == "plain":
        template.cell, template.pbc = None, False
    elif change == "moved":
        first.rattle(0.15, seed=9)
    with pytest.raises(BadInput, match=ANOTHER_ORDER):
        words(template, first, tmp_path)
    right = atoms.copy()
    if change == "plain":
        right.cell, right.pbc = None, False
    assert "template" in words(right, first, tmp_path)


def test_two_atoms_exchanged(tmp_path):
    atoms = salt()
    template = atoms.copy()
    template.positions[[4, 9]] = template.positions[[9, 4]]
    with pytest.raises(BadInput, match=f"2 of {len(atoms)} atoms"):
        words(template, atoms, tmp_path)
    template = atoms.copy()  # of one element: harmless
    template.positions[[4, 10]] = template.positions[[10, 4]]
    assert words(template, atoms, tmp_path).endswith("(atoms of an element in another order)")


def test_molecules(tmp_path):
    water = Atoms(
        "OH2OH2", [[0, 0, 0], [0.76, 0.59, 0], [-0.76, 0.59, 0], [3, 0, 0], [3.76, 0.59, 0], [2.24, 0.59, 0]]
    )
    water.cell = [12.0] * 3
    water.pbc = True
    with pytest.raises(BadInput, match=ANOTHER_ORDER):
        words(by_element(water), water, tmp_path)
    assert words(water, water, tmp_path) == "the template's positions"
    turned = water.copy()
    turned.rotate(40, "z", center="COP")
    words(water, turned, tmp_path)  # a restart


@pytest.mark.parametrize("seed", range(3))
def test_restarts_raise_no_alarm(tmp_path, seed):
    """Solids, liquids and gases after molecular dynamics, wrapped or not, their cells changed or not."""
    generator = np.random.default_rng(seed)
    for size in (0.02, 0.1, 0.3, 0.6, 1.0, 2.0, 5.0):
        first = salt()
        first.positions += generator.normal(scale=size, size=(len(first), 3))
        first.set_cell(first.cell.array * (1 + 0.02 * generator.random()), scale_atoms=True)
        words(salt(), first, tmp_path)
        first.wrap()
        words(salt(), first, tmp_path)
        first.positions = generator.random((len(first), 3)) @ first.cell.array
        words(salt(), first, tmp_path)


def test_ions_that_turn_round_raise_no_alarm(tmp_path):
    """C and N of cyanide ions exchange their places in a solid: the order is right all the same."""
    atoms = make_supercell(bulk("KC", "rocksalt", a=6.5), 2 * np.eye(3))
    cells = [atoms[[k, k + 1, k + 1]] for k in range(0, len(atoms), 2)]
    ions = Atoms(cell=atoms.cell, pbc=True)
    for cell in cells:
        cell.numbers[2] = 7
        cell.positions[1, 2] -= 0.58
        cell.positions[2, 2] += 0.58
        ions += cell
    ions.rattle(0.05, seed=1)
    first = ions.copy()
    for k in range(0, len(first), 3):
        first.positions[[k + 1, k + 2]] = first.positions[[k + 2, k + 1]]
    first.rattle(0.05, seed=2)
    assert "moved" in words(ions, first, tmp_path)


def test_path_integral_beads_raise_no_alarm(passing_model, tmp_path):
    write(tmp_path / "t.extxyz", salt())
    driver = MLDriver(model=str(passing_model), template=str(tmp_path / "t.extxyz"))
    beads = [salt() for _ in range(4)]
    for k, bead in enumerate(beads):
        bead.rattle(0.1, seed=20 + k)
    cells, positions = zip(*map(sent, beads))
    for bead, reply in zip(beads, driver(list(cells), list(positions))):
        bead.calc = MLCalculator(passing_model)
        energy = unit_to_user("energy", "electronvolt", reply.potential)
        assert energy == pytest.approx(bead.get_potential_energy(), abs=1e-9)


def test_real_dynamics_raise_no_alarm(argon_model, tmp_path):
    """A hot crystal, at several times, against its start."""
    atoms = crystal()
    write(tmp_path / "t.extxyz", atoms)
    template = read_template(str(tmp_path / "t.extxyz"))
    atoms.calc = MLCalculator(argon_model)
    dynamics = Langevin(atoms, 5 * units.fs, temperature_K=80, friction=0.02, fixcm=False)
    for _ in dynamics.irun(60):
        assert "template's" in compare(template, np.asarray(atoms.cell), atoms.positions)


@pytest.fixture
def xyz(tmp_path):
    """Writes an xyz with a comment line of its own."""

    def write_plain(atoms: Atoms, comment: str, scale: float = 1.0) -> str:
        rows = [
            f"{s} {x:.9f} {y:.9f} {z:.9f}" for s, (x, y, z) in zip(atoms.symbols, atoms.positions * scale)
        ]
        (tmp_path / "plain.xyz").write_text("\n".join([str(len(atoms)), comment, *rows]) + "\n")
        return str(tmp_path / "plain.xyz")

    return write_plain


def test_the_start_line_names_outputs_that_are_not_passed_on(tmp_path, xyz):
    direct_model.write(tmp_path / "direct.pt")
    driver = MLDriver(model=str(tmp_path / "direct.pt"), template=xyz(crystal(), "argon crystal"))
    assert driver.describe().endswith("; outputs that are not passed on: energy/double, energy_uncertainty")


def test_template_without_a_cell_is_periodic(argon_model, xyz):
    """What i-PI sends decides: its cell, or a huge one for none."""
    atoms = crystal()
    path = xyz(atoms, "argon crystal")
    atoms.calc = MLCalculator(argon_model)
    driver = MLDriver(model=str(argon_model), template=path)
    assert driver.describe().endswith("32 atoms: Ar32, periodic if i-PI's cell says so")
    energy = unit_to_user("energy", "electronvolt", driver(*sent(atoms))[0])
    assert energy == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
    assert driver.pbc.all()
    cluster = Atoms(atoms.symbols, atoms.positions, cell=[5000.0] * 3)
    cluster.calc = MLCalculator(argon_model)
    energy = unit_to_user(
        "energy", "electronvolt", MLDriver(model=str(argon_model), template=path)(*sent(cluster))[0]
    )
    assert energy == pytest.approx(cluster.get_potential_energy(), abs=1e-9)
    assert abs(energy - atoms.get_potential_energy()) > 0.5


def test_contradictions(argon_model, tmp_path):
    def driver(template: Atoms, **options: bool) -> MLDriver:
        write(tmp_path / "t.extxyz", template)
        return MLDriver(model=str(argon_model), template=str(tmp_path / "t.extxyz"), **options)

    dense, alone = crystal(), crystal()
    alone.cell, alone.pbc = None, False
    with pytest.raises(
        BadInput, match="says 'not periodic' and has no cell, but in i-PI's cell .10.6 × 10.6"
    ):
        driver(alone)(*sent(dense))
    driver(alone, pbc=True)(*sent(dense))
    driver(alone, pbc=False)(*sent(dense))
    huge, none = alone.copy(), alone.copy()
    huge.cell = [300.0] * 3
    server = driver(alone)
    server(*sent(none))  # ASE's server of a molecule sends a cell of zeros
    assert not server.pbc.any()
    assert not driver(alone).pbc
    driver(alone)(*sent(huge))  # no contradiction
    with pytest.raises(
        BadInput, match="is periodic .10.6 × 10.6 × 10.6 Å., but i-PI's cell .300 × 300 × 300 Å."
    ):
        driver(dense)(*sent(huge))


def test_units(argon_model, tmp_path, xyz):
    """Å and bohr mixed up in i-PI's input, and files in bohr that are meant so."""
    atoms = upright(salt()).atoms
    right = {"cell": np.asarray(atoms.cell), "positions": atoms.positions}
    write(tmp_path / "t.extxyz", atoms)
    template = read_template(str(tmp_path / "t.extxyz"))
    assert compare(template, **right) == "the template's positions"
    for what in ({"cell"}, {"positions"}, {"cell", "positions"}):
        wrong = {name: x * (BOHR if name in what else 1.0) for name, x in right.items()}
        named = " and ".join(sorted(what, reverse=True))
        with pytest.raises(BadInput, match=f"{named}: what i-PI sends is 0.5292 times what"):
            compare(template, **wrong)
    # i-PI's own format: bohr unless it says something else
    lengths = atoms.cell.cellpar() * np.array([1 / BOHR] * 3 + [1] * 3)
    cell = " ".join(f"{x:.9f}" for x in lengths)
    bohr = read_template(xyz(atoms, f"# CELL(abcABC): {cell}", 1 / BOHR))
    assert compare(bohr, **right) == "the template's positions, which i-PI has read in bohr"
    stated = read_template(
        xyz(atoms, f"# CELL(abcABC): {cell} positions{{atomic_unit}} cell{{atomic_unit}}", 1 / BOHR)
    )
    assert compare(stated, **right) == "the template's positions"
    cell = " ".join(f"{x:.9f}" for x in atoms.cell.cellpar())
    forgotten = read_template(xyz(atoms, f"# CELL(abcABC): {cell}"))
    assert compare(forgotten, **right) == "the template's positions"
    with pytest.raises(BadInput, match="cell: what i-PI sends is 0.5292 times"):  # units= without cell_units=
        compare(forgotten, right["cell"] * BOHR, right["positions"])
    order = read_template(xyz(by_element(atoms), f"# CELL(abcABC): {cell}"))
    with pytest.raises(BadInput, match=ANOTHER_ORDER):
        compare(order, right["cell"] * BOHR, right["positions"] * BOHR)
    # both forgotten: bonds of 2.8 Å would be 1.5 Å
    with pytest.raises(BadInput, match=r"in bohr, which brings its atoms \d+ and \d+ within 1\.[34]\d+ Å"):
        compare(forgotten, right["cell"] * BOHR, right["positions"] * BOHR)


def test_other_vectors_of_the_same_lattice(tmp_path):
    """A sheared cell of rock salt: its fractions would put each element on the places of the other one."""
    atoms = make_supercell(bulk("ArKr", "rocksalt", a=5.6), np.diag([2, 2, 2]))
    first = atoms.copy()
    first.cell[1] += first.cell[0]
    first.cell[2] -= first.cell[0] + first.cell[1]
    assert words(atoms, first, tmp_path) == "the template's positions"
    first.rattle(0.1, seed=1)
    assert "cannot be checked" in words(atoms, first, tmp_path)


def test_one_atom_at_the_origin(tmp_path):
    """Its position fits any unit."""
    atom = Atoms("Ar", [[0, 0, 0]], cell=[3.7] * 3, pbc=True)
    assert words(atom, atom, tmp_path) == "the template's positions"
    (tmp_path / "b.xyz").write_text("1\n# CELL(abcABC): 7 7 7 90 90 90\nAr 0 0 0\n")
    template = read_template(str(tmp_path / "b.xyz"))
    assert "read in bohr" in compare(template, 7 * BOHR * np.eye(3), np.zeros((1, 3)))


@pytest.mark.parametrize(
    ("labels", "expected"), [(["D", "T", "O17"], [1, 1, 8]), (["H_1", "C13", "18"], [1, 6, 18])]
)
def test_labels_of_isotopes(tmp_path, labels, expected):
    rows = "".join(f"{label} {k} 0 0\n" for k, label in enumerate(labels))
    (tmp_path / "t.xyz").write_text(f"3\nisotopes\n{rows}")
    assert read_template(str(tmp_path / "t.xyz")).numbers.tolist() == expected


def test_bad_templates(tmp_path):
    (tmp_path / "t.xyz").write_text("2\nwater\nOW 0 0 0\nHW 0 0 1\n")
    with pytest.raises(BadInput, match="the label 'OW' of atom 0 is no element"):
        read_template(str(tmp_path / "t.xyz"))
    (tmp_path / "t.xyz").write_text("3\ncut off\nO 0 0 0\nH 0 0 1\n")
    with pytest.raises(BadInput, match="atom 2 is missing"):
        read_template(str(tmp_path / "t.xyz"))
    write(tmp_path / "empty.extxyz", Atoms())
    with pytest.raises(BadInput, match="has no atoms"):
        read_template(str(tmp_path / "empty.extxyz"))


def test_i_pis_own_file(tmp_path):
    atoms = upright(salt()).atoms
    write_xyz(tmp_path / "init.xyz", atoms)
    template = read_template(str(tmp_path / "init.xyz"))
    assert np.allclose(template.positions, atoms.positions, rtol=0, atol=1e-12)
    assert np.allclose(template.cell, atoms.cell, rtol=0, atol=1e-12)
    assert template.numbers.tolist() == atoms.numbers.tolist()
    assert template.pbc.all()
    assert compare(template, np.asarray(atoms.cell), atoms.positions) == "the template's positions"


@pytest.mark.parametrize("where", ["cell", "positions"])
def test_not_finite(argon_model, tmp_path, where):
    write(tmp_path / "t.extxyz", crystal())
    driver = MLDriver(model=str(argon_model), template=str(tmp_path / "t.extxyz"))
    cell, positions = sent(crystal())
    (cell if where == "cell" else positions)[2, 1] = np.nan
    named = "cell" if where == "cell" else "position of atom 2"
    with pytest.raises(RunFailed, match=f"first structure: the {named} is not finite"):
        driver(cell, positions)
    driver(*sent(crystal()))
    with pytest.raises(RunFailed, match="not finite"):
        driver(cell, positions)


def test_further_systems_of_one_driver(passing_model, tmp_path):
    """i-PI serves several systems by one force field and does not say whose a structure is."""
    atoms, other = salt(), make_supercell(bulk("ArKr", "cesiumchloride", a=3.6), np.diag([3, 2, 2]))
    said: list[str] = []
    write(tmp_path / "template.extxyz", atoms)
    driver = MLDriver(model=str(passing_model), template=str(tmp_path / "template.extxyz"))
    driver.say = said.append
    hot = atoms.copy()
    for _ in range(8):  # two systems in turn, one of them moves away
        driver(*sent(atoms))
        hot.rattle(0.2, seed=4)
        driver(*sent(hot))
    swapped = atoms.copy()
    swapped.positions[[4, 9]] = atoms.positions[[9, 4]]  # tried and rejected
    for each in (swapped, atoms):
        driver(*sent(each))
    assert len(said) == 1
    with pytest.raises(BadInput, match=ANOTHER_ORDER):
        driver(*sent(by_element(atoms)))
    for _ in range(2):
        driver(*sent(other))
    (warning,) = said[1:]
    assert "a structure that continues none of those before" in warning
    other.positions[0] = np.nan
    with pytest.raises(RunFailed, match="not finite"):
        driver(*sent(other))
