"""Barriers: known ones, the same in three hosts, and end points between which there is none."""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time

import ase.io
import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.constraints import FixAtoms
from ase.mep import NEB
from ase.optimize import BFGS, FIRE

import mlplugins
from mlplugins.analysis import barrier as paths
from mlplugins.analysis.barrier import Profile
from mlplugins.cli.main import main
from mlplugins.errors import BadInput, RunFailed
from mlplugins.model_file.card import ModelCard
from mlplugins.model_file.write import save
from mlplugins.models import lennard_jones
from mlplugins.observer import Silent
from mlplugins.workflows import _barrier_ends as ends

A, HEIGHT = 3.8, 2.7
EPSILON, SIGMA = 0.0104, 3.4


def write_model(path, **changes):
    parameters = {"epsilon": EPSILON, "sigma": SIGMA, "cutoff": 5.0, **changes}
    model = lennard_jones.Model(["Ar"], lennard_jones.Hyperparameters(**parameters))
    card = ModelCard("lennard-jones", ["Ar"], [0.0], details={"hyperparameters": parameters})
    save(model, path, card, "float64")


def adatom(column: float) -> Atoms:
    """An atom in a hollow of a fixed layer of 5 × 4 atoms; two hollows mirror each other at column 2."""
    layer = [(A * i, A * j, 0.0) for i in range(5) for j in range(4)]
    atoms = Atoms("Ar21", [*layer, (A * column, 1.5 * A, HEIGHT)])
    atoms.set_constraint(FixAtoms(range(20)))
    return atoms


