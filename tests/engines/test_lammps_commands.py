"""LAMMPS commands that evaluate the potential their own way: right (as `lj/cut` is), or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from .conftest import CUTOFF, EPSILON, SIGMA, write_lennard_jones
from .lammps_tools import errors_of, printed

pytestmark = pytest.mark.usefixtures("native_build", "warm_start")

E0 = -15.0
CRYSTAL = [
    "units metal",
    "atom_style atomic",
    "atom_modify map yes",
    "lattice fcc 5.4",
    "region box prism 0 3 0 3 0 3 0.3 0.2 0.4",
    "create_box 2 box",
    "create_atoms 1 box",
    "mass 1 39.948",
    "mass 2 83.798",
    "set group all type/ratio 2 0.4 77",
    "displace_atoms all random 0.15 0.15 0.15 5 units box",
    "group some id < 20",
]
ARGON = [line.replace("create_box 2", "create_box 1") for line in CRYSTAL if "2 83.798" not in line]
ARGON.remove("set group all type/ratio 2 0.4 77")
STOCK = [f"pair_style lj/cut {CUTOFF}", f"pair_coeff 1 1 {EPSILON} {SIGMA}"]


@pytest.fixture(scope="module")
def argon(tmp_path_factory) -> Path:
    """Lennard-Jones, truncated as lj/cut is, with an energy of isolated atoms."""
    path = tmp_path_factory.mktemp("argon") / "argon.pt"
    return write_lennard_jones(path, baseline=E0, onset=0.9999999)


def ours(model: Path, keywords: str = "", elements: str = "Ar Kr") -> list[str]:
    return [f"pair_style mlplugins {model} {keywords}", f"pair_coeff * * {elements}"]


REFUSED = {
    "group/group": (["compute x some group/group all"], "c_x", "does not support compute group/group"),
    "pair/local": (
        ["compute l all pair/local eng", "compute x all reduce sum c_l inputs local"],
        "c_x",
        "does not support compute pair/local",
    ),
    "force/tally": (["compute x some force/tally all"], "c_x", "compute force/tally adds up pairs"),
    "pe/tally": (["compute x some pe/tally all"], "c_x", "compute pe/tally adds up pairs"),
    "heat/flux/tally": (["compute x all heat/flux/tally all"], "c_x[1]", "heat/flux/tally adds up pairs"),
    "stress/mop": (
        ["compute x all stress/mop x center pair"],
        "c_x[1]",
        "does not support compute stress/mop",
    ),
    "born": (["compute x all born/matrix"], "c_x[1]", "does not support compute born/matrix"),
    "pair_write": (["pair_write 1 1 10 r 3 6 table.txt X"], "pe", "does not support pair_write"),
    "respa": (
        ["run_style respa 2 2 inner 1 3 4 outer 2"],
        "pe",
        "does not support rRESPA inner/middle/outer",
    ),
    "scale": (
        ["variable l equal 0.25", "fix a all adapt 1 pair mlplugins scale 1 2 v_l"],
        "pe",
        "scale 0.25 for types 1 2 but 1 for others; a many-body energy has one scale: use * *",
    ),
}


def test_pairwise_commands_are_refused(tmp_path, passing_model):
    """They would divide an energy of many bodies among pairs, or read zero."""
    orthogonal = [line.replace("prism 0 3 0 3 0 3 0.3 0.2 0.4", "block 0 3 0 3 0 3") for line in CRYSTAL]
    decks = {
        name: [*orthogonal, *ours(passing_model), *lines, f"thermo_style custom step pe {value}", "run 0"]
        for name, (lines, value, _) in REFUSED.items()
    }
    errors = errors_of(tmp_path, decks)
    assert set(errors) == set(REFUSED)
    for name, (_, _, text) in REFUSED.items():
        assert text in errors[name], name


def test_finite_differences_of_lammps(tmp_path, passing_model):
    """fix numdiff and numdiff/virial move atoms and ghosts without new neighbour lists."""
    deck = [
        *CRYSTAL,
        *ours(passing_model),
        "fix n some numdiff 1 1e-4",
        "fix v all numdiff/virial 1 1e-5",
        "variable d atom sqrt((f_n[1]-fx)^2+(f_n[2]-fy)^2+(f_n[3]-fz)^2)",
        "compute d some reduce max v_d",
        "compute f some reduce max fx",
        "thermo_style custom step pe c_d c_f pxx pyy pzz pyz pxz pxy f_v[*]",
        "run 0",
        'print "RES $(c_d) $(c_f) 0 0 0 0"',
        'print "RES $(pxx) $(pyy) $(pzz) $(pyz) $(pxz) $(pxy)"',
        'print "RES $(f_v[1]) $(f_v[2]) $(f_v[3]) $(f_v[4]) $(f_v[5]) $(f_v[6])"',
    ]
    values, _ = printed(tmp_path, {"deck": deck})
    differences, pressure, numerical = values["deck"]
    worst, largest = differences[:2]
    assert largest > 0.01
    assert worst < 1e-6
    np.testing.assert_allclose(numerical, pressure, rtol=1e-4, atol=1e-2)


def test_alchemy(tmp_path, argon, passing_model):
    """λ times the model's energy through fix adapt, compute fep, compute ti and pair_style hybrid/scaled."""
    measured = ["run 0", 'print "RES $(pe) $(pxx) {}"']

    def measure(
        pair: list[str], lines: list[str], value: str = "", crystal: list[str] = CRYSTAL
    ) -> list[str]:
        style = [f"thermo_style custom step pe pxx {value.replace('$(', '').replace(')', '')}"]
        return [*crystal, *pair, *lines, *style, *(line.format(value) for line in measured)]

    adapt = ["variable l equal 0.25", "fix a all adapt 1 pair mlplugins scale * * v_l"]
    fep = ["variable d equal -0.5", "compute f all fep 300 pair mlplugins scale * * v_d"]
    ti = ["variable l equal 0.5", "variable d equal 1", "compute t all ti {} 1 v_l v_d"]
    passing = ours(passing_model)
    scaled = [
        "variable l equal 0.25",
        "variable m equal 0.75",
        f"pair_style hybrid/scaled v_l mlplugins {passing_model} v_m lj/cut {CUTOFF}",
        "pair_coeff * * mlplugins Ar Kr",
        f"pair_coeff * * lj/cut {EPSILON} {SIGMA}",
    ]
    alone = [f"pair_style lj/cut {CUTOFF}", f"pair_coeff * * {EPSILON} {SIGMA}"]
    values, _ = printed(
        tmp_path,
        {
            "whole": measure(passing, []),
            "keyword": measure(ours(passing_model, "scale 0.25"), []),
            "adapt": measure(passing, adapt),
            "fep": measure(passing, fep, "$(c_f[1])"),
            "ti stock": measure(STOCK, [line.format("lj/cut") for line in ti], "$(c_t)", ARGON),
            "ti": measure(
                ours(argon, "baseline off", "Ar"), [line.format("mlplugins") for line in ti], "$(c_t)", ARGON
            ),
            "alone": measure(alone, []),
            "mixed": measure(scaled, []),
        },
    )
    whole = values["whole"][0]
    np.testing.assert_allclose(values["keyword"][0], 0.25 * whole, rtol=1e-10)
    np.testing.assert_allclose(values["adapt"][0], 0.25 * whole, rtol=1e-10)
    assert values["fep"][0, 2] == pytest.approx(-0.5 * whole[0], rel=1e-8)
    np.testing.assert_allclose(values["ti"], values["ti stock"], rtol=1e-10)
    np.testing.assert_allclose(values["mixed"][0], 0.25 * whole + 0.75 * values["alone"][0], rtol=1e-10)


