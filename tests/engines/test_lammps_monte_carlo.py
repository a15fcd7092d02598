"""Monte Carlo fixes walk as with LAMMPS' own `lj/cut`: the same seed accepts the same moves."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from mlplugins.model_file.card import ModelCard
from mlplugins.model_file.write import save
from mlplugins.models import lennard_jones

from .conftest import CUTOFF, EPSILON, SIGMA, write_lennard_jones
from .lammps_tools import printed

pytestmark = pytest.mark.usefixtures("native_build", "warm_start")

PLAIN = 0.9999999  # onset of the switch: a plain truncation, as lj/cut has it
E0 = -15.0  # eV: exp(-E0/kT) is still a number at 300 K
STOCK = [f"pair_style lj/cut {CUTOFF}", f"pair_coeff 1 1 {EPSILON} {SIGMA}"]

GAS = [
    "units metal",
    "atom_style atomic",
    "atom_modify map yes",
    "region box block 0 22 0 22 0 22",
    "create_box 1 box",
    "create_atoms 1 random 12 7 box overlap 3.4 maxtry 500",
    "mass 1 39.948",
]
PRINT = 'fix p all print 1 "RES $(atoms) $(pe) {}" screen yes'


def ours(model: Path, keywords: str = "") -> list[str]:
    return [f"pair_style mlplugins {model} {keywords}", "pair_coeff * * Ar"]


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("argon")
    energies = {"zero": 0.0, "small": -2.0, "large": E0, "huge": -2000.0}
    return {
        name: write_lennard_jones(folder / f"{name}.pt", baseline=energy, onset=PLAIN)
        for name, energy in energies.items()
    }


def gcmc(pair: list[str], mu: float, options: str = "", steps: int = 20) -> list[str]:
    fix = f"fix mc all gcmc 1 10 5 1 4711 300.0 {mu} 0.8 full_energy {options}"
    moves = " ".join(f"$(f_mc[{k}])" for k in (2, 4, 6))
    return [*GAS, *pair, fix, PRINT.format(moves), f"run {steps}"]


def assert_same_walk(
    walk: np.ndarray, stock: np.ndarray, energy: float = 0.0, tolerance: float = 1e-8
) -> None:
    """Columns: atoms, potential energy, numbers of accepted moves."""
    assert len(np.unique(stock[:, 0])) > 5  # atoms come and go
    np.testing.assert_array_equal(walk[:, 0], stock[:, 0])
    np.testing.assert_array_equal(walk[:, 2:], stock[:, 2:])
    np.testing.assert_allclose(walk[:, 1] - energy * walk[:, 0], stock[:, 1], rtol=0, atol=tolerance)


MU = -0.3043


def test_gcmc(tmp_path, models):
    """An energy E0 of isolated atoms shifts the chemical potential and nothing else."""
    walks, _ = printed(
        tmp_path,
        {
            "stock": gcmc(STOCK, MU),
            "zero": gcmc(ours(models["zero"]), MU),
            "large": gcmc(ours(models["large"]), MU + E0),
            "huge": gcmc(ours(models["huge"], "baseline off"), MU),
            "stock pressure": gcmc(STOCK, 0.0, "pressure 50.0"),
            "pressure": gcmc(ours(models["huge"], "baseline off"), 0.0, "pressure 50.0"),
        },
    )
    assert_same_walk(walks["zero"], walks["stock"])
    assert_same_walk(walks["large"], walks["stock"], E0)
    assert_same_walk(walks["huge"], walks["stock"])
    assert_same_walk(walks["pressure"], walks["stock pressure"])


@pytest.mark.slow
def test_gcmc_on_two_ranks(tmp_path, models):
    decks = {"stock": gcmc(STOCK, MU), "ours": gcmc(ours(models["large"]), MU + E0)}
    walks, _ = printed(tmp_path, decks, ranks=2)
    assert_same_walk(walks["ours"], walks["stock"], E0)


DIMER = """# argon dimer

2 atoms
1 bonds

Coords

1 -1.9 0.0 0.0
2 1.9 0.0 0.0

Types

1 1
2 1

Bonds

