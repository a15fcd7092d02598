"""Models of one whole molecule in LAMMPS (nodes by atom ID) and i-PI: the numbers of ASE, or a refusal."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.io import write
from ipi.utils.units import unit_to_internal, unit_to_user

from mlplugins import MLCalculator
from mlplugins.engines import lammps
from mlplugins.engines.ipi.driver import MLDriver
from mlplugins.errors import RunFailed
from mlplugins.model_file.artifact import load
from mlplugins.model_file.card import ModelCard
from mlplugins.model_file.write import save
from mlplugins.models import molecular_kernel
from tests.engines.lammps_tools import start

IDS = [3, 8, 20, 21]
"""Of the atoms O, H, H, C of the molecule, in the order of the training frames."""

POSITIONS = np.array([[0.1, 0.0, 0.0], [0.8, 0.6, 0.0], [-0.5, 0.7, 0.3], [0.1, -0.9, 1.0]])
BOX = 25.0


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Without permutations: every pair of the molecule has weights of its own."""
    parameters = molecular_kernel.Hyperparameters(descriptor="inverse", sigma=1.0, cutoff=8.0)
    potential = molecular_kernel.Model(["H", "C", "O"], parameters)
    generator = torch.Generator().manual_seed(0)
    potential.species = torch.tensor([2, 0, 0, 1])
    potential.scale, potential.shift = torch.ones(6).double(), torch.zeros(6).double()
    potential.pairs = torch.arange(6)[None]
    potential.points = torch.rand(5, 6, dtype=torch.float64, generator=generator)
    potential.values = torch.randn(5, dtype=torch.float64, generator=generator)
    potential.slopes = torch.randn(5, 6, dtype=torch.float64, generator=generator)
    potential.prepare()
    path = tmp_path_factory.mktemp("model") / "model.pt"
    save(potential, path, ModelCard("kreg", ["H", "C", "O"], [0.0, 0.0, 0.0]), "float64")
    return path


def write_deck(folder, model, end):
    """The molecule across a face of the box, its atoms in another order, and an atom without a model."""
    where = POSITIONS % BOX
    atoms = [(20, 1, where[2]), (3, 3, where[0]), (10, 4, np.ones(3)), (21, 2, where[3]), (8, 1, where[1])]
    data = ["molecule", "", "5 atoms", "4 atom types", "", *(f"0 {BOX} {a}lo {a}hi" for a in "xyz")]
    data += ["", "Masses", "", "1 1.008", "2 12.011", "3 15.999", "4 39.95", "", "Atoms # atomic", ""]
    data += [" ".join(map(str, [number, kind, *position])) for number, kind, position in atoms]
    (folder / "molecule.lmp").write_text("\n".join(data) + "\n")
    head = ["units metal", "atom_style atomic", "atom_modify map yes sort 1 1.0", "read_data molecule.lmp"]
    styles = [f"pair_style hybrid/overlay zero 8.0 mlplugins {model}", "pair_coeff * * zero"]
    return [*head, *styles, "pair_coeff * * mlplugins H C O NULL", *end]


def test_with_and_without_neighbour_list(model):
    """A molecule in vacuum or a large cell needs no list; per-atom virials and wrapped atoms do."""
    artifact = load(model)
    free = Atoms("OH2C", POSITIONS)
    boxed = Atoms("OH2C", POSITIONS, cell=[BOX] * 3, pbc=True)
    wrapped = Atoms("OH2C", POSITIONS % BOX, cell=[BOX] * 3, pbc=True)
    slab = Atoms("OH2C", POSITIONS, cell=[BOX] * 3, pbc=[True, True, False])
    [expected] = artifact.evaluate([free], virials=True)
    for found in artifact.evaluate([free, boxed]) + artifact.evaluate([free, wrapped, slab]):
        assert found.energy == pytest.approx(expected.energy, rel=1e-13)
        for name in ("forces", "virial", "energies"):
            np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=0, atol=1e-13)
    np.testing.assert_allclose(expected.virials.sum(axis=0), expected.virial, rtol=0, atol=1e-13)
    [stress, other] = [artifact.evaluate([a])[0].stress for a in (boxed, wrapped)]
    np.testing.assert_allclose(stress, other, rtol=0, atol=1e-16)


@pytest.mark.parametrize(
    ("atoms", "expected"),
    [
        (Atoms("OH2C", POSITIONS * 9), "farther apart than 8"),
        (Atoms("H2OC", POSITIONS), "in the order of the training frames"),
        (Atoms("OH2C", POSITIONS, cell=[8.5] * 3, pbc=True), "periodic images"),
    ],
)
def test_what_is_not_the_molecule_is_refused(model, atoms, expected):
    with pytest.raises(RunFailed, match=expected):
        load(model).evaluate([atoms])


@pytest.mark.usefixtures("native_build", "warm_start")
def test_lammps_takes_the_atoms_by_id(model, tmp_path):
    """Over a run in which LAMMPS sorts its atoms at every step."""
    end = [
        "velocity all create 300 1 loop geom",
        "fix 1 all nve",
        "neigh_modify every 1 delay 0 check no",
        "thermo 5",
        "thermo_style custom step pe",
        "thermo_modify format float %.16g",
        "dump d all custom 5 run.dump id xu yu zu fx fy fz",
        "dump_modify d sort id format float %.16g",
        "run 20",
    ]
    lines = write_deck(tmp_path, model, end)
    result = start(tmp_path, lines)
    assert result.returncode == 0, result.stdout + result.stderr
    [table] = lammps.read_log(tmp_path / "log.lammps")
    frames = (tmp_path / "run.dump").read_text().split("ITEM: ATOMS")[1:]
    assert len(frames) == 5
    for frame, energy in zip(frames, table["PotEng"], strict=True):
        rows = np.loadtxt(frame.splitlines()[1:6])
        assert rows[:, 0].tolist() == [3, 8, 10, 20, 21]
        assert not rows[2, 4:].any()
        atoms = Atoms(
            "OH2C", np.delete(rows, 2, 0)[:, 1:4], cell=[BOX] * 3, pbc=True, calculator=MLCalculator(model)
        )
        assert energy == pytest.approx(atoms.get_potential_energy(), abs=1e-8)
        np.testing.assert_allclose(np.delete(rows, 2, 0)[:, 4:], atoms.get_forces(), rtol=0, atol=1e-8)


@pytest.mark.usefixtures("native_build", "warm_start")
def test_lammps_refuses_two_ranks(model, tmp_path):
    result = start(tmp_path, write_deck(tmp_path, model, ["run 0"]), ranks=2)
    assert result.returncode == 1
    assert "runs on one MPI rank in mode fold only" in result.stdout


def test_ipi_takes_the_atoms_of_the_template(model, tmp_path):
    atoms = Atoms("OH2C", POSITIONS, cell=[BOX] * 3, pbc=True)
    write(tmp_path / "template.extxyz", atoms)
    driver = MLDriver(model=str(model), template=str(tmp_path / "template.extxyz"))
    cell = unit_to_internal("length", "angstrom", np.eye(3) * BOX)
    energy, forces, *_ = driver(cell, unit_to_internal("length", "angstrom", POSITIONS))
    atoms.calc = MLCalculator(model)
    assert unit_to_user("energy", "electronvolt", energy) == pytest.approx(
        atoms.get_potential_energy(), abs=1e-9
    )
    forces = unit_to_user("force", "ev/ang", forces.reshape(-1, 3))
    np.testing.assert_allclose(forces, atoms.get_forces(), rtol=0, atol=1e-8)
