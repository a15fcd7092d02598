"""The deck of docs/properties.md: `fix box/relax` finds the cell that ASE's filter finds."""

import re
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS

from mlplugins import MLCalculator
from mlplugins.engines.lammps.single_point import run_structure

PAGE = Path(__file__).parents[2] / "docs" / "properties.md"


@pytest.mark.slow
@pytest.mark.usefixtures("native_build", "warm_start")
def test_the_cell_of_box_relax_is_that_of_ase(argon_model, tmp_path):
    """From another cell along each axis, with atoms off their places."""
    atoms = bulk("Ar", "fcc", a=5.3, cubic=True) * (2, 2, 2)
    atoms.set_cell(atoms.cell * [[0.99], [1.0], [1.015]], scale_atoms=True)
    atoms.rattle(0.03, seed=4)
    [deck] = re.findall(r"^```\n(fix +cell.*?)^```$", PAGE.read_text("utf-8"), re.M | re.S)
    commands = [
        "thermo_style custom step pe lx ly lz",
        "thermo_modify format float %.10g",
        *deck.splitlines(),
    ]
    finished, _ = run_structure(argon_model, atoms, [*commands, commands[-1]], tmp_path)
    last = finished.tables[-1]
    lengths = [last[name][-1] for name in ("Lx", "Ly", "Lz")]
    atoms.calc = MLCalculator(argon_model)
    BFGS(FrechetCellFilter(atoms, mask=[1, 1, 1, 0, 0, 0]), logfile=None).run(fmax=2e-6)
    np.testing.assert_allclose(lengths, atoms.cell.lengths(), rtol=0, atol=2e-4)
    assert last["PotEng"][-1] == pytest.approx(atoms.get_potential_energy(), abs=1e-5)
    assert np.ptp(lengths) < 2e-4  # cubic again
