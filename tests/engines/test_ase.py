"""The ASE calculator in ASE's own dynamics, optimisers and files."""

from __future__ import annotations

import copy
import pickle
import shutil

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.calculator import PropertyNotImplementedError, all_changes, compare_atoms
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.calculators.lj import LennardJones
from ase.constraints import FixAtoms
from ase.db import connect
from ase.filters import FrechetCellFilter
from ase.io import read, write
from ase.md.nose_hoover_chain import MTKNPT
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS

from mlplugins import MLCalculator
from mlplugins.engines.ase.state import Evaluated
from mlplugins.errors import BadInput, RunFailed
from mlplugins.model_file.artifact import load
from mlplugins.model_file.card import ModelCard
from mlplugins.model_file.doubts import CLOSEST
from mlplugins.model_file.write import save
from mlplugins.models import lennard_jones
from mlplugins.structures import nearest

from . import general_model
from .conftest import (
    EPSILON,
    crystal,
    molecule,
    slab,
    slab_without_vacuum_vector,
    triclinic,
    write_lennard_jones,
)


def heat(atoms, temperature):
    random = np.random.default_rng(4).normal(size=(len(atoms), 3))
    momenta = random * np.sqrt(atoms.get_masses()[:, None] * units.kB * temperature)
    atoms.set_momenta(momenta - momenta.mean(axis=0))


def test_properties_against_ases_numerical_derivatives(argon_model):
    atoms = triclinic()
    atoms.calc = MLCalculator(argon_model)
    forces, stress = atoms.get_forces(), atoms.get_stress(voigt=False)
    numerical = calculate_numerical_forces(atoms, eps=1e-4, iatoms=[0, 5])
    assert np.abs(numerical - forces[[0, 5]]).max() < 1e-6 * np.abs(forces).max()
    numerical = calculate_numerical_stress(atoms, eps=1e-4, voigt=False)
    assert np.abs(numerical - stress).max() < 1e-6 * np.abs(stress).max()
    assert atoms.get_potential_energies().sum() == pytest.approx(atoms.get_potential_energy(), rel=1e-13)
    assert atoms.get_potential_energy(force_consistent=True) == atoms.get_potential_energy()
    assert atoms.get_stresses().shape == (len(atoms), 6)
    assert np.allclose(atoms.get_stresses().sum(axis=0), atoms.get_stress(), rtol=0, atol=1e-15)


def test_per_atom_stresses_as_in_ases_lennard_jones(tmp_path):
    """Half of each pair's virial to either atom is also what ASE's pair potential does."""
    path = write_lennard_jones(tmp_path / "model.pt", cutoff=6.0, onset=0.9999)
    atoms = crystal()
    from ase.neighborlist import neighbor_list

    r = neighbor_list("d", atoms, 6.05)
    assert np.all((r < 6.0 * 0.9999) | (r > 6.0)), "no pair in the switched shell"
    atoms.calc = MLCalculator(path)
    stresses = atoms.get_stresses()
    atoms.calc = LennardJones(epsilon=EPSILON, sigma=3.4, rc=6.0)
    assert np.allclose(stresses, atoms.get_stresses(), rtol=0, atol=1e-12)


def test_stress_of_structures_without_a_volume(argon_model):
    for atoms in (molecule(), slab_without_vacuum_vector()):
        atoms.calc = MLCalculator(argon_model)
        assert np.abs(atoms.get_forces()).max() > 0
        with pytest.raises(PropertyNotImplementedError, match="no periodic cell with a volume"):
            atoms.get_stress()
    atoms = slab()
    atoms.calc = MLCalculator(argon_model)
    assert atoms.get_stress().shape == (6,)


def test_nve_with_a_reused_neighbour_list_conserves_energy(argon_model):
    """Diffusing liquid argon: atoms move by many skins, the list is rebuilt in between."""
    atoms = bulk("Ar", "fcc", a=5.9, cubic=True) * (3, 3, 3)
    heat(atoms, 260)
    start = atoms.get_positions()
    atoms.calc = MLCalculator(argon_model, skin=1.0)
    dynamics = VelocityVerlet(atoms, 4 * units.fs)
    dynamics.run(60)
    energies = []
    for _ in range(10):
        dynamics.run(25)
        energies.append(atoms.get_total_energy() / len(atoms))
    displacement = np.linalg.norm(atoms.positions - start, axis=1)
    assert displacement.max() > 3.0
    fresh = load(argon_model).evaluate([atoms])[0]
    assert atoms.get_potential_energy() == pytest.approx(fresh.energy, rel=1e-12)
    assert np.allclose(atoms.get_forces(), fresh.forces, rtol=0, atol=1e-12)
    assert np.ptp(energies) < 2e-5
    slope = np.polyfit(np.arange(10) * 0.1, energies, 1)[0]  # eV/atom/ps
    assert abs(slope) < 1e-5


