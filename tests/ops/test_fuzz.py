"""Broken arguments never end the process: the compiled ops refuse them, or agree with the reference."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("native_build")

PROGRAM = Path(__file__).with_name("fuzz_ops.py")
OPS = [
    "convolution",
    "convolution_rows",
    "radial_convolution",
    "table_convolution",
    "tables_convolution",
    "symmetric_contraction",
    "edge_rows",
    "linear",
    "kernel_sum",
    "molecular_kernel",
    "ghost_exchange",
    "near_pairs",
    "forces_and_virials",
]


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def search(folder: Path, examples: int, names: list[str]) -> None:
    log = folder / "cases.txt"
    result = run(PROGRAM, log, str(examples), *names)
    cases = log.read_text().splitlines() if log.exists() else []
    last = cases[-1] if cases else "none"
    assert result.returncode == 0, f"exit {result.returncode}, last case {last}\n{result.stderr[-3000:]}"
    assert len(cases) >= 0.9 * examples


@pytest.mark.slow
def test_every_op(tmp_path):
    search(tmp_path, 250, OPS)


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("op", OPS)
def test_longer(tmp_path, op):
    search(tmp_path, 50 if op in ("ghost_exchange", "edge_rows") else 1500, [op])


SUBTLE = {
    "an offset near 2**63 overflows in the check of the paths": [
        ("convolution", [(8, "entry", 6)]),
        ("convolution", [(8, "entry", 14)]),
        ("convolution", [(8, "entry", 22)]),
    ],
    "edges with two dimensions are read as if they had one": [
        ("convolution", [(4, "two columns", 0)]),
        ("convolution", [(5, "two columns", 0)]),
    ],
    "coefficients with two dimensions are read as if they had one": [
        ("convolution", [(10, "two columns", 0)])
    ],
}
REFUSED = """
import sys
sys.path.insert(0, {folder!r})
import fuzz_ops
fuzz_ops.ops.load()
print({{what: all([fuzz_ops.refused(*case) for case in cases]) for what, cases in {subtle!r}.items()}})
"""


@pytest.fixture(scope="module")
def refused():
    """Whether every case of `SUBTLE` is, all in one process."""
    result = run("-c", REFUSED.format(folder=str(PROGRAM.parent), subtle=SUBTLE))
    assert result.returncode == 0, result.stderr[-500:]
    return ast.literal_eval(result.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("what", list(SUBTLE))
def test_subtle_mistakes_are_refused(refused, what):
    assert refused[what]
