"""The teaching example runs as it says, and finds what was put in."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "examples" / "06_course.py"


@pytest.mark.slow
@pytest.mark.usefixtures("warm_start")
def test_the_course_exercise(tmp_path):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "-o", "course", "--frames", "800"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    epsilon, sigma = re.search(r"ε = ([\d.]+) eV.*σ = ([\d.]+) Å", done.stdout).groups()
    assert float(epsilon) == pytest.approx(0.0104, rel=0.02)
    assert float(sigma) == pytest.approx(3.40, rel=0.002)
    assert float(re.search(r"largest difference ([\d.e-]+)", done.stdout).group(1)) < 1e-9
    results = json.loads((tmp_path / "course" / "results.json").read_text())
    energy = results["arrhenius"]["Ea_eV"]
    # between the two barriers, nearer to the lower one along c, which carries most of D
    assert 0.12 < energy["value"] < 0.28
    for entry in results["runs"]:
        across, _, along = (value["value"] for value in entry["D_axes_cm2_s"])
        assert along > 1.5 * across
    assert (tmp_path / "course" / "report" / "report.html").is_file()