def test_npt_runs_and_conserves(argon_model):
    atoms = crystal()
    heat(atoms, 30)
    atoms.calc = MLCalculator(argon_model)
    kwargs = {"tdamp": 50 * units.fs, "pdamp": 500 * units.fs}
    dynamics = MTKNPT(atoms, 2 * units.fs, temperature_K=30, pressure_au=0.0, **kwargs)
    volume = atoms.get_volume()
    conserved = []
    for _ in range(5):
        dynamics.run(10)
        conserved.append(dynamics.get_conserved_energy())
    assert np.ptp(conserved) / len(atoms) < 2e-4
    assert abs(atoms.get_volume() / volume - 1) > 1e-4
    assert atoms.get_potential_energy() == pytest.approx(
        load(argon_model).evaluate([atoms])[0].energy, rel=1e-12
    )


@pytest.mark.filterwarnings("ignore:logm result may be inaccurate:RuntimeWarning")  # scipy, in the filter
def test_cell_relaxation(argon_model):
    """A sheared crystal goes back to fcc: angles of 90°, equal edges, no stress."""
    atoms = bulk("Ar", "fcc", a=5.3, cubic=True)
    strain = [[1.03, 0.02, 0], [0, 0.98, 0.01], [0.01, 0, 1.01]]
    atoms.set_cell(np.asarray(atoms.cell) @ np.array(strain), scale_atoms=True)
    atoms.calc = MLCalculator(argon_model)
    assert np.abs(atoms.get_stress()).max() > 1e-4
    assert BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=1e-4, steps=100)
    assert np.abs(atoms.get_stress()).max() < 1e-5
    assert atoms.cell.angles() == pytest.approx([90, 90, 90], abs=0.1)
    assert np.ptp(atoms.cell.lengths()) < 0.01


def test_optimiser_with_fixed_atoms_reaches_the_dimer_minimum(argon_model):
    dimer = molecule()[:2]
    dimer.set_constraint(FixAtoms([0]))
    fixed = dimer.positions[0].copy()
    dimer.calc = MLCalculator(argon_model)
    assert BFGS(dimer, logfile=None).run(fmax=1e-6, steps=50)
    assert dimer.get_distance(0, 1) == pytest.approx(2 ** (1 / 6) * 3.4, abs=1e-3)
    assert dimer.get_potential_energy() == pytest.approx(-EPSILON, abs=1e-8)
    assert np.array_equal(dimer.positions[0], fixed)


def test_results_are_reused_until_something_changes(argon_model):
    class Counting(MLCalculator):
        n = 0

        def calculate(self, *args, **kwargs):
            self.n += 1
            super().calculate(*args, **kwargs)

    atoms = crystal()
    atoms.calc = calc = Counting(argon_model)
    for _ in range(3):
        atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress(), atoms.get_potential_energies()
    assert calc.n == 1
    atoms.get_stresses()
    assert calc.n == 2
    atoms.positions[3, 0] += 0.1  # one atom only
    forces = atoms.get_forces()
    assert calc.n == 3
    assert np.allclose(forces, load(argon_model).evaluate([atoms])[0].forces, rtol=0, atol=1e-13)
    properties = calc.calculate_properties(atoms, ["energy", "forces", "stresses"])
    assert np.array_equal(properties["forces"], forces)
    atoms.pbc = False
    assert np.abs(atoms.get_forces() - forces).max() > 1e-3


