"""Comment lines that ASE misreads: what they say is read, or refused by name."""

from pathlib import Path

import numpy as np
import pytest
from ase.io import read as ase_read

from mlplugins.errors import BadInput
from mlplugins.structures import extxyz
from mlplugins.structures.dataset import Keys, read

CELL = "10 0 0 1 9 0 0 0 8"
ATOMS = "Li 0 0 0 1 2 3\nS 5 5 5 -1 -2 -3\n"
RIGHT = f'Lattice="{CELL}" Properties=species:S:1:pos:R:3:forces:R:3 energy=-1.5'


def frame(tmp_path, comment, name="a.xyz"):
    path = tmp_path / name
    path.write_text(f"2\n{comment}\n{ATOMS}" * 2)
    return path


@pytest.mark.parametrize(
    "comment",
    [
        RIGHT,
        RIGHT.replace("Lattice", "lattice"),
        RIGHT.replace("Lattice", "LATTICE").replace("Properties", "properties"),
        RIGHT.replace("Lattice=", "Lattice = "),
        RIGHT.replace("=-1.5", " = -1.5"),
        RIGHT.replace(f'"{CELL}"', "[[10, 0, 0], [1, 9, 0], [0, 0, 8]]"),
        RIGHT.replace(f'"{CELL}"', "{" + CELL + "}"),
        RIGHT + ' remark="lattice=1 2 3, stress=4"',
        RIGHT + " stress=None",
    ],
)
@pytest.mark.parametrize("name", ["a.xyz", "a.extxyz"])
def test_a_cell_is_read_however_its_keyword_is_spelled(tmp_path, comment, name):
    structures = read(frame(tmp_path, comment, name))
    assert len(structures) == 2
    for s in structures:
        np.testing.assert_array_equal(s.cell, np.reshape([float(x) for x in CELL.split()], (3, 3)))
        assert s.pbc.tolist() == [True] * 3
        assert s.energy == -1.5
        np.testing.assert_array_equal(s.forces, [[1, 2, 3], [-1, -2, -3]])


def test_ase_itself_loses_the_cell(tmp_path):
    """Why the lines are corrected: this fails once ASE reads keywords in any case."""
    atoms = ase_read(frame(tmp_path, RIGHT.replace("Lattice", "lattice")), index=0)
    assert atoms.cell.rank == 0
    assert not atoms.pbc.any()


def test_flags_of_periodicity_in_any_case(tmp_path):
    (s, _) = read(frame(tmp_path, RIGHT + ' PBC="T F T"'))
    assert s.pbc.tolist() == [True, False, True]
    (s, _) = read(frame(tmp_path, RIGHT + ' pbc="F F F"'))
    assert s.pbc.tolist() == [False] * 3


@pytest.mark.parametrize("key", ["stress", "virial", "REF_stress", "Stress"])
@pytest.mark.parametrize(
    "value", ['"1 2 3 4 5 6"', '"1 6 5 6 2 4 5 4 3"', "[1, 2, 3, 4, 5, 6]", "{1 2 3 4 5 6}"]
)
def test_six_numbers_work_wherever_nine_do(tmp_path, key, value):
    keys = Keys(virial=key) if key == "virial" else Keys(stress=key)
    (s, _) = read(frame(tmp_path, f"{RIGHT} {key}={value}"), keys)
    expected = np.array([[1.0, 6, 5], [6, 2, 4], [5, 4, 3]])
    np.testing.assert_allclose(s.stress, -expected / 720 if key == "virial" else expected, rtol=1e-14)


@pytest.mark.parametrize(
    ("comment", "text"),
    [
        ('cell="10 0 0 0 10 0 0 0 10" energy=1', r"a.xyz, frame 0: .*'cell' but no 'Lattice'"),
        ('unit_cell="10 10 10 90 90 90" energy=1', "'unit_cell' but no 'Lattice'"),
        ('Box="10 10 10"', "'Box' but no 'Lattice'"),
        ('Lattice="10 10 10"', "frame 0: Lattice: expected 9 numbers"),
        (RIGHT + ' stress="1 2 3"', r"stress: expected 6 \(xx yy zz yz xz xy\) or 9 numbers, got 3"),
        ("# CELL(abcABC): 10 9 8 90 90 90 Step: 1", "no units"),
        ("# CELL(abcABC): 10 9 8 90 90 90 positions{atomic_unit} cell{angstrom}", "positions{atomic_unit}"),
    ],
)
def test_cells_that_would_be_lost_are_refused(tmp_path, comment, text):
    with pytest.raises(BadInput, match=text):
        read(frame(tmp_path, comment))


def test_molecules_with_other_words_are_read(tmp_path):
    words = ("a remark", "energy=-1 cell=cubic box_id=7", "", 'name="01a=water" cellar="1 2"')
    numbers = ('cell_index="1 2 3" box_center="0 0 0"', "water, stress=low T=300 K")
    for comment in (*words, *numbers):
        (s, _) = read(frame(tmp_path, comment))
        assert s.volume == 0.0


def test_the_cell_of_ipi_is_read(tmp_path):
    line = "# CELL(abcABC): 10.0 9.0 8.0 90.0 90.0 120.0 Step: 4 Bead: 0 positions{angstrom} cell{angstrom}"
    (s, _) = read(frame(tmp_path, line))
    assert s.pbc.all()
    assert s.volume == pytest.approx(720 * np.sqrt(3) / 2, rel=1e-10)
    np.testing.assert_array_equal(s.positions[1], [5, 5, 5])
    line = "# CELL{H}: 10 1 0 0 9 0 0 0 8 Step: 4 positions{angstrom} cell{angstrom}"
    (s, _) = read(frame(tmp_path, line))
    np.testing.assert_allclose(s.cell, [[10, 0, 0], [1, 9, 0], [0, 0, 8]], atol=1e-12)
    for quantity in ("x_centroid", "x"):
        (t, _) = read(frame(tmp_path, line.replace("positions", quantity)))
        np.testing.assert_array_equal(t.cell, s.cell)
    with pytest.raises(BadInput, match=r"says forces\{angstrom\}, expected positions"):
        read(frame(tmp_path, line.replace("positions", "forces")))
    alone = "# CELL(abcABC): 1000 1000 1000 90 90 90 Step: 4 positions{angstrom} cell{angstrom}"
    assert not read(frame(tmp_path, alone))[0].pbc.any()


def test_frames_that_are_not_asked_for_are_not_judged(tmp_path):
    """Nor is a long file gone through for its first frames."""
    texts = [Path(frame(tmp_path, comment)).read_text() for comment in (RIGHT, 'Box="10 10 10"')]
    path = tmp_path / "two.extxyz"
    path.write_text("".join(texts))
    assert extxyz.read(path, 1).pbc.all()
    for index in (":2", "0:2:1"):
        assert [atoms.pbc.all() for atoms in extxyz.read(path, index)] == [True, True]
    for index in (2, -1, ":", "1:", "0:4"):
        with pytest.raises(BadInput, match="frame 2: the comment line holds 'Box'"):
            extxyz.read(path, index)
