"""Slabs, wires and clusters: D stays, σ is refused with the reason, directions without periods are named."""

import json
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms

from mlplugins.analysis.trajectory import ReadSettings, read_trajectory
from mlplugins.cli.main import main
from mlplugins.errors import BadInput

SETTINGS = ReadSettings("Li", timestep_fs=2.0, interval=50)


def slab(path, lengths, pbc=True, frames=200, shift=0.0, move=(0.4, 0.4, 0.0)):
    """Li that walks in the plane of 27 rattling S, 3 Å from each other, in a given cell."""
    random = np.random.default_rng(0)
    sites = 3.0 * np.stack(np.meshgrid(*[np.arange(3)] * 3), axis=-1).reshape(-1, 3)
    walk = np.cumsum(random.normal(size=(frames, 10, 3)) * move, axis=0)
    starts = random.uniform(0, 6, size=(10, 3))
    pictures = []
    for step in walk:
        rattle = 0.1 * random.normal(size=(37, 3))
        positions = np.concatenate([sites, starts + step]) + rattle + [0, 0, shift]
        atoms = Atoms("S27Li10", positions=positions, cell=lengths, pbc=pbc)
        atoms.wrap()
        pictures.append(atoms)
    ase.io.write(path, pictures)
    walked = walk - walk[0]
    return walked


@pytest.mark.parametrize("shift", [0.0, 11.0])
def test_vacuum_in_a_periodic_cell_is_no_volume(tmp_path, shift):
    walk = slab(tmp_path / "a.extxyz", [9, 9, 24], shift=shift)
    run = read_trajectory([tmp_path / "a.extxyz"], SETTINGS)
    assert np.isnan(run.volume_a3)
    assert np.abs(run.displacements - walk).max() < 1.5  # rattling and the drift of the framework
    (text,) = run.warnings
    assert "no conductivity: no atom ever enters 17." in text
    assert "of 24.0 Å along c: a slab in vacuum" in text
    assert "give --volume" in text
    given = read_trajectory([tmp_path / "a.extxyz"], ReadSettings("Li", 2.0, 50, volume_a3=729.0))
    assert (given.volume_a3, given.warnings) == (729.0, ())


def test_carriers_alone_do_not_show_vacuum(tmp_path):
    """A dump of one group holds no framework that could fill the cell."""
    walk = np.cumsum(np.random.default_rng(2).normal(size=(50, 3, 3)) * 0.05, axis=0) + [1.0, 1.0, 1.0]
    ase.io.write(tmp_path / "a.extxyz", [Atoms("Li3", row, cell=[20.0] * 3, pbc=True) for row in walk])
    run = read_trajectory([tmp_path / "a.extxyz"], SETTINGS)
    assert run.volume_a3 == pytest.approx(8000)
    assert not any("vacuum" in text for text in run.warnings)


def test_a_full_cell_and_a_dilute_gas_keep_their_volume(tmp_path):
    slab(tmp_path / "full.extxyz", [9, 9, 9])
    assert read_trajectory([tmp_path / "full.extxyz"], SETTINGS).volume_a3 == pytest.approx(729)
    gas = np.random.default_rng(1).uniform(0, 60, size=(1, 8, 3)) + np.linspace(0, 1, 20)[:, None, None]
    frames = [Atoms("Li4S4", positions=row, cell=[60.0] * 3, pbc=True) for row in gas]
    ase.io.write(tmp_path / "gas.extxyz", frames)
    run = read_trajectory([tmp_path / "gas.extxyz"], SETTINGS)
    assert run.volume_a3 == pytest.approx(60**3)
    assert run.warnings == ()


def test_a_cell_that_is_not_that_of_the_positions(tmp_path):
    """A cell in bohr: ions that have left the cell fill the gap that would give it away."""
    random = np.random.default_rng(0)
    sites = 3.0 * np.stack(np.meshgrid(*[np.arange(3)] * 3), axis=-1).reshape(-1, 3)
    walk = random.uniform(-2, 11, size=(10, 3)) + np.cumsum(random.normal(0, 0.3, (100, 10, 3)), axis=0)
    found = {}
    for edge in (9.0, 9.0 * 1.8897):
        frames = [
            Atoms(
                "S27Li10",
                np.concatenate([sites + random.normal(0, 0.1, (27, 3)), ions]),
                cell=[edge] * 3,
                pbc=True,
            )
            for ions in walk
        ]
        ase.io.write(tmp_path / f"{edge}.traj", frames)
        found[edge] = read_trajectory([tmp_path / f"{edge}.traj"], SETTINGS)
    right, wrong = found.values()
    assert right.warnings == ()
    assert wrong.volume_a3 / right.volume_a3 == pytest.approx(6.748, abs=1e-2)
    (text,) = wrong.warnings
    assert "of the cell is farther than 4 Å from every atom (133 Å³ per atom)" in text
    assert "in bohr" in text


