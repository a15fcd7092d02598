"""`compute heat/flux`: that of `lj/cut`, whatever the composition energies; what it cannot do is said."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from mlplugins.model_file.card import ModelCard
from mlplugins.model_file.write import save
from mlplugins.models import lennard_jones

from .conftest import CUTOFF, EPSILON, SIGMA
from .lammps_tools import printed, write_nequip

pytestmark = pytest.mark.usefixtures("native_build")

DFT = [-200.0, -2000.0]  # eV, the size of absolute energies
MIXTURE = [
    "units metal",
    "atom_style atomic",
    "atom_modify map yes",
    "lattice fcc 5.45",
    "region box block 0 3 0 3 0 3",
    "create_box 2 box",
    "create_atoms 1 box",
    "mass 1 39.948",
    "mass 2 83.798",
    "set group all type/ratio 2 0.5 77",
]
STOCK = [
    f"pair_style lj/cut {CUTOFF}",
    "pair_modify mix arithmetic",
    f"pair_coeff 1 1 {EPSILON} {SIGMA}",
    "pair_coeff 2 2 0.014 3.65",
]
STRESS = "centroid/stress/atom"


def write_mixture(path: Path, baseline: list[float]) -> Path:
    """Lennard-Jones, truncated as lj/cut is."""
    parameters = {"epsilon": [EPSILON, 0.014], "sigma": [SIGMA, 3.65], "cutoff": CUTOFF, "onset": 0.9999999}
    model = lennard_jones.Model(["Ar", "Kr"], lennard_jones.Hyperparameters(**parameters))
    save(model, path, ModelCard("lennard-jones", ["Ar", "Kr"], baseline), "float64")
    return path


def ours(model: Path, keywords: str = "") -> list[str]:
    return [f"pair_style mlplugins {model} {keywords}", "pair_coeff * * Ar Kr"]


def flux(pair: list[str], stress: str = STRESS, steps: int = 20) -> list[str]:
    """Prints J, the potential energy and the sum of per-atom energies."""
    return [
        *MIXTURE,
        *pair,
        "velocity all create 40 4711 mom yes loop geom",
        "fix 1 all nve",
        "timestep 0.004",
        "compute ke all ke/atom",
        "compute pe all pe/atom",
        "compute sum all reduce sum c_pe",
        f"compute stress all {stress} NULL virial",
        "compute j all heat/flux ke pe stress",
        "thermo_style custom step pe c_sum c_j[1] c_j[2] c_j[3]",
        "thermo 1",
        'fix p all print 10 "RES $(c_j[1]) $(c_j[2]) $(c_j[3]) $(pe) $(c_sum)" screen yes',
        f"run {steps}",
    ]


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.exhaustive)])
def test_flux_of_lj_cut(tmp_path, ranks):
    """The flux of LAMMPS' own style, from a model whose energies are absolute ones."""
    zero = write_mixture(tmp_path / "zero.pt", [0.0, 0.0])
    absolute = write_mixture(tmp_path / "absolute.pt", DFT)
    values, output = printed(
        tmp_path,
        {
            "stock": flux(STOCK, "stress/atom"),
            "zero": flux(ours(zero)),
            "absolute": flux(ours(absolute)),
            "off": flux(ours(absolute, "baseline off")),
            "on": flux(ours(absolute, "atom_baseline on")),
        },
        ranks,
    )
    stock = values["stock"]
    scale = np.abs(stock[:, :3]).max()
    assert scale > 0.01
    for name in ("zero", "absolute", "off"):
        np.testing.assert_allclose(values[name][:, :3], stock[:, :3], rtol=0, atol=1e-8 * scale, err_msg=name)
    total = 54 * (DFT[0] + DFT[1])
    np.testing.assert_allclose(values["absolute"][:, 3] - total, stock[:, 3], rtol=0, atol=1e-8)
    np.testing.assert_allclose(values["absolute"][:, 4], stock[:, 4], rtol=0, atol=1e-8)
    np.testing.assert_allclose(values["off"][:, 3:], stock[:, 3:], rtol=0, atol=1e-8)
    np.testing.assert_allclose(values["on"][:, 3], values["on"][:, 4], rtol=1e-14)
    assert np.abs(values["on"][:, :3]).max() > 1000.0 * scale  # what the switch keeps away
    notes = re.findall(r"compute heat/flux: per-atom energies leave out the composition energies", output)
    assert len(notes) == 1


def test_per_atom_energies_without_a_flux(tmp_path):
    """They add up to the energy, composition energies included."""
    absolute = write_mixture(tmp_path / "absolute.pt", DFT)
    deck = [line for line in flux(ours(absolute)) if "heat/flux" not in line]
    deck = [line.replace("c_j[1]", "0").replace("c_j[2]", "0").replace("c_j[3]", "0") for line in deck]
    deck = [line.replace("c_sum 0 0 0", "c_sum") for line in deck]
    values, output = printed(tmp_path, {"deck": deck})
    np.testing.assert_allclose(values["deck"][:, 3], values["deck"][:, 4], rtol=1e-14)
    assert "leave out the composition energies" not in output


def said(output: str, decks: list[str]) -> dict[str, str]:
    parts = re.split(r"^DECK .*$", output, flags=re.MULTILINE)
    return {name: re.sub(r"\s+", " ", text) for name, text in zip(decks, parts)}


def test_limits_are_said(tmp_path):
    """The wrong virial, and messages between atoms; a model of one layer with the right one is silent."""
    deep, flat = write_nequip(tmp_path / "deep.pt"), write_nequip(tmp_path / "flat.pt", layers=1)
    decks = {
        "flat": flux(ours(flat), steps=0),
        "deep": flux(ours(deep), steps=0),
        "stress": flux(ours(flat), "stress/atom", steps=0),
    }
    _, output = printed(tmp_path, decks)
    text = said(output, list(decks))
    # of the two warnings, which ones
    messages, virial = "leaves out the energy that the messages", "use compute centroid/stress/atom"
    found = {name: (messages in part, virial in part) for name, part in text.items()}
    assert found == {"flat": (False, False), "deep": (True, False), "stress": (False, True)}
