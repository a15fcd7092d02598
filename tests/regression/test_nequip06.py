"""Same numbers as nequip 0.6, from training folders and outputs that make_nequip06.py wrote with it."""

import lzma
import tarfile
from pathlib import Path

import pytest

from mlplugins.checkpoints import nequip06
from mlplugins.cli.main import main
from mlplugins.errors import BadInput
from mlplugins.model_file import artifact

from .stored import assert_checkpoint_is_home, assert_home
from .stored import structures as all_structures

DATA = Path(__file__).parent / "data"
NAMES = ["elements", "even", "irreps", "parity"]


@pytest.fixture
def folder(tmp_path):
    """Unpacks the training folder of a case."""

    def unpack(name) -> Path:
        with tarfile.open(DATA / f"nequip06_{name}.tar.xz") as archive:
            archive.extractall(tmp_path / name, filter="data")
        return tmp_path / name

    return unpack


def structures(name):
    """nequip 0.6 refuses the lone atom."""
    return [atoms for atoms in all_structures(name) if len(atoms) > 1]


@pytest.mark.parametrize("name", NAMES)
def test_energies_forces_and_stress_are_those_of_the_home_package(folder, name):
    checkpoint = nequip06.read(folder(name) / "best_model.pth")
    assert len(checkpoint.elements) == (89 if name == "elements" else 3)
    for index, atoms in enumerate(structures(name)):
        assert_checkpoint_is_home(checkpoint, f"nequip06_{name}", index, atoms)


def test_converted_with_fewer_elements(folder, tmp_path):
    words = ["--elements", "S", "O", "H", "--dtype", "float64", "-o", str(tmp_path / "m.pt")]
    assert main(["convert", str(folder("parity") / "best_model.pth"), *words]) == 0
    model = artifact.load(tmp_path / "m.pt")
    assert model.elements == ("S", "O", "H")
    assert model.record["source"]["version"] == "0.6.2"
    for index, atoms in enumerate(structures("parity")):
        result = model.evaluate([atoms])[0]
        assert_home("nequip06_parity", index, {"energy": result.energy, "forces": result.forces})


def test_a_deployed_model_is_refused_with_the_way_out(tmp_path, capsys):
    path = tmp_path / "deployed.pth"
    path.write_bytes(lzma.decompress((DATA / "nequip06_deployed.pth.xz").read_bytes()))
    assert main(["convert", str(path), "-o", str(tmp_path / "m.pt")]) == 2
    error = capsys.readouterr().err
    assert "deployed by nequip 0.6.2" in error
    assert "convert the best_model.pth of its training folder" in error


def test_without_its_configuration_it_is_refused(folder):
    path = folder("even") / "best_model.pth"
    (path.parent / "config.yaml").unlink()
    with pytest.raises(BadInput, match=r"no '.*config.yaml': weights of nequip 0.6 need"):
        nequip06.read(path)


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("nequip_version: 0.6.2", "nequip_version: 0.5.6", "written by nequip 0.5.6"),
        ("nonlinearity_type: gate", "nonlinearity_type: norm", "'nonlinearity_type: norm' is not supported"),
        ("  e: silu", "  e: ssp", "only {'e': 'silu', 'o': 'tanh'}"),
        ("- StressForceOutput", "- PairPotential", "model builder 'PairPotential' is not supported"),
        ("feature_irreps_hidden: 4x0e", "feature_irreps_hidden: 9x0e", "'feature_irreps_hidden: 9x0e"),
        ("PolynomialCutoff_p: 6", "PolynomialCutoff_p: [", "not valid YAML"),
    ],
)
def test_unsupported_options_are_named(folder, old, new, text):
    path = folder("parity") / "config.yaml"
    content = path.read_text()
    assert old in content
    path.write_text(content.replace(old, new))
    with pytest.raises(BadInput) as error:
        nequip06.read(path.parent / "best_model.pth")
    assert text in str(error.value)


def test_the_configuration_executes_nothing(folder, tmp_path):
    path = folder("parity") / "config.yaml"
    hostile = f"evil: !!python/object/apply:os.system ['touch {tmp_path}/evil']\n"
    path.write_text(path.read_text() + hostile)
    nequip06.read(path.parent / "best_model.pth")
    assert not (tmp_path / "evil").exists()
