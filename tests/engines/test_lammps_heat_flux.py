"""`compute heat/flux`: that of `lj/cut`, whatever the composition energies; what it cannot do is said.

`compute mlplugins/heat/flux`: the same, and that of ASE for message passing, in every mode.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import units

from mlplugins import MLCalculator, committee
from mlplugins.engines.lammps.data import write_data
from mlplugins.engines.lammps.deck import DATA, deck_head
from mlplugins.model_file.card import ModelCard
from mlplugins.model_file.radial import RadialTables
from mlplugins.model_file.write import save
from mlplugins.models import lennard_jones, mace

from .conftest import CUTOFF, EPSILON, SIGMA, crystal
from .lammps_tools import errors_of, printed, velocities, write_nequip

pytestmark = pytest.mark.usefixtures("native_build", "warm_start")

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


def write_mace(path: Path, seed: int, **kinds: Any) -> Path:
    """One layer without tables: densities, or weights with the envelope, are made outside the convolution."""
    torch.manual_seed(seed)
    kinds |= {"cutoff": 5.0, "num_channels": 4, "l_max": 2, "correlation": 2, "num_interactions": 1}
    model = mace.Model(["Ar", "Kr"], mace.Hyperparameters(**kinds))
    card = ModelCard("mace", ["Ar", "Kr"], [0.0, 0.0], details={"hyperparameters": kinds})
    save(model, path, card, "float64", tables=RadialTables(None))
    return path


def test_centroid_virials_of_edges_that_share_their_weights(tmp_path):
    """Of one layer they make the exact flux, also of two models and of two in one file."""
    density = {"interaction_first": "RealAgnosticDensityResidual"}
    one, two = (write_mace(tmp_path / f"{seed}.pt", seed, **density) for seed in (1, 2))
    committee([one, two], tmp_path / "both.pt")
    models = {
        "density": ours(one),
        "envelope": ours(write_mace(tmp_path / "envelope.pt", 3, envelope_on_weights=True)),
        "two": ours(two),
        "files": ours(one, f"{two} out_freq 0"),
        "committee": ours(tmp_path / "both.pt", "out_freq 0"),
    }
    moving = [
        "velocity all create 40 4711 mom yes loop geom",
        "compute ke all ke/atom",
        "compute pe all pe/atom",
    ]
    stock = [f"compute stress all {STRESS} NULL virial", "compute stock all heat/flux ke pe stress"]
    decks = {name: exact([*MIXTURE, *pair, *moving, *stock], name="c_stock") for name, pair in models.items()}
    decks = {
        name: [x.replace("c_j[1]", "c_stock[1]") for x in deck if "mlplugins/heat" not in x]
        for name, deck in decks.items()
    }
    decks |= {
        f"exact {name}": exact([*MIXTURE, *models[name], *moving]) for name in ("density", "envelope", "two")
    }
    values, _ = printed(tmp_path, decks)
    exact_of = {name: values[f"exact {name}"] for name in ("density", "envelope", "two")}
    exact_of["files"] = exact_of["committee"] = (exact_of["density"] + exact_of["two"]) / 2
    for name, expected in exact_of.items():
        scale = np.abs(expected).max()
        assert np.abs(expected[:, :3] - expected[:, 3:]).max() > 0.01 * scale
        np.testing.assert_allclose(values[name], expected, rtol=0, atol=1e-8 * scale, err_msg=name)


def exact(lines: list[str], keywords: str = "", name: str = "c_j", steps: int = 0) -> list[str]:
    """Prints the six numbers of our own compute."""
    words = " ".join(f"$({name}[{k}]:%.16g)" for k in range(1, 7))
    return [
        *lines,
        f"compute j all mlplugins/heat/flux {keywords}",
        "fix 1 all nve",
        "timestep 0.004",
        "thermo_style custom step c_j[1]",
        "thermo 10",
        f'fix p all print 10 "RES {words}" screen yes',
        f"run {steps}",
    ]


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.exhaustive)])
def test_the_compute_is_that_of_lj_cut(tmp_path, ranks):
    """Total and convective part, along a run; with the composition energies only where they are asked for."""
    model = write_mixture(tmp_path / "absolute.pt", DFT)
    start, alike = (
        ["velocity all create 40 4711 mom yes loop geom"],
        ["velocity all set 1.0 0.0 0.0 units box"],
    )
    stock = [
        line for line in flux(STOCK, "stress/atom") if not line.startswith(("fix", "thermo", "run", "time"))
    ]
    stock[-1] = "compute stock all heat/flux ke pe stress"
    decks = {
        "stock": exact([*stock, *start, "variable j vector c_stock"], name="v_j", steps=20),
        "ours": exact([*MIXTURE, *ours(model), *start], steps=20),
        "baseline": exact([*MIXTURE, *ours(model), *alike], "baseline yes"),
        "none": exact([*MIXTURE, *ours(model), *alike]),
    }
    decks["stock"] = [line for line in decks["stock"] if "mlplugins" not in line]
    decks["stock"] = [line.replace("c_j[1]", "c_stock[1]") for line in decks["stock"]]
    values, _ = printed(tmp_path, decks, ranks)
    scale = np.abs(values["stock"]).max()
    assert values["stock"].shape == (3, 6)
    assert scale > 0.01
    np.testing.assert_allclose(values["ours"], values["stock"], rtol=0, atol=1e-8 * scale)
    assert np.abs(values["ours"][:, :3] - values["ours"][:, 3:]).max() > 0.01 * scale
    carried = values["baseline"] - values["none"]
    np.testing.assert_allclose(carried[0], [54 * sum(DFT), 0, 0] * 2, rtol=1e-12, atol=1e-8)


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_compute_is_that_of_ase_in_every_mode(tmp_path, ranks, passing_model, passing_model32):
    """Two layers in a skewed cell shorter than the range: fold, exchange and ghost; float32."""
    atoms = crystal(1)
    atoms.symbols[1:3] = "Kr"
    shear = np.array([[1.2, 0.0, 0.0], [0.2, 1.0, 0.0], [-0.1, 0.15, 1.1]])
    atoms.set_cell(atoms.cell.array @ shear, scale_atoms=True)
    v = velocities(atoms, 300)
    atoms.set_velocities(v / units.fs)
    found = MLCalculator(passing_model).heat_flux(atoms)
    expected = np.concatenate([found.total, found.convective]) * units.fs * 1e3  # eV Å/ps
    box = write_data(tmp_path / DATA, atoms, ["Ar", "Kr"], v)
    modes = ("fold", "exchange", "ghost") if ranks == 1 else ("exchange", "ghost")
    decks = {
        mode: exact(deck_head(passing_model, ["Ar", "Kr"], box.boundary, f"mode {mode}")) for mode in modes
    }
    decks["single"] = exact(deck_head(passing_model32, ["Ar", "Kr"], box.boundary, "mode exchange"))
    values, _ = printed(tmp_path, decks, ranks)
    expected = (expected.reshape(2, 3) @ box.rotation).ravel()
    scale = np.abs(expected).max()
    np.testing.assert_allclose(values["single"][0], expected, rtol=0, atol=1e-5 * scale)
    for mode in modes:
        both = values[mode][0] - expected
        np.testing.assert_allclose(both[:3] - both[3:], 0.0, rtol=0, atol=1e-8 * scale, err_msg=mode)
        # LAMMPS' unit of kinetic energy has eight digits
        np.testing.assert_allclose(both, 0.0, rtol=0, atol=1e-7 * scale, err_msg=mode)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_the_compute_is_the_same_on_any_number_of_ranks(tmp_path):
    """1 = 2 = 4 along a run: three layers in a skewed cell shorter than their range; exchange and ghost."""
    model = write_nequip(tmp_path / "deep.pt", layers=3)
    atoms = crystal(2)
    atoms.symbols[::3] = "Kr"
    shear = np.array([[1.1, 0.0, 0.0], [0.1, 1.0, 0.0], [-0.1, 0.1, 1.0]])
    atoms.set_cell(atoms.cell.array @ shear, scale_atoms=True)
    atoms.rattle(0.1, seed=3)
    box = write_data(tmp_path / DATA, atoms, ["Ar", "Kr"], velocities(atoms, 300))
    decks = {
        mode: exact(deck_head(model, ["Ar", "Kr"], box.boundary, f"mode {mode}"), steps=20)
        for mode in ("exchange", "ghost")
    }
    found = {ranks: printed(tmp_path, decks, ranks)[0] for ranks in (1, 2, 4)}
    expected = found[1]["exchange"]
    assert expected.shape == (3, 6)
    scale = np.abs(expected).max(axis=0)  # of each component: the potential part is the smaller one
    assert (np.abs(expected[2] - expected[0]) > 1e-3 * scale).all()
    for ranks, by_mode in found.items():
        for mode, values in by_mode.items():
            np.testing.assert_allclose(
                values / scale, expected / scale, atol=1e-10, err_msg=f"{mode} {ranks}"
            )


def test_a_step_with_forces_leaves_its_flux(tmp_path, passing_model):
    """Along a run J is made of what the forces left; a run begins with an evaluation of its own."""
    pair = [*MIXTURE, f"pair_style mlplugins {passing_model} mode exchange", "pair_coeff * * Ar Kr"]
    deck = exact([*pair, "velocity all create 40 4711 mom yes loop geom"], steps=10)
    values, _ = printed(tmp_path, {"both": [*deck, "run 0", "displace_atoms all move 0.1 0 0", "run 0"]})
    start, left, again, moved = values["both"]
    scale = np.abs(left).max()
    assert np.abs(left - start).max() > 1e-3 * scale
    np.testing.assert_allclose(again, left, rtol=0, atol=1e-12 * scale)
    np.testing.assert_allclose(moved, left, rtol=0, atol=1e-10 * scale)


def test_the_compute_refuses_what_it_would_miss(tmp_path, argon_model, passing_model):
    portable = write_nequip(tmp_path / "portable.pt", portable=True)
    one = [*MIXTURE, f"pair_style mlplugins {passing_model}", "pair_coeff * * Ar Kr"]
    both = [*MIXTURE, f"pair_style hybrid/overlay mlplugins {passing_model} zbl 2.0 2.5"]
    both += ["pair_coeff * * mlplugins Ar Kr", "pair_coeff * * zbl 18 18"]
    hidden = [*MIXTURE, f"pair_style mlplugins {portable}", "pair_coeff * * Ar Kr"]
    decks = {
        "group": [*one, "group g type 1", "compute j g mlplugins/heat/flux", "run 0"],
        "words": [*one, "compute j all mlplugins/heat/flux ke pe stress", "run 0"],
        "hybrid": [*both, "compute j all mlplugins/heat/flux", "run 0"],
        "stock": [*MIXTURE, *STOCK, "compute j all mlplugins/heat/flux", "run 0"],
        "portable": [*hidden, "compute j all mlplugins/heat/flux", "run 0"],
    }
    errors = errors_of(tmp_path, decks)
    assert "expected the group all, got 'g'" in errors["group"]
    assert "expected 'compute ID all mlplugins/heat/flux [baseline yes|no]'" in errors["words"]
    assert "expected pair_style mlplugins alone, got 'hybrid/overlay'" in errors["hybrid"]
    assert "expected pair_style mlplugins alone, got 'lj/cut'" in errors["stock"]
    assert "this portable file hides its messages" in errors["portable"]
