"""MACE, converted SevenNet, radial tables and plain-torch ops through the engines."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.io import write

from mlplugins import MLCalculator, engines
from mlplugins.checkpoints import sevennet
from mlplugins.model_file import artifact
from mlplugins.model_file.card import ModelCard
from mlplugins.model_file.radial import RadialTables
from mlplugins.model_file.write import save
from mlplugins.models import mace, nequip
from mlplugins.models.base import TrainingStatistics
from mlplugins.quantities import Results
from mlplugins.structures.batch import graph_of
from mlplugins.testing.structures import standard_structures

from .lammps_tools import TOLERANCE, assert_parity

pytestmark = pytest.mark.usefixtures("native_build", "warm_start")

CHECKPOINT = Path(__file__).parents[1] / "regression" / "sevennet_0130_even.pth"
ELEMENTS = {
    "mace": ["K", "Rb"],
    "mace with tables": ["K", "Rb"],
    "mace of 2025": ["K", "Rb"],
    "nequip": ["K", "Rb"],
    "sevennet": ["Na", "Cl"],
}
SHIFTS = [-1.0, -2.5]
OF_PAIRS = {
    "distance_transform": "agnesi",
    "interaction_first": "RealAgnosticDensity",
    "interaction": "RealAgnosticDensityResidual",
}
"""Radial tables for every pair of elements, and of densities."""


def small_mace(**more: str) -> mace.Model:
    """Two layers, vectors between them, and ZBL that reaches the atoms of the test structures."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        parameters = mace.Hyperparameters(
            cutoff=5.0, num_channels=4, l_max=2, radial_mlp=[8], readout_mlp=4, zbl=True, **more
        )
        model = mace.Model(ELEMENTS["mace"], parameters).double()
    model.initialise(TrainingStatistics(average_neighbors=12.0, force_rms=0.8))
    return model


def non_linear_mace() -> mace.Model:
    """Blocks of MH-1 and OMOL: directed edges, other features between ranks than within."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        parameters = mace.Hyperparameters(
            num_channels=4,
            l_max=2,
            correlation=2,
            radial_mlp=[8],
            readout_mlp=4,
            interaction_first="RealAgnosticResidualNonLinear",
            interaction="RealAgnosticResidualNonLinear",
            sent_channels=[2, 1],
            envelope_on_weights=True,
            biased_readout=True,
        )
        model = mace.Model(ELEMENTS["mace of 2025"], parameters).double()
        for layer in model.layers:
            torch.nn.init.normal_(layer.interaction.of_neighbor)
            torch.nn.init.normal_(layer.interaction.of_center)
    model.initialise(TrainingStatistics(average_neighbors=12.0, force_rms=0.8))
    return model


def small_nequip() -> nequip.Model:
    """Degree four, and cutoffs of i → j that are not those of j → i."""
    cutoffs = {"K": {"K": 4.5, "Rb": 5.0}, "Rb": {"K": 4.2}}
    with torch.random.fork_rng():
        torch.manual_seed(5)
        parameters = nequip.Hyperparameters(
            num_layers=2, l_max=4, num_features=2, radial_mlp=[8], pair_cutoffs=cutoffs
        )
        model = nequip.Model(ELEMENTS["nequip"], parameters).double()
    model.initialise(TrainingStatistics(average_neighbors=12.0, force_rms=0.8))
    return model


def potential(name: str) -> torch.nn.Module:
    if name == "sevennet":
        return sevennet.read(CHECKPOINT, ELEMENTS[name]).potential
    if name in ("nequip", "mace of 2025"):
        return small_nequip() if name == "nequip" else non_linear_mace()
    return small_mace(**(OF_PAIRS if name == "mace with tables" else {}))


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("architectures")
    found = {}
    for name, elements in ELEMENTS.items():
        found[name] = folder / f"{name.replace(' ', '_')}.pt"
        family = "mace" if name.startswith("mace") else "nequip"
        card = ModelCard(family, elements, SHIFTS)
        tables = RadialTables(65 if "tables" in name else None)
        save(potential(name), found[name], card, "float64", tables=tables)
    return found


def structures(name: str) -> dict[str, Atoms]:
    """A triclinic cell, and one whose atoms see their own images."""
    standard = standard_structures(ELEMENTS[name])
    return {key: standard[key] for key in ("triclinic", "small_cell")}


def test_the_repulsion_acts_in_the_test_structures():
    model = small_mace()
    for atoms in structures("mace").values():
        x = graph_of(atoms, ELEMENTS["mace"], model.cutoff)
        r = torch.linalg.vector_norm(x.vectors, dim=1)
        repulsion = model.repulsion(x, r)
        assert float(repulsion.min()) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "ranks", "mode"),
    [
        *((name, *mode) for name in ELEMENTS for mode in ((1, "fold"), (1, "exchange"), (2, "exchange"))),
        ("mace", 2, "ghost"),
        # nothing is exchanged: the ghosts are those of test_lammps_parity
        *(pytest.param(n, 2, "ghost", marks=pytest.mark.exhaustive) for n in ELEMENTS if n != "mace"),
    ],
)
def test_lammps_in_every_mode(files, name, ranks, mode):
    assert_parity(files[name], structures(name), ranks, f"mode {mode}", TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(ELEMENTS))
def test_ipi(files, name):
    model = artifact.load(files[name])
    cases = list(structures(name).values())
    ipi = engines.load("ipi")
    [way, _] = ipi.ways(model, cases, [1])
    for atoms, got in zip(cases, ipi.single_points(model, cases, way), strict=True):
        assert isinstance(got, Results), got
        atoms.calc = MLCalculator(files[name])
        assert got.energy == pytest.approx(atoms.get_potential_energy(), abs=TOLERANCE * len(atoms))
        np.testing.assert_allclose(got.forces, atoms.get_forces(), rtol=0, atol=TOLERANCE)
        np.testing.assert_allclose(got.stress, atoms.get_stress(voigt=False), rtol=0, atol=TOLERANCE)


EVALUATE = """
import sys
import numpy as np
from ase.io import read
from mlplugins import MLCalculator, ops
assert ops.load() == "reference"
for name in sys.argv[1:]:
    atoms = read(name + ".traj")
    atoms.calc = MLCalculator(name + ".pt")
    np.savez(name + ".npz", atoms.get_potential_energies(), atoms.get_forces(), atoms.get_stress())
"""


def test_without_the_compiled_ops(files):
    """The same files in a process with MLPLUGINS_OPS=off: plain torch under the names of the ops."""
    stems = {name: path.with_suffix("") for name, path in files.items()}
    for name, stem in stems.items():
        write(f"{stem}.traj", structures(name)["triclinic"])
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", EVALUATE, *map(str, stems.values())],
        env={**os.environ, "MLPLUGINS_OPS": "off"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    for name, stem in stems.items():
        atoms = structures(name)["triclinic"]
        atoms.calc = MLCalculator(files[name])
        expected = (atoms.get_potential_energies(), atoms.get_forces(), atoms.get_stress())
        with np.load(f"{stem}.npz") as arrays:
            for key, array in zip(arrays.files, expected, strict=True):
                np.testing.assert_allclose(arrays[key], array, rtol=0, atol=TOLERANCE, err_msg=name)
                assert np.abs(array).max() > 1e-4