def test_a_path_of_scales(tmp_path, argon):
    """λ from 0 to 1 during a run: dynamics as with the ε of lj/cut ramped."""
    head = [
        "velocity all create 60 11 loop geom",
        "timestep 0.002",
        "fix 1 all nve",
        "variable l equal ramp(0.0,1.0)",
    ]
    tail = [
        'fix p all print 5 "RES $(pe) $(ke) $(pxx)" screen yes',
        "thermo_style custom step pe ke pxx",
        "thermo 1",
        "run 30",
    ]
    epsilon = [f"variable e equal {EPSILON}*v_l", "fix a all adapt 1 pair lj/cut epsilon * * v_e"]
    scale = ["fix a all adapt 1 pair mlplugins scale * * v_l"]
    values, _ = printed(
        tmp_path,
        {
            "stock": [*ARGON, *STOCK, *head, *epsilon, *tail],
            "ours": [*ARGON, *ours(argon, "baseline off", "Ar"), *head, *scale, *tail],
        },
    )
    assert len(values["stock"]) > 5
    np.testing.assert_allclose(values["ours"], values["stock"], rtol=1e-9, atol=1e-8)


def test_rerun_and_respa(tmp_path, argon):
    """A trajectory evaluated again, and the pair style on an outer level of rRESPA."""
    run = [
        "velocity all create 60 11 loop geom",
        "timestep 0.002",
        "fix 1 all nve",
        "thermo_style custom step pe pxx",
        "thermo 5",
    ]
    show = 'fix p all print 5 "RES $(step) $(pe) $(pxx)" screen yes'
    dump = ["dump d all custom 5 {}.dump id type x y z", "dump_modify d format float %.16g"]
    pairs = {"stock": STOCK, "ours": ours(argon, "", "Ar")}
    decks = {}
    for name, pair in pairs.items():
        head = [*ARGON, *pair, *run]
        decks[f"{name} run"] = [*head, *(line.format(name) for line in dump), show, "run 20"]
        decks[f"{name} rerun"] = [*head, show, f"rerun {name}.dump dump x y z box yes"]
        decks[f"{name} respa"] = [*head, "run_style respa 2 2 pair 2", show, "run 10"]
    values, _ = printed(tmp_path, decks)
    n_atoms = 108
    for what in ("run", "rerun", "respa"):
        mine, stock = values[f"ours {what}"], values[f"stock {what}"]
        mine[:, 1] -= n_atoms * E0
        np.testing.assert_allclose(mine, stock, rtol=1e-7, atol=1e-6, err_msg=what)
    again, first = values["ours rerun"][:, :2], values["ours run"][:, :2]  # the pressure lacks the velocities
    assert len(again) >= 4
    np.testing.assert_allclose(again, first[: len(again)], rtol=0, atol=1e-8)


def test_tail_corrections_are_none(tmp_path, argon):
    """A model has no form beyond its cutoff that LAMMPS could integrate."""
    decks = {
        name: [*ARGON, *ours(argon, "", "Ar"), modify, "run 0", 'print "RES $(pe)"']
        for name, modify in {"plain": "", "tail": "pair_modify tail yes"}.items()
    }
    values, output = printed(tmp_path, decks)
    assert values["tail"] == values["plain"]
    assert output.count("pair_modify tail yes adds nothing") == 1
