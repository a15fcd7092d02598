"""Weights of frames by their config_type, and isolated atoms as the baseline."""

import json

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from mlplugins.cli.main import main
from mlplugins.errors import BadInput
from mlplugins.structures import batch
from mlplugins.structures.dataset import from_atoms
from mlplugins.training import config, data
from mlplugins.training.gradient_config import LossSection
from mlplugins.training.loss import loss, residuals

from .argon import CONFIG, argon

E_ATOM = -7.25


def isolated(energy: float = E_ATOM, **info) -> Atoms:
    atoms = Atoms("Ar", [[1.0, 1.0, 1.0]])
    atoms.info.update(info)
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=np.zeros((1, 3)))
    return atoms


def shifted(frames: list[Atoms], per_atom: float) -> list[Atoms]:
    """The same frames with energies of another reference."""
    for atoms in frames:
        atoms.calc.results["energy"] += per_atom * len(atoms)
    return frames


def sets(folder, frames, **section):
    write(folder / "train.extxyz", frames)
    content = {
        "data": {"train": str(folder / "train.extxyz"), "validation": 0.25, **section},
        "model": {"family": "nequip", "cutoff": 5.0},
    }
    return data.load(config.parse(content, "c.yaml"))


def test_isolated_atoms_are_the_baseline_if_asked_and_never_accused(tmp_path):
    frames = [isolated(config_type="IsolatedAtom"), *shifted(argon(11, 0), E_ATOM - 3.0)]
    fitted = sets(tmp_path, frames)
    assert fitted.baseline.energies[0] == pytest.approx(E_ATOM - 3.0, abs=0.5)
    text = " ".join(fitted.warnings)
    assert "away from the rest" not in text
    assert "1 training frame(s) are isolated atoms: data.baseline: isolated" in text
    found = sets(tmp_path, frames, baseline="isolated")
    assert found.baseline.energies == [E_ATOM]
    assert "isolated" not in " ".join(found.warnings)


def test_isolated_atoms_need_no_forces(tmp_path):
    """As in the published sets of 3BPA and acetylacetone: energies of the atoms alone."""
    alone = isolated()
    del alone.calc.results["forces"]
    found = sets(tmp_path, [alone, *argon(11, 0)], baseline="isolated")
    [atom] = [s for s in [*found.train, *found.validation] if len(s) == 1]
    np.testing.assert_array_equal(atom.forces, np.zeros((1, 3)))
    pair = argon(2, 0)
    del pair[1].calc.results["forces"]
    with pytest.raises(BadInput, match="frame 1: no forces"):
        sets(tmp_path, pair)


def test_isolated_atoms_that_cannot_be_the_baseline(tmp_path):
    frames = argon(8, 0)
    with pytest.raises(BadInput, match="no training frame is an isolated Ar atom"):
        sets(tmp_path, frames, baseline="isolated")
    two = [isolated(), isolated(E_ATOM + 0.5, config_type="IsolatedAtom")]
    two[1].positions += 1.0
    with pytest.raises(BadInput, match="are Ar atoms with -7.25 and -6.75 eV: remove one"):
        sets(tmp_path, [*frames, *two], baseline="isolated")


def test_weights_multiply_the_terms_of_their_frames(tmp_path):
    frames = argon(8, 0)
    for k, atoms in enumerate(frames):
        atoms.info["config_type"] = "rare" if k % 2 else "usual"
    found = sets(tmp_path, frames, weights={"rare": 3.0})
    for s in [*found.train, *found.validation]:
        assert s.weight == (3.0 if s.config_type == "rare" else 1.0)
    [one] = [s for s in found.train if s.weight == 3.0][:1]
    three = batch.single(one, ["Ar"], 5.0, 0.0, torch.float64)
    plain = batch.single(from_atoms(one.to_atoms()), ["Ar"], 5.0, 0.0, torch.float64)
    predicted = {"energy": torch.zeros(1, dtype=torch.float64)}
    values = [loss(residuals(predicted, b), LossSection()).item() for b in (three, plain)]
    assert values[0] == pytest.approx(3.0 * values[1], rel=1e-14)
    with pytest.raises(BadInput, match="no training frame has config_type 'raer': did you mean 'rare'"):
        sets(tmp_path, frames, weights={"raer": 3.0})


def test_a_run_with_isolated_atoms(tmp_path, capsys):
    """A graph without edges is trained on; the baseline stays that of the atom."""
    frames = [isolated(config_type="IsolatedAtom"), *shifted(argon(9, 0), E_ATOM)]
    write(tmp_path / "train.extxyz", frames)
    write(tmp_path / "test.extxyz", shifted(argon(2, 1), E_ATOM))
    text = CONFIG.format(epochs=2, more="ema: 0.9")
    section = "baseline: isolated, weights: {IsolatedAtom: 0.1}, validation: 0.2"
    (tmp_path / "c.yaml").write_text(text.replace("validation: 0.25", section))
    assert main(["train", str(tmp_path / "c.yaml"), "-o", str(tmp_path / "run")]) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["composition_eV"] == {"Ar": E_ATOM}
    assert metrics["finite_differences"]["max_force_meV_per_A"] > 0.1
    assert metrics["finite_differences"]["max_error_meV_per_A"] < 1e-4
