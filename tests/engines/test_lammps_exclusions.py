"""Atoms excluded from everything do not count; pairs missing between atoms that count are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mlplugins.model_file.card import ModelCard
from mlplugins.model_file.write import save
from mlplugins.models import lennard_jones

from .conftest import CUTOFF, EPSILON, SIGMA
from .lammps_tools import errors_of, printed

pytestmark = pytest.mark.usefixtures("native_build", "warm_start")

CRYSTAL = [
    "units metal",
    "atom_style atomic",
    "atom_modify map yes first left",
    "lattice fcc 5.3",
    "region box block 0 3 0 3 0 3",
    "create_box 2 box",
    "create_atoms 1 box",
    "mass 1 39.948",
    "mass 2 83.798",
    "set group all type/ratio 2 0.4 77",
    "displace_atoms all random 0.15 0.15 0.15 5 units box",
    "region half block INF 1.4 INF INF INF INF",
    "group left region half",
    "group right subtract all left",
    "group argon type 1",
    "group krypton type 2",
    "group nobody empty",
]
# a sum over the atoms that are not taken out, which sees a wrong force on any of them
PRINT = [
    "variable f atom (fx*x+2*fy*y+3*fz*z)",
    "compute f {} reduce sum v_f",
    "thermo_style custom step pe c_f",
    "run 0",
    'print "RES $(pe) $(c_f)"',
]


def measured(group: str) -> list[str]:
    return [line.format(group) for line in PRINT]


def crystal(pair: list[str], command: str, group: str = "all") -> list[str]:
    return [*CRYSTAL, *pair, command, *measured(group)]


@pytest.fixture(scope="module")
def mixture(tmp_path_factory) -> Path:
    """Lennard-Jones, truncated as lj/cut is."""
    path = tmp_path_factory.mktemp("mixture") / "mixture.pt"
    parameters = {"epsilon": [EPSILON, 0.014], "sigma": [SIGMA, 3.65], "cutoff": CUTOFF, "onset": 0.9999999}
    model = lennard_jones.Model(["Ar", "Kr"], lennard_jones.Hyperparameters(**parameters))
    save(model, path, ModelCard("lennard-jones", ["Ar", "Kr"], [-1.0, -3.0]), "float64")
    return path


def ours(model: Path, keywords: str = "") -> list[str]:
    return [f"pair_style mlplugins {model} {keywords}", "pair_coeff * * Ar Kr"]


STOCK = [
    f"pair_style lj/cut {CUTOFF}",
    "pair_modify mix arithmetic",
    f"pair_coeff 1 1 {EPSILON} {SIGMA}",
    "pair_coeff 2 2 0.014 3.65",
]

TAKEN_OUT = {  # command: group that is left
    "neigh_modify exclude group left all": "right",
    "neigh_modify exclude group all right": "left",
    "neigh_modify exclude type 1 1 exclude type 1 2": "krypton",
    "neigh_modify include left": "left",
}


def assert_taken_out(folder: Path, pair: list[str], ranks: int, commands: dict[str, str] = TAKEN_OUT) -> None:
    """Excluded altogether is the same as deleted."""
    decks = {}
    for command, left in commands.items():
        gone = {"right": "left", "left": "right", "krypton": "argon"}[left]
        decks[command] = crystal(pair, command, left)
        decks[f"without {gone}"] = crystal(pair, f"delete_atoms group {gone} compress no", left)
    values, _ = printed(folder, decks, ranks)
    for command, left in commands.items():
        gone = {"right": "left", "left": "right", "krypton": "argon"}[left]
        expected = values[f"without {gone}"]
        np.testing.assert_allclose(values[command], expected, rtol=1e-10, atol=1e-8, err_msg=command)


def test_atoms_excluded_from_everything(tmp_path, passing_model):
    assert_taken_out(tmp_path, ours(passing_model), 1)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["exchange", "ghost"])
def test_atoms_excluded_from_everything_on_two_ranks(tmp_path, passing_model, mode):
    # LAMMPS itself has no neighbours of ghosts with `include`
    commands = {c: left for c, left in TAKEN_OUT.items() if mode != "ghost" or "include" not in c}
    assert_taken_out(tmp_path, ours(passing_model, f"mode {mode}"), 2, commands)


INTERACTING = {
    "group": "neigh_modify exclude group left left",
    "groups": "neigh_modify exclude group left right",
    "type": "neigh_modify exclude type 1 2",
}


def test_a_sum_over_pairs_may_lack_some(tmp_path, mixture):
    """Lennard-Jones with missing pairs is what lj/cut makes of them."""
    decks = {}
    for name, command in INTERACTING.items():
        decks[f"stock {name}"] = crystal(STOCK, command)
        decks[name] = crystal(ours(mixture), command)
    values, _ = printed(tmp_path, decks)
    composition = -1.0 * 65 - 3.0 * 43
    for name in INTERACTING:
        values[name][:, 0] -= composition
        np.testing.assert_allclose(values[name], values[f"stock {name}"], rtol=1e-9, err_msg=name)


def molecules(pair: list[str], *commands: str, ids: str = "set group left mol 1") -> list[str]:
    head = [line.replace("atom_style atomic", "atom_style molecular") for line in CRYSTAL]
    return [*head, "variable id atom id", ids, *pair, *commands, *measured("all")]


def bonded(pair: list[str], special: str, second: int = 2, *commands: str) -> list[str]:
    """Two bonded atoms of types 1 and `second` among argon."""
    return [
        "units metal",
        "atom_style bond",
        "lattice fcc 5.3",
        "region box block 0 3 0 3 0 3",
        "create_box 3 box bond/types 1 extra/bond/per/atom 4 extra/special/per/atom 30",
        "create_atoms 1 box",
        f"set atom 1 type {3 if second == 3 else 1}",
        f"set atom 2 type {second}",
        "mass 1 39.948",
        "mass 2 83.798",
        "mass 3 20",
        *pair,
        f"special_bonds lj/coul {special}",
        "bond_style zero nocoeff",
        "bond_coeff 1",
        *commands,
        "create_bonds single/bond 1 1 2",
        *measured("all"),
    ]


def hybrid(model: Path, *coeffs: str, keywords: str = "") -> list[str]:
    return [f"pair_style hybrid mlplugins {model} {keywords} lj/cut 6.5", *coeffs]


def test_missing_pairs_are_refused(tmp_path, passing_model):
    """Every command that takes pairs off the list is named with its override, which is heeded."""
    pair, both = ours(passing_model), "pair_coeff * * mlplugins Ar Kr"
    null = "pair_coeff * * mlplugins Ar Kr NULL"
    allow = ours(passing_model, "exclusions allow")
    decks = {name: crystal(pair, command) for name, command in INTERACTING.items()}
    decks |= {f"allowed {name}": crystal(allow, command) for name, command in INTERACTING.items()}
    decks["intra"] = molecules(pair, "neigh_modify exclude molecule/intra all")
    decks["inter"] = molecules(pair, "neigh_modify exclude molecule/inter all")
    decks["hybrid"] = crystal(hybrid(passing_model, both, "pair_coeff 2 2 lj/cut 0.014 3.65"), "")
    decks["special"] = bonded(hybrid(passing_model, null, "pair_coeff * 3 lj/cut 0.01 3.4"), "0 0 0")
    decks["types"] = [
        *bonded(hybrid(passing_model, null, "pair_coeff * 3 lj/cut 0.01 3.4"), "1 1 1"),
        "set atom 3 type 3",
        "run 1 pre no",
    ]
    errors = errors_of(tmp_path, decks)
    expected = {
        **dict.fromkeys(
            ("group", "groups", "type", "intra", "inter"), "neigh_modify exclude leaves out the pair"
        ),
        "hybrid": "pair_style hybrid, which gives types 2 and 2 to another style, leaves out the pair",
        "special": "use 'special_bonds lj/coul 1 1 1'",
        "types": "atom 3 changed between a type of the model and a NULL type",
    }
    assert set(errors) == set(expected)
    for name, text in expected.items():
        assert text in errors[name], name
    for name in (*INTERACTING, "intra", "inter", "hybrid"):
        assert "`exclusions allow` on the pair_style line accepts it" in errors[name], name


def test_harmless_rules_are_not_refused(tmp_path, passing_model):
    """Groups without atoms or out of reach, molecules of one atom, bonds that do not concern the model."""
    pair = ours(passing_model)
    apart = [line for line in CRYSTAL if not line.startswith(("region half", "region box", "create_atoms"))]
    apart[4:4] = ["region box block 0 3 0 3 0 12"]
    apart[6:6] = [
        "region one block 0 3 0 3 1 2.9",
        "region two block 0 3 0 3 7 8.9",
        "create_atoms 1 region one",
        "create_atoms 1 region two",
        "region half block INF INF INF INF INF 5",
    ]
    # 5.3 Å and a little: beyond the cutoff of 5 Å, within its skin
    moved = {"two block 0 3 0 3 7 8.9": "two block 0 3 0 3 3.4 5.4", "INF INF 5": "INF INF 3"}
    near = apart
    for old, new in moved.items():
        near = [line.replace(old, new) for line in near]
    null = "pair_coeff * * mlplugins Ar Kr NULL"
    water = hybrid(passing_model, null, "pair_coeff * 3 lj/cut 0.01 3.4")
    decks = {
        "all": crystal(pair, ""),
        "empty": crystal(pair, "neigh_modify exclude group nobody left"),
        "apart": [*apart, *pair, *measured("all")],
        "apart and excluded": [*apart, *pair, "neigh_modify exclude group left right", *measured("all")],
        "near": [*near, *pair, *measured("all")],
        "near and excluded": [*near, *pair, "neigh_modify exclude group left right", *measured("all")],
        "atoms": molecules(pair, ids="set group all mol v_id"),
        "atoms and excluded": molecules(
            pair, "neigh_modify exclude molecule/intra all", ids="set group all mol v_id"
        ),
        "bonds": bonded(water, "1 1 1", 3),
        "bonds of others": bonded(water, "0 1 1", 3),
    }
    values, _ = printed(tmp_path, decks)
    np.testing.assert_allclose(values["empty"], values["all"], rtol=1e-12)
    np.testing.assert_allclose(values["apart and excluded"], values["apart"], rtol=1e-12)
    np.testing.assert_allclose(values["near and excluded"], values["near"], rtol=1e-12)
    np.testing.assert_allclose(values["atoms and excluded"], values["atoms"], rtol=1e-12)
    # lj/cut alone feels the missing bonded pair
    pair_energy = 4 * 0.01 * ((3.4 / 3.7477) ** 12 - (3.4 / 3.7477) ** 6)
    assert values["bonds"][0, 0] - values["bonds of others"][0, 0] == pytest.approx(pair_energy, rel=1e-4)
