"""The standard deviation of atomic energies in LAMMPS, through stock `fix pair`."""

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.io import read

from mlplugins import MLCalculator
from mlplugins.model_file.card import ModelCard
from mlplugins.model_file.write import save
from mlplugins.models import nequip, soap_gap
from mlplugins.structures.batch import graph_of
from mlplugins.training.solvers._soap_rows import whiten
from tests.engines.lammps_tools import errors_of, start, write_nequip

pytestmark = pytest.mark.usefixtures("native_build", "warm_start")

DECK = [
    "units metal",
    "atom_style atomic",
    "lattice fcc 3.6",
    "region box block 0 3 0 2 0 2",
    "create_box 1 box",
    "create_atoms 1 box",
    "displace_atoms all random 0.2 0.2 0.2 4711",
    "mass 1 63.546",
]
FIX = "fix u all pair 2 mlplugins uncertainty 1"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.pt"
    parameters = soap_gap.Hyperparameters(cutoff=4.0, n_max=3, l_max=2, two_body=4)
    potential = soap_gap.Model(["Cu"], parameters)
    atoms = bulk("Cu", cubic=True, a=3.6) * (2, 1, 1)
    atoms.rattle(0.1)
    x = graph_of(atoms, ["Cu"], 4.0)
    p = potential.features(x).detach()
    generator = torch.Generator().manual_seed(0)
    potential.set_sparse([p])
    with torch.no_grad():
        potential.weights.copy_(torch.randn(len(p), dtype=torch.float64, generator=generator))
    potential.whitening = whiten(potential.kernel(p, p), 1.0)
    potential.posterior = 0.1 * torch.randn(len(p), 5, dtype=torch.float64, generator=generator)
    potential.pair_posterior = 0.1 * torch.randn(4, 5, dtype=torch.float64, generator=generator)
    potential.prior_variance = torch.ones((), dtype=torch.float64)
    save(potential, path, ModelCard("soap-gap", ["Cu"], [0.0]), "float64")
    return path


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """Two layers, so that features cross the boundary between ranks, with some posterior."""
    potential = nequip.Model(["Cu"], nequip.Hyperparameters(cutoff=4.0, num_layers=2, num_features=4))
    potential.average_neighbors.fill_(20.0)
    generator = torch.Generator().manual_seed(1)
    factor = torch.randn(potential.feature_width, 3, dtype=torch.float64, generator=generator)
    potential.last_layer.set(factor, 0.01, 0.6, 0.02)
    path = tmp_path_factory.mktemp("network") / "model.pt"
    save(potential, path, ModelCard("nequip", ["Cu"], [0.0]), "float64")
    return path