1 1 1 2
"""


def dimers(folder: Path, pair: list[str], bonded: int, intra: float) -> list[str]:
    (folder / "dimer.mol").write_text(DIMER)
    return [
        "units metal",
        "atom_style bond",
        "atom_modify map yes",
        "region box block 0 22 0 22 0 22",
        "create_box 1 box bond/types 1 extra/bond/per/atom 1 extra/special/per/atom 2",
        "bond_style zero nocoeff",
        "bond_coeff 1",
        f"special_bonds lj/coul {bonded} 1 1",
        "molecule dimer dimer.mol",
        "create_atoms 0 random 10 7 box mol dimer 8 overlap 3.4 maxtry 500",
        "mass 1 39.948",
        "group gas type 1",
        *pair,
        f"fix mc gas gcmc 1 10 0 0 4711 300.0 -0.35 0.0 mol dimer full_energy intra_energy {intra!r}",
        PRINT.format("$(f_mc[4]) $(f_mc[6])"),
        "run 30",
    ]


def test_gcmc_of_molecules(tmp_path, models):
    """A molecule on trial deletion is gone with its inner energy, which `intra_energy` then stands for.

    lj/cut leaves bonded pairs out, so that its walk needs no such energy.
    """
    inner = 4.0 * EPSILON * ((SIGMA / 3.8) ** 12 - (SIGMA / 3.8) ** 6)
    walks, _ = printed(
        tmp_path,
        {
            "stock": dimers(tmp_path, STOCK, 0, 0.0),
            "ours": dimers(tmp_path, ours(models["huge"]), 1, inner + 2.0 * -2000.0),
        },
    )
    difference = -2000.0 + 0.5 * inner  # per atom
    assert_same_walk(walks["ours"], walks["stock"], difference, 1e-6)


def test_widom(tmp_path, models):
    """Excess chemical potential and its average Boltzmann factor; E0 shifts the first."""
    widom = ["fix w all widom 1 80 1 4711 300 full_energy", PRINT.format("$(f_w[1]) $(f_w[2])"), "run 3"]
    values, _ = printed(
        tmp_path,
        {
            "stock": [*GAS, *STOCK, *widom],
            "large": [*GAS, *ours(models["large"]), *widom],
            "off": [*GAS, *ours(models["huge"], "baseline off"), *widom],
        },
    )
    stock = values["stock"][-1, 2:]
    assert abs(stock[0]) > 1e-5
    np.testing.assert_allclose(values["off"][-1, 2:], stock, rtol=1e-8)
    assert values["large"][-1, 2] == pytest.approx(stock[0] + E0, abs=1e-8)


def test_widom_of_molecules(tmp_path, models):
    """As `test_widom`, of dimers, which bring their inner energy along."""
    inner = 4.0 * EPSILON * ((SIGMA / 3.8) ** 12 - (SIGMA / 3.8) ** 6)
    widom = [
        "fix w gas widom 1 60 0 4711 300 mol dimer full_energy intra_energy {}",
        PRINT.format("$(f_w[1]) $(f_w[2])"),
        "run 2",
    ]

    def deck(pair: list[str], bonded: int, intra: float) -> list[str]:
        return [*dimers(tmp_path, pair, bonded, 0.0)[:-3], widom[0].format(intra), *widom[1:]]

    values, _ = printed(
        tmp_path,
        {
            "stock": deck(STOCK, 0, 0.0),
            "ours": deck(ours(models["huge"], "baseline off"), 1, inner),
        },
    )
    stock = values["stock"][-1, 2:]
    assert abs(stock[0]) > 1e-5
    np.testing.assert_allclose(values["ours"][-1, 2:], stock, rtol=1e-7)


def test_charge_regulation(tmp_path, models):
    """Acid groups that dissociate and pairs of free ions, with inserted and deleted atoms of four types."""
    head = [line.replace("create_box 1", "create_box 4").replace("mass 1", "mass *") for line in GAS]
    head[1] = "atom_style charge"
    regulation = [
        "group acid type 1",
        "fix r all charge/regulation 2 3 acid_type 1 pH 7 pKa 7 pIp 1 pIm 1 lunit_nm 0.1 temp 300 nevery 1 "
        "nmc 20 seed 4711 tag yes",
        PRINT.format(" ".join(f"$(f_r[{k}])" for k in (1, 2, 3, 4, 7, 8))),
        "run 20",
    ]
    stock = [STOCK[0], STOCK[1].replace("1 1", "* *")]
    off = [line.replace("Ar", "Ar Ar Ar Ar") for line in ours(models["huge"], "baseline off")]
    walks, _ = printed(tmp_path, {"stock": [*head, *stock, *regulation], "off": [*head, *off, *regulation]})
    assert walks["stock"][-1, 3] > 5  # accepted
    np.testing.assert_array_equal(walks["off"][:, 0], walks["stock"][:, 0])
    np.testing.assert_array_equal(walks["off"][:, 2:], walks["stock"][:, 2:])
    np.testing.assert_allclose(walks["off"][:, 1], walks["stock"][:, 1], rtol=0, atol=1e-8)


MIXTURE = [
    "units metal",
    "atom_style atomic",
    "atom_modify map yes",
    "lattice fcc 5.4",
    "region box block 0 3 0 3 0 3",
    "create_box 2 box",
    "create_atoms 1 box",
    "mass 1 39.948",
    "mass 2 83.798",
    "set group all type/ratio 2 0.4 77",
    "displace_atoms all random 0.15 0.15 0.15 5 units box",
]


@pytest.mark.parametrize("options", ["", "semi-grand yes mu 0.0 {mu}"])
def test_atom_swap(tmp_path, options):
    """Types change without new neighbour lists; composition energies enter semi-grand moves as mu does."""
    parameters = {"epsilon": [EPSILON, 0.014], "sigma": [SIGMA, 3.65], "cutoff": CUTOFF, "onset": PLAIN}
    model = lennard_jones.Model(["Ar", "Kr"], lennard_jones.Hyperparameters(**parameters))
    save(model, tmp_path / "mix.pt", ModelCard("lennard-jones", ["Ar", "Kr"], [-1.0, -3.0]), "float64")
    stock = [
        f"pair_style lj/cut {CUTOFF}",
        "pair_modify mix arithmetic",
        f"pair_coeff 1 1 {EPSILON} {SIGMA}",
        "pair_coeff 2 2 0.014 3.65",
    ]
    ours = ["pair_style mlplugins mix.pt", "pair_coeff * * Ar Kr"]

    def swaps(pair: list[str], mu: float) -> list[str]:
        fix = "fix s all atom/swap 1 5 4711 300 types 1 2 " + options.format(mu=mu)
        return [
            *MIXTURE,
            *pair,
            fix,
            "variable krypton atom type==2",
            "compute krypton all reduce sum v_krypton",
            "thermo_style custom step pe c_krypton",
            PRINT.format("$(c_krypton) $(f_s[2])"),
            "thermo 1",
            "run 12",
        ]

    values, _ = printed(tmp_path, {"stock": swaps(stock, -0.05), "ours": swaps(ours, -2.05)})
    stock_walk, walk = values["stock"], values["ours"]
    assert stock_walk[-1, 3] > 5  # accepted
    np.testing.assert_array_equal(walk[:, 2:], stock_walk[:, 2:])
    composition = -1.0 * (walk[:, 0] - walk[:, 2]) - 3.0 * walk[:, 2]
    np.testing.assert_allclose(walk[:, 1] - composition, stock_walk[:, 1], rtol=0, atol=1e-8)


def test_atoms_that_come_and_go(tmp_path, models):
    """fix deposit and fix evaporate in a run of molecular dynamics."""
    moving = [
        "velocity all create 300 11 loop geom",
        "timestep 0.002",
        "fix 1 all nve",
        "region top block 0 22 0 22 11 22",
        "region low block 0 22 0 22 0 11",
        "fix in all deposit 20 1 5 123 region top near 3.4 attempt 200",
        "fix out all evaporate 7 1 low 321",
        PRINT.format("$(ke)"),
        "run 60",
    ]
    values, _ = printed(
        tmp_path, {"stock": [*GAS, *STOCK, *moving], "ours": [*GAS, *ours(models["large"]), *moving]}
    )
    assert len(np.unique(values["stock"][:, 0])) > 4
    walk = values["ours"]
    np.testing.assert_array_equal(walk[:, 0], values["stock"][:, 0])
    walk[:, 1] -= E0 * walk[:, 0]
    np.testing.assert_allclose(walk[:, 1:], values["stock"][:, 1:], rtol=0, atol=1e-8)


def test_zero_of_energy_is_said(tmp_path, models):
    """Which zero of energy chemical potentials have, and where LAMMPS' Boltzmann factors end."""
    cases = {
        "small": ours(models["small"]),
        "large": ours(models["large"]),
        "off": ours(models["large"], "baseline off"),
        "on": ours(models["large"], "baseline on"),
        "zero": ours(models["zero"]),
    }
    still = ["fix mc all gcmc 1 0 0 1 4711 300 -1 0 full_energy", "run 0"]
    _, output = printed(tmp_path, {name: [*GAS, *pair, *still] for name, pair in cases.items()})
    said = dict(zip(cases, re.split(r"^DECK .*$", output, flags=re.MULTILINE)))
    said = {name: re.sub(r"\s+", " ", text) for name, text in said.items()}
    reading = "fix gcmc: energies include composition energies ({} eV per atom at most), so that"
    assert reading.format(-2) in said["small"]
    assert "WARNING: fix gcmc" not in said["small"]
    assert "WARNING: " + reading.format(-15) in said["large"]
    limit = int(re.search(r"no number below (\d+) K", said["large"])[1])
    with np.errstate(over="ignore"):
        assert np.isinf(np.exp(-E0 / (8.617333e-5 * (0.98 * limit))))
        assert np.isfinite(np.exp(-E0 / (8.617333e-5 * limit)))
    assert "energies are counted from the composition energies (baseline off)" in said["off"]
    for name in ("off", "on", "zero"):
        assert "energies include" not in said[name]
