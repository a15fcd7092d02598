"""What a run keeps of its start structure, in the hosts' own files and in what the hosts do."""

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms, FixBondLength, FixCartesian, FixCom, FixedLine, FixedPlane, FixScaled
from ase.io import read, write
from ase.io.trajectory import Trajectory

from mlplugins import engines
from mlplugins.analysis.trajectory import read_frames
from mlplugins.dynamics import start
from mlplugins.dynamics.output import table
from mlplugins.errors import BadInput
from mlplugins.model_file import artifact
from mlplugins.model_file.card import ModelCard
from mlplugins.model_file.write import save
from mlplugins.models import lennard_jones, zbl
from mlplugins.simulation import campaign as campaigns
from mlplugins.simulation.config import load
from mlplugins.simulation.plan import plan
from mlplugins.structures import bonds
from mlplugins.structures.distances import distances

from .argon import write_campaign

pytestmark = pytest.mark.usefixtures("native_build", "warm_start")
ENGINES = ["lammps", pytest.param("ase", marks=pytest.mark.slow), pytest.param("ipi", marks=pytest.mark.slow)]
FIXED = [0, 1, 2, 3]
FREE_Z = [8, 9]
"""Atoms of which x and y are held."""


def crystal():
    """Two isotopes, four atoms fixed, of two more x and y; and velocities."""
    atoms = bulk("Ar", "fcc", a=5.5, cubic=True).repeat((2, 2, 2))
    atoms.rattle(0.05, seed=1)
    masses = np.full(32, 39.948)
    masses[:16] = 36.0
    atoms.set_masses(masses)
    atoms.set_constraint([FixAtoms(FIXED), FixCartesian(FREE_Z, [True, True, False])])
    random = np.random.default_rng(3)
    atoms.set_momenta(random.normal(size=(32, 3)) * np.sqrt(masses[:, None] * units.kB * 60))
    return atoms


def _campaign(folder, atoms, engine="lammps", **changes):
    path = write_campaign(folder, structure="start.traj", temperatures=[60], **changes)
    write(folder / "start.traj", atoms)
    return plan(load(path, engine), folder / "out")


def _prepare(atoms, velocities="auto", supercell=(1, 1, 1)):
    return start.prepare(atoms, "a.traj", supercell, velocities)


def _run(folder, atoms, engine, **changes):
    campaign = _campaign(folder, atoms, engine, **changes)
    [outcome] = campaigns.run(campaign)
    assert outcome.state == "finished", outcome
    return campaign.runs[0]


LOGS = {
    "lammps": ("log.lammps", 2, 3, 4),
    "ase": ("md.log", 1, 2, 3),
    "ipi": ("simulation.out", None, 5, None),
}


def _thermo(run, engine):
    """Step, kinetic energy (eV) and temperature (K), as the host prints them."""
    name, temperature, potential, total = LOGS[engine]
    rows = table(run.directory / name)
    if engine == "ipi":
        kinetic = rows[:, 4]
        return rows[:, 0], kinetic, 2 * kinetic / (units.kB * run.degrees_of_freedom)
    return rows[:, 0], rows[:, total] - rows[:, potential], rows[:, temperature]


@pytest.mark.parametrize("engine", ENGINES)
def test_masses_fixed_components_and_velocities_in_every_engine(tmp_path, engine):
    """NVE from given velocities is deterministic: ASE's own velocity Verlet is the reference."""
    atoms = crystal()
    settings = {"ensemble": "nve", "equilibration": {"steps": 0}, "timestep": 2.0}
    run = _run(tmp_path, atoms, engine, steps=60, dump_interval=10, log_interval=10, **settings)
    frames = list(read_frames(engines.load(engine).trajectories(run)[0]))
    positions = np.array([frame.positions for frame in frames])
    assert len(positions) == 7
    reference, kinetic = _reference(tmp_path / "model.pt", atoms)
    moved = positions - positions[0]
    np.testing.assert_allclose(moved, reference - reference[0], atol=3e-5)
    assert not moved[:, FIXED].any()
    assert not moved[:, FREE_Z, :2].any()
    assert np.abs(moved[-1, FREE_Z, 2]).min() > 1e-3
    steps, found, temperature = _thermo(run, engine)
    assert steps.tolist() == [0, 10, 20, 30, 40, 50, 60]
    np.testing.assert_allclose(found, kinetic, rtol=2e-5)
    # 3 (32 - 4) - 2 * 2 components move
    np.testing.assert_allclose(temperature, 2 * found / (80 * units.kB), rtol=2e-5)


