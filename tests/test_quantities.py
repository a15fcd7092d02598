"""The table of quantities against metatomic's units and names, ASE's properties and e3nn's irreps."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.calculator import all_properties
from ase.io import read, write
from ase.units import Bohr, Hartree
from e3nn.o3 import Irreps
from metatomic.torch import unit_conversion_factor, unit_dimension_for_quantity

import mlplugins
from mlplugins.quantities import QUANTITIES, Quantity, Results

UNITS_OF_ASE = re.compile(r"(eV|A|e|ppm)")


@pytest.mark.parametrize("quantity", QUANTITIES.values(), ids=QUANTITIES)
def test_a_record_says_what_metatomic_ase_and_e3nn_know(quantity):
    assert QUANTITIES[quantity.name] is quantity
    assert unit_conversion_factor(quantity.output_unit, quantity.output_unit) == 1.0  # metatomic can read it
    assert re.fullmatch(r"[\d.^*/() -]*", UNITS_OF_ASE.sub("", quantity.unit)), "eV, Å and e, as in ASE"
    if quantity.output is not None and "::" not in quantity.output:
        assert quantity.learns or unit_dimension_for_quantity(quantity.output) == quantity.name
    for unit, factor in quantity.file_units.items():
        if unit == "e^2*A^2/eV":  # of 4πε0 times the volume, another dimension
            assert factor == pytest.approx(Hartree * Bohr, rel=1e-6)
            continue
        known = unit.replace("ppm", ""), quantity.output_unit
        assert unit_conversion_factor(*known) == pytest.approx(factor, rel=1e-6), unit
    assert quantity.ase is None or quantity.ase in all_properties
    assert quantity.ase_per_atom is None or quantity.ase_per_atom in all_properties
    value = np.random.default_rng(0).normal(size=quantity.full_shape(2))
    assert quantity.turned(value, np.eye(3)).shape == value.shape
    independent = 6 if quantity.symmetric else int(np.prod(quantity.shape))
    assert Irreps(quantity.irreps).dim == independent
    assert quantity.derivative is None or quantity.derivative.of in QUANTITIES


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"irreps": "1o", "shape": ()}, "no Cartesian tensor of shape () has irreps 1o"),
        ({"irreps": "0e+2e", "shape": (3,)}, "no Cartesian tensor of shape (3,) has irreps 0e+2e"),
        ({"output": None}, "need an `output`, a name of metatomic's or mlplugins::charge"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(change, said):
    record = {"name": "charge", "noun": "charge", "symbol": "q", "unit": "e", "output": "mlplugins::charge"}
    Quantity(**record)
    with pytest.raises(ValueError, match=re.escape(said)):
        Quantity(**record | change)


def test_results_are_found_by_the_name_of_the_quantity():
    found = Results(-1.0, np.ones((2, 3)), more={"dipole": np.arange(3.0)})
    assert found.get("energy") == -1.0
    assert found.get("stress") is None
    assert found.get("charges") is None
    assert found.get("forces") is found.forces
    assert found.get("dipole").tolist() == [0.0, 1.0, 2.0]


RECORD = """
QUANTITIES["polarization"] = Quantity(
    name="polarization",
    noun="polarization",
    symbol="P",
    unit="e*A",
    irreps="1o",
    shape=(3,),
    extensive=True,
    additive=True,
    output="mlplugins::polarization",
    ase="polarization",
    ipi="polarization",
)
"""
CONFIGURATION = """
data: {train: train.extxyz, validation: 0.2, test: test.extxyz, keys: {polarization: mu}}
model: {family: toy, cutoff: 5.0}
training: {epochs: 40, batch_size: 4, lr: 0.05, dtype: float64, ema: 0.5, loss: {polarization: 30}}
"""
ENGINES = """
import json, warnings
from ase.io import read
warnings.simplefilter("ignore")
from mlplugins import MLCalculator
from mlplugins.engines.ipi.extras import in_atomic_units
from mlplugins.model_file import artifact
from metatomic.torch import ModelEvaluationOptions, ModelOutput, load_atomistic_model, systems_to_torch
from metatomic_ase import MetatomicCalculator
atoms = read("test.extxyz@0")
atoms.calc = MLCalculator("run/model.pt")
[results] = artifact.load("run/model.pt").evaluate([atoms])
output = {"mlplugins::polarization": ModelOutput(unit="e*A", sample_kind="system")}
other = MetatomicCalculator("run/model.pt", additional_outputs=output)
other.calculate(atoms, ["energy"], [])
block = other.additional_outputs["mlplugins::polarization"].block()
assert block.components[0].names == ["xyz"]
print(json.dumps({
    "ase": atoms.calc.get_property("polarization", atoms).tolist(),
    "ipi": in_atomic_units(results)["polarization"],
    "metatomic": block.values[:, :, 0].tolist(),
}))
"""
REFUSALS = """
import copy, yaml
import mlplugins
from mlplugins.errors import BadInput
given = yaml.safe_load(open("c.yaml"))
lj = {"family": "lennard-jones"}
def say(where, value, **more):
    content = copy.deepcopy(given) | more
    content["training"]["loss"], content["data"]["keys"] = {}, {}
    section, name = where.split(".")
    content[section][name] = value
    try:
        mlplugins.train(content, "refused")
    except BadInput as error:
        print(error)
