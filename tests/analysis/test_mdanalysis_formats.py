"""XTC, TRR, DCD and NetCDF through MDAnalysis: same displacements as from the frames themselves."""

import warnings

import numpy as np
import pytest

from mlplugins.analysis.trajectory import ReadSettings, read_trajectory
from mlplugins.errors import BadInput
from mlplugins.testing.walks import LatticeWalk, crystal
from tests.analysis.stock_lammps import run_lammps

MDAnalysis = pytest.importorskip("MDAnalysis")


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mda")
    system = crystal(LatticeWalk(frames=60, ions=6, rate=0.5), tilt=0.2)
    wrapped = system.wrapped()
    lengths = np.array([*np.linalg.norm(wrapped.cells[0], axis=1), *_angles(wrapped.cells[0])])
    universe = MDAnalysis.Universe.empty(12, trajectory=True)
    universe.add_TopologyAttr("elements", system.symbols)
    universe.add_TopologyAttr("names", system.symbols)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        universe.dimensions = lengths
        frame = universe.trajectory.ts.triclinic_dimensions
        # MDAnalysis turns the cell into its standard orientation: the positions go along
        turned = np.linalg.inv(wrapped.cells[0]) @ frame
        universe.atoms.positions = wrapped.positions[0] @ turned
        universe.atoms.write(str(folder / "top.pdb"))
        for name in ("run.xtc", "run.trr", "run.dcd", "run.nc"):
            with MDAnalysis.Writer(str(folder / name), 12, dt=0.1) as writer:
                for number, positions in enumerate(wrapped.positions):
                    universe.trajectory.ts.data["step"] = 50 * number
                    universe.trajectory.ts.time = 0.1 * number
                    universe.trajectory.ts.frame = number
                    universe.atoms.positions = positions @ turned
                    writer.write(universe.atoms)
    return folder, system.positions @ turned, np.array(system.symbols) == "Li"


def _angles(cell):
    a, b, c = cell / np.linalg.norm(cell, axis=1)[:, None]
    return np.degrees(np.arccos([b @ c, a @ c, a @ b]))


@pytest.mark.parametrize("name", ["run.xtc", "run.trr", "run.dcd", "run.nc"])
def test_displacements(known, name):
    folder, positions, mobile = known
    untimed = {"interval": 50, "timestep_fs": 2.0} if name == "run.dcd" else {}
    settings = ReadSettings("Li", drift="none", topology=folder / "top.pdb", **untimed)
    run = read_trajectory([folder / name], settings)
    expected = positions[:, mobile] - positions[0, mobile]
    # XTC keeps 0.01 Å, and the errors of the steps add up
    assert np.abs(run.displacements - expected).max() < (0.15 if name.endswith("xtc") else 2e-3)
    assert run.interval_fs == pytest.approx(100.0, rel=1e-3)


@pytest.mark.parametrize("name", ["run.xtc", "run.trr"])
def test_steps_of_the_file_agree_with_a_time_step_and_join(known, name):
    folder, positions, mobile = known
    settings = ReadSettings("Li", timestep_fs=2.0, drift="none", topology=folder / "top.pdb")
    random = np.random.default_rng(0)
    with MDAnalysis.Writer(str(folder / f"later-{name}"), 12) as writer:
        universe = MDAnalysis.Universe(str(folder / "top.pdb"), str(folder / name))
        for frame in universe.trajectory[:20]:  # goes on 60 frames after the start
            frame.data["step"] += 3000
            frame.time += 6.0
            universe.atoms.positions += random.normal(0, 0.05, size=(12, 3))  # not the same frames again
            writer.write(universe.atoms)
    run = read_trajectory([folder / name, folder / f"later-{name}"], settings)
    assert (run.n_frames, run.segments) == (80, ((0, 80),))
    assert run.interval_fs == pytest.approx(100.0)


DECK = """
units metal
atom_modify map yes
lattice fcc 5.4
region box block 0 2 0 2 0 2
create_box 1 box
create_atoms 1 box
mass 1 39.9
pair_style zero 4.0
pair_coeff * *
velocity all create 300 1
timestep 0.002
fix 1 all nve
dump 1 all dcd 10 {folder}/lammps.dcd
dump 2 all custom 10 {folder}/lammps.dump id element xu yu zu
dump_modify 2 element Ar
run 300
"""


@pytest.mark.engine
def test_a_dcd_of_lammps_needs_its_times(tmp_path):
    """Its header is in LAMMPS units and read as CHARMM's: 0.978 fs per frame instead of 20."""
    run_lammps(DECK.format(folder=tmp_path), tmp_path)
    universe = MDAnalysis.Universe.empty(32, trajectory=True)
    universe.add_TopologyAttr("elements", ["Ar"] * 32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        universe.atoms.write(str(tmp_path / "top.pdb"))
    file, options = tmp_path / "lammps.dcd", {"drift": "none", "topology": tmp_path / "top.pdb"}
    with pytest.raises(BadInput, match="holds no step numbers; give --interval"):
        read_trajectory([file], ReadSettings("Ar", timestep_fs=2.0, **options))
    with pytest.raises(BadInput, match="holds no times; give --timestep"):
        read_trajectory([file], ReadSettings("Ar", interval=10, **options))
    run = read_trajectory([file], ReadSettings("Ar", timestep_fs=2.0, interval=10, **options))
    known = read_trajectory([tmp_path / "lammps.dump"], ReadSettings("Ar", timestep_fs=2.0, drift="none"))
    assert run.interval_fs == known.interval_fs == 20.0
    assert np.abs(run.displacements - known.displacements).max() < 1e-3


@pytest.mark.parametrize("name", ["run.xtc", "run.trr"])
def test_a_file_cut_short_says_so(known, tmp_path, name):
    folder = known[0]
    (tmp_path / name).write_bytes((folder / name).read_bytes()[:-40])
    run = read_trajectory([tmp_path / name], ReadSettings("Li", topology=folder / "top.pdb"))
    assert run.n_frames == 59
    assert any("ends inside a frame" in text for text in run.warnings)


def test_without_topology_is_refused(known):
    with pytest.raises(BadInput, match="holds no elements; give --topology FILE"):
        read_trajectory([known[0] / "run.xtc"], ReadSettings("Li"))
    with pytest.raises(BadInput, match=r"no such topology: .*absent\.pdb"):
        read_trajectory([known[0] / "run.xtc"], ReadSettings("Li", topology=known[0] / "absent.pdb"))