def _reference(model, atoms):
    """Velocity Verlet written out, so that neither a host nor ASE's constraints decide."""
    from mlplugins import MLCalculator

    free = np.ones((32, 3))
    free[FIXED] = 0
    free[FREE_Z, :2] = 0
    atoms = atoms.copy()
    atoms.set_constraint()
    atoms.calc = MLCalculator(str(model))
    masses, dt = atoms.get_masses()[:, None], 2 * units.fs
    momenta, positions, kinetic = atoms.get_momenta() * free, [], []
    forces = atoms.get_forces()
    for step in range(61):
        if step % 10 == 0:
            positions.append(atoms.positions.copy())
            kinetic.append(float((momenta**2 / masses).sum() / 2))
        momenta += 0.5 * dt * forces * free
        atoms.positions += dt * momenta / masses
        forces = atoms.get_forces()
        momenta += 0.5 * dt * forces * free
    return np.array(positions), np.array(kinetic)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_centre_of_mass_rests_without_fixed_atoms(tmp_path, engine):
    """In a triclinic cell that two of the hosts turn; the structure's own drift is taken out, once."""
    atoms = bulk("Ar", "fcc", a=5.5).repeat((3, 3, 3))
    atoms.rattle(0.05, seed=1)
    atoms.set_masses([36.0] * 13 + [39.948] * 14)
    velocities = np.random.default_rng(3).normal(size=(27, 3)) * 0.005 + 0.05
    atoms.set_velocities(velocities)
    centred = atoms.copy()
    centred.set_momenta(
        atoms.get_momenta()
        - atoms.get_masses()[:, None] * atoms.get_momenta().sum(0) / atoms.get_masses().sum()
    )
    settings = {"ensemble": "nve", "equilibration": {"steps": 0}, "timestep": 2.0}
    settings = {**settings, "steps": 20, "dump_interval": 10, "log_interval": 10}
    wanted = 2 * centred.get_kinetic_energy() / (78 * units.kB)
    with pytest.raises(BadInput, match="NVE without equilibration from its own velocities"):
        _campaign(tmp_path, atoms, engine, **settings)
    path = write_campaign(
        tmp_path, structure="start.traj", **{**settings, "temperatures": [round(float(wanted), 1)]}
    )
    campaign = plan(load(path, engine), tmp_path / "out")
    [outcome] = campaigns.run(campaign)
    assert outcome.state == "finished", outcome
    _, kinetic, temperature = _thermo(campaign.runs[0], engine)
    assert kinetic[0] == pytest.approx(centred.get_kinetic_energy(), rel=1e-5)
    assert temperature[0] == pytest.approx(wanted, rel=1e-5)
    frames = list(read_frames(engines.load(engine).trajectories(campaign.runs[0])[0]))
    positions = np.array([frame.positions for frame in frames])
    drift = (atoms.get_masses() @ (positions[-1] - positions[0]).reshape(27, 3)) / atoms.get_masses().sum()
    assert np.abs(drift).max() < 3e-5  # i-PI prints five decimals; the given drift is 0.2 A
    assert any("the centre of mass at rest" in note for note in campaign.notes)
    turned = np.abs(frames[0].cell - 3 * bulk("Ar", "fcc", a=5.5).cell.array).max() > 0.1
    assert any("turns the cell of" in note for note in campaign.notes) == turned == (engine != "ase")


