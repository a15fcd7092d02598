"""The one style of every figure."""

import re
from pathlib import Path

import matplotlib as mpl
import matplotlib.image
import pytest

import mlplugins
from mlplugins import plotting
from mlplugins.errors import BadInput

ROOT = Path(mlplugins.__file__).parents[1]


def test_only_one_file_sets_what_figures_look_like():
    """No colour, type size or resolution is chosen elsewhere."""
    chosen = re.compile(r"rc_context|rcParams|pyplot|figsize|dpi *=|#[0-9a-fA-F]{6}\b")
    files = [path for name in ("mlplugins", "benchmarks", "examples") for path in (ROOT / name).rglob("*.py")]
    drawing = [path for path in files if re.search("matplotlib|plotting", path.read_text("utf-8"))]
    assert len(drawing) > 8
    for path in drawing:
        if path.name not in ("plotting.py", "page.py"):  # the page has colours of its own
            assert not chosen.search(path.read_text(encoding="utf-8")), path


def test_the_style_is_in_force_inside_and_nowhere_else():
    before = mpl.rcParams["font.size"]
    with plotting.style():
        assert mpl.rcParams["font.size"] == 8
    assert mpl.rcParams["font.size"] == before


def test_a_picture_is_png_and_pdf_or_what_its_name_says(tmp_path, drawn):
    figure = plotting.canvas(2.0, 1.0, "What it shows.")
    plotting.save(figure, tmp_path / "both")
    plotting.save(figure, tmp_path / "one.svg")
    assert {path.name for path in tmp_path.iterdir()} == {"both.png", "both.pdf", "one.svg"}
    assert matplotlib.image.imread(tmp_path / "both.png").shape[:2] == (plotting.DPI, 2 * plotting.DPI)
    assert (tmp_path / "both.pdf").read_bytes().startswith(b"%PDF")
    assert figure.get_label() == "What it shows."


@pytest.mark.parametrize("name", ["parity", "parity.jpg"])
def test_a_name_without_a_format_is_refused(tmp_path, name):
    with pytest.raises(BadInput, match=r"plot .*parity.*: expected a name that ends in \.png, \.pdf, \.svg"):
        plotting.require_writable(tmp_path / name, "plot")
    plotting.require_writable(tmp_path / "parity.PNG", "plot")