def pair_of_ase() -> LennardJones:
    return LennardJones(epsilon=EPSILON, sigma=SIGMA, rc=1000.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Whole Lennard-Jones potentials (no atom is beyond the cutoff), end points, a configuration."""
    folder = tmp_path_factory.mktemp("barrier")
    for name, epsilon in {"model": 1.0, "b": 1.1, "c": 1.2}.items():
        write_model(folder / f"{name}.pt", epsilon=epsilon * EPSILON, cutoff=60.0, onset=0.99)
    ase.io.write(folder / "a.extxyz", adatom(1.45))
    ase.io.write(folder / "b.extxyz", adatom(2.5))
    return folder


def settings(folder, **changes):
    given = {
        "model": str(folder / "model.pt"),
        "initial": str(folder / "a.extxyz"),
        "final": str(folder / "b.extxyz"),
        "images": 3,
        "fmax": 0.001,
        **changes,
    }
    return {key: value for key, value in given.items() if value is not None}


@pytest.fixture(scope="module")
def known(folder):
    """Barrier, eV, and attempt frequency, THz, by ASE's own Lennard-Jones: the saddle is in the mirror."""
    frequencies, energies = [], []
    for column, free in ((1.5, (True, True, True)), (2.0, (False, False, True))):
        atoms = adatom(column)
        atoms.calc = pair_of_ase()
        position = atoms.positions[20]
        for _ in range(60):  # Newton's method along the free components, with differences
            forces, matrix = _derivatives(atoms)
            step = np.zeros(3)
            step[list(free)] = np.linalg.solve(matrix[np.ix_(free, free)], forces[list(free)])
            position += np.clip(step, -0.1, 0.1)
        assert np.abs(_derivatives(atoms)[0]).max() < 1e-9
        values = np.linalg.eigvalsh(_derivatives(atoms)[1]) / atoms.get_masses()[20]
        frequencies.append(np.sqrt(values[values > 0]) * 98.22694788 / (2 * np.pi))  # √(eV/(u Å²)) in rad/ps
        energies.append(atoms.get_potential_energy())
    return energies[1] - energies[0], np.prod(frequencies[0]) / np.prod(frequencies[1])


def _derivatives(atoms, h=1e-4):
    matrix = np.zeros((3, 3))
    centre = atoms.positions[20].copy()
    for k in range(3):
        for sign in (1, -1):
            atoms.positions[20] = centre + sign * h * np.eye(3)[k]
            matrix[k] -= sign * atoms.get_forces()[20] / (2 * h)
    atoms.positions[20] = centre
    return atoms.get_forces()[20], matrix


def test_a_barrier_known_by_symmetry(folder, known, tmp_path):
    """An atom hops between hollows, with ASE's own Lennard-Jones for comparison; files, page, exit code."""
    path = tmp_path / "barrier.yaml"
    path.write_text(yaml.safe_dump(settings(folder, vibrations=True, fmax=0.0002)))
    assert main(["barrier", str(path), "-o", str(tmp_path / "out"), "--json", str(tmp_path / "b.json")]) == 0
    found = json.loads((tmp_path / "b.json").read_text())
    barrier, attempt = known
    assert found["barrier_eV"] == pytest.approx(barrier, abs=1e-5)
    assert found["barrier_backward_eV"] == pytest.approx(barrier, abs=1e-5)
    assert found["attempt_frequency_THz"] == pytest.approx(attempt, rel=1e-2)
    assert len(found["imaginary_THz"]) == 1
    assert found["converged"]
    assert [move["atom"] for move in found["moves"]] == [20]
    names = {entry.name for entry in (tmp_path / "out").iterdir()}
    assert names >= {"report.html", "profile.png", "profile.pdf", "images.csv", "profile.csv", "path.extxyz"}
    page = (tmp_path / "out" / "report.html").read_text()
    assert f"barrier = {found['barrier_eV']:.4f} eV" in page
    assert "No warnings." in page
    images = ase.io.read(tmp_path / "out" / "path.extxyz", index=":")
    assert len(images) == 5
    energies = [atoms.get_potential_energy() for atoms in images]
    assert max(energies) - energies[0] == pytest.approx(found["barrier_eV"], abs=1e-9)


def test_the_path_is_that_of_ase(folder, tmp_path):
    """ASE's NEB with ASE's potential, from end to end without this package."""
    images = [adatom(1.5 + 0.25 * k) for k in range(5)]
    for image in images:
        image.calc = pair_of_ase()
    for end in (images[0], images[-1]):
        BFGS(end, logfile=None).run(fmax=0.0005)
    band = NEB(images, climb=True, method="improvedtangent")
    band.interpolate()
    FIRE(band, logfile=None).run(fmax=0.001, steps=500)
    energies = np.array([image.get_potential_energy() for image in images])
    found = mlplugins.barrier(settings(folder), tmp_path / "out")
    assert found.forward == pytest.approx(energies.max() - energies[0], abs=1e-5)
    np.testing.assert_allclose(found.profile.relative, energies - energies[0], rtol=0, atol=1e-4)
    assert found.profile.coordinate[-1] == pytest.approx(
        sum(np.linalg.norm(b.positions - a.positions) for a, b in zip(images, images[1:])), rel=2e-3
    )


def test_a_committee_says_how_far_its_barriers_spread(folder, tmp_path):
    """Energies in proportion to ε: so are the barriers, of 1.0, 1.1 and 1.2 times the same."""
    mlplugins.committee([folder / f"{name}.pt" for name in ("model", "b", "c")], tmp_path / "three.pt")
    found = mlplugins.barrier(settings(folder, model=str(tmp_path / "three.pt"), images=1), tmp_path / "out")
    assert found.spread == pytest.approx((found.forward / 11, found.backward / 11), rel=1e-5)
    assert "±" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.long
def test_too_few_steps_are_said_and_the_same_command_goes_on(folder, tmp_path, capsys):
    path = tmp_path / "barrier.yaml"
    words = ["barrier", str(path), "-o", str(tmp_path / "out")]
    path.write_text(yaml.safe_dump(settings(folder, steps=25, fmax=0.0001)))
    assert main(words) == 1
    assert "not converged" in capsys.readouterr().out
    assert "Not quotable" in (tmp_path / "out" / "report.html").read_text()
    saved = ase.io.read(tmp_path / "out" / "ase" / "images.extxyz", index=":")
    path.write_text(yaml.safe_dump(settings(folder, steps=400, fmax=0.0001)))
    assert main(words) == 0
    assert json.loads((tmp_path / "out" / "barrier.json").read_text())["quotable"]
    first = (tmp_path / "out" / "ase" / "neb.log").read_text()
    assert "FIRE" in first
    assert len(saved) == 5
    path.write_text(yaml.safe_dump(settings(folder, images=4)))
    assert main(words) == 2
    assert "begun with another configuration: 'images' was 3, is 4" in capsys.readouterr().err
    moved = tmp_path / "other" / "b.extxyz"  # the name that the other end has in another folder
    moved.parent.mkdir()
    ase.io.write(moved, adatom(1.45))
    path.write_text(yaml.safe_dump(settings(folder, initial=str(moved), fmax=0.1, images=1)))
    again = [*words[:-1], str(tmp_path / "again")]
    main(again)
    ase.io.write(moved, adatom(1.46))
    assert main(again) == 2
    assert "another configuration: the file of 'initial' has another content" in capsys.readouterr().err


def stamp(path):
    return (path.stat().st_ino, path.stat().st_mtime_ns) if path.exists() else None


def begin_and_kill(path, out, saved, moments, limit_s=60.0):
    """`kill -9` of the command when `saved` has been written anew so many times (at step 0, 10, …)."""
    seen, deadline = {stamp(saved)}, time.monotonic() + limit_s
    command = [sys.executable, "-m", "mlplugins.cli.main", "barrier", str(path), "-o", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    while len(seen) <= moments and process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError):  # replaced meanwhile
            seen.add(stamp(saved))
        time.sleep(0.002)
    assert process.poll() is None, "the command ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def energies_of(log):
    """Step and energy of the highest image in every line of ASE's FIRE, as printed."""
    rows = [line.split() for line in log.read_text().splitlines() if line.startswith("FIRE:")]
    return [(int(row[1]), row[3]) for row in rows]


@pytest.mark.long
@pytest.mark.usefixtures("warm_start")
@pytest.mark.parametrize("moments", [[2], pytest.param([2, 5, 3], marks=pytest.mark.exhaustive)])
def test_killed_and_started_again_it_goes_on(folder, known, tmp_path, moments):
    """The next start begins with the images that were saved, and ends with the barrier known by symmetry."""
    given = settings(folder, steps=1000, fmax=0.0005, images=1)
    path, out = tmp_path / "barrier.yaml", tmp_path / "out"
    path.write_text(yaml.safe_dump(given))
    logged = [0]
    for count in moments:
        begin_and_kill(path, out, out / "ase" / "images.extxyz", count)
        assert not (out / "barrier.json").exists()
        logged.append(len(energies_of(out / "ase" / "neb.log")))
    ends_before = (out / "ends.extxyz").read_bytes()
    found = mlplugins.barrier(given, out)
    assert found.quotable, found.warnings
    assert (out / "ends.extxyz").read_bytes() == ends_before
    lines = energies_of(out / "ase" / "neb.log")
    for begin, end in itertools.pairwise(logged):
        saved = {energy for step, energy in lines[begin:end] if step > 0 or begin > 0}
        assert lines[end][0] == 0
        assert lines[end][1] in saved
        assert lines[end][1] != lines[0][1]
    assert found.forward == pytest.approx(known[0], abs=1e-5)


@pytest.fixture(scope="module")
def vacancy(tmp_path_factory):
    """A crystal of argon and its potential."""
    folder = tmp_path_factory.mktemp("vacancy")
    write_model(folder / "model.pt", cutoff=6.5)
    ase.io.write(folder / "argon.extxyz", bulk("Ar", "fcc", a=5.27, cubic=True))
    return {
        "model": str(folder / "model.pt"),
        "structure": str(folder / "argon.extxyz"),
        "supercell": [2, 2, 2],
        "hop": {"species": "Ar"},
        "images": 1,
        "fmax": 0.001,
    }


@pytest.mark.slow
@pytest.mark.usefixtures("native_build", "warm_start")
def test_three_hosts_find_the_same_barrier(vacancy, tmp_path):
    """A vacancy in argon: to 0.1 meV, by the model's energies and by the hosts' own."""
    reference = mlplugins.barrier({**vacancy, "images": 3}, tmp_path / "ase")
    assert reference.quotable, reference.warnings
    assert 0.04 < reference.forward < 0.06
    assert reference.backward == pytest.approx(reference.forward, abs=1e-6)
    for engine in ("lammps", "ipi"):
        told = []

        class Steps(Silent):
            def step(self, done, total):
                told.append((done, total))  # noqa: B023

        found = mlplugins.barrier({**vacancy, "engine": engine}, tmp_path / engine, Steps())
        assert found.quotable, (engine, found.warnings)
        assert found.forward == pytest.approx(reference.forward, abs=1e-4), engine
        host = found.host - found.host[0]
        np.testing.assert_allclose(host, found.profile.relative, rtol=0, atol=1e-6)
        assert told[-1][1] == 1000


def test_final_atoms_in_another_order_and_frame_are_the_same_path(vacancy):
    crystal = bulk("Ar", "fcc", a=5.27, cubic=True) * (2, 2, 2)
    crystal.rattle(0.05, seed=3)
    initial, final = crystal.copy(), crystal.copy()
    final.positions[0] += crystal.get_distance(0, 9, mic=True, vector=True)
    for atoms in (initial, final):
        del atoms[9]
    wanted = final.positions - initial.positions
    assert np.linalg.norm(wanted[0]) < 4.0
    order = np.random.default_rng(1).permutation(len(final))
    shuffled = final[order]
    shuffled.positions += [0.4, -0.3, 0.2]
    shuffled.wrap()
    found = ends._matched(initial, shuffled)
    np.testing.assert_allclose(found.final.positions - initial.positions, wanted, rtol=0, atol=1e-9)
    assert "another order" in found.notes[0]


def test_an_atom_goes_past_another_one_if_asked():
    """By twice the distance of neighbours, in files of one order: nearest places mean that two atoms move."""
    initial = bulk("Ar", "fcc", a=5.3, cubic=True) * (3, 3, 3)
    step = initial.get_distance(0, 1, mic=True, vector=True)
    target = int(np.argmin(np.linalg.norm(initial.positions - 2 * step, axis=1)))
    final = initial.copy()
    final.positions[0] += 2 * step
    for atoms in (initial, final):
        del atoms[target]
    for keep, moving in ((False, 2), (True, 1)):
        found = ends._matched(initial, final, keep)
        assert (np.linalg.norm(found.final.positions - initial.positions, axis=1) > 0.1).sum() == moving
        assert ("another order" in "".join(found.notes)) != keep


def test_a_minimum_between_two_maxima_is_seen():
    """E = x²(x² − 1)² between −1 and 1, but for a shallow one."""
    x = np.linspace(-1, 1, 21)
    for scale, count in ((1.0, 1), (0.02, 0)):
        energy = scale * x**2 * (x**2 - 1) ** 2
        slope = scale * (2 * x * (x**2 - 1) ** 2 + 4 * x**3 * (x**2 - 1))
        profile = Profile(x[:, None, None], energy, -slope[:, None, None])
        assert len(profile.between()) == count
        assert sum(point.is_maximum for point in profile.stationary()) == 2


def refused(folder, tmp_path, **changes):
    for name in ("initial", "final", "structure"):
        if isinstance(changes.get(name), Atoms):
            ase.io.write(tmp_path / f"{name}.extxyz", changes[name])
            changes[name] = str(tmp_path / f"{name}.extxyz")
    with pytest.raises(BadInput) as refusal:
        mlplugins.barrier(settings(folder, **changes), tmp_path / "out")
    return str(refusal.value)


def in_a_cell(a: float) -> Atoms:
    return bulk("Ar", "fcc", a=a, cubic=True) * (2, 2, 2)


def held(x: float) -> Atoms:
    atoms = in_a_cell(5.27)
    atoms.positions[0, 0] += x
    atoms.set_constraint(FixAtoms([0]))
    return atoms


def in_a_box(y: float) -> Atoms:
    return Atoms("Ar2", [[0, 0, 0], [4, y, 0]], cell=[9.0, 9.0, 9.0], pbc=True)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"initial": in_a_cell(5.27), "final": in_a_box(0.0)},
            "'initial' holds Ar32, 'final' Ar2: expected the same atoms",
        ),
        ({"initial": bulk("Xe", "fcc", a=6.1)}, "holds Xe, which 'model.pt' does not know; it knows Ar"),
        ({"initial": in_a_cell(5.27), "final": in_a_cell(5.3)}, "expected one cell"),
        ({"initial": in_a_box(0.0), "final": in_a_box(4.4)}, "moves by half of the cell"),
        ({"initial": held(0.0), "final": held(1.5)}, "atom 0 (Ar) is fixed, and moves by 1.50 Å"),
        ({"cell": "relaxed"}, "'cell: relaxed': structure '"),
        (
            {
                "initial": None,
                "final": None,
                "structure": Atoms("Ar2", [[0, 0, 0], [4, 0, 0]]),
                "hop": {"species": "Ar"},
                "supercell": [1, 1, 2],
            },
            "'supercell': [1, 1, 2] repeats a direction that is not periodic",
        ),
        ({"largest_move": 3.0}, "atom 20 (Ar) would move by 3.99 Å, farther than 'largest_move' (3 Å)"),
        (
            {"hop": {"species": "Ar"}},
            "expected 'structure' and 'hop', or 'initial' and 'final', got hop, initial",
        ),
        ({"engine": "vasp"}, "'engine': 'vasp'"),
        ({"images": 0}, "'images'"),
        ({"imagse": 3}, "unknown key 'imagse': did you mean 'images'?"),
    ],
)
def test_what_is_no_hop_is_refused(folder, tmp_path, changes, text):
    said = refused(folder, tmp_path, **changes)
    assert text in said, said


