"""xyz files written by i-PI's own writers and by ASE."""

import ase.io
import numpy as np
import pytest
from ipi.engine.atoms import Atoms
from ipi.engine.cell import Cell
from ipi.utils.io import print_file
from ipi.utils.units import unit_to_internal

from mlplugins.analysis.trajectory import ReadSettings, read_frames, read_trajectory
from mlplugins.errors import BadInput
from mlplugins.testing.walks import LatticeWalk, crystal

SYSTEM = crystal(LatticeWalk(frames=60, ions=6), tilt=0.2)
SETTINGS = ReadSettings("Li", timestep_fs=0.5)


def write_ipi(path, mode="xyz", units="angstrom", cell_units="angstrom", key="positions", bead=0, frames=60):
    """What i-PI does for <trajectory stride='20'>."""
    with open(path, "w", encoding="utf-8") as stream:
        for number in range(frames):
            atoms = Atoms(len(SYSTEM.symbols))
            atoms.q[:] = unit_to_internal("length", "angstrom", 1.0) * SYSTEM.positions[number].ravel()
            atoms.names[:] = SYSTEM.symbols
            # i-PI wants an upper triangular cell with the vectors as columns
            cell = Cell(h=unit_to_internal("length", "angstrom", 1.0) * np.diag([21.0, 22.0, 23.0]))
            title = f"Step:  {20 * number:10d}  Bead:   {bead:5d} "
            print_file(mode, atoms, cell, stream, title, key, "length", units, cell_units)
    return path


def expected():
    symbols = np.array(SYSTEM.symbols)
    moved = SYSTEM.positions - SYSTEM.positions[0]
    return moved[:, symbols == "Li"] - moved[:, symbols == "S"].mean(axis=1, keepdims=True)


@pytest.mark.parametrize("units", ["angstrom", "atomic_unit", "nanometer"])
@pytest.mark.parametrize("cell_units", ["angstrom", "atomic_unit"])
def test_ipi_units_are_those_of_the_comment(tmp_path, units, cell_units):
    run = read_trajectory([write_ipi(tmp_path / "a.xyz", "xyz", units, cell_units)], SETTINGS)
    np.testing.assert_allclose(run.displacements, expected(), atol=1e-3)  # i-PI prints six digits
    assert run.volume_a3 == pytest.approx(21 * 22 * 23, rel=1e-5)
    assert run.interval_fs == pytest.approx(10.0)


@pytest.mark.parametrize("key", ["positions", "x_centroid"])
def test_ipi_output_in_ase_format(tmp_path, key):
    run = read_trajectory([write_ipi(tmp_path / "a.extxyz", "ase", "ase", "ase", key)], SETTINGS)
    np.testing.assert_allclose(run.displacements, expected(), atol=1e-6)
    assert run.interval_fs == pytest.approx(10.0)
    assert run.volume_a3 == pytest.approx(21 * 22 * 23, rel=1e-6)


def test_other_quantities_and_other_beads_are_refused(tmp_path):
    path = write_ipi(tmp_path / "v.xyz", key="velocities", units="angstrom")
    with pytest.raises(BadInput, match="holds 'velocities', not positions; give the trajectory of positions"):
        read_trajectory([path], SETTINGS)
    beads = [write_ipi(tmp_path / f"{bead}.xyz", bead=bead) for bead in (0, 1)]
    with pytest.raises(BadInput, match="bead 1 after bead 0; beads are not one run: give the centroid"):
        read_trajectory(beads, SETTINGS)


def test_a_cut_end_and_a_continued_file(tmp_path):
    whole = write_ipi(tmp_path / "a.xyz").read_bytes()
    (tmp_path / "cut.xyz").write_bytes(whole[:-50])
    run = read_trajectory([tmp_path / "cut.xyz"], SETTINGS)
    assert run.n_frames == 59
    assert "ends inside frame 60; that frame is incomplete" in run.warnings[0]
    half = write_ipi(tmp_path / "half.xyz", frames=30).read_bytes()
    last_line = half.rstrip(b"\n").rfind(b"\n") + 1
    # a line is missing, then the run starts again
    (tmp_path / "on.xyz").write_bytes(half[:last_line] + whole)
    with pytest.raises(BadInput, match="step 0 after step 560"):
        read_trajectory([tmp_path / "on.xyz"], SETTINGS)


def test_extended_xyz_of_ase_with_more_columns(tmp_path):
    frames = []
    for number, atoms in enumerate(SYSTEM.atoms()):
        atoms.arrays["momenta"] = np.ones((len(atoms), 3))
        atoms.arrays["tag_name"] = np.array(
            ["Li", "b"] * (len(atoms) // 2)
        )  # text that looks like an element
        atoms.info.update(step=10 * number, comment="a quoted text")
        frames.append(atoms)
    ase.io.write(tmp_path / "a.extxyz", frames)
    run = read_trajectory([tmp_path / "a.extxyz"], SETTINGS)
    np.testing.assert_allclose(run.displacements, expected(), atol=1e-6)
    assert run.interval_fs == pytest.approx(5.0)
    first = next(read_frames(tmp_path / "a.extxyz"))
    np.testing.assert_allclose(first.cell, SYSTEM.cells[0], atol=1e-7)  # tilted: rows and columns differ


def test_plain_xyz_has_no_cell(tmp_path):
    ase.io.write(tmp_path / "a.xyz", list(SYSTEM.atoms()), format="extxyz", plain=True)
    with pytest.raises(BadInput, match="no cell in the comment line.*a conductivity needs the volume"):
        read_trajectory([tmp_path / "a.xyz"], SETTINGS)


def test_a_damaged_line_is_named(tmp_path):
    text = write_ipi(tmp_path / "a.xyz").read_text().split("\n")
    text[30] = "Li 1.0 2.0"
    (tmp_path / "b.xyz").write_text("\n".join(text))
    with pytest.raises(BadInput, match="frame 3: expected 12 lines of 4 columns, found 47 values"):
        read_trajectory([tmp_path / "b.xyz"], SETTINGS)