def test_every_change_is_seen_and_the_atoms_of_the_results_are_known(argon_model):
    atoms = triclinic()
    atoms.calc = calc = MLCalculator(argon_model)
    assert calc.atoms is None
    assert calc.check_state(atoms) == all_changes
    atoms.get_forces()
    assert calc.check_state(atoms) == []
    assert compare_atoms(calc.atoms, atoms) == []
    before = atoms.copy()
    changes = {
        "positions": lambda a: a.positions.__setitem__((1, 2), np.nextafter(a.positions[1, 2], 9.0)),
        "numbers": lambda a: a.numbers.__setitem__(0, 36),
        "cell": lambda a: a.cell.__setitem__((2, 1), a.cell[2, 1] + 1e-9),
        "pbc": lambda a: a.pbc.__setitem__(1, False),
    }
    for name, change in changes.items():
        changed = atoms.copy()
        change(changed)
        assert calc.check_state(changed) == [name]
    assert calc.check_state(atoms[:-1]) == all_changes
    calc.atoms.positions[0] += 1.0  # of a new object
    atoms.positions[0] += 1.0
    assert compare_atoms(calc.atoms, before) == []
    assert np.array_equal(calc.get_property("forces"), calc.results["forces"])
    calc.reset()
    assert calc.atoms is None


def test_two_structures_through_one_calculator(argon_model):
    calc = MLCalculator(argon_model)
    first, second = crystal(), triclinic()
    first.calc = second.calc = calc
    energies = [first.get_potential_energy(), second.get_potential_energy(), first.get_potential_energy()]
    assert energies[0] == pytest.approx(energies[2], rel=1e-13)
    assert energies[1] == pytest.approx(load(argon_model).evaluate([second])[0].energy, rel=1e-13)


def test_committee(argon_committee):
    atoms = crystal()
    single = MLCalculator(argon_committee[0])
    atoms.calc = single
    energy, forces, stress = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
    assert "energy_uncertainty" not in single.results
    atoms.calc = calc = MLCalculator(argon_committee)
    assert atoms.get_potential_energy() == pytest.approx(1.1 * energy, rel=1e-12)
    assert np.allclose(atoms.get_forces(), 1.1 * forces, rtol=1e-10, atol=1e-14)
    assert np.allclose(atoms.get_stress(), 1.1 * stress, rtol=1e-10, atol=0)
    assert calc.results["energy_uncertainty"] == pytest.approx(0.1 * abs(energy), rel=1e-9)
    assert np.allclose(calc.results["forces_uncertainty"], 0.1 * np.abs(forces), rtol=1e-8, atol=1e-14)
    assert [member.energy for member in calc.committee.members] == pytest.approx(
        [energy, 1.1 * energy, 1.2 * energy], rel=1e-12
    )
    assert calc.calculate_properties(atoms, ["energy"])["energy"] == atoms.get_potential_energy()
    for name, value in (("relative", 0.0), ("relative", -0.1), ("relative_v", float("inf"))):
        with pytest.raises(BadInput, match=f"model deviation: {name}: expected a positive number, got"):
            calc.model_deviation(atoms, **{name: value})


def test_copies_of_one_model_are_no_committee(argon_committee, tmp_path):
    """A spread of exactly zero, or one that counts a model twice, is said; far atoms decide nothing."""
    twin = shutil.copy(argon_committee[0], tmp_path / "twin.pt")
    atoms = crystal()
    atoms.calc = MLCalculator([argon_committee[0], twin])
    with pytest.warns(
        UserWarning, match=r"0\.pt = .*twin\.pt: copies of one model\? Then the spread, which is zero"
    ):
        atoms.get_potential_energy()
    assert atoms.calc.results["energy_uncertainty"] == 0.0
    atoms.calc = MLCalculator([*argon_committee, twin])
    with pytest.warns(UserWarning, match="twin.pt: copies of one model[?] Then they narrow the spread"):
        atoms.get_potential_energy()
    apart = Atoms("Ar2", [[0, 0, 0], [0, 0, 90]])
    apart.calc = MLCalculator(argon_committee)
    assert apart.get_potential_energy() == 0.0  # of every model, and no warning


def lennard_jones_file(path, epsilon, baseline):
    parameters = {"epsilon": epsilon, "sigma": 3.4}
    model = lennard_jones.Model(["Ar"], lennard_jones.Hyperparameters(**parameters))
    card = ModelCard("lennard-jones", ["Ar"], [baseline], details={"hyperparameters": parameters})
    save(model, path, card, "float64")
    return path


