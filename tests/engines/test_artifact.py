"""Loading model files and evaluating structures: against ASE and finite differences; bad files, batches."""

from __future__ import annotations

import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.lj import LennardJones
from ase.neighborlist import neighbor_list

from mlplugins import MLCalculator, units
from mlplugins.errors import BadInput, RunFailed
from mlplugins.model_file import artifact
from mlplugins.model_file.artifact import NeighborCache, PlainStructure, combine, load
from mlplugins.model_file.card import ModelCard
from mlplugins.model_file.structure import prepare
from mlplugins.model_file.write import save
from mlplugins.models import lennard_jones
from mlplugins.quantities import QUANTITIES

from . import direct_model, general_model
from .conftest import CUTOFF, EPSILON, ONSET, SIGMA, crystal, molecule, slab, triclinic, write_lennard_jones

BOHR = 0.529177210903  # Å
STEP = 1e-4  # Å, or strain


def derivative(model: artifact.Artifact, displaced: list[list[Atoms]]) -> np.ndarray:
    """Central differences of fourth order; each list holds a structure displaced by −2, −1, 1, 2 steps."""
    flat = [atoms for four in displaced for atoms in four]
    energies = np.array([result.energy for result in model.evaluate(flat)]).reshape(-1, 4)
    return energies @ np.array([1, -8, 8, -1]) / (12 * STEP)


def numerical_forces(model: artifact.Artifact, atoms: Atoms, n_atoms: int) -> np.ndarray:
    def moved(index: int, k: int, n: int) -> Atoms:
        copy = atoms.copy()
        copy.positions[index, k] += n * STEP
        return copy

    displaced = [[moved(i, k, n) for n in (-2, -1, 1, 2)] for i in range(n_atoms) for k in range(3)]
    return -derivative(model, displaced).reshape(n_atoms, 3)


def numerical_virial(model: artifact.Artifact, atoms: Atoms) -> np.ndarray:
    """−∂E/∂ε, symmetric."""

    def strained(a: int, b: int, n: int) -> Atoms:
        strain = np.eye(3)
        strain[a, b] += n * STEP
        copy = atoms.copy()
        copy.cell[:] = np.asarray(atoms.cell) @ strain
        copy.positions[:] = atoms.positions @ strain
        return copy

    displaced = [[strained(a, b, n) for n in (-2, -1, 1, 2)] for a in range(3) for b in range(3)]
    virial = -derivative(model, displaced).reshape(3, 3)
    return 0.5 * (virial + virial.T)


def analytic_energy(atoms: Atoms) -> float:
    """Lennard-Jones with the quintic switch, written a second time, on ASE's neighbour list."""
    r = neighbor_list("d", atoms, CUTOFF)
    x = np.clip((r / CUTOFF - ONSET) / (1 - ONSET), 0, 1)
    switch = 1 - 10 * x**3 + 15 * x**4 - 6 * x**5
    return 0.5 * np.sum(switch * 4 * EPSILON * ((SIGMA / r) ** 12 - (SIGMA / r) ** 6))


def test_energy_is_the_analytic_one(argon_model, structure):
    result = load(argon_model).evaluate([structure])[0]
    assert result.energy == pytest.approx(analytic_energy(structure), rel=1e-12, abs=1e-14)
    assert result.energies.sum() == pytest.approx(result.energy, rel=1e-13, abs=1e-14)


def test_forces_are_the_derivative(argon_model, structure):
    model = load(argon_model)
    forces = model.evaluate([structure])[0].forces
    n = min(len(structure), 4)
    scale = max(np.abs(forces).max(), 1e-3)
    assert np.abs(numerical_forces(model, structure, n) - forces[:n]).max() < 1e-6 * scale
    assert np.abs(forces.sum(axis=0)).max() < 1e-13