@pytest.mark.parametrize(
    ("hop", "text"),
    [
        ({"species": "Li"}, "'hop.species': 'Li': expected two atoms of it or more"),
        ({"species": "Ar", "sites": [3, 3]}, "both are atom 3"),
        ({"species": "Ar", "sites": [-1, 3]}, "'hop.sites.0': input should be greater than or equal to 0"),
        ({"species": "Ar", "sites": [3, 40]}, "the supercell has atoms 0 to 31"),
        ({"species": "Ar", "sites": [3, [1.0, 1.0, 1.0]]}, "no atom within 1 Å of [1.0, 1.0, 1.0]"),
    ],
)
def test_sites_that_are_none_are_refused(vacancy, tmp_path, hop, text):
    with pytest.raises(BadInput, match="hop") as refusal:
        mlplugins.barrier({**vacancy, "hop": hop}, tmp_path / "out")
    assert text in str(refusal.value)


def test_end_points_of_two_charges_are_refused(folder):
    initial, final = in_a_cell(5.27), in_a_cell(5.27)
    final.info = {"total_charge": 0}  # as without
    ends._require_alike(initial, final, None)
    final.info = {"charge": 1.0}
    with pytest.raises(BadInput, match="charge 0 .* and charge 1 .* expected one electronic state"):
        ends._require_alike(initial, final, None)


