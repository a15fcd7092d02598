"""SevenNet checkpoints give here what they give in sevenn (outputs stored by `make_sevennet.py`).

The released checkpoints are read from `MLPLUGINS_SEVENNET`: the wheel of sevenn 0.13.0 (not installed: opened
as a zip file), or a folder that holds its `pretrained_potentials`.
"""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.io import write

from mlplugins.checkpoints import sevennet
from mlplugins.cli.main import main
from mlplugins.engines.lammps import single_point
from mlplugins.model_file import artifact
from mlplugins.models.base import energy_derivatives
from mlplugins.structures.batch import graph_of

HERE = Path(__file__).parent
SMALL = sorted(path.stem for path in HERE.glob("sevennet_0*_*.npz") if path.stem[9:13].isdigit())
RELEASED = {
    "sevennet_0_11jul2024": "SevenNet_0__11Jul2024/checkpoint_sevennet_0.pth",
    "sevennet_0_22may2024": "SevenNet_0__22May2024/checkpoint_sevennet_0.pth",
    "sevennet_l3i5": "SevenNet_l3i5/checkpoint_l3i5.pth",
    "sevennet_mf_0-PBE": "SevenNet_MF_0/checkpoint_sevennet_mf_0.pth",
    "sevennet_mf_0-R2SCAN": "SevenNet_MF_0/checkpoint_sevennet_mf_0.pth",
}
"""Names are of the files of references: `STEM` or, of a model of several fidelities, `STEM-TASK`."""
STRUCTURES = ["molecule", "crystal", "triclinic", "gas"]


@pytest.fixture(scope="session")
def released(tmp_path_factory) -> Path:
    """Folder with the checkpoints of the wheel."""
    place = os.environ.get("MLPLUGINS_SEVENNET")
    if not place:
        pytest.skip(
            "released checkpoints not here: MLPLUGINS_SEVENNET is not set (see the head of this file)"
        )
    if place.endswith(".whl"):
        folder = tmp_path_factory.mktemp("sevennet")
        with zipfile.ZipFile(place) as wheel:
            for name in wheel.namelist():
                if "/pretrained_potentials/" in name:
                    wheel.extract(name, folder)
        place = str(folder)
    found = sorted(Path(place).rglob(RELEASED["sevennet_l3i5"]))
    assert found, f"MLPLUGINS_SEVENNET={place}: no {RELEASED['sevennet_l3i5']} in it"
    return found[0].parents[1]


def task_of(name: str) -> str | None:
    return name.partition("-")[2] or None


def small(name: str) -> Path:
    return HERE / f"{name.partition('-')[0]}.pth"


def convert(checkpoint: Path, name: str, output: Path, *more: str) -> int:
    task = task_of(name)
    words = ["--task", task] if task else []
    return main(["convert", str(checkpoint), "-o", str(output), *words, *more])


def stored(name: str, structure: str) -> tuple[Atoms, dict[str, np.ndarray]]:
    with np.load(HERE / f"{name}.npz") as arrays:
        own = {key.split("/")[1]: arrays[key] for key in arrays.files if key.startswith(f"{structure}/")}
    atoms = Atoms(own["numbers"], own["positions"], cell=own["cell"], pbc=own["pbc"])
    return atoms, own


def evaluate(checkpoint, atoms: Atoms) -> dict[str, np.ndarray]:
    """Energy, forces and stress (Voigt) of the family as read: plain torch, float64."""
    model = checkpoint.potential
    x = graph_of(atoms, checkpoint.elements, model.cutoff)
    x.vectors.requires_grad_()
    energy = model(x)["energy"]
    forces, virial = energy_derivatives(energy, x, 1)
    shift = torch.tensor(checkpoint.baseline, dtype=torch.float64)[x.species].sum()
    result = {"energy": float(energy.detach().double().sum() + shift), "forces": forces.detach().numpy()}
    if atoms.pbc.all():
        stress = virial[0].detach().numpy() / atoms.get_volume()
        result["stress"] = stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
    return result


def assert_double(result: dict, own: dict[str, np.ndarray]) -> None:
    """Against sevenn cast to float64."""
    for quantity, value in result.items():
        expected = own[f"{quantity}64"]
        atol = 1e-10 * np.abs(expected).max()
        np.testing.assert_allclose(value, expected, rtol=0, atol=atol, err_msg=quantity)


def assert_single(quantity: str, value, own: dict[str, np.ndarray]) -> None:
    """float32 against sevenn in float64: within 1e-6, or where sevenn is not, within 4 times its error.

    (Forces and stress are sums over edges that nearly cancel.)
    """
    exact = own[f"{quantity}64"]
    size = np.abs(exact).max()
    theirs = np.abs(own[f"{quantity}32"] - exact).max()
    np.testing.assert_allclose(value, exact, rtol=0, atol=max(1e-6 * size, 4 * theirs), err_msg=quantity)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("name", SMALL)
def test_small_models(name, structure):
    checkpoint = sevennet.read(small(name), head=task_of(name))
    atoms, own = stored(name, structure)
    assert_double(evaluate(checkpoint, atoms), own)


