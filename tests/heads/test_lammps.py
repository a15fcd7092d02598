"""Dipoles and direct forces in LAMMPS, in every mode, and copies of a style that evaluate once."""

import re

import numpy as np
import pytest
import torch
from ase.stress import full_3x3_to_voigt_6_stress

from mlplugins import committee
from mlplugins.engines import lammps
from mlplugins.heads import LabelSizes
from mlplugins.model_file import artifact
from mlplugins.model_file.card import ModelCard
from mlplugins.model_file.write import save
from mlplugins.models import nequip
from mlplugins.models.base import TrainingStatistics
from tests.engines.conftest import crystal
from tests.engines.lammps_tools import deck, errors_of, start, thermo
from tests.simulation.argon import write_model

pytestmark = pytest.mark.usefixtures("native_build", "warm_start")

STATISTICS = TrainingStatistics(
    12.0,
    0.3,
    {
        "dipole": LabelSizes((20.0,)),
        "polarizability": LabelSizes((1.0, 1.0)),
        "direct_forces": LabelSizes((0.3,)),
    },
)
MODES = {"fold": 1, "exchange": 2, "ghost": 2}


def write(path, seed):
    parameters = {
        "cutoff": 4.2,
        "num_layers": 2,
        "num_features": 4,
        "heads": {
            "dipole": {"width": 4, "channels": 4},
            "polarizability": {"width": 4, "products": 2},
            "direct_forces": {"channels": 2, "width": 4},
        },
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        potential = nequip.Model(["Ar", "Kr"], nequip.Hyperparameters(**parameters))
    potential.initialise(STATISTICS)
    potential.initialise_heads(STATISTICS)
    card = ModelCard("nequip", ["Ar", "Kr"], [-1.0, -2.0], details={"hyperparameters": parameters})
    save(potential, path, card, "float64")
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write(tmp_path_factory.mktemp("lammps") / "model.pt", 3)


def mixed():
    atoms = crystal()
    atoms.numbers[::3] = 36
    atoms.rattle(0.15, seed=4)
    return atoms


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_dipole_and_direct_forces(tmp_path, model, mode):
    """`compute pair` gives the dipole; direct forces and their stress, per atom too, in every mode."""
    atoms, ranks = mixed(), MODES[mode]
    lines = deck(tmp_path, model, atoms, f"mode {mode} non_conservative on")
    columns = "step pe pxx pyy pzz pyz pxz pxy c_sum" + "".join(f" c_mu[{k}]" for k in range(1, 13))
    lines += [
        "compute mu all pair mlplugins",
        "compute s all stress/atom NULL",
        "compute sum all reduce sum c_s[1]",
        f"thermo_style custom {columns}",
        "thermo_modify format float %.15g",
        "dump forces all custom 1 forces.dump id fx fy fz",
        "dump_modify forces sort id format float %.15g",
        "run 0",
    ]
    table = thermo(tmp_path, lines, ranks)[0]
    [expected] = artifact.load(model).evaluate([atoms])
    assert table["PotEng"][0] == pytest.approx(expected.energy, abs=1e-9)
    found = [table[f"c_mu[{k}]"][0] for k in (1, 2, 3)]
    assert np.abs(found).max() > 1e-2
    np.testing.assert_allclose(found, expected.get("dipole"), rtol=0, atol=1e-9)
    alpha = [table[f"c_mu[{k}]"][0] for k in range(4, 13)]
    np.testing.assert_allclose(alpha, expected.get("polarizability").ravel(), rtol=0, atol=1e-9)
    forces = np.loadtxt(tmp_path / "forces.dump", skiprows=9)[:, 1:]
    np.testing.assert_allclose(forces, expected.get("direct_forces"), rtol=0, atol=1e-9)
    assert np.abs(forces - expected.forces).max() > 1e-2  # which are others
    assert np.abs(forces.sum(axis=0)).max() < 1e-10
    stress = full_3x3_to_voigt_6_stress(expected.get("direct_stress"))
    pressure = [table[name][0] for name in ("Pxx", "Pyy", "Pzz", "Pyz", "Pxz", "Pxy")]
    np.testing.assert_allclose(np.array(pressure) / lammps.NKTV2P_METAL, -stress, rtol=0, atol=1e-9)
    assert table["c_sum"][0] / atoms.get_volume() == pytest.approx(-pressure[0], rel=1e-9)


def three_copies(model, second=""):
    """The deck of others: cheap, minus cheap, whole; the words of `second` keep the second copy apart."""
    direct = f"mlplugins {model} non_conservative on"
    return [
        f"pair_style hybrid/overlay {direct} {direct} scale -1 {second} mlplugins {model}",
        *(f"pair_coeff * * mlplugins {k} Ar Kr" for k in (1, 2, 3)),
        "compute mu all pair mlplugins 3",
        "run_style respa 2 4 hybrid 1 2 2",
    ]


def one_style(model):
    return [
        f"pair_style mlplugins {model} inner direct",
        "pair_coeff * * Ar Kr",
        "compute mu all pair mlplugins",
        "compute j all mlplugins/heat/flux",
        "run_style respa 2 4 inner 1 1.0 2.0 outer 2",
    ]


N_OUTER, N_INNER = 6, 4
COLUMNS = "step pe etotal pxx pxy c_atoms[*] c_mu[1]"
REPORT = [
    "velocity all create 300 7 loop geom",
    "fix 1 all nve",
    "compute e all pe/atom",
    "compute s all stress/atom NULL",
    "compute atoms all reduce sum c_e c_s[1] c_s[4]",
    f"thermo_style custom {COLUMNS}",
    "thermo_modify format float %.15g",
    "thermo 1",
    "neighbor 0.15 bin",  # so that lists are built within the run
    "neigh_modify every 1 delay 0 check yes",
]


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_multiple_time_steps(tmp_path, model, mode):
    """Three copies evaluate nothing twice and give the numbers of three that share nothing, to the last
    digit, and `inner direct` those of the copies; outer steps show the energies, pressures, per-atom values
    and dipoles of the whole model, near a run of short steps."""
    atoms, ranks = mixed(), MODES[mode]
    head = deck(tmp_path, model, atoms, f"mode {mode}")
    outer = [*REPORT, "timestep 0.004", f"run {N_OUTER}"]
    flux = [f"thermo_style custom {COLUMNS} c_j[1] c_j[4]", "thermo_modify format float %.15g"]
    whole = ["run_style verlet", "run 0"]  # the same positions
    lines = []
    for style, end in (
        (three_copies(model), outer),
        (three_copies(model, "uncertainty_threshold 9"), outer),
        (one_style(model), [*outer[:-1], *flux, outer[-1], *whole]),
    ):
        lines += ["clear", *head[:-2], *(add_mode(line, mode) for line in style), *end]
    if mode == "fold":
        short = ["timestep 0.001", f"thermo {N_INNER}", f"run {N_OUTER * N_INNER}"]
        lines += ["clear", *head, "compute mu all pair mlplugins", *REPORT, *short]
    shared, apart, one, at_end, *plain = thermo(tmp_path, lines, ranks)
    for column, values in apart.items():
        np.testing.assert_array_equal(shared[column], values, err_msg=column)
        np.testing.assert_allclose(one[column], values, rtol=1e-11, atol=1e-9, err_msg=column)
    for column, values in one.items():  # also the heat flux
        assert at_end[column][0] == pytest.approx(values[-1], rel=1e-11, abs=1e-9), column
    for table in plain:
        assert np.ptp(table["PotEng"]) > 100 * np.abs(one["PotEng"] - table["PotEng"]).max()
        np.testing.assert_allclose(one["TotEng"], table["TotEng"], rtol=0, atol=1e-4 * len(atoms))
    builds, told = counts(tmp_path / "log.lammps")
    inner, outer_steps = 1 + N_OUTER * N_INNER, 1 + N_OUTER
    assert [n for direct, n, _ in told["apart"] if direct] == [inner, outer_steps]
    [(evaluations, used)] = [(n, used) for direct, n, used in told["shared"] if direct]
    assert evaluations + used == inner + outer_steps
    assert evaluations - inner <= builds["shared"] > 0  # new lists may have the atoms in another order
    for name in ("shared", "apart"):
        assert [(n, used) for direct, n, used in told[name] if not direct] == [(outer_steps, 0)]


@pytest.mark.slow
def test_inner_models_are_refused_by_name(tmp_path, model):
    argon = write_model(tmp_path / "argon.pt")
    record = {"configuration": {"data": {"keys": {"energy": None}}}}
    charges = write_model(tmp_path / "charges.pt", record)
    atoms = mixed()
    head = deck(tmp_path, model, atoms)
    respa = "run_style respa 2 4 inner 1 1.0 2.0 outer 2"

    def with_style(style):
        return [*head[:-2], f"pair_style mlplugins {style}", head[-1], respa, "fix 1 all nve", "run 1"]

    found = errors_of(
        tmp_path,
        {
            "file": with_style(f"{model} inner no.pt"),
            "head": with_style(f"{argon} inner direct"),
            "elements": with_style(f"{model} inner {argon}"),
            "outer": with_style(f"{model} non_conservative on inner {argon}"),
            "none": with_style(str(model)),
            "without": with_style(f"{model} inner {charges}"),
        },
    )
    for name, text in {
        "file": "inner 'no.pt': no such model file: 'no.pt'",
        "head": "inner direct: ",
        "elements": f"inner '{argon}': pair_coeff: element Kr (atom type 2) is not in the model; it knows",
        "outer": "keyword 'inner': the outer steps need the gradients of the model",
        "none": "does not support rRESPA inner/middle/outer",
        "without": "charges.pt' learned no energies, so that its forces are zero",
    }.items():
        assert text in found[name], found[name]
    assert "non_conservative_force" in found["head"]


def add_mode(line, mode):
    return re.sub(r"mlplugins (\S+\.pt)", rf"mlplugins \1 mode {mode}", line)


def counts(log):
    """Of each deck: lists built within the run, and (direct?, evaluations, used again) of each model."""
    builds, told = {}, {}
    for name, text in zip(("shared", "apart", "one"), log.read_text().split("clear\n")[1:]):
        builds[name] = int(re.search(r"Neighbor list builds = (\d+)", text)[1])
    for name, text in zip(("shared", "apart", "one"), log.read_text().split("clear\n")[2:]):
        found = re.findall(r"mlplugins: \S+?\.pt( \(direct forces\))?: (\d+) evaluations, (\d+)", text)
        told[name] = [(bool(direct), int(n), int(used)) for direct, n, used in found]
    return builds, told


@pytest.mark.slow
def test_committees(tmp_path, model):
    """`compute pair` of several models is their deviation, and the log says so; with direct forces one file
    is its mean, which has a dipole, and several files drive by theirs."""
    files = [model, write(tmp_path / "other.pt", 5)]
    together = tmp_path / "together.pt"
    committee(files, together)
    atoms = mixed()
    dump = [
        "thermo_modify format float %.15g",
        "dump f all custom 1 {}.dump id fx fy fz",
        "dump_modify f sort id format float %.15g",
        "run 0",
    ]
    lines = []
    for name, style, columns in (
        ("deviation", str(together), 6),
        ("mean", f"{together} non_conservative on", 3),
        ("files", f"{files[0]} {files[1]} non_conservative on out_freq 0", 6),
    ):
        head = deck(tmp_path, model, atoms)
        head[-2] = f"pair_style mlplugins {style}"
        shown = " ".join(f"c_mu[{k}]" for k in range(1, columns + 1))
        lines += ["clear", *head, "compute mu all pair mlplugins", f"thermo_style custom step pe {shown}"]
        lines += [line.format(name) for line in dump]
    deviation, mean, several = thermo(tmp_path, lines)
    members = [artifact.load(path).evaluate([atoms])[0] for path in files]
    spread = np.linalg.norm(np.std([one.forces for one in members], axis=0), axis=1)
    assert deviation["c_mu[4]"][0] == pytest.approx(spread.max(), rel=1e-9)
    log = (tmp_path / "log.lammps").read_text().splitlines()
    unused = [line for line in log if line.startswith("mlplugins: outputs of the model that LAMMPS does not")]
    assert ["mlplugins::dipole" in line for line in unused] == [True, True], unused
    dipole = np.mean([one.get("dipole") for one in members], axis=0)
    np.testing.assert_allclose([mean[f"c_mu[{k}]"][0] for k in (1, 2, 3)], dipole, rtol=0, atol=1e-9)
    direct = [one.get("direct_forces") for one in members]
    for name in ("mean", "files"):
        forces = np.loadtxt(tmp_path / f"{name}.dump", skiprows=9)[:, 1:]
        np.testing.assert_allclose(forces, np.mean(direct, axis=0), rtol=0, atol=1e-9)
    spread = np.linalg.norm(np.std(direct, axis=0), axis=1)
    assert several["c_mu[4]"][0] == pytest.approx(spread.max(), rel=1e-9)
    energy = np.mean([one.energy for one in members])
    for table in (deviation, mean, several):
        assert table["PotEng"][0] == pytest.approx(energy, abs=1e-9)
    head[-2] = f"pair_style mlplugins {together} non_conservative on drive first"
    assert "whose direct forces are those of the mean" in start(tmp_path, head).stdout
