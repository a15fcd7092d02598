"""Several charged species, sites from a file, viscosity, kinisi, bounded memory: by the command."""

import json
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms

from mlplugins.analysis.trajectory import ReadSettings, read_trajectory
from mlplugins.cli.main import main
from mlplugins.testing.walks import LatticeWalk, crystal, write_lammps_dump

OPTIONS = ["--species", "Li", "--temperature", "600", "--timestep", "2", "--interval", "50"]


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def salt(host, frames=700):
    """Li and Cl that share a step, and a host; wrapped. Centre of mass at rest without a host."""
    random = np.random.default_rng(1)
    common = 0.1 * random.normal(size=(frames, 1, 3))
    lithium = np.cumsum(0.3 * random.normal(size=(frames, 10, 3)) + common, axis=0)
    chloride = np.cumsum(0.2 * random.normal(size=(frames, 10, 3)) - common, axis=0)
    still = 0.1 * random.normal(size=(frames, host, 3))
    start = 20 * random.random((20 + host, 3))
    for positions in np.concatenate([lithium, chloride, still], axis=1) + start:
        atoms = Atoms(f"Li10Cl10S{host}" if host else "Li10Cl10", positions, cell=[20.0] * 3, pbc=True)
        atoms.wrap()
        yield atoms


def result(folder="conductivity"):
    return json.loads(Path(folder, "results.json").read_text())


@pytest.mark.long
def test_two_carriers_give_l_ij(capsys):
    """And the table says that it is one species alone."""
    ase.io.write("a.extxyz", list(salt(8)))
    assert main(["conductivity", "a.extxyz", *OPTIONS, "--carriers", "Cl=-1"]) == 0
    [run] = result()["runs"]
    found = run["onsager"]
    assert found["species"] == ["Li", "Cl"]
    assert found["charges"] == [1, -1]
    own, shared = np.array([0.3, 0.2]) ** 2 * 10, 10 * 0.1 * np.array([1, -1])
    expected = np.diag(own) + np.outer(shared, shared)
    parts = np.array([[value["value"] for value in row] for row in found["sigma_parts_mS_cm"]])
    assert parts[0, 1] / parts[0, 0] == pytest.approx(-expected[0, 1] / expected[0, 0], rel=0.5)
    low, high = found["sigma_mS_cm"]["low"], found["sigma_mS_cm"]["high"]
    assert low < parts.sum() < high
    assert sum(found["transference_numbers"]) == pytest.approx(1)
    # the host alone is the reference
    assert set(run["framework_rms_displacement_A"]) == {"S"}
    shown = capsys.readouterr().out
    assert "600 K, all carriers: σ = " in shown
    assert "the table is Li alone" in shown
    page = Path("conductivity/report.html").read_text()
    assert "Li alone; σ of all carriers together is under Carriers" in page
    assert "centre of mass of all atoms but Li, Cl" in page
    assert "Carriers at 600 K" in page
    assert "Onsager" in page
    assert "Cl -1 e" in page


def test_a_liquid_is_relative_to_its_centre_of_mass_and_takes_a_viscosity():
    ase.io.write("a.extxyz", list(salt(0)))
    options = [*OPTIONS, "--carriers", "Cl=-1", "--viscosity", "2"]
    assert main(["conductivity", "a.extxyz", *options]) == 0
    written = result()
    assert any("all atoms are carriers" in text for text in written["warnings"])
    [run] = written["runs"]
    shift = run["D_infinite_cm2_s"]["value"] - run["D_cm2_s"]["value"]
    # ξ k T/(6 π η L) by hand, in cm²/s
    assert shift == pytest.approx(2.837297 * 1.380649e-23 * 600 / (6 * np.pi * 2e-3 * 20e-10) * 1e4, rel=1e-6)
    assert run["hops"] is None


