"""Committees in LAMMPS: model deviation in DeePMD-kit's file, for computes and fixes; the end of a run."""

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.io import read

from mlplugins import committee
from mlplugins.engines import lammps
from mlplugins.model_file.artifact import load
from mlplugins.model_file.card import ModelCard
from mlplugins.model_file.write import save
from mlplugins.models import lennard_jones, nequip
from mlplugins.workflows.convert import convert
from tests.engines.lammps_tools import deck, errors_of, start, velocities

pytestmark = pytest.mark.usefixtures("native_build", "warm_start")

EVERY = 2
FORMAT = 'format float "%.16g"'
NAMES = ["max_devi_v", "min_devi_v", "avg_devi_v", "max_devi_f", "min_devi_f", "avg_devi_f"]


def write_network(path, seed, layers=2, cutoff=4.0, baseline=-1.0):
    parameters = {"cutoff": cutoff, "num_layers": layers, "num_features": 3, "radial_mlp": [4]}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nequip.Model(["Ar"], nequip.Hyperparameters(**parameters))
    model.average_neighbors.fill_(10.0)
    card = ModelCard("nequip", ["Ar"], [baseline], details={"hyperparameters": parameters})
    save(model, path, card, "float64")
    return path


@pytest.fixture(scope="module")
def members(tmp_path_factory):
    """Two networks of different depth, and Lennard-Jones with the longest cutoff."""
    folder = tmp_path_factory.mktemp("members")
    parameters = {"epsilon": 0.02, "sigma": 3.3, "cutoff": 5.0}
    model = lennard_jones.Model(["Ar"], lennard_jones.Hyperparameters(**parameters))
    card = ModelCard("lennard-jones", ["Ar"], [-0.5], details={"hyperparameters": parameters})
    save(model, folder / "lj.pt", card, "float64")
    return [
        write_network(folder / "a.pt", 1),
        write_network(folder / "b.pt", 2, layers=1, cutoff=4.5, baseline=-1.1),
        folder / "lj.pt",
    ]


@pytest.fixture(scope="module")
def together(members):
    path = members[0].with_name("together.pt")
    committee(members, path)
    return path


def argon():
    atoms = bulk("Ar", "fcc", a=5.3, cubic=True) * (3, 2, 2)
    atoms.rattle(0.15, seed=1)
    return atoms


def expected(frame, members, relative=None, relative_v=None):
    """The definitions, of separately evaluated models."""
    found = [load(path).evaluate([frame])[0] for path in members]
    forces = np.array([one.forces for one in found])
    virials = np.array([one.virial.ravel() for one in found]) / len(frame)
    each = np.linalg.norm(forces.std(axis=0), axis=1)
    if relative is not None:
        each = each / (np.linalg.norm(forces.mean(axis=0), axis=1) + relative)
    v = virials.std(axis=0)
    if relative_v is not None:
        v = v / (abs(virials.mean(axis=0)) + relative_v)
    columns = [v.max(), v.min(), np.sqrt((v**2).mean()), each.max(), each.min(), each.mean()]
    return np.array(columns), each, found


def frames_of(path):
    frames = read(path, index=":", format="lammps-dump-text")
    for frame in frames:
        frame.pbc = True
        frame.set_chemical_symbols(["Ar"] * len(frame))
    return frames


def run_deck(folder, models, keywords, more=(), steps=4):
    head = deck(folder, " ".join(map(str, models)), argon(), keywords, velocities=velocities(argon(), 300))
    head = [line.replace('"', "") if line.startswith("pair_style") else line for line in head]
    return [
        *head,
        "timestep 0.002",
        "fix md all nve",
        f"fix d all pair {EVERY} mlplugins deviation 1 uncertainty 1",
        "compute p all pair mlplugins",
        f"thermo {EVERY}",
        "thermo_style custom step pe " + " ".join(f"c_p[{k}]" for k in range(1, 7)),
        'thermo_modify format float "%.16g"',
        f"dump x all custom {EVERY} x.dump id type x y z fx fy fz f_d[1] f_d[2]",
        f"dump_modify x sort id {FORMAT}",
        *more,
        f"run {steps}",
    ]