def test_stress_is_the_derivative(argon_model, structure):
    model = load(argon_model)
    result = model.evaluate([structure])[0]
    scale = max(np.abs(result.virial).max(), 1e-3)
    assert np.abs(numerical_virial(model, structure) - result.virial).max() < 1e-6 * scale
    if structure.pbc.any() and structure.cell.rank == 3:
        assert np.allclose(result.stress, -result.virial / structure.get_volume(), rtol=1e-14, atol=0)
    else:
        assert result.stress is None


def test_the_same_as_ases_own_lennard_jones_within_the_onset(argon_model):
    cluster = molecule()
    cluster.positions *= 0.85
    shift = 4 * EPSILON * ((SIGMA / CUTOFF) ** 12 - (SIGMA / CUTOFF) ** 6)  # ASE shifts every pair energy
    cluster.calc = LennardJones(epsilon=EPSILON, sigma=SIGMA, rc=CUTOFF)
    n_pairs = len(neighbor_list("i", cluster, CUTOFF)) // 2
    result = load(argon_model).evaluate([cluster])[0]
    assert neighbor_list("d", cluster, CUTOFF).max() < ONSET * CUTOFF
    assert result.energy == pytest.approx(cluster.get_potential_energy() + n_pairs * shift, abs=1e-14)
    assert np.allclose(result.forces, cluster.get_forces(), rtol=0, atol=1e-14)


def test_per_atom_virials_add_up_and_are_local(argon_model):
    model = load(argon_model)
    atoms = triclinic()
    result = model.evaluate([atoms], virials=True)[0]
    assert np.allclose(result.virials.sum(axis=0), result.virial, rtol=0, atol=1e-13)
    far = Atoms("Ar3", [[0, 0, 0], [3.5, 0, 0], [40, 0, 0]])
    virials = model.evaluate([far], virials=True)[0].virials
    assert np.abs(virials[2]).max() == 0
    assert np.allclose(virials[0], virials[1])
    assert abs(virials[0][0, 0]) > 1e-3


def test_batch_equals_one_by_one(argon_model):
    model = load(argon_model)
    batch = [crystal(), molecule(), triclinic(), slab(), Atoms("Ar")]
    together = model.evaluate(batch, virials=True)
    for atoms, got in zip(batch, together):
        alone = model.evaluate([atoms], virials=True)[0]
        assert got.energy == pytest.approx(alone.energy, abs=1e-13)
        assert np.allclose(got.forces, alone.forces, rtol=0, atol=1e-14)
        assert np.allclose(got.virial, alone.virial, rtol=0, atol=1e-12)
        assert np.allclose(got.virials, alone.virials, rtol=0, atol=1e-13)
    assert model.evaluate([]) == []


def test_single_precision_keeps_large_energies_apart(tmp_path):
    """Per-atom energies near −1000 eV: their sum in float32 would be a multiple of 1/64 eV."""
    exact = load(write_lennard_jones(tmp_path / "d.pt", "float64", baseline=-1000.0))
    single = load(write_lennard_jones(tmp_path / "s.pt", "float32", baseline=-1000.0))
    atoms = crystal(4)
    assert single.dtype == "float32"
    reference = exact.evaluate([atoms])[0]
    result = single.evaluate([atoms])[0]
    resolution = 2.0**-14  # of one float32 energy near 1000 eV
    assert abs(result.energy - reference.energy) < 3 * resolution * len(atoms) ** 0.5
    assert np.abs(result.forces - reference.forces).max() < 1e-5 * np.abs(reference.forces).max()


def test_plain_structure_and_atoms_agree(argon_model):
    model, atoms = load(argon_model), crystal()
    plain = PlainStructure(atoms.numbers, atoms.positions, np.asarray(atoms.cell), atoms.pbc)
    assert model.evaluate([plain])[0].energy == model.evaluate([atoms])[0].energy


@pytest.fixture(scope="module")
def general_models(tmp_path_factory):
    folder, models = tmp_path_factory.mktemp("general"), {}
    for per_atom, bohr_and_hartree in ((True, True), (False, False)):
        path = folder / f"{per_atom}.pt"
        general_model.write(path, per_atom, bohr_and_hartree)
        models[per_atom, bohr_and_hartree] = load(path)
    return models


