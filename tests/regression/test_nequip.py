"""Same numbers as nequip, from checkpoints and outputs that make_nequip.py wrote with that package."""

import lzma
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from mlplugins.checkpoints import nequip
from mlplugins.engines import artifact
from mlplugins.models.base import energy_derivatives
from mlplugins.testing.families import inputs

DATA = Path(__file__).parent / "data"
NAMES = ["average", "parity"]
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


def structures():
    with np.load(DATA / "structures.npz") as file:
        count = len({key.split("/")[0] for key in file})
        fields = ("numbers", "positions", "cell", "pbc")
        return [Atoms(**{field: file[f"{index}/{field}"] for field in fields}) for index in range(count)]


def assert_home(name, index, results):
    """energy, forces and, for a crystal, stress (Voigt) to 1e-10 of the largest value."""
    with np.load(DATA / f"nequip_{name}.npz") as home:
        for quantity, value in results.items():
            expected = home[f"{quantity}/{index}"]
            atol = 1e-10 * float(np.abs(expected).max())
            np.testing.assert_allclose(value, expected, rtol=0, atol=atol, err_msg=f"{quantity} of {index}")


@pytest.mark.parametrize("elements", [None, ["S", "H", "O"]])
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("name", NAMES)
def test_energies_forces_and_stress_are_those_of_the_home_package(files, name, ending, elements):
    checkpoint = nequip.read(files / f"{name}.{ending}", elements)
    for index, atoms in enumerate(structures()):
        x = inputs(atoms, checkpoint.elements, checkpoint.potential.cutoff)
        vectors = x.vectors.requires_grad_()
        energy = checkpoint.potential(*x)["energy"]
        forces, virial = energy_derivatives(energy, vectors, (x.centers, x.neighbors), x.system, 1)
        baseline = sum(checkpoint.baseline[int(z)] for z in x.species)
        results = {"energy": float(energy.detach().sum()) + baseline, "forces": forces.detach().numpy()}
        if atoms.cell.rank == 3:
            stress = virial[0].detach().numpy() / atoms.get_volume()
            results["stress"] = stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
        assert_home(name, index, results)


@pytest.mark.slow
def test_converted_without_nequip(files):
    """Through the command line, in a process where importing the package fails."""
    paths = [str(files / "average.nequip.zip"), str(files / "parity.ckpt")]
    code = (
        "import sys\n"
        "for name in ('nequip', 'hydra', 'omegaconf', 'matscipy'): sys.modules[name] = None\n"
        "from mlplugins.cli.main import main\n"
        f"for path in {paths!r}:\n"
        "    if main(['convert', path, '-o', path + '.pt', '--dtype', 'float64']): sys.exit(1)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for path, name in zip(paths, NAMES):
        model = artifact.load(Path(path + ".pt"))
        for index, atoms in enumerate(structures()):
            result = model.evaluate([atoms])[0]
            results = {"energy": result.energy, "forces": result.forces}
            if atoms.cell.rank == 3:
                results["stress"] = result.stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
            assert_home(name, index, results)
