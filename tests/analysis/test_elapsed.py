"""Velocities in a file tell the time between its frames: dynamics by LAMMPS and ASE of known time steps."""

import numpy as np
import pytest
from ase import units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import write
from ase.md.verlet import VelocityVerlet

from mlplugins.analysis import thermal
from mlplugins.analysis.blocks import Paths
from mlplugins.analysis.joining import _has_other_beads
from mlplugins.analysis.trajectory import ReadSettings, read_trajectory
from tests.analysis.stock_lammps import run_lammps

ARGON = """
units metal
lattice fcc 5.4
region box block 0 3 0 3 0 3
create_box 2 box
create_atoms 1 box
set type 1 type/fraction 2 0.5 7
mass 1 39.95
mass 2 83.80
pair_style lj/cut 8.0
pair_coeff * * 0.0104 3.4
velocity all create 150 4711
fix 1 all nve
timestep 0.004
dump 1 all custom EVERY argon.dump id element xu yu zu vx vy vz
dump_modify 1 element Ar Kr sort id UNITS
run 480
"""


@pytest.fixture(scope="module", params=[("units no", 10), ("units yes", 10), ("units yes", 60)])
def argon(request, tmp_path_factory):
    said, every = request.param
    folder = tmp_path_factory.mktemp("argon")
    run_lammps(ARGON.replace("UNITS", said).replace("EVERY", str(every)), folder)
    return folder / "argon.dump", every


@pytest.mark.parametrize(
    ("step_fs", "factor"), [(4.0, None), (4.2, None), (4.6, 0.87), (3.0, 1.33), (40, 0.1)]
)
def test_lammps_goes_as_far_as_its_velocities_say(argon, step_fs, factor):
    path, every = argon
    run = read_trajectory([path], ReadSettings("Ar", timestep_fs=step_fs))
    found = [text for text in run.warnings if "the velocities in the file carry" in text]
    assert len(found) == (factor is not None and every == 10), found  # collisions every 100 fs
    if found:
        said = float(found[0].split("make (")[1].split(" ")[0])
        assert said == pytest.approx(4.0 / step_fs, rel=0.03)


@pytest.mark.parametrize(("factor", "said"), [(1.0, ""), (1.4, "along smooth paths"), (0.8, "free flight")])
def test_steps_of_dense_frames_tell_the_temperature(argon, factor, said):
    path, every = argon
    run = read_trajectory([path], ReadSettings("Kr", timestep_fs=4.0))
    paths = Paths([run.displacements], [run.segments], factor * run.interval_fs)
    notes = thermal.doubts(paths, "Kr", run.mass_u, run.kinetic.kelvin) if run.kinetic else []
    assert len(notes) == bool(said and every == 10), notes
    assert not notes or said in notes[0]


@pytest.fixture(scope="module")
def copper(tmp_path_factory):
    """Gold and copper, 2 fs, a frame every 10 fs, as ASE writes extended xyz and its own files."""
    atoms = bulk("Cu", cubic=True) * (2, 2, 2)
    atoms.symbols[::2] = "Au"
    atoms.calc = EMT()
    masses = atoms.get_masses()[:, None]
    atoms.set_momenta(np.sqrt(masses * units.kB * 600) * np.random.default_rng(3).normal(size=(32, 3)))
    dynamics = VelocityVerlet(atoms, 2 * units.fs)
    frames = []
    for _ in range(30):
        dynamics.run(5)
        frames.append(atoms.copy())
    return frames


@pytest.mark.parametrize("name", ["md.traj", "md.extxyz", "vel.extxyz"])
@pytest.mark.parametrize(("step_fs", "said"), [(2.0, False), (2.5, True), (1.0, True)])
def test_momenta_and_velocities_of_ase(copper, tmp_path, name, step_fs, said):
    frames = [atoms.copy() for atoms in copper]
    for atoms in frames if name == "vel.extxyz" else ():
        atoms.arrays["vel"] = atoms.get_velocities() * 1000 * units.fs  # Å/ps, which the file does not say
        del atoms.arrays["momenta"]
    write(tmp_path / name, frames)
    run = read_trajectory([tmp_path / name], ReadSettings("Cu", timestep_fs=step_fs, interval=5))
    assert (run.kinetic is None) == (name == "vel.extxyz")
    found = [text for text in run.warnings if "the velocities in the file carry" in text]
    assert bool(found) == said
    if said:
        assert float(found[0].split("frames in ")[1].split(" ")[0]) == pytest.approx(10.0, rel=0.02)


@pytest.mark.parametrize("name", ["md.traj", "md.extxyz", "mass.extxyz"])
def test_masses_of_any_file_count_for_the_ions(copper, tmp_path, name):
    frames = [atoms.copy() for atoms in copper]
    masses = np.where(frames[0].symbols == "Cu", 62.93, 196.97)  # 63Cu
    for atoms in frames:
        atoms.set_masses(masses)
        if name == "mass.extxyz":
            atoms.arrays["mass"] = atoms.arrays.pop("masses")
    write(tmp_path / name, frames)
    run = read_trajectory([tmp_path / name], ReadSettings("Cu", timestep_fs=2.0, interval=5))
    assert run.mass_u == pytest.approx(62.93)


def test_beads_have_files_beside_each_other(tmp_path):
    for name in ("a.pos_0.xyz", "b.pos_0.xyz", "b.pos_1.xyz"):
        (tmp_path / name).write_text("")
    assert not _has_other_beads(tmp_path / "a.pos_0.xyz")
    assert _has_other_beads(tmp_path / "b.pos_0.xyz")
