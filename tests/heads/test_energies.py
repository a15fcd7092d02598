"""Several energies of one trunk: each with its own forces, in every engine, from one file."""

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.stress import full_3x3_to_voigt_6_stress
from metatomic_ase import MetatomicCalculator

from mlplugins import MLCalculator, committee
from mlplugins.checks.comparison import CompareOptions, compare
from mlplugins.checks.suite import CheckOptions, check
from mlplugins.engines import lammps
from mlplugins.engines.base import Way
from mlplugins.engines.ipi import single_point
from mlplugins.errors import BadInput
from mlplugins.heads import LabelSizes
from mlplugins.model_file import artifact
from mlplugins.model_file.card import ModelCard
from mlplugins.model_file.write import save
from mlplugins.models import mace, nequip
from mlplugins.models import sum as sums
from mlplugins.models.base import TrainingStatistics
from tests.engines.conftest import crystal
from tests.engines.lammps_tools import deck, errors_of, thermo
from tests.simulation.argon import write_model as write_lj

BASELINES = {"pbe": [-1.0, -2.0], "scan": [-3.0, 5.0], "hse": [0.25, -7.0]}
ENERGIES = tuple(f"energy/{name}" for name in BASELINES)
NEQUIP = {"cutoff": 4.2, "num_layers": 2, "num_features": 4, "zbl": True}
MACE = {"cutoff": 4.2, "num_channels": 4, "l_max": 1, "correlation": 2, "zbl": True}
MODES = {"fold": 1, "exchange": 2, "ghost": 2}


def write(path, family=nequip, dtype="float64", repelled=False, seed=3, unsure=False, broken=None):
    heads = {"energy/scan": {"width": 4}, "energy/hse": {"width": 0}, "dipole": {"width": 4, "channels": 2}}
    if unsure:  # three columns of energies, then direct forces, in compute pair
        heads = {**heads, "direct_forces": {}}
        del heads["dipole"]
    options = dict(NEQUIP if family is nequip else MACE, heads=heads, energy_name="pbe")
    name = family.__name__.rpartition(".")[2]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        potential = family.Model(["Ar", "Kr"], family.Hyperparameters(**options))
        sizes = {name: LabelSizes((0.2,)) for name in potential.variants} | {
            "dipole": LabelSizes((1.0,)),
            "direct_forces": LabelSizes((0.3,)),
        }
        statistics = TrainingStatistics(12.0, 0.3, sizes)
        potential.initialise(statistics)
        potential.initialise_heads(statistics)
        if broken is not None:
            potential.heads[broken].energy_scale.fill_(float("inf"))
        if unsure:
            factor = torch.randn(potential.feature_width, 3, dtype=torch.float64)
            potential.last_layer.set(factor, 0.01, 0.6, 0.02)
        if repelled:
            terms = [{"family": name, **options}, {"family": "zbl", "inner": 1.0, "outer": 3.9}]
            whole = sums.Model(["Ar", "Kr"], sums.Hyperparameters(terms))
            whole.potentials()[0].load_state_dict(potential.state_dict())
            potential, name, options = whole, "sum", {"terms": terms}
    first, *others = BASELINES
    card = ModelCard(
        name,
        ["Ar", "Kr"],
        BASELINES[first],
        details={"hyperparameters": options},
        baselines={other: BASELINES[other] for other in others},
    )
    save(potential, path, card, dtype)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write(tmp_path_factory.mktemp("energies") / "model.pt")


def mixed(repeat=1):
    atoms = crystal(repeat)
    atoms.numbers[::3] = 36
    atoms.rattle(0.15, seed=4)
    return atoms


