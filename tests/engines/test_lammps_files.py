"""Data files, decks and logs, read back by ASE where it can."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import read

from mlplugins.engines import lammps
from mlplugins.errors import BadInput, RunFailed
from mlplugins.ops import installed
from mlplugins.units import BAR_PER_EV_A3

from .conftest import STRUCTURES


def distances(atoms: Atoms) -> np.ndarray:
    return np.sort(atoms.get_all_distances(mic=True), axis=None)


@pytest.mark.parametrize("name", list(STRUCTURES))
def test_round_trip_through_ase(tmp_path, name):
    atoms = STRUCTURES[name]()
    box = lammps.write_data(tmp_path / "data", atoms, ["Kr", "Ar"])
    back = read(tmp_path / "data", format="lammps-data", atom_style="atomic", units="metal")
    assert back.get_chemical_formula() == atoms.get_chemical_formula()
    back.pbc = atoms.pbc
    np.testing.assert_allclose(distances(back), distances(atoms), rtol=0, atol=1e-12)
    if all(atoms.pbc):
        assert back.get_volume() == pytest.approx(atoms.get_volume(), rel=1e-13)
        np.testing.assert_allclose(back.positions @ box.rotation.T, atoms.positions, rtol=0, atol=1e-12)


@pytest.mark.parametrize("pbc", [(1, 1, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1), (0, 0, 1), (1, 0, 0), (0, 0, 0)])
def test_restricted_box(pbc):
    """Any cell, left-handed ones too: a proper rotation, the same lattice, tilts below one half."""
    random = np.random.default_rng(sum(pbc))
    for _ in range(20):
        cell = random.normal(size=(3, 3)) * 8
        atoms = Atoms("Ar4", random.normal(size=(4, 3)) * 5, cell=cell, pbc=pbc)
        box = lammps.restricted_box(atoms)
        np.testing.assert_allclose(box.rotation @ box.rotation.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(box.rotation) == pytest.approx(1.0)
        assert (np.diag(box.cell) > 0).all()
        assert np.triu(box.cell, 1).any() == False  # noqa: E712
        for row, column in ((1, 0), (2, 0), (2, 1)):
            assert abs(box.cell[row, column]) <= box.cell[column, column] * (0.5 + 1e-9)
        # every periodic vector of one lattice is an integer combination of the other's
        periodic = np.array(pbc, dtype=bool)
        coordinates = (cell[periodic] @ box.rotation) @ np.linalg.inv(box.cell)
        np.testing.assert_allclose(coordinates, coordinates.round(), atol=1e-9)
        assert box.boundary == " ".join("p" if flag else "f" for flag in pbc)
        inside = (atoms.positions @ box.rotation - box.origin) @ np.linalg.inv(box.cell)
        assert ((inside[:, ~periodic] > 0) & (inside[:, ~periodic] < 1)).all()


def test_masses_labels_and_velocities(tmp_path):
    atoms = bulk("NaCl", "rocksalt", 5.64)
    atoms.set_masses([22.5, 35.45])
    velocities = np.array([[0.001, 0, 0], [0, -0.002, 0.0005]])  # Å/fs
    box = lammps.write_data(tmp_path / "data", atoms, ["Li", "Na", "Cl"], velocities)
    text = (tmp_path / "data").read_text()
    assert "3 atom types" in text
    assert "1 Li\n2 Na\n3 Cl" in text
    assert "1 6.94  # Li\n2 22.5  # Na\n3 35.45  # Cl" in text
    rows = text.split("Velocities")[1].split("\n")[2:4]
    written = np.array([[float(word) for word in row.split()[1:]] for row in rows])
    np.testing.assert_allclose(written @ box.rotation.T, velocities * 1000, atol=1e-12)  # Å/ps


def test_bad_structures(tmp_path):
    with pytest.raises(BadInput, match="elements Ar are in the structure but not in Kr"):
        lammps.write_data(tmp_path / "data", Atoms("Ar"), ["Kr"])
    with pytest.raises(BadInput, match="no volume along its periodic directions"):
        lammps.write_data(tmp_path / "data", Atoms("Ar", cell=[3, 3, 0], pbc=True), ["Ar"])
    with pytest.raises(BadInput, match="not finite"):
        lammps.write_data(tmp_path / "data", Atoms("Ar", [[np.inf, 0, 0]]), ["Ar"])
    with pytest.raises(BadInput, match="quote or a dollar"):
        lammps.deck_head("a$b.pt", ["Ar"], "p p p")
    assert not list(tmp_path.iterdir())


def test_pressure_constant():
    assert pytest.approx(BAR_PER_EV_A3, rel=1e-6) == lammps.NKTV2P_METAL


LOG = """LAMMPS (22 Jul 2025)
   Step         PotEng          Press
         0  -1.5            100