@pytest.mark.parametrize(
    ("engine", "held"),
    [
        ("lammps", False),
        ("lammps", True),
        pytest.param("ase", False, marks=pytest.mark.slow),
        pytest.param("ipi", False, marks=pytest.mark.slow),
        pytest.param("ase", True, marks=[pytest.mark.slow, pytest.mark.exhaustive]),
        pytest.param("ipi", True, marks=[pytest.mark.slow, pytest.mark.exhaustive]),
    ],
)
def test_nve_starts_at_the_temperature_it_is_named_after(tmp_path, engine, held):
    atoms = crystal()
    del atoms.arrays["momenta"]
    atoms.set_constraint(atoms.constraints if held else None)
    settings = {"ensemble": "nve", "equilibration": {"steps": 0}, "steps": 5, "log_interval": 5}
    run = _run(tmp_path, atoms, engine, **settings)
    _, kinetic, temperature = _thermo(run, engine)
    assert temperature[0] == pytest.approx(60, rel=1e-5)
    assert kinetic[0] == pytest.approx(60 * units.kB * (80 if held else 93) / 2, rel=1e-5)


@pytest.mark.parametrize("kind", ["csvr", "langevin", "nose-hoover"])
def test_fixed_atoms_stay_in_lammps_with_every_thermostat(tmp_path, kind):
    atoms = crystal()
    del atoms.arrays["momenta"]
    run = _run(tmp_path, atoms, "lammps", thermostat={"kind": kind}, steps=100, equilibration={"steps": 20})
    frames = np.array([frame.positions for frame in read_frames(run.directory / "trajectory.lammpstrj")])
    moved = np.ptp(frames, axis=0)
    assert not moved[FIXED].any()
    assert not moved[FREE_Z, :2].any()
    free = np.setdiff1d(np.arange(32), FIXED + FREE_Z)
    assert moved[free].min() > 0
    assert moved[FREE_Z, 2].min() > 0
    steps, kinetic, temperature = _thermo(run, "lammps")
    assert steps[0] == 0
    assert temperature[0] == pytest.approx(60, rel=1e-6)
    np.testing.assert_allclose(temperature, 2 * kinetic / (80 * units.kB), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ase", "ipi"])
@pytest.mark.parametrize("kind", ["csvr", pytest.param("langevin", marks=pytest.mark.exhaustive)])
def test_fixed_atoms_stay_in_ase_and_ipi(tmp_path, engine, kind):
    atoms = crystal()
    del atoms.arrays["momenta"]
    run = _run(tmp_path, atoms, engine, thermostat={"kind": kind}, steps=40, equilibration={"steps": 10})
    frames = np.array([f.positions for f in read_frames(engines.load(engine).trajectories(run)[0])])
    moved = np.ptp(frames, axis=0)
    assert not moved[FIXED].any()
    assert not moved[FREE_Z, :2].any()
    assert moved[FREE_Z, 2].min() > 0


def test_ase_has_no_nose_hoover_with_fixed_atoms(tmp_path):
    campaign = _campaign(tmp_path, crystal(), "ase", thermostat={"kind": "nose-hoover"})
    with pytest.raises(BadInput, match="chain takes no constraints; use thermostat.kind csvr or langevin"):
        campaigns.write(campaign)


@pytest.mark.slow
def test_nothing_else_of_the_file_travels(tmp_path):
    """Labels, tags and `info` of a training frame are not those of the frames of a run."""
    atoms = crystal()
    atoms.info["config_type"] = "label of the start"
    atoms.arrays["REF_forces"] = np.ones((32, 3))
    atoms.set_tags(7)
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0)
    run = _run(tmp_path, atoms, "ase", steps=5, equilibration={"steps": 0})
    text = (run.directory / "start.extxyz").read_text()
    assert "label" not in text
    assert "REF_forces" not in text
    with Trajectory(run.directory / "trajectory.traj") as frames:
        frame = frames[-1]
    assert "config_type" not in frame.info
    assert not frame.get_tags().any()
    np.testing.assert_allclose(frame.get_masses(), atoms.get_masses(), rtol=1e-9)