@pytest.mark.parametrize(
    ("family", "ranks"),
    [("model", 1), pytest.param("model", 2, marks=pytest.mark.slow), ("network", 2)],
)
def test_dumped_uncertainty_is_that_of_ase(request, tmp_path, family, ranks):
    model = request.getfixturevalue(family)
    lines = [
        *DECK,
        f"pair_style mlplugins {model}",
        "pair_coeff * * Cu",
        FIX,
        "velocity all create 3000 1",
        "fix md all nve",
        "compute largest all reduce max f_u",
        "thermo_style custom step pe c_largest",
        "thermo 2",
        "dump d all custom 2 u.dump id element x y z f_u",
        'dump_modify d element Cu sort id format float "%.15g"',
        "run 4",
    ]
    done = start(tmp_path, lines, ranks)
    assert done.returncode == 0, done.stdout + done.stderr
    frames = read(tmp_path / "u.dump", index=":", format="lammps-dump-text")
    assert len(frames) == 3
    calculator = MLCalculator(model, skin=0.0)
    for atoms in frames:
        atoms.pbc = True
        expected = calculator.get_property("energies_uncertainty", atoms)
        assert np.ptp(expected) > 1e-3
        np.testing.assert_allclose(atoms.arrays["f_u"].ravel(), expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    ("ranks", "mode", "probes"),
    [
        pytest.param(1, "fold", 2, marks=pytest.mark.long),
        pytest.param(2, "exchange", 0, marks=pytest.mark.long),
        pytest.param(2, "ghost", 2, marks=pytest.mark.slow),
    ],
)
def test_dumped_force_uncertainty_is_that_of_ase(network, tmp_path, ranks, mode, probes):
    """The norm over the components, on the steps that are asked for; also with other units."""
    lines = [
        *DECK,
        f"pair_style mlplugins {network} probes {probes} mode {mode}",
        "pair_coeff * * Cu",
        "fix u all pair 2 mlplugins force_uncertainty 1",
        "velocity all create 3000 1",
        "fix md all nve",
        "dump d all custom 2 u.dump id element x y z f_u fx",
        'dump_modify d element Cu sort id format float "%.15g"',
        "run 2",
    ]
    done = start(tmp_path, lines, ranks)
    assert done.returncode == 0, done.stdout + done.stderr
    frames = read(tmp_path / "u.dump", index=":", format="lammps-dump-text")
    assert len(frames) == 2
    calculator = MLCalculator(network, skin=0.0)
    calculator.probes = probes
    for atoms in frames:
        atoms.pbc = True
        expected = np.linalg.norm(calculator.get_property("forces_uncertainty", atoms), axis=1)
        assert expected.min() > np.sqrt(3) * 0.02
        assert np.ptp(expected) > 1e-3
        np.testing.assert_allclose(atoms.arrays["f_u"].ravel(), expected, rtol=0, atol=1e-8)


MOVES = {
    "the same step": ["displace_atoms all random 0.1 0.1 0.1 5", "run 0"],
    "gcmc": [
        "velocity all create 900 1",
        "fix md all nve",
        "fix mc all gcmc 1 40 5 1 4711 900 0 0.5 full_energy overlap_cutoff 1.0",
        "run 2",
    ],
}


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_fix_pair_reads_again_what_changed_within_a_step(network, tmp_path, ranks):
    """`fix pair` itself reads once in a step: of the first evaluation, before moves were accepted."""
    lines = []
    for name, moves in MOVES.items():
        lines += [
            "clear",
            *DECK[:2],
            "atom_modify map array",
            *DECK[2:],
            f"pair_style mlplugins {network} baseline off probes 0",
        ]
        lines += ["pair_coeff * * Cu", FIX.replace("pair 2", "pair 1"), "run 0", *moves]
        kept = f"{name[:4].strip()}.dump id type x y z f_u"
        lines += [f"write_dump all custom {kept} modify sort id format float %.15g"]
    done = start(tmp_path, lines, ranks)
    assert done.returncode == 0, done.stdout + done.stderr
    sizes = []
    for name in MOVES:
        atoms = read(tmp_path / f"{name[:4].strip()}.dump", format="lammps-dump-text")
        atoms.numbers[:], atoms.pbc = 29, True
        sizes.append(len(atoms))
        expected = MLCalculator(network).get_property("energies_uncertainty", atoms)
        np.testing.assert_allclose(atoms.arrays["f_u"].ravel(), expected, rtol=0, atol=1e-8, err_msg=name)
    assert sizes[1] != sizes[0]  # atoms came


def test_models_without_uncertainty_are_named(tmp_path):
    model = write_nequip(tmp_path / "nequip.pt", elements=("Cu",), layers=1)
    lines = [*DECK, f"pair_style mlplugins {model}", "pair_coeff * * Cu"]
    decks = {"energy": [*lines, FIX], "forces": [*lines, FIX.replace("uncertainty 1", "force_uncertainty 1")]}
    found = errors_of(tmp_path, decks)
    assert "has no uncertainty of atomic energies" in found["energy"]
    assert "has no uncertainty of forces: `mlplugins uncertainty` adds one" in found["forces"]
