"""The example that labels its own frames runs as it says; the unit of its dipoles is checked in it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "examples" / "11_infrared.py"


@pytest.mark.exhaustive  # labels, a training and two runs: a minute
@pytest.mark.usefixtures("native_build", "warm_start")
def test_from_labels_to_a_spectrum(tmp_path):
    pytest.importorskip("tblite", reason="labels by tblite: pip install 'mlplugins[labels]'")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    words = ["--frames", "300", "--epochs", "60", "--runs", "2", "--steps", "6000"]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "-o", "infrared", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PATH": path},
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    sums = re.search(r"MD ([\d.]+), harmonic ([\d.]+), GFN2-xTB ([\d.]+) km/mol", done.stdout)
    dynamics, potential, reference = map(float, sums.groups())
    assert potential == pytest.approx(reference, rel=0.15)  # a unit of 2.5 would be six times as much
    assert 0.3 < dynamics / potential < 2.5  # two short runs: the energy of each mode scatters by its size
    lines = re.findall(r"^ +(\d+) +([\d.]+) +(\d+) +([\d.]+)$", done.stdout, re.M)
    assert len(lines) == 6
    for found, _, expected, _ in lines:
        assert float(found) == pytest.approx(float(expected), rel=0.05)
    assert (tmp_path / "infrared" / "report" / "report.html").is_file()