@pytest.mark.parametrize("kind", ["nequip", "sum of mace"])
def test_each_energy_has_its_forces(tmp_path, model, kind):
    """Forces and stress are the derivatives of their own energy; metatomic's calculator gives the same; all
    energies come from one call; one alone is evaluated as if there were no others."""
    if kind != "nequip":
        model = write(tmp_path / "model.pt", mace, repelled=True)
    atoms = mixed()
    shift = np.random.default_rng(0).normal(size=(len(atoms), 3))
    found = {}
    for name in ENERGIES:
        variant = name.partition("/")[2]
        calculator = MLCalculator(model, variant=variant)
        found[name] = calculator.get_property("energy", atoms)
        forces, stress = calculator.get_forces(atoms), calculator.get_property("stress", atoms)
        moved = [calculator.get_property("energy", _shifted(atoms, shift, x)) for x in (1e-4, -1e-4)]
        assert (moved[0] - moved[1]) / 2e-4 == pytest.approx(-np.sum(forces * shift), rel=1e-6, abs=1e-7)
        strained = []
        for x in (1e-5, -1e-5):
            cell = atoms.copy()
            cell.set_cell(atoms.cell.array @ np.diag([1, 1 + x, 1]), scale_atoms=True)
            strained.append(calculator.get_property("energy", cell))
        slope = (strained[0] - strained[1]) / 2e-5 / atoms.get_volume()
        assert slope == pytest.approx(stress[1], rel=1e-5, abs=1e-8)
        stresses = calculator.get_property("stresses", atoms)
        np.testing.assert_allclose(stresses.sum(axis=0), stress, rtol=0, atol=1e-10)
    at_once = {name: calculator.get_property(name, atoms) for name in ENERGIES}
    assert at_once == pytest.approx(found, abs=1e-10)
    assert calculator.get_property("energy", atoms) == pytest.approx(found[name], abs=1e-10)
    other = MetatomicCalculator(str(model), variants={"energy": variant})
    assert other.get_potential_energy(atoms) == pytest.approx(found[name], abs=1e-9)
    np.testing.assert_allclose(other.get_forces(atoms), forces, rtol=0, atol=1e-9)
    np.testing.assert_allclose(other.get_stress(atoms), stress, rtol=0, atol=1e-9)
    assert len({round(energy, 3) for energy in found.values()}) == len(ENERGIES)
    plain = MLCalculator(model)
    assert plain.get_property("energy", atoms) == found["energy/pbe"]
    assert "energy/scan" not in plain.results  # nobody asked


@pytest.fixture(scope="module")
def unsure(tmp_path_factory):
    return write(tmp_path_factory.mktemp("unsure") / "unsure.pt", unsure=True)


def test_the_uncertainty_is_that_of_the_first_energy(unsure):
    """By either of its names; asked of another energy it is refused, naming the reason."""
    atoms = mixed()
    plain, named = MLCalculator(unsure), MLCalculator(unsure, variant="pbe")
    for name in ("energies_uncertainty", "forces_uncertainty"):
        expected = plain.get_property(name, atoms)
        np.testing.assert_allclose(named.get_property(name, atoms), expected, rtol=0, atol=1e-12)
    other = artifact.load(unsure, output="scan")
    reason = "it has that of 'energy/pbe', not 'energy/scan': leave the variant out"
    for asked in ({"uncertainty": True}, {"probes": 2}):
        with pytest.raises(BadInput, match=reason):
            other.evaluate([atoms], **asked)