@pytest.mark.parametrize("amplitude", [0.0, 0.1])
def test_models_of_another_zero_of_energy_are_named(tmp_path, amplitude):
    """Of other levels of theory: forces agree, energies do not. In a perfect crystal no force acts."""
    models = [
        lennard_jones_file(tmp_path / f"{name}.pt", epsilon, baseline)
        for name, epsilon, baseline in (("a", 0.0104, -7.0), ("b", 0.0102, -10.0), ("c", 0.0106, -7.05))
    ]
    atoms = bulk("Ar", "fcc", a=5.3, cubic=True)
    atoms.rattle(amplitude, seed=1)
    atoms.calc = MLCalculator(models)
    with pytest.warns(UserWarning, match=r"\(\S*b\.pt by -3 eV per atom from \S*a\.pt\): models of several"):
        atoms.get_potential_energy()
    atoms.rattle(0.1, seed=2)
    atoms.get_potential_energy()  # said once
    atoms.calc = MLCalculator([models[0], models[2]])
    atoms.get_potential_energy()


def test_copies(argon_committee, tmp_path):
    atoms = crystal()
    atoms.calc = calc = MLCalculator(argon_committee, skin=0.7)
    energy = atoms.get_potential_energy()
    for other in (copy.deepcopy(calc), pickle.loads(pickle.dumps(calc))):
        assert other.results["energy"] == energy
        assert other.todict() == calc.todict()
        moved = atoms.copy()
        moved.positions += 0.05 * np.sin(np.arange(moved.positions.size)).reshape(-1, 3)
        moved.calc = other
        assert moved.get_potential_energy() != energy
        assert calc.results["energy"] == energy
    assert calc.todict() == {"model": [str(p) for p in argon_committee], "device": "cpu", "skin": 0.7}
    duplicate = copy.deepcopy(atoms)
    assert duplicate.get_potential_energy() == energy


def test_edited_parameters_and_replaced_files_are_refused(argon_committee, tmp_path):
    """Neither takes effect on a calculator that is there; a copy would be of another model."""
    file = tmp_path / "model.pt"
    file.write_bytes(argon_committee[0].read_bytes())
    atoms = crystal()
    atoms.calc = calc = MLCalculator(file)
    energy = atoms.get_potential_energy()
    packed = pickle.dumps(calc)
    assert pickle.loads(packed).get_potential_energy(crystal()) == energy
    file.write_bytes(argon_committee[2].read_bytes())
    for again in (copy.deepcopy, lambda _: pickle.loads(packed)):
        with pytest.raises(
            BadInput, match=r"model.pt' has changed since the calculator that is copied loaded"
        ):
            again(calc)
    assert calc.get_potential_energy(crystal()) == energy  # its own model is still the first
    calc.parameters["skin"] = 0.1
    for use in (copy.deepcopy, pickle.dumps, lambda c: c.get_potential_energy(molecule())):
        with pytest.raises(BadInput, match=r"its parameters were edited \(skin\)"):
            use(calc)


def test_elements_closer_than_in_training_are_named(li6ps5cl, tmp_path, recwarn):
    """P and S exchanged: every bond is as long as before, but no training frame has P atoms so close."""
    frames = read(li6ps5cl / "train.extxyz", ":5")
    elements = ["Li", "P", "S", "Cl"]
    model = lennard_jones.Model(elements, lennard_jones.Hyperparameters(epsilon=0.01, sigma=2.0, cutoff=5.0))
    record = {"data": {CLOSEST: nearest.shortest(frames)}}
    save(model, tmp_path / "m.pt", ModelCard("lennard-jones", elements, [0.0] * 4, details=record), "float64")
    atoms = read(li6ps5cl / "test.extxyz", 0)
    atoms.calc = MLCalculator(tmp_path / "m.pt")
    atoms.get_potential_energy()
    assert not recwarn
    wrong = {"P": "S", "S": "P"}
    atoms.symbols = [wrong.get(symbol, symbol) for symbol in atoms.symbols]
    atoms.calc = MLCalculator(tmp_path / "m.pt")
    with pytest.warns(UserWarning, match=r"P and P are 3\.\d\d Å apart, in no training frame"):
        atoms.get_potential_energy()
    atoms.rattle(0.01)
    atoms.get_potential_energy()  # said once
    assert len(recwarn) == 0


def test_ase_files(argon_committee, tmp_path):
    atoms = crystal()
    atoms.calc = MLCalculator(argon_committee)
    energy, forces, stress = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
    for name in ("frame.extxyz", "frame.traj"):
        write(tmp_path / name, atoms)
        back = read(tmp_path / name)
        assert back.get_potential_energy() == pytest.approx(energy, abs=1e-7)
        assert np.allclose(back.get_forces(), forces, atol=1e-7)
        assert np.allclose(back.get_stress(), stress, atol=1e-8)
    with connect(tmp_path / "frames.db") as database:
        database.write(atoms)
    row = connect(tmp_path / "frames.db").get(1)
    assert row.energy == pytest.approx(energy)
    assert row.calculator_parameters["skin"] == atoms.calc.parameters["skin"]