@pytest.mark.parametrize(
    ("constraint", "mask"),
    [
        (FixAtoms([1]), {1: "xyz"}),
        (FixAtoms(mask=[False, True, False, True]), {1: "xyz", 3: "xyz"}),
        ([FixCartesian([0], [True, True, False]), FixCartesian(2, [False, False, True])], {0: "xy", 2: "z"}),
        ([FixedPlane(0, (0, 0, -1)), FixedLine([1, 2], (0, 0, 1))], {0: "z", 1: "xy", 2: "xy"}),
        (FixScaled([2], [True, True, True]), {2: "xyz"}),
        ([FixScaled([0], [True, False, False]), FixAtoms([3])], {0: "x", 3: "xyz"}),
        (FixCom(), {}),
        ([], {}),
    ],
)
def test_constraints_become_components(constraint, mask):
    atoms = bulk("Ar", "fcc", a=5.3, cubic=True)
    atoms.set_constraint(constraint)
    for supercell in ((1, 1, 1), (1, 2, 1)):
        found = start.fixed(_prepare(atoms, supercell=supercell).atoms)
        expected = np.zeros((4, 3), bool)
        for k, names in mask.items():
            expected[k] = [axis in names for axis in "xyz"]
        copies = int(np.prod(supercell))
        np.testing.assert_array_equal(found, np.tile(expected, (copies, 1)))
        free = copies * (12 - sum(map(len, mask.values()))) - (0 if mask else 3)
        assert start.degrees_of_freedom(_prepare(atoms, supercell=supercell).atoms) == free


@pytest.mark.parametrize(
    ("constraint", "text"),
    [
        (FixBondLength(0, 1), "the constraint FixBondLengths cannot be kept"),
        ([FixAtoms([0]), FixCom()], "FixCom and fixed atoms contradict each other"),
        (FixedPlane(0, (1, 1, 0)), "the constraint FixedPlane cannot be kept"),
        (FixAtoms(range(4)), "every atom is fixed"),
        (FixCartesian(range(4), [False, False, True]), "none along x, y"),
    ],
)
def test_other_constraints_are_refused_by_name(constraint, text):
    atoms = bulk("Ar", "fcc", a=5.3, cubic=True)
    atoms.set_constraint(constraint)
    with pytest.raises(BadInput, match=text):
        _prepare(atoms)


def test_scaled_components_of_a_hexagonal_cell():
    """c lies along z, a and b in the plane: what is held of both is Cartesian."""
    for held, names in (([False, False, True], "z"), ([True, True, False], "xy")):
        atoms = bulk("Mg", "hcp", a=3.2, c=5.2).repeat((2, 2, 1))
        atoms.set_constraint([FixScaled([0], held), FixAtoms([1])])
        found = start.fixed(_prepare(atoms).atoms)
        np.testing.assert_array_equal(found[0], [axis in names for axis in "xyz"])
    atoms.set_constraint([FixScaled([0], [True, False, False]), FixAtoms([1])])
    with pytest.raises(BadInput, match="FixScaled cannot be kept"):
        _prepare(atoms)


def test_a_cell_is_not_lost_with_the_spelling_of_its_keyword(tmp_path):
    """ASE alone reads a cluster, silently."""
    path = tmp_path / "a.extxyz"
    write(path, bulk("Ar", "fcc", a=5.3, cubic=True))
    text = path.read_text()
    path.write_text(text.replace("Lattice=", "lattice="))
    atoms = start.read_structure(str(path))
    assert atoms.pbc.all()
    assert atoms.get_volume() == pytest.approx(5.3**3)
    path.write_text(text.replace("Lattice=", "cell="))
    with pytest.raises(BadInput, match="'cell' but no 'Lattice'"):
        start.read_structure(str(path))


def test_scaled_components_of_an_oblique_cell_are_refused():
    atoms = bulk("Ar", "fcc", a=5.3).repeat(2)
    atoms.set_constraint(FixScaled([0], [True, False, False]))
    with pytest.raises(BadInput, match="FixScaled cannot be kept"):
        _prepare(atoms)


def test_what_fixed_atoms_exclude(tmp_path):
    atoms = crystal()
    with pytest.raises(BadInput, match="fixed atoms and a cell that changes exclude each other"):
        _campaign(tmp_path, atoms, ensemble="npt")
    with pytest.raises(BadInput, match="fixed atoms with 'beads' 4"):
        _campaign(tmp_path, atoms, "ipi", beads=4)
    oblique = bulk("Ar", "fcc", a=5.3).repeat(3)  # a and b not along x and in xy
    oblique.set_constraint([FixCartesian([0], [True, True, False]), FixAtoms([5])])
    for engine, name in (("lammps", "LAMMPS"), ("ipi", "i-PI")):
        with pytest.raises(
            BadInput, match=f"single components of 1 atoms are fixed, but {name} needs the cell turned"
        ):
            campaigns.write(_campaign(tmp_path, oblique, engine))