@pytest.mark.engine
@pytest.mark.usefixtures("native_build", "warm_start")
def test_lammps_has_the_uncertainty_of_the_first_energy(tmp_path, unsure):
    """By either name; two copies of the style agree on energies with and without composition energies; an
    inner level of direct forces goes with any energy."""
    atoms = mixed(2)
    fixes = [
        f"fix {x} all pair 1 mlplugins {word} 1"
        for x, word in (("u", "uncertainty"), ("w", "force_uncertainty"))
    ]
    sums = ["compute u all reduce max f_u", "compute w all reduce max f_w"]
    table = ["thermo_style custom step pe c_u c_w", "thermo_modify format float %.15g", "run 0"]
    both = f"mlplugins {unsure} baseline on 0.5 mlplugins {unsure} baseline off"
    two = [f"pair_style hybrid/scaled 0.5 {both}", *(f"pair_coeff * * mlplugins {k} Ar Kr" for k in (1, 2))]
    pairs = [f"compute e{k} all pair mlplugins {k}" for k in (1, 2)]
    columns = "thermo_style custom step c_e1[2] c_e2[2] c_e1[3] c_e2[3]"
    respa = ["run_style respa 2 2 inner 1 3.0 4.0 outer 2", "thermo_style custom step pe", table[1], "run 0"]
    lines = [*deck(tmp_path, unsure, atoms, "variant pbe probes 0"), *fixes, *sums, *table, "clear"]
    lines += [*deck(tmp_path, unsure, atoms)[:-2], *two, *pairs, columns, *table[1:], "clear"]
    lines += [*deck(tmp_path, unsure, atoms, "variant scan inner direct"), *respa]
    first, second, third = thermo(tmp_path, lines)
    calculator = MLCalculator(unsure)
    calculator.probes = 0
    assert first["c_u"][0] == pytest.approx(
        calculator.get_property("energies_uncertainty", atoms).max(), abs=1e-8
    )
    largest = np.linalg.norm(calculator.get_property("forces_uncertainty", atoms), axis=1).max()
    assert first["c_w"][0] == pytest.approx(largest, abs=1e-8)
    for k, name in ((2, "scan"), (3, "hse")):
        for copy, baseline in ((1, True), (2, False)):
            expected = MLCalculator(unsure, variant=name, baseline=baseline).get_property("energy", atoms)
            assert second[f"c_e{copy}[{k}]"][0] == pytest.approx(expected, abs=1e-8)
    expected = MLCalculator(unsure, variant="scan").get_property("energy", atoms)
    assert third["PotEng"][0] == pytest.approx(expected, abs=1e-8)
    decks = {fix: [*deck(tmp_path, unsure, atoms, "variant scan"), fix] for fix in fixes}
    for said in errors_of(tmp_path, decks).values():
        assert "uncertainty of its first energy only, and 'energy/scan' is evaluated" in said


def _shifted(atoms, shift, step):
    moved = atoms.copy()
    moved.positions += step * shift
    return moved


def test_second_derivatives_are_of_the_chosen_energy(model):
    calculator, atoms = MLCalculator(model, variant="scan"), mixed()
    shift = np.random.default_rng(0).normal(size=(len(atoms), 3))
    hessian = calculator.get_hessian(atoms).reshape(3 * len(atoms), -1)
    forces = [calculator.get_property("forces", _shifted(atoms, shift, x)) for x in (1e-4, -1e-4)]
    slope = (forces[1] - forces[0]).ravel() / 2e-4
    np.testing.assert_allclose(hessian @ shift.ravel(), slope, rtol=1e-5, atol=1e-5)


def test_float32_files_keep_the_digits_of_every_baseline(tmp_path, model):
    path = write(tmp_path / "model.pt", dtype="float32")
    exact, loaded, atoms = artifact.load(model), artifact.load(path), mixed(2)
    [single] = loaded.evaluate([atoms], wanted=loaded.energies)
    [double] = exact.evaluate([atoms], wanted=exact.energies)
    for name in ENERGIES:
        assert float(single.get(name)) == pytest.approx(float(double.get(name)), abs=2e-5 * len(atoms))