def check(folder, members, drive, relative=None, relative_v=None):
    """File, computes, fix and forces against the definitions; returns the rows of the file."""
    rows = np.loadtxt(folder / "devi.out", ndmin=2)
    frames = frames_of(folder / "x.dump")
    thermo = lammps.read_log(folder / "log.lammps")[-1]
    assert list(rows[:, 0]) == [0, 2, 4]
    for k, frame in enumerate(frames):
        columns, each, found = expected(frame, members, relative, relative_v)
        np.testing.assert_allclose(rows[k, 1:7], columns, rtol=1e-6, atol=0)
        computed = [thermo[f"c_p[{n}]"][k] for n in range(1, 7)]
        np.testing.assert_allclose(computed, columns, rtol=0, atol=1e-10)
        np.testing.assert_allclose(frame.arrays["f_d[1]"].ravel(), each, rtol=0, atol=1e-10)
        energies = np.array([one.energies for one in found])
        spread = energies.std(axis=0, ddof=1)
        np.testing.assert_allclose(frame.arrays["f_d[2]"].ravel(), spread, rtol=0, atol=1e-10)
        driving = found[:1] if drive == "first" else found
        forces = np.mean([one.forces for one in driving], axis=0)
        np.testing.assert_allclose(frame.calc.results["forces"], forces, rtol=0, atol=1e-10)
        energy = np.mean([one.energy for one in driving])
        assert thermo["PotEng"][k] == pytest.approx(energy, abs=1e-9)
        if rows.shape[1] > 7:
            np.testing.assert_allclose(rows[k, 7:], each, rtol=1e-6, atol=0)
    return rows


def lines_of(folder):
    return (folder / "devi.out").read_text().splitlines()


@pytest.mark.parametrize(
    ("kind", "ranks", "keywords"),
    [
        ("files", 1, "drive first atomic"),
        ("files", 2, "mode ghost relative 0.3 relative_v 0.2"),
        ("file", 2, "atomic"),
    ],
)
def test_numbers_are_those_of_separate_evaluations(request, tmp_path, members, kind, ranks, keywords):
    """In the modes fold, ghost and exchange."""
    models = members if kind == "files" else [request.getfixturevalue("together")]
    lines = run_deck(tmp_path, models, f"{keywords} out_file devi.out out_freq {EVERY}")
    done = start(tmp_path, lines, ranks)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    relative = (0.3, 0.2) if "relative" in keywords else (None, None)
    rows = check(tmp_path, members, "first" if "first" in keywords else "mean", *relative)
    assert rows.shape[1] == (7 + len(argon()) if "atomic" in keywords else 7)
    assert "committee of 3 models" in done.stdout


def other_kinds(together):
    """Decks in `units real`, hybrid/overlay and respa."""
    still = ["clear", "atom_modify map array", "boundary p p p"]
    real = [
        *still,
        "units real",
        "atom_style atomic",
        "read_data data.lmp",
        f"pair_style mlplugins {together} out_file real.out out_freq 1 relative 1.0",
        "pair_coeff * * Ar",
        "run 0",
    ]
    overlay = [
        *still,
        "units metal",
        "atom_style atomic",
        "read_data data.lmp",
        f"pair_style hybrid/overlay lj/cut 5.0 mlplugins {together} out_file overlay.out out_freq 1",
        "pair_coeff * * lj/cut 0.01 3.4",
        "pair_coeff * * mlplugins Ar",
        "compute p all pair mlplugins",
        "thermo_style custom step c_p[1] c_p[4]",
        'thermo_modify format float "%.16g"',
        "run 0",
    ]
    respa = [
        *still,
        "units metal",
        "atom_style atomic",
        "read_data data.lmp",
        f"pair_style mlplugins {together} out_file respa.out out_freq 1",
        "pair_coeff * * Ar",
        "run_style respa 2 2 pair 2",
        "fix md all nve",
        "timestep 0.002",
        "run 2",
    ]
    return real, overlay, respa


def test_the_file_grows_and_runs_of_other_kinds_agree(tmp_path, members, together):
    """Appended to after a restart, without a second header; in `units real`, hybrid/overlay and respa; the
    members that do not drive are not seen in the trajectory."""
    frame = argon()
    keywords = f"drive first out_file devi.out out_freq {EVERY}"
    models = " ".join(map(str, members))
    head = run_deck(tmp_path, members, keywords)
    again = [
        "clear",
        "units metal",
        "atom_style atomic",
        "read_restart half.restart",
        f"pair_style mlplugins {models} {keywords}",
        "pair_coeff * * Ar",
        "timestep 0.002",
        "fix md all nve",
        "run 2",
        "run 2",
    ]
    real, overlay, respa = other_kinds(together)
    convert(together, tmp_path / "single.pt")
    single = [line.replace(str(together), "single.pt").replace("respa.out", "single.out") for line in respa]
    lines = [*head, "write_restart half.restart", *again, *real, *overlay, *single, *respa]
    done = start(tmp_path, lines)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]

    text = lines_of(tmp_path)
    assert text[0] == "#       step" + "".join(f"{name:>19}" for name in NAMES)
    assert [line[:12] for line in text[1:]] == [f"{step:12d}" for step in (0, 2, 4, 4, 6, 8)]
    assert all(len(line) == 12 + 6 * 19 for line in text[1:])
    columns, _, _ = expected(frame, members)
    for name in ("overlay", "respa"):
        rows = np.loadtxt(tmp_path / f"{name}.out", ndmin=2)
        np.testing.assert_allclose(rows[0, 1:], columns, rtol=1e-6, atol=0, err_msg=name)
    assert list(rows[:, 0]) == [0, 1, 2]  # of respa: its level of the pairs is evaluated once per step
    kcal = 23.060549
    real = np.loadtxt(tmp_path / "real.out", ndmin=2)[0, 1:]
    np.testing.assert_allclose(real[:3], kcal * columns[:3], rtol=1e-5, atol=0)
    scaled, _, _ = expected(frame, members, relative=1.0 / kcal)
    np.testing.assert_allclose(real[3:], scaled[3:], rtol=1e-5, atol=0)
    rows = np.loadtxt(tmp_path / "single.out", ndmin=2)  # computes in float32
    np.testing.assert_allclose(rows[0, 1:], columns, rtol=1e-3, atol=0)
    table = lammps.read_log(tmp_path / "log.lammps")[-3]
    assert table["c_p[4]"][0] == pytest.approx(columns[3], abs=1e-10)