def test_whole_atoms_are_fixed_in_a_cell_that_the_hosts_turn(tmp_path):
    oblique = bulk("Ar", "fcc", a=5.5).repeat(3)
    oblique.set_constraint(FixAtoms([5]))
    run = _run(tmp_path, oblique, "lammps", steps=20, equilibration={"steps": 10})
    frames = np.array([frame.positions for frame in read_frames(run.directory / "trajectory.lammpstrj")])
    assert not np.ptp(frames, axis=0)[5].any()
    assert np.ptp(frames, axis=0)[6].all()


def test_velocities_kept_drawn_or_refused(tmp_path):
    moving = bulk("Ar", "fcc", a=5.5, cubic=True)
    still = moving.copy()
    moving.set_momenta(np.random.default_rng(1).normal(size=(4, 3)))
    assert _prepare(moving).atoms.has("momenta")
    assert not _prepare(moving, "thermal").atoms.has("momenta")
    assert not _prepare(moving, supercell=(1, 1, 2)).atoms.has("momenta")
    assert not _prepare(still).atoms.has("momenta")
    assert any("every copy would move alike" in note for note in _prepare(moving, supercell=(1, 1, 2)).notes)
    assert any("`velocities: thermal`" in note for note in _prepare(moving).notes)
    with pytest.raises(BadInput, match="has no velocities"):
        _prepare(still, "structure")
    with pytest.raises(BadInput, match="every copy would move alike; use velocities: thermal"):
        _prepare(moving, "structure", (2, 1, 1))
    warm = bulk("Ar", "fcc", a=5.5, cubic=True).repeat(2)
    warm.set_momenta(np.random.default_rng(1).normal(size=(32, 3)) * np.sqrt(39.948 * units.kB * 60))
    with pytest.raises(BadInput, match="all 'seeds' would give the same run"):
        _campaign(tmp_path, warm, ensemble="nve", equilibration={"steps": 0}, seeds=[1, 2])
    with pytest.raises(BadInput, match="its velocities are of atoms, not of 2 beads"):
        _campaign(tmp_path, warm, "ipi", beads=2)


def test_what_has_no_part_is_said():
    atoms = bulk("Ar", "fcc", a=5.5, cubic=True)
    assert _prepare(atoms).notes == ()
    atoms.set_initial_charges([1, -1, 1, -1])
    atoms.arrays["vel"] = atoms.arrays["Velocity"] = np.ones((4, 3))
    atoms.info["charge"] = 1
    text = " ".join(_prepare(atoms).notes)
    assert "charges of the structure have no part" in text
    assert "column 'vel' of the structure is not used" in text
    assert "column 'Velocity' of the structure is not used" in text
    assert "'charge' of the structure (1) has no part" in text
    atoms = Atoms("Ar2", [[0, 0, 0], [0, 0, 3.7]])
    atoms.set_masses([39.948, 36.0])
    assert _prepare(atoms).notes == ("masses of the structure are kept: Ar 36, Ar 39.948 u",)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda a: a.set_masses([1.0, 0.0]), r"atom 1 \(Ar\) has a mass of 0 u"),
        (lambda a: a.set_masses([1.0, np.nan]), "masses are not finite"),
        (lambda a: a.set_momenta(np.full((2, 3), np.inf)), "velocities are not finite"),
        (lambda a: a.set_cell([np.nan, 1, 1]), "cell vectors are not finite"),
    ],
)
def test_numbers_that_are_none(tmp_path, change, text):
    atoms = Atoms("Ar2", [[0, 0, 0], [0, 0, 3.7]])
    change(atoms)
    write(tmp_path / "a.traj", atoms)
    with pytest.raises(BadInput, match=text):
        start.read_structure(str(tmp_path / "a.traj"))