@pytest.mark.long
def test_check_of_each_energy(tmp_path, model):
    """All of them on the name `all`; an energy that is not a number fails its own rows only; labels of one
    energy are compared with that one."""
    path, atoms = write(tmp_path / "broken.pt", broken="energy/scan"), mixed()
    options = CheckOptions(("ase",), nve_steps=0, variants=("all",))
    rows = check(path, [atoms], options).rows
    failed = {row.structure.rpartition("energy/")[2] for row in rows if not row.passed}
    assert failed == {"scan"}
    assert {row.structure.rpartition("energy/")[2] for row in rows} == {*BASELINES}
    [expected] = artifact.load(model, output="scan").evaluate([atoms])
    atoms.calc = SinglePointCalculator(atoms, energy=expected.energy, forces=expected.forces)
    found = {
        name: compare(model, [atoms], CompareOptions(("ase",), variant=name)) for name in ("scan", "hse")
    }
    worst = {name: max(row.largest for row in report.rows) for name, report in found.items()}
    assert worst["scan"] < 1e-12
    assert worst["hse"] > 0.1
    with pytest.raises(BadInput, match="no output 'scam'.*energy/scan"):
        check(model, [atoms], CheckOptions(("ase",), variants=("scam",)))
    write_lj(tmp_path / "one.pt")
    with pytest.raises(BadInput, match="'one.pt' has one energy only: leave it out"):
        check(tmp_path / "one.pt", [bulk("Ar", "fcc", a=5.3)], options)


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.usefixtures("native_build", "warm_start")
def test_check_of_an_energy_in_lammps(model):
    """All rows of another energy than the first, on two ranks, and with it those of the others."""
    options = CheckOptions(("lammps",), (2,), nve_steps=0, variants=("hse",))
    report = check(model, [mixed(2)], options)
    rows = [row for row in report.rows if row.engine == "lammps"]
    assert report.passed, [row for row in report.rows if not row.passed]
    assert {"energy", "forces", "stress", *ENERGIES} <= {row.name.split()[0] for row in rows}


