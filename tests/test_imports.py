"""What commands and models do not import, because it takes longer than what they are asked for."""

import subprocess
import sys

import pytest

from mlplugins import registry

HEAVY = ("torch", "lightning", "metatomic", "e3nn", "ase", "scipy", "matplotlib")
PROGRAM = """
import sys
{code}
print("|", *(name for name in {names} if name in sys.modules))
"""


def _imported(code: str, names: tuple[str, ...]) -> list[str]:
    """Those of `names` that are in memory after `code`."""
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM.format(code=code, names=names)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.rpartition("|")[2].split()


def test_overview_imports_next_to_nothing():
    code = "from mlplugins.cli import main\nassert main.main(['--help']) == 0"
    assert _imported(code, (*HEAVY, "numpy", "pydantic", "rich", "importlib.metadata")) == []


@pytest.mark.parametrize("verb", registry.available("mlplugins.cli", ("main",)))
def test_help_of_a_command_imports_no_torch(verb):
    code = f"""
from mlplugins.cli import main
try:
    main.main([{verb!r}, "--help"])
except SystemExit as end:
    assert end.code == 0"""
    assert _imported(code, HEAVY) == []


@pytest.mark.slow
def test_analysis_of_trajectories_needs_no_torch():
    """vesin, which lists neighbours elsewhere, loads it: 200 MB for a dump of 40."""
    code = "import mlplugins.analysis.study, mlplugins.analysis.thermal, mlplugins.analysis.spectra.study"
    assert _imported(code, HEAVY[:4]) == []


@pytest.mark.slow
def test_models_do_without_the_compiler_of_torch():
    code = "import mlplugins.models.mace, mlplugins.models.nequip, mlplugins.checkpoints.sevennet"
    assert _imported(code, ("e3nn", "torch._dynamo")) == ["e3nn"]


@pytest.mark.slow
def test_what_e3nn_keeps_out_of_compiled_graphs_stays_out():
    code = """
import mlplugins.nn.irreps
from e3nn.o3 import _wigner
assert _wigner.change_basis_real_to_complex._torchdynamo_disable"""
    assert _imported(code, ("e3nn", "torch._dynamo")) == ["e3nn"]
