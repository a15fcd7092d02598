import numpy as np
import pytest

from mlplugins.dynamics.output import cut_frames, cut_table, largest, last_table_step, table
from mlplugins.engines.ipi.xyz import whole_frames as ipi
from mlplugins.engines.lammps.output import whole_frames as lammps

DUMP = "ITEM: UNITS\nmetal\n" + "".join(
    f"ITEM: TIME\n{step}\nITEM: TIMESTEP\n{step}\nITEM: NUMBER OF ATOMS\n2\n"
    f"ITEM: BOX BOUNDS pp pp pp\n0 1\n0 1\n0 1\n"
    f"ITEM: ATOMS id element xu yu zu\n1 Ar 0 0 {step}\n2 Ar 1 1 1\n"
    for step in (0, 10, 20)
)
XYZ = "".join(
    f"1\n# CELL(abcABC): 1 1 1 90 90 90  Step: {step}  Bead: 0 positions{{angstrom}}\nAr 0 0 0\n"
    for step in (0, 10, 20)
)


@pytest.mark.parametrize(("kind", "text"), [(lammps, DUMP), (ipi, XYZ)])
@pytest.mark.parametrize(("before", "kept"), [(0, 0), (10, 1), (15, 2), (21, 3), (99, 3)])
def test_frames_that_will_be_written_again_are_cut(tmp_path, kind, text, before, kept):
    path = tmp_path / "trajectory"
    path.write_text(text)
    cut_frames(path, kind, before)
    marker = "TIMESTEP\n" if kind == lammps else "Step:"
    result = path.read_text()
    assert result.count(marker) == kept
    assert text.startswith(result)


@pytest.mark.parametrize(("kind", "text"), [(lammps, DUMP), (ipi, XYZ)])
def test_a_frame_cut_anywhere_by_a_kill_is_removed(tmp_path, kind, text):
    path = tmp_path / "trajectory"
    path.write_text(text)
    cut_frames(path, kind, 20)
    two = path.read_text()
    for end in range(len(two), len(text)):
        path.write_text(text[:end])
        cut_frames(path, kind, 99)
        assert path.read_text() == two


def test_tables(tmp_path):
    path = tmp_path / "log"
    path.write_text("Step Temp PotEng\n 0 300 -1\n 10 310 -2\nLoop time of 3\n 20 305.5 -2.5\n 30 9")
    assert last_table_step(path) == 20
    assert largest(path, 1) == 310
    np.testing.assert_array_equal(table(tmp_path / "log")[:, 0], [0, 10, 20])
    cut_table(path, 20)
    assert last_table_step(path) == 10


def test_a_temperature_that_is_not_a_number_is_infinite(tmp_path):
    path = tmp_path / "log"
    path.write_text(" 0 300 -1\n 10 nan nan\n")
    assert largest(path, 1) == np.inf


def test_no_file(tmp_path):
    assert last_table_step(tmp_path / "none") == 0
    assert largest(tmp_path / "none", 1) == 0
    cut_frames(tmp_path / "none", lammps, 0)
    cut_table(tmp_path / "none", 0)
