"""An electric field in i-PI pulls at the atoms by the model's Born effective charges."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import units
from ase.io import read
from ipi.utils.units import Elements

from mlplugins import MLCalculator
from mlplugins.heads import LabelSizes
from mlplugins.model_file.card import ModelCard
from mlplugins.model_file.write import save
from mlplugins.models import nequip
from mlplugins.models.base import TrainingStatistics
from tests.engines.ipi_tools import Processes, finish

EXAMPLES = Path(__file__).parents[2] / "examples"
ELEMENTS = ["H", "C", "O"]
STEPS, STEP_FS = 40, 0.5
VECTORS = "".join(f", atom_x{{angstrom}}({k})" for k in range(4))


def write(path, dtype):
    parameters = {"cutoff": 3.0, "num_layers": 2, "num_features": 4, "heads": {"dipole": {"width": 4}}}
    with torch.random.fork_rng():
        torch.manual_seed(5)
        potential = nequip.Model(ELEMENTS, nequip.Hyperparameters(**parameters))
    statistics = TrainingStatistics(3.0, 0.5, {"dipole": LabelSizes((1.0,))})
    potential.initialise(statistics)
    potential.initialise_heads(statistics)
    card = ModelCard("nequip", ELEMENTS, [0.0] * 3, details={"hyperparameters": parameters})
    save(potential, path, card, dtype)
    return path


def field(time):
    """V/Å at a time in fs, as the example says."""
    wave = np.cos(2e-13 * np.pi * units._c * 1750 * time + 0.3) * np.exp(-0.5 * ((time - 20.0) / 8.0) ** 2)
    return wave * np.array([0.2, 0.0, 0.5])


def by_hand(model, strength):
    """Positions and dipoles of velocity Verlet with F + Z*·E(t), of ASE's numbers."""
    atoms = read(EXAMPLES / "formaldehyde.xyz")
    atoms.calc = MLCalculator(model)
    step, masses = (
        STEP_FS * units.fs,
        np.array([Elements.mass(s) for s in atoms.symbols])[:, None] * units._me / units._amu,
    )
    velocities, rows = np.zeros((4, 3)), []
    for k in range(STEPS + 1):
        born = atoms.calc.get_property("born_effective_charges", atoms)
        pull = strength * np.einsum("iab,a->ib", born, field(k * STEP_FS))
        accelerations = (atoms.get_forces() + pull) / masses
        velocities += (k > 0) * 0.5 * step * accelerations
        rows.append([*atoms.get_dipole_moment(), *atoms.positions.ravel()])
        velocities += 0.5 * step * accelerations
        atoms.positions += step * velocities
    return np.array(rows)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_atoms_move_as_born_charges_and_field_say(tmp_path, dtype):
    """The example, with what it prints at every step; in float32 i-PI accepts the sum of the charges, too."""
    model = write(tmp_path / "model.pt", dtype)
    text = (EXAMPLES / "14_field.xml").read_text()
    text = re.sub(r"dipole{eang}", "dipole{eang}" + VECTORS, text).replace("stride='4'", "stride='1'")
    text = re.sub(r"<total_steps>\d+<", f"<total_steps>{STEPS}<", text)
    (tmp_path / "input.xml").write_text(text)
    (tmp_path / "formaldehyde.xyz").write_text((EXAMPLES / "formaldehyde.xyz").read_text())
    processes = Processes(tmp_path)
    try:
        ipi = processes.ipi()
        processes.drive("model.pt", "--unix", "field", "--bec", "on", template="formaldehyde.xyz")
        finish(ipi)
    finally:
        processes.stop()
    found = np.loadtxt(tmp_path / "field.out")[:, 5:]
    expected, without = by_hand(model, 1.0), by_hand(model, 0.0)
    assert found.shape == expected.shape
    moved = np.abs(expected - without).max()
    assert moved > 5e-3  # Å
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 if dtype == "float64" else 2e-5)
