"""README's output of the demo has the form that the demo prints; `make readme` puts it there."""

import importlib
import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RUN = {
    "D_cm2_s": {"value": 5.8e-6, "low": 3.7e-6, "high": 8.9e-6},
    "sigma_tracer_mS_cm": {"value": 448.0, "low": 286.0, "high": 687.0},
    "sigma_collective_mS_cm": None,
}
LAW = {
    "Ea_eV": {"value": 0.2, "low": 0.04, "high": 0.37},
    "sigma_300K_mS_cm": {"value": 19.0, "low": 0.31, "high": 1034.0},
}


@pytest.fixture
def readme(monkeypatch):
    """The script, with the demo beside it."""
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    yield importlib.import_module("readme")
    for name in ("readme", "demo"):
        sys.modules.pop(name, None)


@pytest.fixture
def output(tmp_path):
    """What a demo leaves."""
    for engine, temperatures in {"lammps": [600, 700, 850, 1000], "ipi": [850], "ase": [850]}.items():
        content = {
            "species": "Li",
            "runs": [{"T_K": t, **RUN} for t in temperatures],
            "arrhenius": LAW if engine == "lammps" else None,
        }
        (tmp_path / f"{engine}.json").write_text(json.dumps(content))
    (tmp_path / "report-lammps").mkdir()
    (tmp_path / "report-lammps" / "arrhenius.png").write_bytes(b"picture")
    return tmp_path


def form(text):
    """Lines without their numbers and without the room for them."""
    text = re.sub(
        r"[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+|\d[\d.]*(?= )|(?<=[\[ ])−?\d[\d.]*(?=[,\] ])|─+|mS/cm|S/cm|undetermined", "#", text
    )
    text = text.replace("σ(# K) = # [#, #] #", "σ(# K) = #")  # which it is where it is undetermined
    return [re.sub(r" {2,}", "  ", line).strip() for line in text.splitlines()]


def test_the_readme_shows_what_the_demo_prints(readme, output):
    (found,) = readme.BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    assert form(found[2]) == form(readme.printed(output))


def test_the_script_replaces_block_date_and_picture(readme, output, tmp_path, monkeypatch):
    copy = tmp_path / "copy"
    (copy / "docs" / "images").mkdir(parents=True)
    (copy / "README.md").write_text(
        "a\nIts output here (1 May 2020):\n\n```\nold\n```\n\nb\n", encoding="utf-8"
    )
    monkeypatch.setattr(readme, "ROOT", copy)
    monkeypatch.setattr(sys, "argv", ["readme.py", str(output)])
    readme.main()
    text = (copy / "README.md").read_text(encoding="utf-8")
    assert "1 May 2020" not in text
    assert re.fullmatch(
        r"a\nIts output here \(\d+ \w+ \d{4}\):\n\n```\nLi6PS5Cl.*\n```\n\nb\n", text, re.DOTALL
    )
    assert "5.8 [3.7, 8.9]       0.45 [0.29, 0.69]" in text
    assert "Ea = 0.20 [0.04, 0.37] eV, σ(300 K) = 19 [0.31, 1000] mS/cm" in text
    assert (copy / "docs/images/demo.png").read_bytes() == b"picture"
