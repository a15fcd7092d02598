"""One grammar of comment lines: data sets and trajectories read the same cell, flags and values."""

import ase.io
import numpy as np
import pytest

from mlplugins.analysis.readers import _comment
from mlplugins.errors import BadInput
from mlplugins.structures import comments, extxyz

CELL = 'Lattice="9 0 0 1 8 0 0 2 7"'
COLUMNS = "Properties=species:S:1:pos:R:3"


def both(tmp_path, comment):
    """(cell, periodic) as a trajectory and as a data set hold them."""
    path = tmp_path / "a.extxyz"
    path.write_text(f"1\n{comment}\nLi 1 2 3\n")
    atoms = extxyz.read(path, 0)
    found = _comment.parse(comment, "here")
    return (found.cell, list(found.periodic)), (atoms.cell.array, atoms.pbc.tolist())


@pytest.mark.parametrize(
    ("comment", "periodic"),
    [
        (f"{CELL} {COLUMNS}", [True] * 3),
        (f'{CELL} {COLUMNS} pbc="T T F"', [True, True, False]),
        (f"{CELL} {COLUMNS} pbc=[T, F, F]", [True, False, False]),
        (f'{CELL} {COLUMNS} pbc="TTF"', [True, True, False]),
        (f'{CELL} {COLUMNS} PBC="1 0 1"', [True, False, True]),
        (f"{CELL} {COLUMNS} pbc=F", [False] * 3),
        ('lattice = "9 0 0 1 8 0 0 2 7" properties=species:S:1:pos:R:3 pbc="F T F"', [False, True, False]),
        (f'Lattice=[[9, 0, 0], [1, 8, 0], [0, 2, 7]] {COLUMNS} pbc="true true false"', [True, True, False]),
        ("# CELL{H}: 9 1 0 0 8 2 0 0 7  positions{angstrom} cell{angstrom}", [True] * 3),
    ],
)
def test_the_same_cell_and_flags(tmp_path, comment, periodic):
    for cell, flags in both(tmp_path, comment):
        np.testing.assert_allclose(cell, [[9, 0, 0], [1, 8, 0], [0, 2, 7]], rtol=0, atol=1e-12)
        assert flags == periodic


@pytest.mark.parametrize(
    ("comment", "text"),
    [
        (f'{CELL} {COLUMNS} pbc="T T"', "pbc 'T T'; expected three of T and F"),
        (f'{CELL} {COLUMNS} pbc="yes yes no"', "expected three of T and F"),
        ("# CELL(abcABC): 9 8 7 90 90 0 positions{angstrom} cell{angstrom}", "angles between 0 and 180"),
        ("# CELL(abcABC): 9 8 7 10 10 170 positions{angstrom} cell{angstrom}", "no cell has the angles"),
        ("# CELL(abcABC): 9 8 7 90 90 positions{angstrom} cell{angstrom}", "5 numbers"),
        ("# CELL(abcABC): 9 8 1.2.3 90 90 90 positions{angstrom} cell{angstrom}", "expected numbers"),
    ],
)
def test_both_refuse_the_same(tmp_path, comment, text):
    path = tmp_path / "a.extxyz"
    path.write_text(f"1\n{comment}\nLi 1 2 3\n")
    with pytest.raises(BadInput, match=text):
        extxyz.read(path, 0)
    with pytest.raises(BadInput, match=text):
        _comment.parse(comment, "here")


def test_flags_without_blanks_are_what_ase_misreads(tmp_path):
    """Why they are corrected: ASE takes the word for one flag."""
    path = tmp_path / "a.extxyz"
    path.write_text(f'1\n{CELL} {COLUMNS} pbc="TTF"\nLi 1 2 3\n')
    assert ase.io.read(path).pbc.tolist() != [True, True, False]
    assert extxyz.read(path, 0).pbc.tolist() == list(comments.periodic("TTF", "here"))