def test_a_run_stops_where_the_models_disagree(tmp_path, members):
    """With a message, exit code 1 and the frame, on two ranks."""
    columns, each, _ = expected(argon(), members)
    limit = 0.5 * columns[3]
    lines = run_deck(tmp_path, members, f"out_file devi.out out_freq {EVERY} stop_above {limit}")
    done = start(tmp_path, lines, ranks=2)
    assert done.returncode != 0
    found = " ".join((done.stdout + done.stderr).split())
    worst = 1 + int(each.argmax())
    assert f"at step 0 the model deviation of the force on atom {worst} is" in found
    assert "The frame is in 'devi.out.stopped.lammpstrj'" in found
    (frame,) = frames_of(tmp_path / "devi.out.stopped.lammpstrj")
    np.testing.assert_allclose(expected(frame, members)[0], columns, rtol=0, atol=1e-10)
    assert len(lines_of(tmp_path)) == 2


def test_replicas_copies_and_the_zero_of_the_first_model(tmp_path, members, together):
    """Replicas have a file each; the first of three files and of one file count from its own composition
    energies; copies are named."""
    keywords = "drive first baseline off out_file devi.out out_freq 1"
    head = deck(tmp_path, together, argon())[:-2]
    lines = [
        *head,
        f'variable models world "{" ".join(map(str, members))}" {together}',
        f"pair_style mlplugins ${{models}} {keywords}",
        "pair_coeff * * Ar",
        "thermo_style custom step pe",
        'thermo_modify format float "%.16g"',
        "run 0",
        f"pair_style mlplugins {members[0]} {members[2]} {members[0]} out_freq 0",
        "pair_coeff * * Ar",
        "compute p all pair mlplugins",
        "thermo_style custom step c_p[4]",
        "run 0",
    ]
    done = start(tmp_path, lines, ranks=2, arguments=["-partition", "2x1"])
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    logs = [tmp_path / f"log.lammps.{k}" for k in range(2)]
    energies = [lammps.read_log(log)[0]["PotEng"][0] for log in logs]
    first = load(members[0]).evaluate([argon()])[0].energy + len(argon())  # composition: -1 eV
    np.testing.assert_allclose(energies, first, rtol=0, atol=1e-9)
    assert not (tmp_path / "devi.out").exists()
    for k, log in enumerate(logs):
        np.testing.assert_allclose(
            np.loadtxt(tmp_path / f"devi.out.{k}")[1:], expected(argon(), members)[0], rtol=1e-6
        )
        assert "that give the same forces: 1 = 3:" in log.read_text().replace("\n", " ")
        assert log.read_text().count("copies of one model?") == 1


@pytest.mark.parametrize("ranks", [1, 2])
def test_models_of_another_zero_of_energy_are_named(tmp_path, ranks):
    """Composition energies 3 eV apart; the forces of the third differ as much as its energies."""
    models = []
    for name, epsilon, baseline in (("a", 0.0104, -7.0), ("b", 0.0102, -10.0), ("c", 0.1, -7.0)):
        parameters = {"epsilon": epsilon, "sigma": 3.4}
        model = lennard_jones.Model(["Ar"], lennard_jones.Hyperparameters(**parameters))
        card = ModelCard("lennard-jones", ["Ar"], [baseline], details={"hyperparameters": parameters})
        save(model, tmp_path / f"{name}.pt", card, "float64")
        models.append(f"{name}.pt")
    head = [line.replace('"', "") for line in deck(tmp_path, " ".join(models), argon(), "out_freq 1")]
    done = start(tmp_path, [*head, "fix md all nve", "run 2"], ranks=ranks)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    log = " ".join((tmp_path / "log.lammps").read_text().split())
    assert log.count("(model 2 by -3 eV per atom from model 1)") == 1
    assert "model 3 by" not in log


