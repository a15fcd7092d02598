"""Monte Carlo in LAMMPS samples the closed forms, and moves cost what independent evaluations say."""

from __future__ import annotations

from pathlib import Path

import ase.build
import ase.io
import numpy as np
import pytest
from ase import Atoms, units

from mlplugins import MLCalculator
from mlplugins.model_file.card import ModelCard
from mlplugins.model_file.write import save
from mlplugins.models import lennard_jones

from .conftest import EPSILON, SIGMA, write_lennard_jones
from .lammps_tools import deck, printed, start

pytestmark = pytest.mark.usefixtures("native_build", "warm_start")

CUTOFF, PLAIN = 5.0, 0.9999999  # a plain truncation, as the closed forms have it
E0 = {"Ar": -1.5, "Kr": -3.0}
PARAMETERS = {"epsilon": [EPSILON, 0.014], "sigma": [SIGMA, 3.65], "cutoff": CUTOFF, "onset": PLAIN}
SIGMAS = 4.5
"""Standard errors within which a mean must lie: once in 150,000 runs it does not."""

HEAD = ["units metal", "atom_style atomic", "atom_modify map yes"]


@pytest.fixture(scope="module")
def mixture(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("mixture") / "mixture.pt"
    model = lennard_jones.Model(["Ar", "Kr"], lennard_jones.Hyperparameters(**PARAMETERS))
    save(model, path, ModelCard("lennard-jones", ["Ar", "Kr"], list(E0.values())), "float64")
    return path


def pair_energy(a: str, b: str, r: float | np.ndarray) -> float | np.ndarray:
    """Lennard-Jones with Lorentz–Berthelot mixing, eV."""
    of = {"Ar": (EPSILON, SIGMA), "Kr": (0.014, 3.65)}
    epsilon = np.sqrt(of[a][0] * of[b][0])
    x = (0.5 * (of[a][1] + of[b][1]) / r) ** 6
    return np.where(r < CUTOFF, 4.0 * epsilon * (x * x - x), 0.0)


def standard_error(chain: np.ndarray, values: np.ndarray, n: int) -> tuple[float, float]:
    """Mean of `values` over the stationary state of a Markov chain, and the error of a mean of n steps.

    Args:
        chain: (S, S), row-stochastic.
        values: (S,) of each state.
        n: steps.
    """
    size = len(values)
    left = np.vstack([chain.T - np.eye(size), np.ones(size)])
    p = np.linalg.lstsq(left, np.append(np.zeros(size), 1.0), rcond=None)[0]
    mean = p @ values
    # σ² = Σ_t cov(t) from the fundamental matrix of the chain
    z = np.linalg.inv(np.eye(size) - chain + np.outer(np.ones(size), p))
    d = values - mean
    return float(mean), float(np.sqrt((2 * p * d @ z @ d - p @ d**2) / n))


IDEAL_N, IDEAL_T, IDEAL_ATTEMPTS = 3.0, 300.0, 5


def ideal_gas(model: Path, side: float, steps: int, keywords: str = "", shift: float = 0.0) -> list[str]:
    mass = 39.948 * units._amu
    kt = units.kB * IDEAL_T
    wavelength = units._hplanck / np.sqrt(2 * np.pi * mass * kt * units._e) * 1e10  # Å
    mu = float(kt * np.log(IDEAL_N * wavelength**3 / side**3)) + shift
    return [
        *HEAD,
        f"region box block 0 {side} 0 {side} 0 {side}",
        "create_box 1 box",
        "create_atoms 1 random 3 7 box overlap 2.0 maxtry 500",
        "mass 1 39.948",
        f"pair_style mlplugins {model} {keywords}",
        "pair_coeff * * Ar",
        f"fix mc all gcmc 1 {IDEAL_ATTEMPTS} 0 1 4711 {IDEAL_T} {mu!r} 0 full_energy",
        'fix p all print 1 "RES $(atoms)" screen yes',
        "thermo 100000",
        f"run {steps}",
    ]


def assert_poisson(numbers: np.ndarray) -> None:
    """N and N² as the birth–death chain of `fix gcmc` has them, whose stationary state is Poisson."""
    top = 25
    move = np.zeros((top, top))
    for n in range(top):
        if n + 1 < top:
            move[n, n + 1] = 0.5 * min(1.0, IDEAL_N / (n + 1))
        if n > 0:
            move[n, n - 1] = 0.5 * min(1.0, n / IDEAL_N)
        move[n, n] = 1.0 - move[n].sum()
    chain = np.linalg.matrix_power(move, IDEAL_ATTEMPTS)
    states = np.arange(top, dtype=float)
    for values, closed in ((states, IDEAL_N), (states**2, IDEAL_N + IDEAL_N**2)):
        mean, error = standard_error(chain, values, len(numbers))
        assert mean == pytest.approx(closed, rel=1e-9)  # <N> = V exp(βμ)/Λ³
        assert np.mean(values[numbers]) == pytest.approx(closed, abs=SIGMAS * error)
        assert SIGMAS * error < 0.35 * closed  # a factor of two, or a wrong Λ, would be seen


@pytest.fixture(scope="module")
def ideal(tmp_path_factory) -> Path:
    """Argon without interaction worth the name."""
    return write_lennard_jones(
        tmp_path_factory.mktemp("ideal") / "ideal.pt", epsilon=1e-12, cutoff=4.0, onset=PLAIN, baseline=-0.4
    )


def test_gcmc_of_an_ideal_gas(tmp_path, ideal):
    """With the composition energy in the chemical potential, and with `baseline off` without it."""
    decks = {
        "on": ideal_gas(ideal, 12.0, 1000, "baseline on", -0.4),
        "off": ideal_gas(ideal, 12.0, 1000, "baseline off"),
    }
    values, _ = printed(tmp_path, decks)
    for name in decks:
        assert_poisson(values[name][1:, 0].astype(int))
    np.testing.assert_array_equal(values["on"], values["off"])


@pytest.mark.exhaustive
@pytest.mark.parametrize("ranks", [1, 2])
def test_gcmc_of_an_ideal_gas_for_long(tmp_path, ideal, ranks):
    values, _ = printed(tmp_path, {"on": ideal_gas(ideal, 24.0, 40_000, "baseline on", -0.4)}, ranks)
    assert_poisson(values["on"][1:, 0].astype(int))


FIXED, SITES, LEVEL_T = [2.0, 2.0, 2.0], ([5.6, 2.0, 2.0], [12.0, 12.0, 12.0]), 100.0


def two_levels() -> tuple[float, float]:
    """Energies with argon and with krypton at the site next to the fixed krypton atom, without E0."""
    return float(pair_energy("Ar", "Kr", 3.6)), float(pair_energy("Kr", "Kr", 3.6))


def assert_boltzmann(lower: np.ndarray, gap: float) -> None:
    """Share of steps in the lower of two levels, from one Metropolis attempt per step."""
    up = np.exp(-gap / (units.kB * LEVEL_T))
    chain = np.array([[1.0 - up, up], [1.0, 0.0]])
    mean, error = standard_error(chain, np.array([1.0, 0.0]), len(lower))
    assert mean == pytest.approx(1.0 / (1.0 + up), rel=1e-12)
    assert lower.mean() == pytest.approx(mean, abs=SIGMAS * error)
    assert SIGMAS * error < 0.1 * mean


def test_atom_swap_between_two_levels(tmp_path, mixture):
    atoms = Atoms("KrArKr", [FIXED, *SITES], cell=[20.0] * 3, pbc=True)
    lines = [
        *deck(tmp_path, mixture, atoms, elements=["Ar", "Kr"]),
        "group sites id 2 3",
        f"fix s sites atom/swap 1 1 4711 {LEVEL_T} types 1 2 ke no",
        'fix p all print 1 "RES $(pe)" screen yes',
        "thermo 1",
        "run 1000",
    ]
    values, _ = printed(tmp_path, {"swap": lines})
    energies = values["swap"][1:, 0] - (E0["Ar"] + 2 * E0["Kr"])
    argon, krypton = two_levels()
    is_lower = np.abs(energies - min(argon, krypton)) < 1e-8
    assert (is_lower | (np.abs(energies - max(argon, krypton)) < 1e-8)).all()
    assert_boltzmann(is_lower, abs(argon - krypton))


def test_semi_grand_swaps_of_one_atom(tmp_path, mixture):
    """Δμ = μ(Kr) − μ(Ar) includes the difference of the composition energies, unless `baseline off`."""
    gap = 0.006
    atoms = Atoms("Ar", [[3.0] * 3], cell=[12.0] * 3, pbc=True)
    shift = {"on": E0["Kr"] - E0["Ar"], "off": 0.0}
    decks = {
        choice: [
            *deck(tmp_path, mixture, atoms, f"baseline {choice}", ["Ar", "Kr"]),
            f"fix s all atom/swap 1 1 4711 {LEVEL_T} types 1 2 ke no semi-grand yes mu 0.0 {offset - gap!r}",
            "variable krypton atom type==2",
            "compute krypton all reduce sum v_krypton",
            "thermo_style custom step pe c_krypton",
            'fix p all print 1 "RES $(c_krypton)" screen yes',
            "thermo 1",
            "run 1000",
        ]
        for choice, offset in shift.items()
    }
    values, _ = printed(tmp_path, decks)
    for choice in decks:
        assert_boltzmann(values[choice][1:, 0] == 0.0, gap)


def test_widom_next_to_one_atom(tmp_path, mixture):
    """−kT ln<exp(−ΔU/kT)> by quadrature; exp(−E0/kT) would be no number here."""
    side, kt, n = 12.0, units.kB * LEVEL_T, 1500
    r = np.linspace(1e-3, CUTOFF, 20_001)
    factor = np.exp(-np.minimum(pair_energy("Ar", "Kr", r - 1e-12), 60.0) / kt)
    outside = 1.0 - 4.0 / 3.0 * np.pi * CUTOFF**3 / side**3
    mean, square = (outside + np.trapezoid(4 * np.pi * r**2 * factor**power, r) / side**3 for power in (1, 2))
    atoms = Atoms("Kr", [[4.0, 5.0, 6.0]], cell=[side] * 3, pbc=True)
    lines = [
        *deck(tmp_path, mixture, atoms, "baseline off", ["Ar", "Kr"]),
        f"fix w all widom 1 {n} 1 4711 {LEVEL_T} full_energy",
        'fix p all print 1 "RES $(f_w[1]) $(f_w[2])" screen yes',
        "run 1",
    ]
    values, _ = printed(tmp_path, {"widom": lines})
    mu, boltzmann = values["widom"][-1]
    error = np.sqrt((square - mean**2) / n)
    assert mean > 1.05  # it matters
    assert boltzmann == pytest.approx(mean, abs=SIGMAS * error)
    assert SIGMAS * error < 0.25 * mean
    assert mu == pytest.approx(-kt * np.log(boltzmann), rel=1e-5)


PLACE = np.array([1.3, 2.1, 0.7])


@pytest.mark.parametrize(
    ("ranks", "keywords"),
    [(1, "mode fold"), pytest.param(2, "mode exchange", marks=pytest.mark.slow),
     pytest.param(2, "mode ghost", marks=[pytest.mark.slow, pytest.mark.exhaustive])],
)  # fmt: skip
def test_insertions_cost_what_two_evaluations_say(tmp_path, passing_model, ranks, keywords):
    """Message passing: all other atoms change. One insertion, in a region too small to miss."""
    temperature = 3000.0
    atoms = ase.build.bulk("Ar", "fcc", a=5.3, cubic=True) * (2, 1, 1)
    atoms.symbols[3] = "Kr"
    atoms.rattle(0.2, seed=3)
    atoms.calc = MLCalculator(passing_model)
    more = atoms + Atoms("Kr", [PLACE])
    more.calc = atoms.calc
    expected = more.get_potential_energy() - atoms.get_potential_energy()
    low, high = PLACE - 1e-11, PLACE + 1e-11
    bounds = " ".join(f"{a!r} {b!r}" for a, b in zip(low.tolist(), high.tolist()))
    common = [
        f"region spot block {bounds}",
        f"fix w all widom 1 1 2 4711 {temperature} region spot full_energy",
        'fix p all print 1 "RES $(f_w[1])" screen yes',
        "run 2",
    ]
    plain = deck(tmp_path, passing_model, atoms, keywords, ["Ar", "Kr"])
    values, _ = printed(tmp_path, {"one": [*plain, *common]}, ranks)
    assert values["one"][-1, 0] == pytest.approx(expected, abs=1e-8)


@pytest.mark.slow
def test_energies_of_a_walk_on_two_ranks_are_those_of_its_frames(tmp_path, passing_model):
    """fix gcmc in the mode exchange: what is left after each step, evaluated from nothing by ASE."""
    atoms = ase.build.bulk("Ar", "fcc", a=5.3, cubic=True) * (2, 1, 1)
    atoms.rattle(0.2, seed=3)
    lines = [
        *deck(tmp_path, passing_model, atoms, "mode exchange baseline off", ["Ar", "Kr"]),
        "fix mc all gcmc 1 10 5 1 4711 3000.0 -1.0 0.4 full_energy overlap_cutoff 2.0",
        "dump d all custom 1 walk.dump id type x y z",
        "dump_modify d format float %.17g",
        'fix p all print 1 "RES $(atoms) $(pe)" screen yes',
        "thermo 1",
        "run 12",
    ]
    values, _ = printed(tmp_path, {"walk": lines}, ranks=2)
    frames = ase.io.read(tmp_path / "walk.dump", ":", format="lammps-dump-text", specorder=["Ar", "Kr"])
    assert len(set(map(len, frames))) > 3  # atoms come and go
    calculator = MLCalculator(passing_model)
    own = {"Ar": -1.0, "Kr": -2.0}
    for frame, (_, energy) in zip(frames[1:], values["walk"][1:]):
        frame.calc = calculator
        relative = frame.get_potential_energy() - sum(own[symbol] for symbol in frame.symbols)
        assert energy == pytest.approx(relative, abs=1e-8)


def crystal_of_two(cells: int) -> list[str]:
    return [
        *HEAD,
        "lattice fcc 5.4",
        f"region box block 0 {cells} 0 {cells} 0 {cells}",
        "create_box 2 box",
        "create_atoms 1 box",
        "mass 1 39.948",
        "mass 2 83.798",
        "set group all type/ratio 2 0.4 77",
        "displace_atoms all random 0.15 0.15 0.15 5 units box",
    ]


STOCK = ["pair_style lj/cut 5.0", "pair_modify mix arithmetic"]
STOCK += [f"pair_coeff 1 1 {EPSILON} {SIGMA}", "pair_coeff 2 2 0.014 3.65"]


def test_sgcmc(tmp_path, mixture):
    """As with `lj/cut`; its Δμ is μ(1) − μ(2), so that composition energies enter with the other sign."""
    ours = ["pair_coeff * * Ar Kr"]
    pairs = {
        "stock": (STOCK, 0.05),
        "on": ([f"pair_style mlplugins {mixture}", *ours], 0.05 + E0["Ar"] - E0["Kr"]),
        "off": ([f"pair_style mlplugins {mixture} baseline off", *ours], 0.05),
    }
    decks = {
        name: [
            *crystal_of_two(4),
            *pair,
            f"fix s all sgcmc 1 0.05 300 {mu!r} randseed 324234",
            "variable krypton atom type==2",
            "compute krypton all reduce sum v_krypton",
            "thermo_style custom step pe c_krypton",
            'fix p all print 1 "RES $(c_krypton) $(pe)" screen yes',
            "thermo 1",
            "run 6",
        ]
        for name, (pair, mu) in pairs.items()
    }
    values, _ = printed(tmp_path, decks)
    assert len(np.unique(values["stock"][:, 0])) > 3  # types change
    for name, own in (("on", E0), ("off", dict.fromkeys(E0, 0.0))):
        krypton, energies = values[name].T
        np.testing.assert_array_equal(krypton, values["stock"][:, 0])
        energies = energies - own["Ar"] * (256 - krypton) - own["Kr"] * krypton
        np.testing.assert_allclose(energies, values["stock"][:, 1], rtol=0, atol=1e-8)


def test_sgcmc_on_two_ranks_is_refused_by_lammps(tmp_path, mixture):
    """Its sum over the whole system is for one rank only: not silently wrong."""
    atoms = ase.build.bulk("Ar", "fcc", a=5.3, cubic=True) * (8, 4, 4)
    atoms.symbols[::3] = "Kr"
    head = deck(tmp_path, mixture, atoms, elements=["Ar", "Kr"])
    result = start(tmp_path, [*head, "fix s all sgcmc 1 0.05 300 0.0", "run 1"], ranks=2)
    assert result.returncode != 0
    assert "more than one MPI process" in result.stdout + result.stderr


def test_hybrid_monte_carlo_and_second_derivatives(tmp_path, mixture):
    """`fix hmc` keeps and restores a state, `dynamical_matrix` displaces atoms: both as with `lj/cut`."""
    ours = [f"pair_style mlplugins {mixture} baseline off", "pair_coeff * * Ar Kr"]
    decks = {}
    for name, pair in (("stock", STOCK), ("ours", ours)):
        decks[f"hmc {name}"] = [
            *crystal_of_two(2),
            *pair,
            "velocity all create 300 11 loop geom",
            "timestep 0.03",
            "fix 1 all nve",
            "fix h all hmc 10 4711 300",
            'fix p all print 10 "RES $(pe) $(f_h[1]) $(f_h[2])" screen yes',
            "thermo 10",
            "run 100",
        ]
        matrix = f"dynamical_matrix all regular 0.0001 file {name}.dat"
        decks[f"matrix {name}"] = [*crystal_of_two(1), *pair, "run 0", matrix]
    values, _ = printed(tmp_path, decks)
    stock, walk = values["hmc stock"], values["hmc ours"]
    assert 0 < stock[-1, 1] < 10  # some moves are rejected
    np.testing.assert_allclose(walk, stock, rtol=0, atol=1e-8)
    matrices = [np.loadtxt(tmp_path / f"{name}.dat") for name in ("stock", "ours")]
    np.testing.assert_allclose(matrices[1], matrices[0], rtol=0, atol=1e-6 * np.abs(matrices[0]).max())


@pytest.mark.exhaustive
@pytest.mark.parametrize("command", ["temper", "neb"])
def test_several_replicas(tmp_path, mixture, command):
    """Parallel tempering and a nudged elastic band of three processes: as with `lj/cut`."""
    ours = [f"pair_style mlplugins {mixture} baseline off", "pair_coeff * * Ar Kr"]
    logs = []
    for pair in (STOCK, ours):
        lines = [line.replace("atom_modify map yes", "atom_modify map array sort 0 0.0") for line in HEAD]
        lines += [*crystal_of_two(2)[len(HEAD) : -2], "timestep 0.01"]
        if command == "temper":
            moves = [
                "variable t world 60 90 120",
                "velocity all create $t 12345",
                "fix 1 all nvt temp $t $t 0.2",
            ]
            moves += ["thermo_style custom step temp pe", "thermo_modify format float %.8f", "thermo 20"]
            lines += [*pair, *moves, "temper 100 10 $t 1 3847 58382"]
        else:
            (tmp_path / "final.txt").write_text("1\n1 2.9 2.7 0.3\n")
            lines += ["group gone id 17", "delete_atoms group gone compress no", *pair, "fix 1 all neb 1.0"]
            lines += ["min_style quickmin", "thermo 50", "neb 0.0 0.002 100 50 25 final final.txt"]
        result = start(tmp_path, lines, 3, arguments=("-partition", "3x1"))
        assert result.returncode == 0, result.stdout[-2000:]
        rows = []
        for file in ("log.lammps", "log.lammps.0", "log.lammps.1", "log.lammps.2"):
            words = [line.split() for line in (tmp_path / file).read_text().splitlines()]
            rows += [[float(x) for x in w] for w in words if len(w) > 2 and all(map(_is_number, w))]
        logs.append(rows)
    assert len(logs[0]) > 10
    for stock, row in zip(*logs, strict=True):
        np.testing.assert_allclose(row, stock, rtol=1e-6, atol=1e-7)


def _is_number(word: str) -> bool:
    return word.replace(".", "", 1).replace("e-", "", 1).lstrip("-").isdigit()