WARNING: something
        10  -1.6            101
Loop time of 1 on 1 procs
   Step          Temp
         0   300
        50   301
        10
"""


def test_read_log(tmp_path):
    (tmp_path / "log").write_text(LOG)
    first, second = lammps.read_log(tmp_path / "log")
    assert first["PotEng"].tolist() == [-1.5, -1.6]
    assert first["Step"].tolist() == [0, 10]
    assert second["Temp"].tolist() == [300, 301]


def test_read_dump_sorts_the_last_frame(tmp_path):
    frame = "ITEM: TIMESTEP\n{}\nITEM: ATOMS id fx\n2 {}\n1 0.5\n"
    (tmp_path / "dump").write_text(frame.format(0, 7.0) + frame.format(1, 8.0))
    assert lammps.read_dump(tmp_path / "dump").tolist() == [[1, 0.5], [2, 8.0]]


def test_a_path_with_blanks(native_build, tmp_path, argon_model):
    folder = tmp_path / "my models"
    folder.mkdir()
    model = folder / "argon model.pt"
    model.write_bytes(argon_model.read_bytes())
    atoms = STRUCTURES["molecule"]()
    assert lammps.evaluate(model, atoms).energy == pytest.approx(lammps.evaluate(argon_model, atoms).energy)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nvt.in", "relax.in", "ranks.in", "combined.in"])
def test_shipped_decks(native_build, tmp_path, argon_model, name):
    """The decks in lammps_pair/decks run as they are."""
    atoms = STRUCTURES["crystal"]()
    lammps.write_data(tmp_path / "atoms.lmp", atoms, ["Ar"])
    (tmp_path / "model.pt").write_bytes(argon_model.read_bytes())
    deck = tmp_path / name
    deck.write_text((installed.plugin_sources() / "decks" / name).read_text())
    finished = lammps.run(
        deck, ranks=2 if name == "ranks.in" else 1, arguments=["-var", "elements", "Ar", "-var", "n", "10"]
    )
    assert finished.tables
    assert all(np.isfinite(column).all() for table in finished.tables for column in table.values())


@pytest.mark.slow
def test_timeout(native_build, tmp_path, argon_model):
    atoms = STRUCTURES["crystal"]()
    box = lammps.write_data(tmp_path / lammps.DATA, atoms, ["Ar"])
    lines = [*lammps.deck_head(argon_model, ["Ar"], box.boundary), "fix 1 all nve", "run 10000000"]
    (tmp_path / "in.lmp").write_text("\n".join(lines))
    with pytest.raises(RunFailed, match="did not finish"):
        lammps.run(tmp_path / "in.lmp", timeout=2)
    for _ in range(300):  # a killed process takes a moment to go
        left = [link for link in Path("/proc").glob("[0-9]*/cwd") if _target(link) == str(tmp_path)]
        if not left:
            break
        time.sleep(0.1)
    assert not left, "lmp runs on"


def _target(link):
    try:
        return os.readlink(link)
    except OSError:  # ended meanwhile
        return ""


def test_isotopes_are_types_of_their_own(tmp_path):
    """Every atom keeps its mass: ASE's own reader gives them back."""
    atoms = bulk("NaCl", "rocksalt", 5.64, cubic=True)
    masses = atoms.get_masses()
    masses[[0, 3, 4]] = 21.0, 36.0, 20.5
    atoms.set_masses(masses)
    elements = lammps.type_order(atoms)
    assert elements == ["Na", "Na", "Na", "Cl", "Cl"]
    lammps.write_data(tmp_path / "data", atoms, elements)
    back = read(tmp_path / "data", format="lammps-data", atom_style="atomic", units="metal")
    np.testing.assert_allclose(back.get_masses(), masses, rtol=1e-9)
    assert "1 Na\n2 Na_2\n3 Na_3\n4 Cl\n5 Cl_2" in (tmp_path / "data").read_text()
    with pytest.raises(BadInput, match=r"Na have 3 masses \(20.5, 21, 22.9898 u\).*name Na once for each"):
        lammps.write_data(tmp_path / "data", atoms, ["Na", "Cl"])
    atoms.set_masses([0.0] + [1.0] * 7)
    with pytest.raises(BadInput, match="masses that are not positive: 0 u"):
        lammps.write_data(tmp_path / "data", atoms, lammps.type_order(atoms))
