"""Files in which ASE's readers fill in what the file does not say: elements, energies, units, occupancies."""

import gzip

import ase.units
import numpy as np
import pytest
from ase import Atoms
from ase.db import connect

from mlplugins.dynamics.start import read_structure
from mlplugins.errors import BadInput
from mlplugins.labels._labelling import _frames
from mlplugins.structures.dataset import Keys, read
from mlplugins.structures.labels import unseen_states

ROWS = ["1 1 0 0 0", "3 2 2.2 0 0", "2 2 0 2.1 0"]  # id type x y z


def dump(columns, rows, units=None, steps=(0, 10)):
    head = "" if units is None else f"ITEM: UNITS\n{units}\n"
    box = "ITEM: BOX BOUNDS pp pp pp\n0 9\n0 9\n0 9\n"
    return "".join(
        f"{head}ITEM: TIMESTEP\n{step}\nITEM: NUMBER OF ATOMS\n{len(rows)}\n{box}ITEM: ATOMS {columns}\n"
        + "".join(f"{row}\n" for row in rows)
        for step in steps
    )


def with_more(*more):
    return [f"{row} {extra}" for row, extra in zip(ROWS, more)]


def test_types_are_no_atomic_numbers(tmp_path):
    path = tmp_path / "pool.lammpstrj"
    path.write_text(dump("id type x y z", ROWS))
    for reader in (read, read_structure, _frames):  # train and evaluate; simulate and barrier; label
        with pytest.raises(BadInput, match="does not say the elements of its types.*specorder"):
            reader(str(path))
    path.write_text(dump("id type x y z element", with_more("C", "C", "C")))
    with pytest.raises(BadInput, match="atoms of 2 types are all called C"):
        read(path)
    path.write_text(dump("id type x y z element", with_more("Li", "S", "S")))
    assert [s.numbers.tolist() for s in read(path)] == [[3, 16, 16]] * 2  # in the order of the ids
    path.write_text(dump("id x y z element", ["1 0 0 0 C", "2 1.4 0 0 C"]))
    assert read(path)[0].numbers.tolist() == [6, 6]


def test_elements_by_masses(tmp_path):
    path = tmp_path / "pool.lammpstrj"
    path.write_text(dump("id type x y z mass", with_more("6.94", "32.06", "32.06")))
    assert read(path)[1].numbers.tolist() == [3, 16, 16]
    path.write_text(dump("id type x y z mass", with_more("3.016", "15.999", "15.999")))  # T2O, read as HeO2
    with pytest.raises(BadInput, match="no element has the mass of an atom, 3.016 u"):
        read(path)


@pytest.mark.parametrize(("units", "force"), [(None, 1.0), ("metal", 1.0), ("real", 1 / 23.060548)])
def test_a_dump_holds_forces_but_no_energy(tmp_path, units, force):
    path = tmp_path / "run.lammpstrj"
    rows = with_more("Li 1 0 0", "S -1 0 0", "S 0 0 0")
    path.write_text(dump("id type x y z element fx fy fz", rows, units))
    [first, _] = read(path)
    assert first.energy is None
    assert "energy" not in first.available
    np.testing.assert_allclose(first.forces, [[force, 0, 0], [0, 0, 0], [-force, 0, 0]], rtol=1e-6)


def test_lengths_of_no_unit(tmp_path):
    path = tmp_path / "run.lammpstrj"
    path.write_text(dump("id type x y z element", with_more("Ar", "Ar", "Ar"), "lj"))
    with pytest.raises(BadInput, match="units lj, which have no lengths"):
        read(path)


def data(masses, labels=""):
    return (
        "LAMMPS data file\n\n3 atoms\n2 atom types\n0 9 xlo xhi\n0 9 ylo yhi\n0 9 zlo zhi\n\n"
        f"{labels}{masses}Atoms # atomic\n\n" + "".join(f"{row}\n" for row in ROWS)
    )