def test_a_linear_molecule_has_four_vibrations():
    """Masses on x with springs along it (k) and against bending (b): ω² = k/m, 3k/m, 3b/m twice."""
    atoms = Atoms("H3", [[-1, 0, 0], [0, 0, 0], [1, 0, 0]])
    bend = np.outer([1, -2, 1], [1, -2, 1]) / 2
    springs = np.array([[1, -1, 0], [-1, 2, -1], [0, -1, 1]])

    def hessian(k, b):
        return sum(np.kron(m, np.diag(d)) for m, d in ((k * springs, (1, 0, 0)), (b * bend, (0, 1, 1))))

    coupled = hessian(5.0, 1.0)
    saddle = hessian(5.0, 4.0) - 15.0 * np.kron(np.outer([1, 0, -1], [1, 0, -1]) / 2, np.diag((1, 0, 0)))
    found = paths.modes(atoms, atoms, (coupled, saddle), np.ones(3, dtype=bool))
    assert len(found.imaginary_thz) == 1
    unit = np.sqrt(1 / 1.008) * 98.22694788 / (2 * np.pi)
    assert found.attempt_thz == pytest.approx(unit * np.sqrt(5 * 15 * 3**2 / (15 * 12**2)), rel=1e-6)
    bent = atoms.copy()
    bent.positions[1, 1] = 0.3
    assert np.isnan(paths.modes(atoms, bent, (coupled, saddle), np.ones(3, dtype=bool)).attempt_thz)


def test_end_points_of_one_minimum_are_refused(folder, tmp_path):
    ase.io.write(tmp_path / "near.extxyz", adatom(1.6))
    with pytest.raises(RunFailed, match="both end points relax to the same minimum"):
        mlplugins.barrier(settings(folder, final=str(tmp_path / "near.extxyz")), tmp_path / "out")
    with pytest.raises(BadInput, match="largest_move"):  # the folder is free for another configuration
        mlplugins.barrier(settings(folder, largest_move=3.0), tmp_path / "out")


def test_the_first_path_keeps_atoms_apart():
    """A straight line that passes another atom at 0.4 Å is bent around it; what is fixed stays."""
    initial, final = (Atoms("Ar2", [[0.0, 0.4, 0.0], [x, 0.0, 0.0]]) for x in (-3.0, 3.0))
    for atoms in (initial, final):
        atoms.set_constraint(FixAtoms([0]))
    images = ends.interpolated(initial, final, 5)
    assert min(atoms.get_distance(0, 1) for atoms in images) > 2.0
    for atoms in images:
        assert atoms.positions[0].tolist() == [0.0, 0.4, 0.0]
