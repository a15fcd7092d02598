"""XDATCAR and the formats that ASE reads."""

import gzip

import ase.io
import numpy as np
import pytest

from mlplugins.analysis.trajectory import ReadSettings, read_frames, read_trajectory
from mlplugins.errors import BadInput
from mlplugins.testing.walks import Crystal, LatticeWalk, crystal

SETTINGS = ReadSettings("Li", timestep_fs=2.0, interval=5)


@pytest.fixture(scope="module")
def system():
    mixed = crystal(LatticeWalk(frames=50, ions=5), tilt=0.2)
    order = np.argsort(np.array(mixed.symbols), kind="stable")  # VASP groups the elements
    cells = mixed.cells * (1 + 0.01 * np.sin(np.arange(50)))[:, None, None]
    return Crystal(sorted(mixed.symbols), mixed.positions[:, order], cells)


def write_xdatcar(path, system, changing):
    """As VASP writes it: the header once, or before every frame if the cell changes."""
    counts = [system.symbols.count(name) for name in ("Li", "S")]
    lines = []
    for number, (positions, cell) in enumerate(zip(system.positions, system.cells)):
        if changing or number == 0:
            vectors = [" ".join(f"{value:.9f}" for value in row) for row in cell]
            lines += ["title", "1.0", *vectors, "Li S", " ".join(map(str, counts))]
        lines.append(f"Direct configuration= {number + 1:5d}")
        lines += [" ".join(f"{value:.9f}" for value in row) for row in positions @ np.linalg.inv(cell) % 1]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("changing", [False, True])
def test_xdatcar_against_ase(system, tmp_path, changing):
    fixed = (
        system if changing else Crystal(system.symbols, system.positions, system.cells[:1].repeat(50, axis=0))
    )
    path = write_xdatcar(tmp_path / "XDATCAR", fixed, changing)
    ours = list(read_frames(path))
    theirs = ase.io.read(path, index=":", format="vasp-xdatcar")
    assert len(ours) == len(theirs) == 50
    for mine, other in zip(ours, theirs):
        np.testing.assert_allclose(mine.positions, other.positions, atol=1e-9)
        np.testing.assert_allclose(mine.cell, other.cell.array, atol=1e-9)
        assert mine.symbols.tolist() == other.get_chemical_symbols()
    (tmp_path / "b.gz").write_bytes(gzip.compress(path.read_bytes()))
    packed = read_trajectory([tmp_path / "b.gz"], SETTINGS)
    np.testing.assert_array_equal(packed.displacements, read_trajectory([path], SETTINGS).displacements)


def test_a_cut_compressed_file_keeps_what_is_whole(system, tmp_path):
    path = write_xdatcar(tmp_path / "XDATCAR", system, True)
    packed = gzip.compress(path.read_bytes())
    (tmp_path / "cut.gz").write_bytes(packed[: len(packed) // 2])
    run = read_trajectory([tmp_path / "cut.gz"], SETTINGS)
    assert 10 < run.n_frames < 40
    assert "that frame is incomplete" in run.warnings[0]


def test_a_damaged_header_is_refused(system, tmp_path):
    path = write_xdatcar(tmp_path / "XDATCAR", system, False)
    path.write_text(path.read_text().replace("Li S", "Li S Cl"))
    with pytest.raises(BadInput, match="header with 3 elements, 2 counts"):
        read_trajectory([path], SETTINGS)


def test_ase_trajectory_of_a_killed_run(system, tmp_path):
    frames = list(system.atoms())
    ase.io.write(tmp_path / "a.traj", frames)
    whole = read_trajectory([tmp_path / "a.traj"], SETTINGS)
    assert whole.n_frames == 50
    assert whole.volume_a3 == pytest.approx(np.mean([atoms.get_volume() for atoms in frames]))
    data = (tmp_path / "a.traj").read_bytes()
    (tmp_path / "cut.traj").write_bytes(data[: len(data) // 2])
    with pytest.raises(BadInput, match=r"cut\.traj: ASE cannot read it"):
        read_trajectory([tmp_path / "cut.traj"], SETTINGS)


def test_the_same_run_from_ase_xdatcar_and_extxyz(system, tmp_path):
    write_xdatcar(tmp_path / "XDATCAR", system, True)
    ase.io.write(tmp_path / "a.extxyz", list(system.wrapped().atoms()))
    ase.io.write(tmp_path / "a.traj", list(system.atoms()))
    runs = [read_trajectory([tmp_path / name], SETTINGS) for name in ("XDATCAR", "a.extxyz", "a.traj")]
    for run in runs[1:]:
        np.testing.assert_allclose(run.displacements, runs[0].displacements, atol=1e-5)


@pytest.mark.parametrize("units", ["angstrom", "atomic_unit"])
def test_pdb_of_ipi_in_its_units(system, tmp_path, units):
    """Written by i-PI itself, which says the units in the title: a PDB of atomic units is not in Å."""
    from ipi.engine.atoms import Atoms
    from ipi.engine.cell import Cell
    from ipi.utils.io import print_file
    from ipi.utils.units import unit_to_internal

    def write(path, key, dimension="length", own=units):
        with path.open("w") as stream:
            for number, atoms in enumerate(system.atoms()):
                beads = Atoms(len(atoms))
                beads.names[:] = atoms.get_chemical_symbols()
                beads.q[:] = unit_to_internal("length", "angstrom", atoms.positions.ravel())
                cell = Cell(unit_to_internal("length", "angstrom", np.asarray(atoms.cell).T))
                title = f"Step:  {10 * number:10d}  Bead:   {0:5d} "
                print_file("pdb", beads, cell, stream, title, key, dimension, own, units)

    write(tmp_path / "t.pdb", "positions")
    run = read_trajectory([tmp_path / "t.pdb"], ReadSettings("Li", timestep_fs=2.0))
    assert run.interval_fs == 20.0
    ase.io.write(tmp_path / "a.traj", list(system.atoms()))
    right = read_trajectory([tmp_path / "a.traj"], SETTINGS)
    assert run.volume_a3 == pytest.approx(right.volume_a3, rel=2e-3)
    np.testing.assert_allclose(run.displacements, right.displacements, atol=0.05)  # cells and places to 0.001
    (tmp_path / "t.pdb").write_text((tmp_path / "t.pdb").read_text().replace("positions{", "velocities{"))
    with pytest.raises(BadInput, match="holds 'velocities', not positions"):
        read_trajectory([tmp_path / "t.pdb"], SETTINGS)


def test_ase_database(system, tmp_path):
    from ase.db import connect

    ase.io.write(tmp_path / "a.traj", list(system.atoms()))
    with connect(tmp_path / "a.db") as rows:
        for atoms in system.atoms():
            rows.write(atoms)
    found = [read_trajectory([tmp_path / name], SETTINGS).displacements for name in ("a.db", "a.traj")]
    np.testing.assert_allclose(*found, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("vasprun.xml", '<?xml version="1.0"?>\n<modeling>\n<i type="logical" name="ML_LMLFF"> T </i>\n'),
        ("OUTCAR", " vasp.6.4.2\n INCAR:\n   ML_LMLFF = .TRUE.\n"),
    ],
)
def test_runs_with_machine_learned_forces_are_refused(tmp_path, name, head):
    """ASE reads the `calculation`s of vasprun.xml only, which are the ab initio steps."""
    (tmp_path / name).write_text(head)
    with pytest.raises(BadInput, match="reads only the ab initio steps, at unequal times; give the XDATCAR"):
        read_trajectory([tmp_path / name], SETTINGS)