@pytest.mark.parametrize(("per_atom", "bohr_and_hartree"), [(True, True), (False, False)])
def test_general_metatomic_model(general_models, structure, per_atom, bohr_and_hartree):
    model = general_models[per_atom, bohr_and_hartree]
    assert model.family is None
    assert model.n_layers is None
    assert model.cutoff == pytest.approx(general_model.LONG)
    result = model.evaluate([structure])[0]

    def switched(cutoff: float, power: int) -> float:
        r = neighbor_list("d", structure, cutoff)
        return np.sum((1 - (r / cutoff) ** 2) ** 3 * 4 * EPSILON * (SIGMA / r) ** power) / 2

    # metatomic and ASE carry different CODATA constants
    rel = 1e-7 if bohr_and_hartree else 1e-11
    expected = switched(general_model.LONG, 12) - switched(general_model.SHORT, 6)
    assert result.energy == pytest.approx(expected, rel=rel, abs=1e-13)
    scale = max(np.abs(result.virial).max(), 1e-3)
    assert np.abs(numerical_virial(model, structure) - result.virial).max() < 1e-6 * scale
    scale = max(np.abs(result.forces).max(), 1e-3)
    assert np.abs(numerical_forces(model, structure, 1) - result.forces[:1]).max() < 1e-6 * scale
    if per_atom:
        assert result.energies.sum() == pytest.approx(result.energy, abs=1e-12)
        assert result.energies.shape == (len(structure),)
    else:
        assert result.energies is None
    with pytest.raises(BadInput, match="per-atom virials"):
        model.evaluate([structure], virials=True)


@pytest.mark.parametrize(("per_atom", "unit"), [(True, "e*Bohr"), (False, "e*A")])
def test_other_quantities_of_a_general_model(tmp_path, monkeypatch, per_atom, unit):
    """A dipole that somebody else's model declares, in another unit, is in the results and in ASE's."""
    record = QUANTITIES["dipole"]
    path, batch = tmp_path / "model.pt", [triclinic(), molecule()]
    general_model.write(path, per_atom, False, unit)
    model = load(path)
    assert (model.more, model.unused) == (("dipole",), ())
    results = model.evaluate(batch)
    for atoms, result in zip(batch, results):
        i, r, v = neighbor_list("idD", atoms, general_model.LONG)
        expected = (i * (1 - (r / general_model.LONG) ** 2) ** 3) @ v * (BOHR if unit == "e*Bohr" else 1)
        assert np.abs(expected).max() > 0.1
        assert np.allclose(result.get("dipole"), expected, rtol=1e-7, atol=1e-11)
        atoms.calc = MLCalculator(path)
        assert np.array_equal(atoms.get_dipole_moment(), model.evaluate([atoms])[0].get("dipole"))
    # units that cannot be converted, or that are not stated: named, not guessed
    monkeypatch.setitem(QUANTITIES, "dipole", replace(record, unit="eV"))
    assert (load(path).more, load(path).unused) == ((), (general_model.DIPOLE,))
    monkeypatch.setitem(QUANTITIES, "dipole", replace(record, unit=""))
    assert load(path).more == ()
    assert load(path).evaluate(batch[:1])[0].more is None


def test_outputs_that_are_not_passed_on_are_named(tmp_path, argon_model):
    path = tmp_path / "direct.pt"
    direct_model.write(path)
    foreign = ("energy_uncertainty",)
    assert load(path).unused == ("energy/double", *foreign)
    assert load(path, output="double").unused == ("energy", *foreign)
    assert load(argon_model).unused == ()