@pytest.mark.parametrize(
    ("masses", "expected", "own"),
    [
        ("Masses\n\n1 6.94\n2 32.06\n\n", [3, 16, 16], 32.06),
        ("Masses\n\n1 40.0 # Ca\n2 3.016 # H\n\n", [20, 1, 1], 3.016),  # by mass: Ar, He
        ("Masses\n\n1 2.014 # D\n2 15.999 # O\n\n", [1, 8, 8], 15.999),
        ("Masses\n\n2 17.999 # O\n1 13.003 # C\n\n", [6, 8, 8], 17.999),  # by mass: C, F
    ],
)
def test_elements_of_a_data_file(tmp_path, masses, expected, own):
    path = tmp_path / "start.lammps-data"
    path.write_text(data(masses))
    atoms = read_structure(str(path))
    assert atoms.numbers.tolist() == expected
    assert atoms.get_masses()[2] == pytest.approx(own)


def test_data_files_that_name_no_elements(tmp_path):
    path = tmp_path / "start.lammps-data"
    path.write_text(data(""))
    with pytest.raises(BadInput, match="type 1 has no mass"):
        read_structure(str(path))
    path.write_text(data("Masses\n\n1 6.94\n2 3.016\n\n"))
    with pytest.raises(BadInput, match="no element has the mass of type 2, 3.016 u"):
        read_structure(str(path))
    path.write_text(data("", "Atom Type Labels\n\n1 Li\n2 S\n\n"))
    assert read_structure(str(path)).numbers.tolist() == [3, 16, 16]


CIF = """data_x
_cell_length_a 4.0
_cell_length_b 4.0
_cell_length_c 4.0
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'P 1'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Li1 Li 0.0 0.0 0.0 {li}
S1 S 0.5 0.5 0.5 {s}
"""


def test_a_disordered_crystal_is_no_start(tmp_path):
    path = tmp_path / "x.cif"
    path.write_text(CIF.format(li="1.0", s="1.0"))
    assert read_structure(str(path)).get_chemical_formula() == "LiS"
    path.write_text(CIF.format(li="0.5", s="1.0"))
    for reader in (read_structure, read, _frames):
        with pytest.raises(BadInput, match="a site holds 0.5 Li: such a crystal is disordered"):
            reader(str(path))
    path.write_text(CIF.format(li="0.7", s="1.0") + "Na1 Na 0.0 0.0 0.0 0.3\n")
    with pytest.raises(BadInput, match="a site holds 0.7 Li, 0.3 Na"):
        read_structure(str(path))


@pytest.mark.parametrize("name", ["mass", "Mass"])
def test_masses_by_the_name_of_other_programs(tmp_path, name):
    path = tmp_path / "x.extxyz"
    path.write_text(
        f'2\nLattice="9 0 0 0 9 0 0 0 9" Properties=species:S:1:pos:R:3:{name}:R:1:momenta:R:3 energy=0\n'
        "H 0 0 0 2.0 1 0 0\nH 0 0 0.8 2.0 0 0 3\n"
    )
    [found] = read(path)
    np.testing.assert_allclose(found.kinetic, np.diag([0.5, 0, 4.5]))  # Σ p⊗p/m
    assert read_structure(str(path)).get_masses().tolist() == [2.0, 2.0]


def gro(*atoms):
    rows = [
        f"{1:5d}{residue:<5s}{name:>5s}{k + 1:5d}{0.3 * k:8.3f}{0:8.3f}{0:8.3f}\n"
        for k, (residue, name) in enumerate(atoms)
    ]
    return f"title\n{len(atoms):5d}\n{''.join(rows)}   2.0 2.0 2.0\n"