@pytest.mark.parametrize("per_atom", [True, False])
def test_general_metatomic_model(tmp_path, per_atom):
    general_model.write(tmp_path / "model.pt", per_atom, False)
    atoms = crystal()
    atoms.calc = MLCalculator(tmp_path / "model.pt")
    stress = atoms.get_stress(voigt=False)
    numerical = calculate_numerical_stress(atoms, eps=1e-4, voigt=False)
    assert np.abs(numerical - stress).max() < 1e-6 * np.abs(stress).max()
    if per_atom:
        assert atoms.get_potential_energies().sum() == pytest.approx(atoms.get_potential_energy())
    else:
        with pytest.raises(PropertyNotImplementedError):
            atoms.get_potential_energies()


def test_refusals(argon_model):
    with pytest.raises(BadInput, match="no such model file"):
        MLCalculator("nowhere.pt")
    with pytest.raises(BadInput, match="empty list"):
        MLCalculator([])
    with pytest.raises(BadInput, match="skin"):
        MLCalculator(argon_model, skin=-1)
    atoms = crystal()
    atoms.calc = MLCalculator(argon_model)
    atoms.numbers[0] = 10
    with pytest.raises(BadInput, match=r"does not know Ne \(atoms 0\)"):
        atoms.get_potential_energy()
    atoms.numbers[0] = 18
    atoms.positions[1] = atoms.positions[0]
    with pytest.raises(RunFailed, match="closest pair: atoms 0 and 1"):
        atoms.get_forces()
    assert "forces" not in atoms.calc.results


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({"dtype": "float64"}, "unknown keyword 'dtype': the file says in which precision"),
        ({"default_dtype": "float64"}, "--dtype float64"),
        ({"devcie": "cpu"}, "unknown keyword 'devcie': did you mean 'device'"),
    ],
)
def test_unknown_keywords_are_refused(argon_model, keywords, said):
    with pytest.raises(BadInput, match=said):
        MLCalculator(argon_model, **keywords)
    assert MLCalculator(argon_model, directory="here", label="run").directory == "here"


def test_repr_says_which_models(argon_model32, argon_committee):
    assert repr(MLCalculator(argon_model32)) == (
        "<MLCalculator argon32.pt: lennard-jones for Ar, float32 on cpu>"
    )
    assert repr(MLCalculator(argon_committee)).endswith("float64 on cpu, committee of 3>")


def test_spread_of_a_committee_in_files(argon_model, argon_committee, tmp_path):
    """Every model is ε times the same: the sample standard deviation over ε, 1.1 ε, 1.2 ε is 0.1 ε."""
    atoms = crystal()
    calculator = MLCalculator(argon_committee)
    atoms.calc = calculator
    for step in range(2):
        atoms.positions[0, 0] += 0.01 * step
        write(tmp_path / "md.extxyz", calculator.annotated(atoms), append=True)
    first, last = read(tmp_path / "md.extxyz", ":")
    for frame in (first, last):
        mean, spread = frame.get_potential_energy(), frame.info["energy_uncertainty"]
        assert spread == pytest.approx(abs(mean) / 11, rel=1e-6)
        expected = np.abs(frame.get_forces()) / 11
        assert np.allclose(frame.arrays["forces_uncertainty"], expected, rtol=0, atol=2e-8)
    assert last.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), abs=1e-8)
    assert first.get_potential_energy() != last.get_potential_energy()
    with pytest.raises(BadInput, match="one model has no spread"):
        MLCalculator(argon_model).annotated(atoms)


def test_what_would_change_nothing_is_refused(argon_model):
    """ASE's own `set` notes any parameter, and the energy stays that of the model as it was loaded."""
    calculator = MLCalculator(argon_model)
    with pytest.raises(
        BadInput, match=r"set\(baseline=False\) would change nothing: make a new MLCalculator"
    ):
        calculator.set(baseline=False)
    assert calculator.set() == {}


def test_a_charge_that_is_changed_in_place_is_seen():
    atoms = Atoms("Ar", info={"charge": np.array(1)})
    before = Evaluated.of(atoms)
    atoms.info["charge"][...] = 2
    assert before != Evaluated.of(atoms)