nequip = {"family": "nequip", "num_layers": 1, "num_features": 2, "cutoff": 3.0}
say("training.loss", {"polarization": 30}, model=nequip)
say("data.keys", {"polarization": "mu"}, model=nequip)
say("training.loss", {"polarization": 30})
try:
    mlplugins.evaluate("lj.pt", "test.extxyz", {"polarization": "mu"})
except BadInput as error:
    print(error)
"""
LENNARD_JONES = """
from mlplugins.model_file.card import ModelCard
from mlplugins.model_file.write import save
from mlplugins.models import lennard_jones
model = lennard_jones.Model(["Ne", "Ar"], lennard_jones.Hyperparameters())
save(model, "lj.pt", ModelCard("lennard-jones", ["Ne", "Ar"], [0.0, 0.0]))
"""
MOMENT = np.array([[0.0, 0.3], [-0.2, 0.0]])
"""b_ij of the labels, e, for Ne and Ar."""


def dipole(atoms, b=MOMENT, cutoff=5.0) -> np.ndarray:
    """The formula of the toy family in plain loops."""
    total = np.zeros(3)
    for i, zi in enumerate(atoms.numbers):
        for j, zj in enumerate(atoms.numbers):
            v = atoms.positions[j] - atoms.positions[i]
            if i != j and v @ v < cutoff**2:
                total += b[int(zi == 18), int(zj == 18)] * (1 - v @ v / cutoff**2) ** 3 * v
    return total


def molecules(n, seed):
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(n):
        atoms = Atoms("Ne2Ar2", rng.normal(0, 0.2, (4, 3)) + [[0, 0, 0], [2, 0, 0], [0, 2, 0], [0, 0, 2]])
        atoms.info |= {"energy": float(rng.normal(0, 0.01)), "mu": dipole(atoms)}
        atoms.arrays["forces"] = rng.normal(0, 0.01, (4, 3))
        frames.append(atoms)
    return frames


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """The package as it is, one record more in its table and one more family."""
    folder = tmp_path_factory.mktemp("extended")
    root = Path(mlplugins.__file__).parent
    shutil.copytree(root, folder / "mlplugins", ignore=shutil.ignore_patterns("__pycache__"))
    for native in ("lammps_pair", "ipi_drivers"):  # the same sources, so the same build
        (folder / native).symlink_to(root.parent / native)
    with (folder / "mlplugins/quantities.py").open("a", encoding="utf-8") as stream:
        stream.write(RECORD)
    shutil.copy(Path(__file__).with_name("toy_quantity.py"), folder / "mlplugins/models/toy.py")
    return folder


def run(extended, *words) -> str:
    return python(extended, "-m", "mlplugins.cli.main", *words)


def python(extended, *words) -> str:
    environment = {**os.environ, "PYTHONPATH": str(extended)}
    command = [sys.executable, *words]
    done = subprocess.run(command, cwd=extended, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def program(extended, text) -> str:
    (extended / "program.py").write_text(text)
    return "program.py"


@pytest.mark.slow
@pytest.mark.usefixtures("warm_start")
def test_a_quantity_more_is_its_record(extended):
    """Labels, loss, log, errors and tables of a polarization, without a change of any file but the table."""
    train, test = molecules(20, 0), molecules(5, 1)
    del train[3].info["mu"]  # learned from where it is known
    write(extended / "train.extxyz", train)
    write(extended / "test.extxyz", test)
    (extended / "c.yaml").write_text(CONFIGURATION)
    printed = run(extended, "train", "c.yaml", "-o", "run")
    assert "polarization" in printed
    metrics = json.loads((extended / "run/metrics.json").read_text())
    state = torch.load(extended / "run/checkpoint.ckpt", weights_only=True)
    b = next(value for name, value in state["state"]["best"].items() if name == "b").numpy()
    order = [metrics["elements"].index(symbol) for symbol in ("Ne", "Ar")]
    errors = np.array([(dipole(a, b[np.ix_(order, order)]) - a.info["mu"]) / len(a) for a in test]) * 1e3
    found = metrics["test"]["polarization"]
    assert found["mae_me_A_per_atom"] == pytest.approx(np.abs(errors).mean(), rel=1e-6)
    assert found["rmse_me_A_per_atom"] == pytest.approx(np.sqrt((errors**2).mean()), rel=1e-6)
    spread = 1e3 * np.std([a.info["mu"] / len(a) for a in test])
    assert found["rmse_me_A_per_atom"] < 0.2 * spread  # it was learned
    with (extended / "run/log.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    column = [float(row["validation_polarization_rmse_me_A_per_atom"]) for row in rows]
    assert column[-1] < 0.2 * column[0]
    assert (extended / "run/parity.png").stat().st_size > 1000
    printed = run(
        extended, "evaluate", "run/model.pt", "test.extxyz", "--keys", "polarization=mu", "--json", "e.json"
    )
    assert "P MAE" in printed
    evaluated = json.loads((extended / "e.json").read_text())
    for kind, value in found.items():
        assert evaluated["polarization"][kind] == pytest.approx(value, rel=1e-9)
    asked = json.loads(python(extended, program(extended, ENGINES)))
    expected = dipole(read(extended / "test.extxyz@0"), b[np.ix_(order, order)])
    np.testing.assert_allclose(asked["ase"], expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(asked["metatomic"], [expected], rtol=0, atol=1e-12)
    np.testing.assert_allclose(np.array(asked["ipi"]) * Bohr, expected, rtol=0, atol=1e-9)


@pytest.mark.slow
@pytest.mark.usefixtures("warm_start")
def test_a_quantity_asked_for_in_vain_is_refused(extended):
    write(extended / "train.extxyz", molecules(20, 0))
    write(extended / "test.extxyz", molecules(5, 1))
    (extended / "c.yaml").write_text(CONFIGURATION)
    said = python(extended, program(extended, LENNARD_JONES + REFUSALS)).splitlines()
    assert len(said) == 4
    assert said[0].startswith(
        "training.loss: {polarization: 30}: the model does not predict 'polarization', it predicts"
    )
    assert said[1].startswith(
        "data.keys: {polarization: mu}: the model does not predict 'polarization', it predicts"
    )
    assert "none of the 20 training frames that are used has it" in said[2]  # the key is not named
    assert said[3].startswith(
        "keys (--keys): polarization: 'lj.pt' does not predict 'polarization', it predicts energy, forces"
    )
    assert not (extended / "refused").exists()  # before anything is computed or written