def test_names_of_force_fields(tmp_path):
    path = tmp_path / "x.gro"
    atoms = [
        ("NA", "NA"),
        ("CL", "CL"),
        ("SOL", "OW"),
        ("SOL", "HW1"),
        ("ALA", "CA"),
        ("LI", "LI"),
        ("K", "K"),
    ]
    path.write_text(gro(*atoms))  # ASE: N C O H C L.. and dummies
    assert read_structure(str(path)).get_chemical_symbols() == ["Na", "Cl", "O", "H", "C", "Li", "K"]
    path.write_text(gro(("LIG", "CL1"), ("LIG", "C2")))
    with pytest.raises(BadInput, match="nobody can tell the element of the atoms 'CL1' of 'LIG'"):
        read(path)


def pdb(*atoms, cell=""):
    rows = [
        f"ATOM  {k + 1:5d} {name:<4s} {residue:3s} A   1    {3.0 * k:8.3f}{0:8.3f}{0:8.3f}  1.00  0.00"
        f"          {element:>2s}\n"
        for k, (residue, name, element) in enumerate(atoms)
    ]
    return cell + "".join(rows) + "END\n"


def test_a_pdb_without_elements_or_with_the_cell_of_none(tmp_path):
    path = tmp_path / "x.pdb"
    path.write_text(pdb(("ALA", "CA", ""), ("CA", "CA", ""), ("ALA", "N", "")))
    assert read_structure(str(path)).get_chemical_symbols() == ["C", "Ca", "N"]
    none = "CRYST1    1.000    1.000    1.000  90.00  90.00  90.00 P 1           1\n"
    path.write_text(pdb(("LIG", "CL1", "CL"), ("LIG", "C2", "C"), cell=none))
    [found] = read(path)
    assert found.numbers.tolist() == [17, 6]
    assert found.volume == 0.0
    assert not found.pbc.any()
    path.write_text(pdb(("LIG", "C2", "C"), cell=none.replace("1.000", "9.000")))
    assert read(path)[0].volume == pytest.approx(729.0)


@pytest.mark.parametrize("name", ["x.db", "x.json"])
def test_keys_and_data_of_a_database(tmp_path, name):
    """ASE reads rows without them: anions became neutral, sets of two functionals one."""
    path = tmp_path / name
    with connect(path) as database:
        for k, (functional, charge) in enumerate((("PBE", -1), ("PBE", -1), ("SCAN", 0))):
            atoms = Atoms("OH", [[0, 0, 0], [0, 0, 0.96 + 0.01 * k]])
            database.write(atoms, xc=functional, charge=charge, E0=-3.0 - k, data={"mu": [0.0, 0.0, 0.1 * k]})
    found = read(path, Keys(energy="E0", dipole="mu", units={"dipole": "e*A"}))
    assert [s.energy for s in found] == [-3.0, -4.0, -5.0]
    assert found[2].get("dipole") == pytest.approx([0, 0, 0.2])
    assert [s.states["charge"] for s in found] == [-1, -1, 0]
    assert sum("the frames differ in 'xc' (PBE, SCAN)" in text for text in unseen_states(found)) == 1
    assert [s.energy for s in read(f"{path}@::-2", Keys(energy="E0"))] == [-5.0, -3.0]
    assert read(f"{path}@-1", Keys(energy="E0"))[0].energy == -5.0
    assert read_structure(f"{path}@0").info["charge"] == -1


def poscar(title, elements, counts="1 1"):
    lines = f"{elements}\n{counts}" if elements else counts
    return f"{title}\n1.0\n4 0 0\n0 4 0\n0 0 4\n{lines}\nDirect\n0 0 0\n0.5 0.5 0.5\n"


@pytest.mark.parametrize(
    ("title", "elements", "counts", "found"),
    [
        ("No", "Li Cl", "1 1", "LiCl"),
        ("Li Cl", "", "1 1", "LiCl"),
        ("Li1 Cl1 generated by phonopy", "", "1 1", "LiCl"),
        ("In", "", "2", "In2"),
        ("LiCl", "", "1 1 ! of each", "LiCl"),
        ("No", "", "2", None),
        ("No Li Cl", "", "1 1", None),
        ("NoCl", "", "1 1", None),
        ("Li Cl In a box", "", "1 1", None),
        ("In a box", "", "2", None),
        ("Li P S", "", "1 1", None),
    ],
)
def test_titles_of_vasp_4_are_no_elements_by_chance(tmp_path, title, elements, counts, found):
    path = tmp_path / "POSCAR"
    path.write_text(poscar(title, elements, counts))
    if found:
        assert str(read_structure(str(path)).symbols) == found
        return
    with pytest.raises(BadInput, match=r"the title .* perhaps by chance: write the elements above"):
        read_structure(str(path))