@pytest.mark.slow
@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("name", sorted(RELEASED))
def test_released_models(released, name, structure):
    checkpoint = sevennet.read(released / RELEASED[name], head=task_of(name))
    atoms, own = stored(name, structure)
    assert_double(evaluate(checkpoint, atoms), own)
    assert len(checkpoint.elements) == 89


def assert_file(path: Path, name: str) -> None:
    """A converted file in float32, as the engines evaluate it."""
    model = artifact.load(path)
    for structure in STRUCTURES:
        atoms, own = stored(name, structure)
        result = model.evaluate([atoms])[0]
        assert_single("energy", result.energy, own)
        assert_single("forces", result.forces, own)
        if atoms.pbc.all():
            assert_single("stress", result.stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]], own)


@pytest.mark.parametrize("name", SMALL)
def test_converted_small_models(name, tmp_path):
    assert convert(small(name), name, tmp_path / "m.pt") == 0
    assert_file(tmp_path / "m.pt", name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(RELEASED))
def test_converted_released_models(released, name, tmp_path):
    path = released / RELEASED[name]
    assert convert(path, name, tmp_path / "m.pt") == 0
    assert_file(tmp_path / "m.pt", name)
    assert convert(path, name, tmp_path / "few.pt", "--elements", "S", "Cl", "Li", "P") == 0
    atoms, own = stored(name, "triclinic")
    result = artifact.load(tmp_path / "few.pt").evaluate([atoms])[0]
    assert_single("energy", result.energy, own)
    assert_single("forces", result.forces, own)
    assert (tmp_path / "few.pt").stat().st_size < (tmp_path / "m.pt").stat().st_size


@pytest.mark.parametrize("words", [[], ["--task", "pbesol"]])
def test_the_tasks_of_the_file_are_listed(words, tmp_path, capsys):
    path = HERE / "sevennet_0130_tasks.pth"
    assert main(["convert", str(path), "-o", str(tmp_path / "m.pt"), *words]) == 2
    message = capsys.readouterr().err
    assert all(task in message for task in ("PBE", "r2SCAN", "wB97"))
    assert not (tmp_path / "m.pt").exists()


def test_a_task_of_a_model_of_one_fidelity_is_refused(tmp_path, capsys):
    words = ["-o", str(tmp_path / "m.pt"), "--task", "PBE"]
    assert main(["convert", str(HERE / "sevennet_0130_even.pth"), *words]) == 2
    assert "of one fidelity: name none" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("native_build", "warm_start")
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", ["sevennet_0_11jul2024", "sevennet_mf_0-PBE"])
def test_check_passes_on_the_released_model(released, tmp_path, monkeypatch, name, dtype):
    """In the three engines; LAMMPS on 1 rank, and on 2 with features exchanged.

    Ghost shells of 25 Å pass, too, but hold thousands of atoms, which take a minute.
    """
    monkeypatch.setattr(single_point, "LARGEST_GHOST", 0)
    words = ["--elements", "Li", "P", "S", "Cl", "--dtype", dtype]
    assert convert(released / RELEASED[name], name, tmp_path / "m.pt", *words) == 0
    atoms, _ = stored(name, "triclinic")
    write(tmp_path / "a.extxyz", atoms)
    words = [str(tmp_path / "m.pt"), str(tmp_path / "a.extxyz"), "--nve-steps", "10"]
    assert main(["check", *words, "--json", str(tmp_path / "check.json")]) == 0
    rows = json.loads((tmp_path / "check.json").read_text())["checks"]
    compared = {(row["engine"], row["ranks"], row["name"]) for row in rows if "= ASE" in row["name"]}
    modes = [("lammps", 1, "fold"), ("lammps", 2, "exchange"), ("ipi", 1, "ffdirect"), ("ipi", 1, "socket")]
    assert compared == {
        (engine, ranks, f"{quantity} = ASE ({mode})")
        for engine, ranks, mode in modes
        for quantity in ("energy", "forces", "stress")
    }


def test_both_conventions_and_orders_are_covered():
    """The older pair of packages stores the coefficients that the newer one has with opposite sign."""
    assert {name.split("_")[1] for name in SMALL} == {"0104", "0130"}
    signs = {}
    for name in SMALL:
        state = torch.load(small(name), weights_only=True)["model_state_dict"]
        keys = [key for key in state if key.endswith("_w3j_1_2_2")]
        signs.setdefault(name.split("_")[1], set()).update(
            int(torch.sign(state[key].flatten()[state[key].flatten().abs().argmax()])) for key in keys
        )
    assert signs["0104"].isdisjoint(signs["0130"])
    assert all(len(values) == 1 for values in signs.values())


@pytest.mark.slow
def test_sevenn_is_not_needed(tmp_path, warm_start):
    """The same conversion in a process where importing the foreign packages fails."""
    checkpoint = str(HERE / f"{SMALL[0]}.pth")
    code = (
        "import sys\n"
        "for name in ('sevenn', 'torch_geometric', 'matscipy'): sys.modules[name] = None\n"
        "from mlplugins.cli.main import main\n"
        f"sys.exit(main(['convert', {checkpoint!r}, '-o', {str(tmp_path / 'm.pt')!r}]))\n"
    )
    (tmp_path / "convert.py").write_text(code)
    command = [sys.executable, str(tmp_path / "convert.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "m.pt").is_file()