def test_a_folder_with_an_at_sign(tmp_path):
    folder = tmp_path / "me@work"
    folder.mkdir()
    write(folder / "a.xyz", [Atoms("Ar2", [[0, 0, 0], [0, 0, d]]) for d in (3.0, 4.0)])
    assert start.read_structure(str(folder / "a.xyz")).get_distance(0, 1) == pytest.approx(4.0)
    assert start.read_structure(str(folder / "a.xyz@0")).get_distance(0, 1) == pytest.approx(3.0)


def test_selective_dynamics_of_a_poscar(tmp_path):
    """VASP's own flags: F F F is a fixed atom."""
    atoms = bulk("Ar", "fcc", a=5.3, cubic=True)
    atoms.set_constraint(FixAtoms([0, 2]))
    write(tmp_path / "POSCAR", atoms, format="vasp")
    assert "Selective dynamics" in (tmp_path / "POSCAR").read_text()
    found = start.prepare(read(tmp_path / "POSCAR"), "POSCAR", (1, 1, 1), "auto").atoms
    assert start.fixed(found).all(axis=1).tolist() == [True, False, True, False]


def test_masses_of_other_programs(tmp_path):
    """The column `mass` (GPUMD, OVITO), which ASE reads as just another array."""
    head = 'Lattice="5.3 0 0 0 5.3 0 0 0 5.3" Properties=species:S:1:pos:R:3:mass:R:1 pbc="T T T"'
    (tmp_path / "a.xyz").write_text(f"2\n{head}\nAr 0 0 0 36.0\nAr 2.6 2.6 0 39.948\n")
    assert start.read_structure(str(tmp_path / "a.xyz")).get_masses().tolist() == [36.0, 39.948]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda a: a.positions.__setitem__(1, a.positions[0] + [0, 0, 0.9]), "0.42 lengths of bonds"),
        (lambda a: a.set_pbc(False), "was the flag lost"),
        (lambda a: a.set_positions(a.get_scaled_positions()), "fractional coordinates"),
    ],
)
def test_impossible_structures_are_refused(change, text):
    atoms = bulk("Ar", "fcc", a=5.3, cubic=True).repeat((2, 2, 2))
    _prepare(atoms)
    change(atoms)
    with pytest.raises(BadInput, match=text):
        _prepare(atoms)


def test_a_film_that_fills_its_cell_starts_with_a_warning():
    film = bulk("Cu", cubic=True) * (2, 2, 2)
    film.pbc = [True, True, False]
    [note] = _prepare(film).notes
    assert "pbc T T F" in note
    assert "for a free surface add vacuum along z" in note
    film.center(vacuum=5.0, axis=2)
    assert _prepare(film).notes == ()


def test_atoms_within_the_core_start_where_the_model_repels(tmp_path):
    """Si–Si at 1.0 Å is for what ZBL was added for."""
    dimer = Atoms("Si2", [[0, 0, 0], [0, 0, 1.0]])
    with pytest.raises(BadInput, match=r"are 0\.45 lengths of bonds .* `mlplugins convert MODEL --zbl`"):
        _prepare(dimer)
    [note] = start.prepare(dimer, "a.traj", (1, 1, 1), "auto", start.ForModel(repulsive=True)).notes
    assert "0.45 lengths of bonds" in note
    write(tmp_path / "start.traj", dimer)
    for family, repels in ((zbl, True), (lennard_jones, False)):
        potential = family.Model(["Si"], family.Hyperparameters())
        save(
            potential,
            tmp_path / f"{repels}.pt",
            ModelCard(family.__name__.split(".")[-1].replace("_", "-"), ["Si"], [0.0]),
            "float64",
        )
        assert artifact.load(tmp_path / f"{repels}.pt").repels is repels


def test_only_pairs_that_matter_are_searched(monkeypatch):
    """All of them below 0.55 bond lengths: none, of the dozens per atom within two."""
    salt = bulk("CsCl", "cesiumchloride", a=4.12) * (4, 4, 4)
    seen = []
    monkeypatch.setattr(bonds, "distances", lambda *a: seen.append(distances(*a)) or seen[-1])
    _prepare(salt)
    assert [len(first) for first, _, _ in seen] == [0]
