"""Committees: the family, and the file that `mlplugins committee` writes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import units
from ase.io import write

from mlplugins import MLCalculator, committee
from mlplugins.cli.main import main
from mlplugins.engines.ipi.driver import MLDriver
from mlplugins.errors import BadInput
from mlplugins.model_file.artifact import combine, load
from mlplugins.model_file.card import ModelCard
from mlplugins.model_file.write import save
from mlplugins.models import committee as committees
from mlplugins.models import lennard_jones, nequip
from mlplugins.models import sum as sums
from mlplugins.testing.families import FamilySuite
from mlplugins.testing.structures import standard_structures
from mlplugins.workflows.convert import Changes, convert
from mlplugins.workflows.info import info

DEEP = {"family": "nequip", "cutoff": 3.5, "num_layers": 2, "num_features": 3, "radial_mlp": [6]}
SHORT = {"family": "lennard-jones", "cutoff": 3.0}


class TestCommittee(FamilySuite):
    """Members of different depth and range."""

    def make_model(self):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            members = [DEEP, {**DEEP, "num_layers": 1}, SHORT]
            return committees.Model(self.elements, committees.Hyperparameters(members))


def write_member(path, seed, cutoff=3.5, elements=("Li", "S"), dtype="float64", baseline=(-1.0, -2.0)):
    parameters = {"cutoff": cutoff, "num_layers": 2, "num_features": 4, "readout_mlp": [8]}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nequip.Model(list(elements), nequip.Hyperparameters(**parameters))
    card = ModelCard("nequip", list(elements), list(baseline), details={"hyperparameters": parameters})
    save(model, path, card, dtype)
    return path


@pytest.fixture(scope="module")
def members(tmp_path_factory):
    """Three networks, of different cutoffs, orders of elements and composition energies."""
    folder = tmp_path_factory.mktemp("members")
    return [
        write_member(folder / "0.pt", 0),
        write_member(folder / "1.pt", 1, cutoff=4.0, baseline=(-1.1, -1.9)),
        write_member(folder / "2.pt", 2, elements=("S", "Li"), baseline=(-2.05, -1.02)),
    ]


@pytest.fixture(scope="module")
def together(members):
    path = members[0].with_name("together.pt")
    committee(members, path)
    return path


def structures():
    found = standard_structures(["Li", "S"])
    return [found["crystal"], found["molecule"]]


def test_the_file_equals_separate_evaluations(members, together):
    """Mean, spread, and every member, the composition energies with them."""
    each = [load(path).evaluate(structures(), virials=True) for path in members]
    artifact = load(together)
    assert artifact.n_members == 3
    found = artifact.members(structures(), virials=True)
    mean = artifact.evaluate(structures(), uncertainty=True)
    for k in range(2):
        expected = combine([results[k] for results in each])
        assert mean[k].energy == pytest.approx(expected.mean.energy, abs=1e-12)
        np.testing.assert_allclose(mean[k].forces, expected.mean.forces, rtol=0, atol=1e-12)
        np.testing.assert_allclose(mean[k].virial, expected.mean.virial, rtol=0, atol=1e-12)
        assert expected.energy_spread > 1e-3
        assert mean[k].uncertainty == pytest.approx(expected.energy_spread, abs=1e-12)
        energies = np.array([member.energies for member in expected.members])
        np.testing.assert_allclose(mean[k].uncertainties, energies.std(axis=0, ddof=1), rtol=0, atol=1e-12)
        for one, member in zip(found, expected.members):
            assert one[k].energy == pytest.approx(member.energy, abs=1e-12)
            np.testing.assert_allclose(one[k].forces, member.forces, rtol=0, atol=1e-12)
            np.testing.assert_allclose(one[k].virials, member.virials, rtol=0, atol=1e-12)


def test_the_file_says_what_it_is(members, together, tmp_path, capsys):
    record = info(together)
    assert record["family"] == "committee"
    assert [part["cutoff"] for part in record["parts"]] == [3.5, 4.0, 3.5]
    assert record["baseline_eV"]["Li"] == pytest.approx((-1.0 - 1.1 - 1.02) / 3, abs=1e-14)
    assert record["lammps_exchange"]
    assert record["cutoff_A"] == 4.0
    assert main(["info", str(together)]) == 0
    text = capsys.readouterr().out
    assert "committee of 3: nequip" in text
    assert "of the energy, spread of the members" in text
    words = [*map(str, members[:2]), "-o", str(tmp_path / "two.pt"), "--json", str(tmp_path / "two.json")]
    assert main(["committee", *words]) == 0
    assert json.loads((tmp_path / "two.json").read_text())["n_members"] == 2


@pytest.mark.long
def test_a_committee_in_another_precision_and_with_fewer_elements(together, tmp_path):
    """The weights and the composition energies of every member are in the file."""
    atoms = standard_structures(["Li"])["crystal"]
    convert(together, tmp_path / "less.pt", ["Li"], dtype="float64")
    both = (together, tmp_path / "less.pt")
    expected, found = (load(path).evaluate([atoms], uncertainty=True)[0] for path in both)
    assert found.energy == pytest.approx(expected.energy, abs=1e-12)
    assert found.uncertainty == pytest.approx(expected.uncertainty, abs=1e-12)
    convert(together, tmp_path / "single.pt")
    rounded = load(tmp_path / "single.pt").evaluate([atoms], uncertainty=True)[0]
    assert rounded.uncertainty == pytest.approx(expected.uncertainty, rel=1e-4)
    for one, member in zip(load(tmp_path / "single.pt").members([atoms]), load(together).members([atoms])):
        np.testing.assert_allclose(one[0].forces, member[0].forces, rtol=0, atol=1e-4)


def test_what_is_no_committee_is_refused(members, together, tmp_path):
    other = write_member(tmp_path / "other.pt", 3, elements=("Li", "P"))
    single = write_member(tmp_path / "single.pt", 3, dtype="float32")
    electrons = write_member(tmp_path / "all_electron.pt", 3, baseline=(-203.0, -10830.0))
    output = tmp_path / "model.pt"
    shared = write_member(tmp_path / "shared.pt", 3, baseline=(-103.0, -230.0))  # of a single composition
    apart = write_member(tmp_path / "apart.pt", 4, baseline=(-203.0, -130.0))
    committee([shared, apart], output)
    output.unlink()
    for models, text in (
        ([members[0], electrons], r"energies of S differ by 1.083e\+04 eV .*one level of theory"),
        (members[:1], "expected two models or more, got 1"),
        ([members[0], other], "other elements than .* expected Li S, got Li P"),
        ([members[0], single], "other precision than .* expected float64, got float32"),
        ([members[0], members[1], members[0]], "same weights as"),
        ([members[0], together], "is a committee itself"),
        ([members[0], tmp_path / "absent.pt"], "absent.pt"),
    ):
        with pytest.raises(BadInput, match=text):
            committee(models, output)
    assert not output.exists()
    with pytest.raises(BadInput, match="a committee stands alone"):
        convert(together, output, changes=Changes(zbl=True))


@pytest.mark.long
def test_levels_of_theory_that_differ_are_refused(tmp_path):
    """Tasks of one file; dispersion beside one member only, unless the other's name says that it has it."""
    tasks = Path(__file__).parents[1] / "regression" / "sevennet_0130_tasks.pth"
    other, pbe, output = (
        tasks.with_name("sevennet_0130_parity.pth"),
        tmp_path / "pbe.pt",
        tmp_path / "model.pt",
    )
    convert(tasks, pbe, ["Li"], "PBE", "float64")
    convert(tasks, tmp_path / "r2scan.pt", ["Li"], "r2SCAN", "float64")
    with pytest.raises(BadInput, match="are 'PBE' and 'r2SCAN' of one file"):
        committee([pbe, tmp_path / "r2scan.pt"], output)
    pytest.importorskip("tad_dftd3", reason="pip install 'mlplugins[d3]'")
    convert(other, tmp_path / "bj.pt", ["Li"], dtype="float64", changes=Changes(d3="pbe-bj"))
    with pytest.raises(BadInput, match="is none, that of .* pbe-bj: expected models of one level"):
        committee([pbe, tmp_path / "bj.pt"], output)
    assert not output.exists()
    pbe.rename(tmp_path / "pbe-d3.pt")
    committee([tmp_path / "pbe-d3.pt", tmp_path / "bj.pt"], output)