def test_rows_are_neither_lost_nor_of_another_step(tmp_path, members):
    """A style declared again after reset_timestep 0 goes on in its file; a compute that is new before
    `run … pre no` shows no value of before."""
    models = " ".join(map(str, members[:2]))
    style = [f"pair_style mlplugins {models} out_file devi.out out_freq 1", "pair_coeff * * Ar"]
    head = [line.replace('"', "") for line in deck(tmp_path, models, argon(), "out_freq 0")]
    lines = [
        *head[:-2],
        *style,
        "fix md all nve",
        "run 2",
        "reset_timestep 0",
        *style,
        "run 1",
        f"pair_style mlplugins {models} out_freq 0",
        "pair_coeff * * Ar",
        "thermo 1",
        "run 1",
        "compute p all pair mlplugins",
        "variable d equal c_p[4]",
        "run 2 pre no every 1 'print \"D $d\"'",
        "run 0",
        'print "D $d"',
    ]
    done = start(tmp_path, lines)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    rows = np.loadtxt(tmp_path / "devi.out")
    assert rows[:, 0].tolist() == [0, 1, 2, 0, 1]
    assert (tmp_path / "devi.out").read_text().count("max_devi_v") == 1
    values = [float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("D ")]
    assert len(values) == 3
    assert values[1] == pytest.approx(values[2], rel=1e-9)  # of the same step, set up anew
    assert values[0] != values[1]


def test_a_deck_that_starts_anew_writes_a_new_file(tmp_path, members):
    models = " ".join(map(str, members[:2]))
    once = [line.replace('"', "") for line in deck(tmp_path, models, argon(), "out_file devi.out out_freq 1")]
    once += ["fix md all nve", "run 2"]
    done = start(tmp_path, [*once, "clear", *once])
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert np.loadtxt(tmp_path / "devi.out")[:, 0].tolist() == [0, 1, 2]


def test_bad_input_is_named(tmp_path, members, together):
    (tmp_path / "folder").mkdir()
    head = deck(tmp_path, together, argon())[:-2]
    other = write_krypton(tmp_path / "other.pt")
    models = " ".join(map(str, members))
    decks = {
        text: [*head, f"pair_style mlplugins {words}", *more]
        for text, words, more in (
            ("out_file needs several model files", f"{members[0]} out_file a.out", []),
            (
                "'out_freq': expected a number of steps, or 0 for no file, got '-1'",
                f"{models} out_freq -1",
                [],
            ),
            ("'drive': expected mean or first, got 'median'", f"{models} drive median", []),
            ("'relative': expected a positive number, got '0'", f"{models} relative 0", []),
            ("'stop_above' needs 'out_freq' above 0", f"{models} stop_above 1 out_freq 0", []),
            ("unknown keyword 'out_fle' (and no file of this name)", f"{models} out_fle a.out", []),
            ("absent.pt", f"{members[0]} absent.pt", []),
            ("cannot write 'folder'", f"{models} out_file folder", ["pair_coeff * * Ar", "run 0"]),
            ("keyword 'out_file' has no value", f"{models} atomic out_file", []),
            (
                "the deviation is one of several models",
                str(members[0]),
                ["pair_coeff * * Ar", "fix d all pair 1 mlplugins deviation 1"],
            ),
            ("element Ar (atom type 1) is not in the model", f"{members[0]} {other}", ["pair_coeff * * Ar"]),
            (
                "'gcmc.out' has one column for each of 48 atoms, but at step 1 there are 49",
                f"{members[2]} {together} atomic out_file gcmc.out out_freq 1",
                ["pair_coeff * * Ar", "fix g all gcmc 1 9 0 1 1 300 0 0.1 full_energy", "run 1"],
            ),
            (
                "needs IDs from 1 to the number of atoms",
                f"{models} atomic",
                ["pair_coeff * * Ar", "group one id 1", "delete_atoms group one compress no", "run 0"],
            ),
        )
    }
    errors = errors_of(tmp_path, decks)
    for text in decks:
        assert text in errors.get(text, ""), (text, errors.get(text))


def write_krypton(path):
    model = lennard_jones.Model(["Kr"], lennard_jones.Hyperparameters())
    save(model, path, ModelCard("lennard-jones", ["Kr"], [0.0], details={"hyperparameters": {}}), "float64")
    return path