def test_general_model_in_a_batch_with_shuffled_atoms(general_models):
    model = general_models[True, True]
    batch = [crystal(), molecule(), slab()]
    for atoms, got in zip(batch, model.evaluate(batch)):
        alone = model.evaluate([atoms])[0]
        assert np.allclose(got.energies, alone.energies, rtol=0, atol=1e-14)
        assert np.allclose(got.forces, alone.forces, rtol=0, atol=1e-14)
        assert np.allclose(got.virial, alone.virial, rtol=0, atol=1e-12)
    lone = Atoms("Ar4", [[0, 0, 0], [3.5, 0, 0], [0, 30, 0], [0, 0, 60]])
    energies = model.evaluate([lone])[0].energies
    assert energies[0] == pytest.approx(energies[1])
    assert energies[0] != 0
    assert np.all(energies[2:] == 0)


def test_neighbor_cache_follows_moving_atoms_and_cells(argon_model):
    model, lists = load(argon_model), NeighborCache(skin=1.0)
    random = np.random.default_rng(0)
    batch = [crystal(), triclinic(), slab(), molecule()]
    for step in range(25):
        for atoms in batch:
            atoms.positions += random.normal(0, 0.06, (len(atoms), 3))
            if step % 7 == 3:
                atoms.set_cell(np.asarray(atoms.cell) * (1 + 0.01 * random.normal()), scale_atoms=True)
            if step % 11 == 5:
                atoms.wrap()
        if step == 20:
            batch[0], batch[3] = batch[3], batch[0]
        for cached, fresh in zip(model.evaluate(batch, lists=lists), model.evaluate(batch)):
            # the same pairs in the same order, whatever came before
            assert cached.energy == fresh.energy
            assert np.array_equal(cached.forces, fresh.forces)
            assert np.array_equal(cached.virial, fresh.virial)


def test_what_depends_on_the_elements_follows_them(tmp_path):
    """Same atoms, other elements or another division into structures: energies of atoms far apart."""
    parameters, baseline = lennard_jones.Hyperparameters(), {"Ne": 1.0, "Ar": 100.0}
    path = tmp_path / "model.pt"
    card = ModelCard("lennard-jones", list(baseline), list(baseline.values()))
    save(lennard_jones.Model(list(baseline), parameters), path, card, "float64")
    model, lists = load(path), NeighborCache(skin=1.0)
    for batch in (["ArNe", "Ne"], ["Ar", "Ne2"], ["Ne", "Ar2"], ["NeAr", "Ne"], ["ArNe"], ["ArNe", "Ne"]):
        structures = [Atoms(f, np.arange(len(Atoms(f)))[:, None] * [0, 0, 50.0]) for f in batch]
        for atoms, result in zip(structures, model.evaluate(structures, lists=lists)):
            assert result.energies.tolist() == [baseline[symbol] for symbol in atoms.symbols]
            assert result.energy == result.energies.sum()


def _kept(lists):
    return [kept.samples.data_ptr() for kept in lists._kept.values()]


def test_neighbor_lists_are_kept_in_a_cell_that_changes():
    """As in NPT: atoms that follow the cell use the skin for their own motion only."""
    lists, atoms, random = NeighborCache(skin=1.0), crystal(), np.random.default_rng(0)
    kept = []
    for _ in range(30):
        atoms.positions += random.normal(0, 0.02, (len(atoms), 3))
        atoms.set_cell(
            np.asarray(atoms.cell) @ (np.eye(3) + random.normal(0, 2e-3, (3, 3))), scale_atoms=True
        )
        found = lists.pairs(0, prepare(atoms, 0), 5.0, True)
        fresh = NeighborCache().pairs(0, prepare(atoms, 0), 5.0, True)
        assert torch.equal(found.vectors, fresh.vectors)
        assert torch.equal(found.neighbors, fresh.neighbors)
        kept += _kept(lists)
    assert 1 <= len(set(kept)) < 10


@pytest.mark.parametrize("move", [0.49, 0.51])
def test_a_list_serves_until_an_atom_has_moved_by_half_the_skin(move):
    lists, atoms = NeighborCache(skin=1.0), crystal()
    lists.pairs(0, prepare(atoms, 0), 5.0, True)
    before = _kept(lists)
    atoms.positions[3, 1] += move
    lists.pairs(0, prepare(atoms, 0), 5.0, True)
    assert (_kept(lists) == before) == (move < 0.5)


