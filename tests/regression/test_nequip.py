"""Same numbers as nequip, from checkpoints and outputs that make_nequip.py wrote with that package."""

import lzma
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from mlplugins.checkpoints import nequip
from mlplugins.cli.main import main
from mlplugins.model_file import artifact

from .stored import assert_checkpoint_is_home, assert_home, structures

DATA = Path(__file__).parent / "data"
NAMES = ["average", "degree_four", "elements", "pairs", "parity"]
ENDINGS = ["ckpt", "nequip.zip"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Folder with the checkpoints, unpacked."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for name in NAMES:
        for ending in ENDINGS:
            packed = (DATA / f"nequip_{name}.{ending}.xz").read_bytes()
            (folder / f"{name}.{ending}").write_bytes(lzma.decompress(packed))
    return folder


@pytest.mark.parametrize("filtered", [False, True])
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("name", NAMES)
def test_energies_forces_and_stress_are_those_of_the_home_package(files, name, ending, filtered):
    few = ["S", "Cl", "Li", "P"] if name == "elements" else ["S", "H", "O"]
    checkpoint = nequip.read(files / f"{name}.{ending}", few if filtered else None)
    compared = 0
    for index, atoms in enumerate(structures(name)):
        if set(atoms.symbols) <= set(checkpoint.elements):
            assert_checkpoint_is_home(checkpoint, f"nequip_{name}", index, atoms)
            compared += 1
    assert compared == (1 if filtered and name == "elements" else len(structures(name)))


@pytest.mark.parametrize("name", NAMES)
def test_converted_in_single_precision(files, name, tmp_path):
    """The default of `convert`."""
    assert main(["convert", str(files / f"{name}.ckpt"), "-o", str(tmp_path / "m.pt")]) == 0
    model = artifact.load(tmp_path / "m.pt")
    assert model.dtype == "float32"
    for index, atoms in enumerate(structures(name)):
        result = model.evaluate([atoms])[0]
        values = {"energy": result.energy, "forces": result.forces}
        if atoms.cell.rank == 3:
            values["stress"] = result.stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
        # beyond the fused convolution sums run in another order
        tolerance = 2e-6 if name == "degree_four" else 1e-6
        if name == "elements" and "stress" in values:  # of a gas: what is left of large terms, 1.1e-6
            assert_home(f"nequip_{name}", index, {"stress": values.pop("stress")}, 1.5e-6)
        assert_home(f"nequip_{name}", index, values, tolerance)


def test_89_elements(files):
    assert len(nequip.read(files / "elements.ckpt").elements) == 89


@pytest.mark.slow
def test_converted_without_nequip(files, warm_start):
    """Through the command line, in a process where importing the package fails; 0.6, too."""
    with tarfile.open(DATA / "nequip06_parity.tar.xz") as archive:
        archive.extractall(files / "old", filter="data")
    old = str(files / "old" / "best_model.pth")
    paths = [str(files / "average.nequip.zip"), str(files / "parity.ckpt"), old]
    code = (
        "import sys\n"
        "for name in ('nequip', 'hydra', 'omegaconf', 'matscipy'): sys.modules[name] = None\n"
        "from mlplugins.cli.main import main\n"
        f"for path in {paths!r}:\n"
        "    if main(['convert', path, '-o', path + '.pt', '--dtype', 'float64']): sys.exit(1)\n"
    )
    (files / "convert.py").write_text(code)
    command = [sys.executable, str(files / "convert.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert Path(old + ".pt").is_file()
    for path, name in zip(paths, ("average", "parity")):
        model = artifact.load(Path(path + ".pt"))
        for index, atoms in enumerate(structures(name)):
            result = model.evaluate([atoms])[0]
            results = {"energy": result.energy, "forces": result.forces}
            if atoms.cell.rank == 3:
                results["stress"] = result.stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
            assert_home(f"nequip_{name}", index, results)