@pytest.mark.parametrize("name", ["x.data", "data.x", "x.lmp", "x.lammps", "x.data.gz", "start"])
def test_data_files_by_their_content(tmp_path, name):
    path = tmp_path / name
    text = data("Masses\n\n1 6.94\n2 32.06\n\n")
    path.write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    [frame] = read(path)
    assert frame.numbers.tolist() == [3, 16, 16]
    np.testing.assert_allclose(frame.cell, 9 * np.eye(3))


def test_types_that_are_labels_are_refused(tmp_path):
    """ASE 3.29 gives the element of the first line, S, to the atom of the lowest number, Li."""
    labels, atoms = "Atom Type Labels\n\n1 Li\n2 S\n\n", "3 S 1 1 1\n1 Li 2 2 2\n2 Li 3 3 3\n"
    head = "of types\n\n3 atoms\n2 atom types\n" + "".join(f"0 9 {a}lo {a}hi\n" for a in "xyz")
    (tmp_path / "x.data").write_text(
        f"{head}\n{labels}Masses\n\n1 6.94\n2 32.06\n\nAtoms # atomic\n\n{atoms}"
    )
    with pytest.raises(BadInput, match="types are labels, .* write it with numbers"):
        read(tmp_path / "x.data")


STYLES = {
    "atomic": ("{id} {type} {x}", ""),
    "charge": ("{id} {type} 0.5 {x}", ""),
    "molecular": ("{id} 7 {type} {x}", ""),
    "full": ("{id} 3 {type} -1 {x}", ""),
    "charge or molecular": ("{id} 1 {type} {x}", "can be of atom_style charge or molecular"),
    "sphere": ("{id} {type} 1.0 2.5 {x}", "is of none of"),
}


@pytest.mark.parametrize("images", ["", " 0 1 0"])
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("units", ["", "metal", "real", "si"])
def test_styles_and_units_of_data_files(tmp_path, style, images, units):
    row, refused = STYLES[style]
    atoms = [row.format(id=k, type=t, x=f"{k}.5 2 3") for k, t in ((1, 1), (3, 2), (2, 2))]
    speed = {"": "0.005 0 0", "si": "1 0 0", "real": "0.005 0 0", "metal": "5 0 0"}[units]  # 0.005 Å/fs
    head = f"LAMMPS data file via write_data, timestep = 0{f', units = {units}' if units else ''}\n\n"
    head += "3 atoms\n2 atom types\n\n0 9 xlo xhi\n0 9 ylo yhi\n0 9 zlo zhi\n\nMasses\n\n1 6.94\n2 32.06\n\n"
    rows = "".join(f"{atom}{images}\n" for atom in atoms)
    speeds = "".join(f"{k} {speed}\n" for k in (1, 2, 3))
    path = tmp_path / "x.lmp"
    path.write_text(f"{head}Atoms\n\n{rows}\nVelocities\n\n{speeds}")
    if refused or units == "si":
        with pytest.raises(BadInput, match="expected metal or real" if units == "si" else refused):
            read_structure(str(path))
        return
    found = read_structure(str(path))
    assert found.numbers.tolist() == [3, 16, 16]
    y = 11.0 if images else 2.0
    np.testing.assert_allclose(found.positions, [[1.5, y, 3], [2.5, y, 3], [3.5, y, 3]])
    np.testing.assert_allclose(found.get_velocities()[:, 0] * ase.units.fs, 0.005, rtol=1e-6)