def test_a_squeezed_cell_brings_pairs_within_the_cutoff():
    """Every atom follows the cell, so none moves: only the deformation says that the list is too short."""
    lists, atoms = NeighborCache(skin=0.5), crystal()
    lists.pairs(0, prepare(atoms, 0), 5.0, True)
    for stretch in (0.95, 0.85, 0.7):
        atoms.set_cell(np.asarray(atoms.cell) @ np.diag([1, 1, stretch]), scale_atoms=True)
        found = lists.pairs(0, prepare(atoms, 0), 5.0, True)
        assert torch.equal(found.vectors, NeighborCache().pairs(0, prepare(atoms, 0), 5.0, True).vectors)


def test_no_global_state_is_changed(argon_model):
    before = (
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch._C._get_graph_executor_optimize(),
        torch.is_grad_enabled(),
    )
    load(argon_model).evaluate([crystal()])
    after = (
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch._C._get_graph_executor_optimize(),
        torch.is_grad_enabled(),
    )
    assert after == before


def test_evaluation_in_another_thread_and_without_grad(argon_model):
    model, results = load(argon_model), []
    with torch.no_grad():
        results.append(model.evaluate([crystal()])[0])
    with torch.inference_mode():
        results.append(model.evaluate([crystal()])[0])
    thread = threading.Thread(target=lambda: results.append(model.evaluate([crystal()])[0]))
    thread.start()
    thread.join()
    for result in results[1:]:
        assert np.array_equal(result.forces, results[0].forces)
    assert np.abs(results[0].forces).max() > 0.01


def test_committee(argon_committee):
    members = [load(path).evaluate([crystal()])[0] for path in argon_committee]
    spread = combine(members)
    base = members[0]
    # ε(1, 1.1, 1.2): mean 1.1, sample standard deviation 0.1
    assert spread.mean.energy == pytest.approx(1.1 * base.energy, rel=1e-12)
    assert spread.energy_spread == pytest.approx(0.1 * abs(base.energy), rel=1e-9)
    assert np.allclose(spread.forces_spread, 0.1 * np.abs(base.forces), rtol=1e-9, atol=1e-15)
    assert np.allclose(spread.mean.stress, 1.1 * base.stress, rtol=1e-12, atol=0)
    alone = combine(members[:1])
    assert alone.energy_spread == 0
    assert alone.mean is members[0]