def test_a_wire_and_a_cluster_are_named(tmp_path):
    slab(tmp_path / "wire.extxyz", [9, 24, 24], move=(0.4, 0.0, 0.0))
    assert "along b and" in read_trajectory([tmp_path / "wire.extxyz"], SETTINGS).warnings[0]
    slab(tmp_path / "none.extxyz", [9, 9, 24], pbc=(True, False, False))
    run = read_trajectory([tmp_path / "none.extxyz"], SETTINGS)
    assert "the run is not periodic along b and c" in run.warnings[0]
    assert (run.cell, run.start) == (None, None)


@pytest.mark.parametrize("thickness", [0.0, 30.0])
def test_a_slab_without_a_third_vector_keeps_d(tmp_path, thickness):
    walk = slab(tmp_path / "a.traj", [9, 9, thickness], pbc=(True, True, False))
    run = read_trajectory([tmp_path / "a.traj"], SETTINGS)
    assert np.isnan(run.volume_a3)
    assert np.abs(run.displacements - walk).max() < 1.5
    assert "not periodic along c" in run.warnings[0]


def test_a_shrink_wrapped_box_does_not_move_the_atoms(tmp_path):
    """LAMMPS' boundary s: the box ends at the outermost atoms, its length is nobody's strain."""
    random = np.random.default_rng(5)
    x = np.cumsum(random.normal(size=(80, 12, 3)) * 0.3, axis=0) + random.uniform(0, 9, size=(12, 3))
    x[:, -1] = [1.0, 2.0, 3.0]
    text = []
    for number, positions in enumerate(x):
        low, high = positions[:, 2].min() - 1e-4, positions[:, 2].max() + 1e-4
        folded = positions.copy()
        folded[:, :2] %= 9.0
        text += [f"ITEM: TIMESTEP\n{50 * number}\nITEM: NUMBER OF ATOMS\n12\nITEM: BOX BOUNDS pp pp ss"]
        text += ["0 9\n0 9", f"{low:.12g} {high:.12g}", "ITEM: ATOMS id element x y z"]
        text += [
            f"{i + 1} {'Li' if i < 11 else 'S'} " + " ".join(f"{v:.12g}" for v in row)
            for i, row in enumerate(folded)
        ]
    (tmp_path / "a.dump").write_text("\n".join(text) + "\n")
    run = read_trajectory([tmp_path / "a.dump"], SETTINGS)
    np.testing.assert_allclose(run.displacements, (x - x[0])[:, :11], atol=1e-8)


def test_periodic_directions_do_not_change(tmp_path):
    slab(tmp_path / "a.traj", [9, 9, 30], frames=3)
    slab(tmp_path / "b.traj", [9, 9, 30], frames=3, pbc=(True, True, False))
    with pytest.raises(BadInput, match="periodic directions .* expected the same in all frames"):
        read_trajectory([tmp_path / "a.traj", tmp_path / "b.traj"], SETTINGS)


@pytest.mark.slow
def test_the_command_keeps_d_and_refuses_sigma(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    slab(Path("a.extxyz"), [9, 9, 24], frames=400)
    line = ["conductivity", "a.extxyz", "--species", "Li", "--temperature", "600", "--timestep", "2"]
    assert main([*line, "--interval", "50", "--json", "r.json"]) == 0
    (run,) = json.loads(Path("r.json").read_text())["runs"]
    assert run["D_cm2_s"]["value"] == pytest.approx(2 * 0.4**2 / (6 * 0.1) * 1e-4, rel=0.5)
    assert run["sigma_tracer_mS_cm"] is run["sigma_collective_mS_cm"] is run["volume_A3"] is None
    assert "a slab in vacuum" in capsys.readouterr().out
    assert "nan" not in Path("conductivity/report.html").read_text().split("<img")[0].lower()
    assert main([*line, "--interval", "50", "--json", "r.json", "--volume", "729"]) == 0
    (given,) = json.loads(Path("r.json").read_text())["runs"]
    assert given["D_cm2_s"] == run["D_cm2_s"]
    assert given["sigma_tracer_mS_cm"]["value"] > 0
    assert given["volume_A3"] == 729