def test_members_predict_the_same(tmp_path):
    two = [lennard_jones.Model(["Ar"], lennard_jones.Hyperparameters()) for _ in range(2)]
    two[1].predicts = ("energy", "dipole")
    with pytest.raises(BadInput, match="member 2 predicts energy, dipole, and member 1 energy"):
        committees.Model.of(two, torch.zeros(2, 1))
    with pytest.raises(BadInput, match="a committee stands alone"):
        sums.Model.of([two[0], committees.Model.of([two[0], two[0]], torch.zeros(2, 1))])


@pytest.mark.long
def test_ase_and_i_pi_give_the_numbers_of_separate_files(members, together, tmp_path):
    """The same for a list of files and for one file; deviations are divided by M, spreads by M − 1."""
    atoms = structures()[0]
    found = [load(path).evaluate([atoms])[0] for path in members]
    forces = np.array([one.forces for one in found])
    each = np.linalg.norm(forces.std(axis=0), axis=1)
    virials = np.array([one.virial for one in found]).std(axis=0) / len(atoms)
    write(tmp_path / "template.xyz", atoms)
    for models in (members, [together]):
        calc = MLCalculator(models)
        assert calc.get_property("max_devi_f", atoms) == pytest.approx(each.max(), abs=1e-12)
        results = calc.results
        assert [results[f"{name}_devi_f"] for name in ("min", "avg")] == pytest.approx(
            [each.min(), each.mean()], abs=1e-12
        )
        expected = [virials.max(), virials.min(), np.sqrt((virials**2).mean())]
        assert [results[f"{name}_devi_v"] for name in ("max", "min", "avg")] == pytest.approx(
            expected, abs=1e-12
        )
        np.testing.assert_allclose(
            results["forces_uncertainty"], forces.std(axis=0, ddof=1), rtol=0, atol=1e-12
        )
        spread = np.std([one.energies for one in found], axis=0, ddof=1)
        np.testing.assert_allclose(results["energies_uncertainty"], spread, rtol=0, atol=1e-12)
        relative = calc.model_deviation(atoms, relative=0.5)
        expected = each / (np.linalg.norm(forces.mean(axis=0), axis=1) + 0.5)
        np.testing.assert_allclose(relative.devi_f, expected, rtol=0, atol=1e-12)
        copy = calc.annotated(atoms)
        assert copy.info["max_devi_f"] == results["max_devi_f"]
        np.testing.assert_array_equal(copy.arrays["devi_f"], results["devi_f"])

        driver = MLDriver(model="+".join(map(str, models)), template=str(tmp_path / "template.xyz"))
        reply = driver.compute_structure(atoms.cell.array.T / units.Bohr, atoms.positions / units.Bohr)
        extras = json.loads(reply.extras)
        force = units.Bohr / units.Hartree
        assert extras["max_devi_f"] == pytest.approx(force * each.max(), rel=1e-6)
        assert extras["avg_devi_v"] == pytest.approx(results["avg_devi_v"] / units.Hartree, rel=1e-6)
        assert len(extras["committee_pot"]) == 3
    with pytest.raises(BadInput, match="one model has no model deviation"):
        MLCalculator(members[0]).model_deviation(atoms)


def test_i_pi_gets_the_uncertainty_that_a_model_predicts(tmp_path):
    model = nequip.Model(["Li", "S"], nequip.Hyperparameters(cutoff=3.5, num_layers=1, num_features=2))
    model.last_layer.set(torch.randn(model.feature_width, 3, dtype=torch.float64), 0.01)
    save(model, tmp_path / "sure.pt", ModelCard("nequip", ["Li", "S"], [0.0, 0.0]), "float64")
    atoms = structures()[0]
    write(tmp_path / "template.xyz", atoms)
    driver = MLDriver(model=str(tmp_path / "sure.pt"), template=str(tmp_path / "template.xyz"))
    reply = driver.compute_structure(atoms.cell.array.T / units.Bohr, atoms.positions / units.Bohr)
    expected = MLCalculator(tmp_path / "sure.pt").get_property("energy_uncertainty", atoms)
    found = json.loads(reply.extras)["energy_uncertainty"]
    assert found == pytest.approx(expected / units.Hartree, rel=1e-6)