def test_description(argon_model):
    model = load(argon_model)
    assert model.elements == ("Ar",)
    assert (model.cutoff, model.interaction_range, model.n_layers) == (CUTOFF, CUTOFF, 1)
    assert (model.dtype, model.device, model.family) == ("float64", "cpu", "lennard-jones")
    assert model.record["hyperparameters"]["sigma"] == SIGMA
    assert model.versions["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert model.per_atom
    assert "energy" in model.outputs


def rewrite_extra(source: Path, target: Path, old: str, new: str) -> None:
    """Copy a model file with one change in its metadata."""
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as copy:
        for item in archive.infolist():
            data = archive.read(item)
            if item.filename.endswith("extra/model-metadata"):
                assert old.encode() in data
                data = data.replace(old.encode(), new.encode())
            copy.writestr(item.filename, data)


def test_bad_files(argon_model, tmp_path):
    whole = argon_model.read_bytes()
    (tmp_path / "truncated.pt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.pt").write_text("hello")
    (tmp_path / "empty.pt").write_bytes(b"")
    torch.save({"weights": torch.ones(3)}, tmp_path / "state.pt")
    expected = {
        "truncated.pt": "not a model file, or it is truncated",
        "text.pt": "not a model file, or it is truncated",
        "empty.pt": "truncated",
        "state.pt": "not a metatomic model.*checkpoint",
        "missing.pt": "no such model file",
        ".": "is a folder without a model.pt",
    }
    for name, text in expected.items():
        with pytest.raises(BadInput, match=text):
            load(tmp_path / name)


def test_file_of_a_newer_format(argon_model, tmp_path):
    rewrite_extra(argon_model, tmp_path / "new.pt", '"mlplugins::format": "5"', '"mlplugins::format": "6"')
    with pytest.raises(BadInput, match=r"format 6 .*reads up to format 5: `pip install --upgrade mlplugins`"):
        load(tmp_path / "new.pt")


def test_damaged_code_names_the_versions(argon_model, tmp_path):
    with zipfile.ZipFile(argon_model) as archive, zipfile.ZipFile(tmp_path / "bad.pt", "w") as copy:
        for item in archive.infolist():
            data = archive.read(item)
            if item.filename.endswith("lennard_jones.py"):
                data = data.replace(b"torch.index_add", b"torch.no_such_op")
            copy.writestr(item.filename, data)
    with pytest.raises(BadInput, match="does not load.*written with torch .*here are torch"):
        load(tmp_path / "bad.pt")


def test_devices(argon_model):
    with pytest.raises(BadInput, match="expected cpu, cuda or cuda:N, got 'gpu'"):
        load(argon_model, device="gpu")
    with pytest.raises(BadInput, match="CUDA device"):
        load(argon_model, device="cuda:99")
    with pytest.raises(BadInput, match="no output 'energy/pbe'"):
        load(argon_model, output="energy/pbe")


def test_unknown_element(argon_model):
    atoms = crystal()
    atoms.numbers[[3, 7]] = 36
    with pytest.raises(BadInput, match=r"structure 1: the model does not know Kr \(atoms 3, 7\).*knows Ar"):
        load(argon_model).evaluate([crystal(), atoms])


def test_impossible_structures(argon_model):
    model = load(argon_model)
    flat = Atoms("Ar", cell=[4, 4, 0], pbc=True)
    with pytest.raises(BadInput, match="no volume along its periodic directions"):
        model.evaluate([flat])
    lost = crystal()
    lost.positions[5, 1] = np.nan
    with pytest.raises(RunFailed, match="structure 0: position of atom 5 is not finite"):
        model.evaluate([lost])
    lost.positions[5, 1] = 1e11  # overflows the cell shifts, which gave a wrong energy in silence
    with pytest.raises(RunFailed, match="position of atom 5 is not finite or out of bounds"):
        model.evaluate([lost])
    endless = crystal()
    endless.cell[0, 0] = np.inf
    with pytest.raises(RunFailed, match="cell is not finite"):
        model.evaluate([endless])
    with pytest.raises(BadInput, match="0 atomic numbers"):
        model.evaluate([Atoms()])
    with pytest.raises(BadInput, match="skin"):
        NeighborCache(-1.0)


def test_not_finite_names_the_closest_pair(argon_model):
    atoms = crystal()
    atoms.positions[4] = atoms.positions[9]
    with pytest.raises(
        RunFailed, match=r"structure 1 .*not finite; closest pair: atoms 4 and 9 at 0\.0000 Å"
    ):
        load(argon_model).evaluate([crystal(), atoms])


def test_argon_crystal_has_the_literature_energy(tmp_path):
    """Static fcc Lennard-Jones crystal: −8.610 ε per atom at a = 1.5418 σ (Kittel, lattice sums)."""
    model = load(write_lennard_jones(tmp_path / "far.pt", cutoff=40.0, onset=0.95))
    a = 2**0.5 * 1.0902 * SIGMA
    atoms = Atoms(
        "Ar4", [[0, 0, 0], [0, a / 2, a / 2], [a / 2, 0, a / 2], [a / 2, a / 2, 0]], cell=[a] * 3, pbc=True
    )
    result = model.evaluate([atoms])[0]
    assert result.energy / 4 / EPSILON == pytest.approx(-8.610, abs=0.01)
    assert np.abs(result.stress).max() * units.GPA_PER_EV_A3 < 0.01