def test_files_of_a_configuration_are_beside_it_and_options_are_not(tmp_path, capsys):
    (tmp_path / "study").mkdir()
    write_lammps_dump(crystal(LatticeWalk(frames=300, ions=5)), tmp_path / "study" / "a.dump")
    (tmp_path / "here.txt").write_text("0 0\n0 0\n")
    (tmp_path / "study" / "beside.txt").write_text("0 0 0\n")
    runs = "species: Li\ntimestep: 2\nruns:\n  - {files: [a.dump], temperature: 600}\n"
    config = tmp_path / "study" / "runs.yaml"
    config.write_text(runs + "sites: beside.txt\n")
    assert main(["conductivity", str(config)]) == 2
    assert "3 columns, 1 lines" in capsys.readouterr().err
    assert main(["conductivity", str(config), "--sites", "here.txt"]) == 2
    assert "2 columns, 2 lines" in capsys.readouterr().err
    config.write_text(runs.replace("600}", "600, green_kubo: absent.dump}"))
    assert main(["conductivity", str(config)]) == 2
    assert "no such file for Green–Kubo" in capsys.readouterr().err
    one = "  - {files: [a.dump], temperature: 600, green_kubo: a.dump}\n"
    config.write_text("species: Li\ntimestep: 2\nruns:\n" + one + one)
    assert main(["conductivity", str(config)]) == 2
    assert "green_kubo in 2 runs at 600 K; expected it in one" in capsys.readouterr().err
    config.write_text(runs + "carriers: {S: 0}\n")
    assert main(["conductivity", str(config)]) == 2
    assert "a neutral species carries no current" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--carriers", "Cl"], "--carriers Cl: expected ELEMENT=CHARGE, e.g. Cl=-1"),
        (["--carriers", "Cl=0"], "with a charge"),
        (["--carriers", "Br=-1"], "no atom of species 'Br'; the trajectory holds Li, S"),
        (["--carriers", "Li=1"], "'Li' is the species already"),
        (["--carriers", "S=nan"], "finite number"),
        (["--charge", "nan"], "finite number"),
        (["--charge", "0"], "a neutral species carries no current"),
        (["--sites", "angstrom.txt"], "a coordinate of 7.5; expected fractions of the cell"),
        (["--sites", "far.txt"], "no ion ever comes near one of the 2 sites"),
        (["--viscosity", "1"], "this trajectory has a framework that stands still"),
        (["--sites", "absent.txt"], "no such file of sites"),
        (["--sites", "bad.txt"], "2 columns, 2 lines; expected at least two lines of three"),
    ],
)
def test_wrong_use_is_refused(tmp_path, capsys, words, text):
    write_lammps_dump(crystal(LatticeWalk(frames=300, ions=5)), tmp_path / "a.dump")
    (tmp_path / "bad.txt").write_text("0 0\n0.5 0.5\n")
    (tmp_path / "angstrom.txt").write_text("0 0 0\n7.5 2 2\n")
    (tmp_path / "far.txt").write_text("0.5 0.5 0.5\n0.5001 0.5 0.51\n")
    assert main(["conductivity", "a.dump", *OPTIONS[:-2], *words]) == 2
    assert text in capsys.readouterr().err


@pytest.mark.long
def test_sites_from_a_file(tmp_path):
    """Ions on a grid of 8 × 8 × 8 sites in a cell of 20 Å: hops of 2.5 Å."""
    walk = LatticeWalk(frames=900, ions=10, rate=0.3, vibration=0.15)
    moved = walk.displacements()
    start = 1.25 + 2.5 * np.random.default_rng(0).integers(0, 8, (10, 3))
    host = np.repeat(20 * np.random.default_rng(1).random((1, 10, 3)), 900, axis=0)
    frames = [
        Atoms("Li10S10", np.concatenate([a, b]), cell=[20.0] * 3, pbc=True)
        for a, b in zip(moved + start, host)
    ]
    ase.io.write("a.extxyz", frames)
    grid = np.stack(np.meshgrid(*[np.arange(8)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    np.savetxt("sites.txt", (grid + 0.5) / 8)
    assert main(["conductivity", "a.extxyz", *OPTIONS, "--sites", "sites.txt"]) == 0
    hops = result()["runs"][0]["hops"]
    assert hops["n_sites"] == 512
    assert hops["mean_hop_length_A"] == pytest.approx(2.5, rel=0.06)  # two hops within 0.1 ps count as one
    assert hops["rate_per_ion_ps"]["low"] < 0.3 < 1.05 * hops["rate_per_ion_ps"]["high"]
    d = hops["D_jump_cm2_s"]
    assert d["low"] < 1.05 * walk.exact_cm2_s
    assert walk.exact_cm2_s < 1.05 * d["high"]


def test_memory_does_not_grow_with_the_length(tmp_path):
    """A budget of a fifth of the displacements: every eighth frame is kept, unwrapped with all of them."""
    known = crystal(LatticeWalk(frames=1200, ions=10, rate=0.4))
    write_lammps_dump(known, tmp_path / "a.dump", columns="id element x y z")
    whole = read_trajectory(["a.dump"], ReadSettings("Li", timestep_fs=2.0))
    thin = read_trajectory(["a.dump"], ReadSettings("Li", timestep_fs=2.0, memory_bytes=8 * 34 * 200))
    assert thin.n_frames == 150
    assert thin.interval_fs == 8 * whole.interval_fs
    assert np.array_equal(thin.displacements, whole.displacements[::8])
    assert np.array_equal(thin.drift, whole.drift[::8])
    assert "every 8th frame kept" in thin.warnings[-1]


@pytest.mark.slow
def test_kinisi_samples_the_check(tmp_path):
    pytest.importorskip("kinisi")
    write_lammps_dump(crystal(LatticeWalk(frames=800, ions=15, rate=0.4)), tmp_path / "a.dump")
    assert main(["conductivity", "a.dump", *OPTIONS[:-2]]) == 0
    closed = result()["runs"][0]["D_bayes_cm2_s"]
    assert main(["conductivity", "a.dump", *OPTIONS[:-2], "--kinisi"]) == 0
    sampled = result()["runs"][0]["D_bayes_cm2_s"]
    assert sampled["value"] == pytest.approx(closed["value"], rel=0.1)
    assert sampled != closed
