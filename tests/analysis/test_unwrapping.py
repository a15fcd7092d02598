"""Displacements under a barostat: truths from closed forms, LAMMPS' own velocities and lattice sites."""

import ase.io
import numpy as np
import pytest
from ase import Atoms

from mlplugins.analysis.conductivity import AnalysisSettings, analyse
from mlplugins.analysis.readers._text import Frame
from mlplugins.analysis.trajectory import ReadSettings, read_trajectory
from mlplugins.analysis.unwrapping import Lattice, Place, Unwrapper
from mlplugins.errors import BadInput
from mlplugins.testing.walks import Crystal, LatticeWalk, crystal, write_lammps_dump
from tests.analysis.stock_lammps import run_lammps

SETTINGS = ReadSettings("Li", timestep_fs=2.0, interval=50)
AS_IT_IS = ReadSettings("Li", timestep_fs=2.0, interval=50, drift="none")


def dump(path, fractions, cells, corners, form="xu yu zu", symbols=None):
    """A LAMMPS dump of triclinic boxes (lower triangular cells) with all digits."""
    lines = []
    for number, (s, cell, corner) in enumerate(zip(fractions, cells, corners)):
        (xy, xz, yz) = cell[1, 0], cell[2, 0], cell[2, 1]
        low = corner + [min(0.0, xy, xz, xy + xz), min(0.0, yz), 0.0]
        high = corner + np.diag(cell) + [max(0.0, xy, xz, xy + xz), max(0.0, yz), 0.0]
        lines += ["ITEM: TIMESTEP", str(50 * number), "ITEM: NUMBER OF ATOMS", str(len(s))]
        lines += ["ITEM: BOX BOUNDS xy xz yz pp pp pp"]
        lines += [f"{a:.17g} {b:.17g} {t:.17g}" for a, b, t in zip(low, high, (xy, xz, yz))]
        lines += [f"ITEM: ATOMS id element {form}"]
        inside = s - np.floor(s)
        values = {"xu yu zu": s @ cell + corner, "xsu ysu zsu": s, "xs ys zs": inside}
        values["x y z"] = inside @ cell + corner
        values["x y z ix iy iz"] = np.concatenate([inside @ cell + corner, np.floor(s)], axis=1)
        names = symbols or ["Li"] * (len(s) // 2) + ["S"] * (len(s) - len(s) // 2)
        for atom, (name, row) in enumerate(zip(names, values[form])):
            lines.append(f"{atom + 1} {name} " + " ".join(f"{value:.17g}" for value in row))
    path.write_text("\n".join(lines) + "\n")
    return path


FORMS = ("xu yu zu", "xsu ysu zsu", "x y z", "xs ys zs", "x y z ix iy iz")


@pytest.mark.parametrize("form", FORMS)
def test_atoms_at_rest_stay_at_rest(tmp_path, form):
    """A cell that breathes by ±8 %, is sheared until it flips, whose corner wanders; sites far away too."""
    random = np.random.default_rng(0)
    fractions = np.repeat(random.uniform(-3, 4, size=(1, 40, 3)), 60, axis=0)
    fractions[:, 0] = 0.0  # on the corner of the cell
    k = np.arange(60)
    cells = np.array([10.0, 11.0, 12.0]) * np.eye(3) * (1 + 0.08 * np.sin(k / 3))[:, None, None]
    tilt = 0.04 * k + 0.3
    flips = np.rint(tilt)
    cells[:, 1, 0] = (tilt - flips) * cells[:, 0, 0]  # b' = b − n a: the same lattice
    fractions[:, :, 0] += flips[:, None] * fractions[:, :, 1]  # s' h' = s h
    corners = random.normal(size=(60, 3)).cumsum(axis=0)
    run = read_trajectory([dump(tmp_path / "a.dump", fractions, cells, corners, form)], AS_IT_IS)
    assert flips.max() >= 2
    assert np.abs(run.displacements).max() < 1e-10
    assert run.framework_rms["S"].max() < 1e-10
    # the mean cell is that of one lattice, not of two with other names
    sheared = cells.copy()
    sheared[:, 1, 0] = tilt * cells[:, 0, 0]
    np.testing.assert_allclose(run.cell, sheared.mean(axis=0), atol=1e-9)


@pytest.mark.parametrize("form", FORMS)
def test_a_barostatted_ideal_gas_moves_with_its_peculiar_velocities(tmp_path, form):
    """dr/dt = v + (dL/dt / L) r has the solution Δs = ∫ v/L dt; the displacement is v t, whatever L does."""
    random = np.random.default_rng(1)
    velocity = random.normal(size=(30, 3))
    fine = np.linspace(0, 20, 20 * 400 + 1)
    length = 10 * (1 + 0.05 * np.sin(2 * fine) + 0.01 * fine)  # breathes and expands by a fifth
    inverse = 1 / length
    integral = np.concatenate([[0], np.cumsum(0.5 * (inverse[1:] + inverse[:-1]) * np.diff(fine))])[::20]
    start = random.random((30, 3))
    fractions = start + integral[:, None, None] * velocity
    cells = length[::20][:, None, None] * np.eye(3)
    path = dump(tmp_path / "a.dump", fractions, cells, -0.5 * length[::20][:, None] * np.ones(3), form)
    run = read_trajectory([path], AS_IT_IS)
    exact = fine[::20, None, None] * velocity[:15]
    error = np.abs(run.displacements - exact).max()
    assert error < 2e-5 * np.abs(exact).max()
    # with the cell of each frame instead of the cell half-way the error is of first order in the spacing
    ends = np.diff(fractions[:, :15], axis=0) * length[::20][1:, None, None]
    assert np.abs(ends.cumsum(axis=0) - exact[1:]).max() > 20 * error


def write_forms(folder, system):
    """The same run as dumps and as files of other programs."""
    wrapped = system.wrapped()
    for name, form in (
        ("w", "id element x y z"),
        ("u", "id element xu yu zu"),
        ("i", "id element x y z ix iy iz"),
    ):
        write_lammps_dump(system, folder / f"{name}.dump", 50, form)
    for name, held in (("wrapped", wrapped), ("unwrapped", system)):
        frames = list(held.atoms())
        ase.io.write(folder / f"{name}.traj", frames)
        ase.io.write(folder / f"{name}.extxyz", frames)
        ase.io.write(folder / f"{name}.XDATCAR", frames, format="vasp-xdatcar")
        text = []
        for number, atoms in enumerate(frames):
            a, b, c, alpha, beta, gamma = atoms.cell.cellpar()
            text.append(
                f"{len(atoms)}\n# CELL(abcABC): {a:.8f} {b:.8f} {c:.8f} {alpha:.6f} {beta:.6f} {gamma:.6f}  "
                f"Step: {50 * number}  Bead: 0 positions{{angstrom}}  cell{{angstrom}}\n"
                + "".join(
                    f"{n} {x:.8f} {y:.8f} {z:.8f}\n" for n, (x, y, z) in zip(atoms.symbols, atoms.positions)
                )
            )
        (folder / f"{name}.ipi.xyz").write_text("".join(text))


def test_the_same_barostatted_run_in_every_file_gives_the_same_displacements(tmp_path):
    walk = crystal(LatticeWalk(frames=120, ions=6, rate=2.0, vibration=0.2))
    order = np.argsort(np.array(walk.symbols), kind="stable")  # XDATCAR groups the elements
    breathing = Crystal(sorted(walk.symbols), walk.positions[:, order], walk.cells).breathing(0.03, 17.0)
    write_forms(tmp_path, breathing)
    runs = {path.name: read_trajectory([path], SETTINGS) for path in sorted(tmp_path.iterdir())}
    assert len(runs) == 11
    images = breathing.images()
    assert np.abs(images[-1]).max() >= 1
    assert (np.diff(images, axis=0) != 0).sum() > 20  # faces were crossed
    known = runs["u.dump"]
    for name, run in runs.items():
        np.testing.assert_allclose(run.displacements, known.displacements, atol=2e-6, err_msg=name)
        assert run.volume_a3 == pytest.approx(known.volume_a3, rel=1e-6)
        assert run.warnings == (), name
    assert known.reading == "image flags or unwrapped coordinates of the file"
    assert runs["w.dump"].reading.startswith("nearest image of each step (the longest: 0.")


SOLID = """
units metal
atom_style atomic
lattice fcc 5.45
region box block 0 2 0 2 0 2
create_box 2 box
create_atoms 1 box basis 1 1 basis 2 2 basis 3 2 basis 4 2
mass 1 6.94
mass 2 39.948
pair_style lj/cut 5.2
pair_coeff * * 0.0104 3.4
velocity all create 60 4711 mom yes
fix 1 all npt temp 40 40 0.1 aniso 0 0 0.2
timestep 0.004
dump w all custom 10 w.dump id element x y z
dump i all custom 10 i.dump id element x y z ix iy iz
dump u all custom 10 u.dump id element xu yu zu
dump s all custom 10 s.dump id element xsu ysu zsu
dump e all extxyz 10 e.extxyz
dump_modify w element Li Ar format float %.12g
dump_modify i element Li Ar format float %.12g
dump_modify u element Li Ar format float %.12g
dump_modify s element Li Ar format float %.14g
dump_modify e element Li Ar sort id
run 12000
"""


def scaled(path):
    """Box lengths (frames, 3) and unwrapped fractions (frames, atoms, 3) of a dump, read here."""
    lengths, fractions = [], []
    for block in path.read_text().split("ITEM: TIMESTEP\n")[1:]:
        lines = block.splitlines()
        lengths.append([float(np.diff([float(word) for word in line.split()])[0]) for line in lines[4:7]])
        rows = sorted([line.split() for line in lines[8:]], key=lambda row: int(row[0]))
        fractions.append([[float(word) for word in row[2:]] for row in rows])
        names = [row[1] for row in rows]
    return np.array(lengths), np.array(fractions), np.array(names)


@pytest.mark.engine
def test_nobody_moves_in_a_solid_under_a_barostat(tmp_path):
    """Half of the atoms sit on faces of the cell. Truth: distances from the sites in fractions, mean cell."""
    run_lammps(SOLID, tmp_path)
    lengths, fractions, names = scaled(tmp_path / "s.dump")
    assert lengths.std(axis=0).max() > 0.01 * lengths.mean()
    moved = (fractions - fractions[0]) * lengths.mean(axis=0)
    moved -= moved[:, names == "Ar"].mean(axis=1, keepdims=True)
    truth = np.sqrt((moved[:, names == "Li"] ** 2).sum(axis=2).mean(axis=1))
    known = read_trajectory([tmp_path / "u.dump"], ReadSettings("Li", timestep_fs=4.0))
    late = slice(len(truth) // 2, None)
    rms = np.sqrt((known.displacements**2).sum(axis=2).mean(axis=1))
    assert rms[late].mean() == pytest.approx(truth[late].mean(), rel=0.1)  # nothing accumulates
    assert np.abs(known.displacements - moved[:, names == "Li"]).max() < 0.2
    for name in ("w.dump", "i.dump", "s.dump", "e.extxyz"):
        run = read_trajectory([tmp_path / name], ReadSettings("Li", timestep_fs=4.0))
        digits = 2e-3 if name.startswith("e") else 1e-8  # LAMMPS' extxyz holds six digits
        np.testing.assert_allclose(run.displacements, known.displacements, atol=digits, err_msg=name)
        assert run.interval_fs == pytest.approx(40.0)


LIQUID = """
units metal
atom_style atomic
lattice fcc 5.7
region box prism 0 2 0 2 0 2 0.3 0.2 -0.2
create_box 1 box
create_atoms 1 box
mass 1 39.948
pair_style lj/cut 5.2
pair_coeff * * 0.0104 3.4
neigh_modify every 1 delay 0
velocity all create 500 4711 mom yes
fix 1 all npt temp 250 250 0.1 tri 1000 1000 0.2 flip yes
timestep 0.002
run 1000
reset_timestep 0
dump v all custom 1 v.dump id vx vy vz
dump_modify v sort id format float %.12g
dump w all custom 10 w.dump id element x y z
dump u all custom 10 u.dump id element xu yu zu
dump_modify w element Li format float %.12g
dump_modify u element Li format float %.12g
run 3000
"""


GAS = LIQUID.replace("lj/cut 5.2", "zero 5.2").replace("* * 0.0104 3.4", "* *")


@pytest.mark.parametrize("system", [LIQUID, GAS], ids=["liquid", "ideal gas"])
@pytest.mark.engine
def test_atoms_under_a_barostat_move_as_their_velocities_say(tmp_path, system):
    """The velocities of LAMMPS' fix npt are relative to the strain; their integral is the displacement."""
    run_lammps(system, tmp_path)
    rows = [
        block.splitlines()[8:] for block in (tmp_path / "v.dump").read_text().split("ITEM: TIMESTEP\n")[1:]
    ]
    velocity = np.array([[line.split()[1:] for line in block] for block in rows], dtype=float)  # Å/ps
    exact = np.concatenate(
        [np.zeros((1, 32, 3)), np.cumsum(0.5 * (velocity[1:] + velocity[:-1]), axis=0) * 0.002]
    )
    exact = exact[::10]
    settings = ReadSettings("Li", timestep_fs=2.0, drift="none")
    read = [read_trajectory([tmp_path / name], settings) for name in ("w.dump", "u.dump")]
    np.testing.assert_allclose(read[0].displacements, read[1].displacements, atol=1e-8)
    assert np.sqrt((exact[-1] ** 2).sum(axis=1).mean()) > 4
    moved = read[0].displacements - read[0].displacements.mean(axis=1, keepdims=True)
    assert np.abs(moved - (exact - exact.mean(axis=1, keepdims=True))).max() < 0.03


def unknown(path, positions, cell=10.0, symbols=None):
    """i-PI's form, which does not say whether it is wrapped."""
    names = symbols or ["Li"] * (positions.shape[1] - 1) + ["O"]
    path.write_text(
        "".join(
            f"{len(names)}\n# CELL(abcABC): {cell} {cell} {cell} 90 90 90 Step: {50 * number} Bead: 0 "
            "positions{angstrom} cell{angstrom}\n"
            + "".join(f"{name} {x:.10f} {y:.10f} {z:.10f}\n" for name, (x, y, z) in zip(names, frame))
            for number, frame in enumerate(positions)
        )
    )
    return path


LIQUID_AT_PRESSURE = """units metal
lattice fcc 5.85
region box block 0 4 0 4 0 4
create_box 1 box
create_atoms 1 box
mass 1 39.948
suffix opt
neighbor 1.0 bin
pair_style lj/cut 8.5
pair_coeff 1 1 0.0104 3.4
velocity all create 220 11 mom yes
timestep 0.004
fix 1 all npt temp 110 110 0.4 iso 1 1 2.0
run 10000
reset_timestep 0
variable v equal vol
fix mean all ave/time 10 5000 50000 v_v
dump w all custom 50 npt.lammpstrj id element x y z
dump_modify w element Li time yes units yes format float %.6f
run 50000
undump w
variable edge equal $(f_mean^(1/3))
unfix 1
unfix mean
change_box all x final 0 ${edge} y final 0 ${edge} z final 0 ${edge} remap units box
fix 1 all nvt temp 110 110 0.4
run 5000
dump w all custom 50 nvt.lammpstrj id element x y z
dump_modify w element Li time yes units yes format float %.6f
run 50000
"""


@pytest.mark.slow
@pytest.mark.engine
def test_a_liquid_diffuses_under_a_barostat_as_at_its_mean_volume(tmp_path):
    """256 Lennard-Jones atoms at 110 K, 200 ps each: the intervals hold each other's D."""
    run_lammps(LIQUID_AT_PRESSURE, tmp_path)
    values = {}
    for ensemble in ("npt", "nvt"):
        run = read_trajectory([tmp_path / f"{ensemble}.lammpstrj"], ReadSettings("Li"))
        result = analyse([run], 110.0, AnalysisSettings(charge=1)).diffusion
        values[ensemble] = (run.volume_a3, result.tracer)
    (volume, npt), (mean, nvt) = values["npt"], values["nvt"]
    assert volume == pytest.approx(mean, rel=1e-3)
    assert nvt.low < npt.value < nvt.high
    assert npt.low < nvt.value < npt.high
    assert npt.high / npt.low < 1.6


def test_unwrapped_files_with_long_steps_are_read_as_they_stand_and_say_so(tmp_path):
    random = np.random.default_rng(0)
    steps = random.normal(size=(200, 21, 3)) * 2.0  # half a cell is 2.5 standard deviations
    steps[0] = 0
    steps[:, -1] = 0
    positions = 5 + np.cumsum(steps, axis=0)
    run = read_trajectory([unknown(tmp_path / "a.xyz", positions)], SETTINGS)
    np.testing.assert_allclose(run.displacements, (positions - positions[0])[:, :-1], atol=1e-8)
    assert "taken as unwrapped, as the positions stand in the file" in run.warnings[0]
    assert "as the positions outside the cell show" in run.reading
    # the same steps, folded into the cell, cannot be undone
    with pytest.raises(BadInput, match="an ion may have taken the other way; write frames more often"):
        read_trajectory([unknown(tmp_path / "b.xyz", positions % 10.0)], SETTINGS)


def test_molecules_kept_whole_are_not_taken_for_unwrapped(tmp_path):
    """Centres are wrapped, an atom of each pair stands up to 4 Å outside; few steps come near half a cell."""
    random = np.random.default_rng(2)
    centres = 5 + np.cumsum(random.normal(size=(400, 12, 3)) * 0.6, axis=0)
    centres[200, 3, 0] += 4.2  # a jump there and back: 0.42 of the cell
    folded = centres % 10.0
    arm = np.array([4.0, 0.0, 0.0])
    pairs = np.concatenate([folded, folded + arm, np.full((400, 1, 3), 5.0)], axis=1)
    run = read_trajectory([unknown(tmp_path / "a.xyz", pairs)], SETTINGS)
    exact = centres - centres[0]
    np.testing.assert_allclose(run.displacements[:, :12], exact, atol=1e-8)
    assert "steps between frames are longer than 0.4 of the cell" in run.warnings[0]


def test_images_that_were_set_back_are_no_jump(tmp_path):
    walk = crystal(LatticeWalk(frames=300, ions=10, rate=2.0, vibration=0.2))
    write_lammps_dump(walk, tmp_path / "whole.dump", 50, "id element xu yu zu")
    known = read_trajectory([tmp_path / "whole.dump"], SETTINGS)
    back = walk.positions.copy()
    back[150:] -= np.floor(back[150] / 20.0) * 20.0
    assert np.abs(back - walk.positions).max() >= 20
    for part, name in ((slice(0, 150), "1.dump"), (slice(150, 300), "2.dump"), (slice(0, 300), "3.dump")):
        system = Crystal(walk.symbols, back[part], walk.cells[part])
        write_lammps_dump(system, tmp_path / name, 50, "id element xu yu zu")
    joined = read_trajectory([tmp_path / "1.dump", tmp_path / "2.dump"], SETTINGS)
    np.testing.assert_allclose(joined.displacements, known.displacements, atol=1e-6)
    assert joined.warnings == ()
    one = read_trajectory([tmp_path / "3.dump"], SETTINGS)
    np.testing.assert_allclose(one.displacements, known.displacements, atol=1e-6)
    assert "atom(s) jump by whole cells, though no step comes near half of one" in one.warnings[0]


def test_the_nearest_image_in_a_skewed_cell(tmp_path):
    """Steps of 2 Å are more than half of a vector of this cell, though its images are 7 Å apart."""
    reduced = 5.0 * np.array([[0.0, 1, 1], [1, 0, 1], [1, 1, 0]])
    cell = np.array([[1, 0, 0], [1, 1, 0], [3, -2, 1]]) @ reduced
    steps = np.random.default_rng(3).uniform(-1.2, 1.2, size=(50, 30, 3))
    steps[0] = 0
    steps[:, -1] = 0
    positions = np.cumsum(steps, axis=0)
    assert np.abs(steps @ np.linalg.inv(cell)).max() > 0.5
    fractions = positions @ np.linalg.inv(cell)
    frames = [Atoms("Li29S", positions=row @ cell, cell=cell, pbc=True) for row in fractions % 1.0]
    ase.io.write(tmp_path / "a.extxyz", frames)
    run = read_trajectory([tmp_path / "a.extxyz"], SETTINGS)
    np.testing.assert_allclose(run.displacements, positions[:, :-1], atol=1e-6)
    assert run.warnings == ()


def test_a_cell_of_another_run_is_refused(tmp_path):
    positions = np.full((2, 3, 3), 5.0)
    first, second = tmp_path / "a.xyz", tmp_path / "b.xyz"
    unknown(first, positions)
    second.write_text(unknown(second, positions, cell=31.0).read_text().replace("Step: ", "Step: 9"))
    with pytest.raises(BadInput, match="the cell changes by more than half of itself"):
        read_trajectory([first, second], SETTINGS)


def test_atoms_that_fly_away_are_refused():
    there = Frame(np.array(["Li"]), np.array([[1e13, 0.0, 0.0]]), 10 * np.eye(3))
    here = Frame(np.array(["Li"]), np.zeros((1, 3)), 10 * np.eye(3))
    lattice = Lattice.of(here, "here")
    unwrapper = Unwrapper([])
    unwrapper.begin(Place.of(here, lattice))
    with pytest.raises(BadInput, match=r"moves by 1e\+12 cells"):
        unwrapper.move(Place.of(there, lattice), "there")