def test_what_is_refused(tmp_path, model):
    with pytest.raises(BadInput, match="no output 'b3lyp'.*energy, energy/hse, energy/pbe, energy/scan"):
        MLCalculator(model, variant="b3lyp")
    heads = {**NEQUIP, "heads": {"energy/scan": {}}}
    potential = nequip.Model(["Ar", "Kr"], nequip.Hyperparameters(**heads, energy_name="pbe"))
    card = ModelCard("nequip", ["Ar", "Kr"], [0.0, 0.0])
    with pytest.raises(BadInput, match="baselines: expected 2 values of 'energy/scan', one per element"):
        save(potential, tmp_path / "no.pt", card)
    for name in (None, "scan"):
        options = nequip.Hyperparameters(**heads, energy_name=name)
        with pytest.raises(BadInput, match="expected a name of the first that differs from energy/scan"):
            nequip.Model(["Ar", "Kr"], options)


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.usefixtures("native_build", "warm_start")
@pytest.mark.parametrize("mode", MODES)
def test_lammps(tmp_path, model, mode):
    """`variant NAME` in every mode, per-atom values too; `compute pair` has all energies of one pass. Modes
    differ in how atoms are shared out: one energy shows that, and `fold` shows the others."""
    atoms, ranks = mixed(2), MODES[mode]
    names = list(BASELINES) if mode == "fold" else ["scan"]
    columns = "step pe pxx pyy pzz pyz pxz pxy c_sum" + "".join(f" c_all[{k}]" for k in range(1, 7))
    lines = []
    for name in (*names, "scan baseline off"):
        lines += ["clear", *deck(tmp_path, model, atoms, f"mode {mode} variant {name}")]
        lines += [
            "compute all all pair mlplugins",
            "compute s all pe/atom",
            "compute sum all reduce sum c_s",
            f"thermo_style custom {columns}",
            "thermo_modify format float %.15g",
            f"dump forces all custom 1 {name.split()[0]}.dump id fx fy fz",
            "dump_modify forces sort id format float %.15g",
            "run 0",
        ]
    *tables, without = thermo(tmp_path, lines, ranks)
    loaded = artifact.load(model)
    [everything] = loaded.evaluate([atoms], wanted=(*loaded.energies, "dipole"))
    for name, table in zip(names, tables, strict=True):
        [expected] = loaded.of_energy(f"energy/{name}").evaluate([atoms])
        for column in ("PotEng", "c_sum"):
            assert table[column][0] == pytest.approx(expected.energy, abs=1e-9), name
        if name != "scan":  # overwritten without baseline: the same forces
            forces = np.loadtxt(tmp_path / f"{name}.dump", skiprows=9)[:, 1:]
            np.testing.assert_allclose(forces, expected.forces, rtol=0, atol=1e-9)
        pressure = [table[column][0] for column in ("Pxx", "Pyy", "Pzz", "Pyz", "Pxz", "Pxy")]
        stress = -full_3x3_to_voigt_6_stress(expected.stress)
        np.testing.assert_allclose(np.array(pressure) / lammps.NKTV2P_METAL, stress, rtol=0, atol=1e-9)
        for k, other in enumerate(ENERGIES):
            assert table[f"c_all[{4 + k}]"][0] == pytest.approx(float(everything.get(other)), abs=1e-9)
    counts = [np.count_nonzero(atoms.numbers == z) for z in (18, 36)]
    for k, name in enumerate(BASELINES):
        bare = float(everything.get(f"energy/{name}")) - np.dot(counts, BASELINES[name])
        assert without[f"c_all[{4 + k}]"][0] == pytest.approx(bare, abs=1e-9)
    forces = np.loadtxt(tmp_path / "scan.dump", skiprows=9)[:, 1:]
    [expected] = loaded.of_energy("energy/scan").evaluate([atoms])
    np.testing.assert_allclose(forces, expected.forces, rtol=0, atol=1e-9)


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.usefixtures("native_build", "warm_start")
def test_a_committee_of_files_is_one_of_the_chosen_energy(tmp_path, model):
    """Mean and deviation of `scan` in ASE and LAMMPS; one file for it is refused."""
    other, atoms = write(tmp_path / "other.pt", seed=4), mixed(2)
    each = [artifact.load(path).of_energy("energy/scan").evaluate([atoms])[0] for path in (model, other)]
    forces = np.array([one.forces for one in each])
    worst = np.linalg.norm(forces.std(axis=0), axis=1).max()
    calculator = MLCalculator([model, other], variant="scan")
    np.testing.assert_allclose(calculator.get_forces(atoms), forces.mean(axis=0), rtol=0, atol=1e-10)
    assert calculator.results["max_devi_f"] == pytest.approx(worst, rel=1e-10)
    assert calculator.results["energy_uncertainty"] == pytest.approx(np.std([e.energy for e in each], ddof=1))
    lines = deck(tmp_path, model, atoms, f"{other} variant scan") + [
        "compute all all pair mlplugins",
        "thermo_style custom step pe c_all[4]",
        "thermo_modify format float %.15g",
        "run 0",
    ]
    [table] = thermo(tmp_path, lines)
    assert table["PotEng"][0] == pytest.approx(np.mean([e.energy for e in each]), abs=1e-8)
    assert table["c_all[4]"][0] == pytest.approx(worst, rel=1e-8)
    with pytest.raises(BadInput, match="member 1 has several energies.*give engines the separate files"):
        committee([model, other], tmp_path / "one.pt")


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.usefixtures("native_build", "warm_start")
def test_lammps_names_the_energies_that_there_are(tmp_path, model):
    decks = {"unknown": deck(tmp_path, model, mixed(2), "variant b3lyp")}
    said = errors_of(tmp_path, decks)["unknown"]
    assert "b3lyp" in said
    assert all(name in said for name in BASELINES)


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.usefixtures("warm_start")
def test_ipi(model):
    atoms = mixed(2)
    loaded = artifact.load(model, output="scan")
    [expected] = loaded.evaluate([atoms], wanted=loaded.energies)
    [found] = single_point.single_points(loaded, [atoms], Way((0,)))
    assert found.energy == pytest.approx(expected.energy, abs=1e-9)
    np.testing.assert_allclose(found.forces, expected.forces, rtol=0, atol=1e-9)
    for name in ENERGIES:
        assert float(found.get(name)) == pytest.approx(float(expected.get(name)), abs=1e-9)
