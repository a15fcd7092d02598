"""Terms beside a model, in LAMMPS against the host's own pair styles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from mlplugins.model_file.card import ModelCard
from mlplugins.model_file.write import save
from mlplugins.models import nequip, zbl
from mlplugins.models import sum as sums
from mlplugins.models.base import Potential
from mlplugins.testing.structures import standard_structures
from tests.models.d3_tables import filled

from .lammps_tools import TOLERANCE, assert_parity, deck, printed

pytestmark = pytest.mark.usefixtures("native_build", "warm_start")


def oxides() -> Atoms:
    """Pairs of Si and O from inside `inner` to beyond `outer`, in a sheared cell."""
    rng = np.random.default_rng(0)
    atoms = Atoms("SiO" * 6, cell=[[7, 0, 0], [0.6, 7.2, 0], [-0.4, 0.3, 6.8]], pbc=True)
    atoms.set_scaled_positions(rng.random((12, 3)))
    return atoms


def crystal() -> Atoms:
    """Coordination numbers as reference systems have them."""
    atoms = bulk("SiO", "zincblende", a=3.9, cubic=True)
    atoms.rattle(0.1, seed=1)
    atoms.set_cell(atoms.cell.array @ [[1, 0, 0], [0.1, 1, 0], [-0.05, 0.1, 1]], scale_atoms=True)
    return atoms


def results(n_atoms: int) -> list[str]:
    """Prints the pressure, the force on every atom, and the energy last."""
    rows = [("pxx", "pyy", "pzz"), ("pxy", "pxz", "pyz")]
    rows += [(f"fx[{k}]", f"fy[{k}]", f"fz[{k}]") for k in range(1, n_atoms + 1)]
    prints = [f'print "RES {" ".join(f"$({word}:%.15g)" for word in row)}"' for row in [*rows, ("pe", 0, 0)]]
    return ["thermo_style custom step pe pxx pyy pzz pxy pxz pyz", "run 0", *prints]


def compared(folder: Path, model: Potential, atoms: Atoms, stock: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """What `results` prints for a model of ours and for a pair style of LAMMPS."""
    elements = ["Si", "O"]
    save(model, folder / "model.pt", ModelCard("term", elements, [0.0, 0.0]), "float64")
    ours = ["atom_modify map array", *deck(folder, folder / "model.pt", atoms, elements=elements)]
    head = [line for line in ours if not line.startswith("pair_")]
    ends = results(len(atoms))
    found, _ = printed(folder, {"ours": [*ours, *ends], "stock": [*head, *stock, *ends]})
    return found["ours"], found["stock"]


def test_zbl_is_that_of_lammps(tmp_path):
    """Energy, pressure and forces of `pair_style zbl`: the same constants, the same switch."""
    model = zbl.Model(["Si", "O"], zbl.Hyperparameters(inner=1.1, outer=2.6))
    pairs = ["pair_coeff 1 1 14 14", "pair_coeff 1 2 14 8", "pair_coeff 2 2 8 8"]
    ours, stock = compared(tmp_path, model, oxides(), ["pair_style zbl 1.1 2.6", *pairs])
    assert stock[-1, 0] > 10.0
    np.testing.assert_allclose(ours, stock, rtol=1e-12, atol=1e-8)


def test_d3_is_that_of_lammps_but_for_the_smooth_end(tmp_path):
    """`dispersion/d3` cuts its sums; where ours do, too, the rest are the constants of LAMMPS (1e-6)."""
    model = filled(["Si", "O"], cutoff=9.0, cn_cutoff=7.0)
    model.counts.constants[2] = model.pairs.constants[2] = 1 - 1e-12
    style = ["pair_style dispersion/d3 bj pbe 9.0 7.0", "pair_coeff * * Si O"]
    ours, stock = compared(tmp_path, model, crystal(), style)
    assert stock[-1, 0] < -1.0
    np.testing.assert_allclose(ours, stock, rtol=3e-6, atol=1e-6)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A message-passing model of 4 Å with a repulsion and a dispersion of 6.5 Å."""
    elements = ["Si", "O"]
    with torch.random.fork_rng():
        torch.manual_seed(3)
        parameters = nequip.Hyperparameters(cutoff=4.0, num_layers=2, num_features=3, radial_mlp=[4])
        learned = nequip.Model(elements, parameters)
    repulsion = zbl.Model(elements, zbl.Hyperparameters(1.1, 2.6))
    dispersion = filled(elements, cutoff=6.5, cn_cutoff=5.0)
    path = tmp_path_factory.mktemp("sum") / "model.pt"
    model = sums.Model.of([learned, repulsion, dispersion])
    assert (model.cutoff, model.reach, model.exchange_width) == (6.5, 11.5, 3 + 3 * 3)
    save(model, path, ModelCard("sum", elements, [-1.0, -2.0]), "float64")
    return path


@pytest.mark.parametrize(("ranks", "mode"), [(1, "fold"), (1, "ghost"), (2, "exchange"), (2, "ghost")])
def test_the_sum_is_the_same_in_lammps(whole, ranks, mode):
    """Coordination numbers of ghosts are communicated, or computed within the whole range."""
    cases = {"small": oxides(), "crystal": standard_structures(["Si", "O"])["crystal"]}
    assert_parity(whole, cases, ranks, f"mode {mode}", TOLERANCE)
