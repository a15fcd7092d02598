"""The "From Python" blocks of docs/simulation.md and docs/check.md, as they stand there."""

import re
from pathlib import Path

import ase.io
import pytest
from ase.build import bulk

from .argon import write_model

pytestmark = pytest.mark.usefixtures("native_build", "warm_start")
DOCS = Path(__file__).parents[2] / "docs"
PRINTED = {"simulation.md": "T0300_seed1 finished 30\n", "check.md": "True\n"}


@pytest.mark.parametrize("page", PRINTED)
def test_what_the_page_says(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "model.pt")
    ase.io.write("start.extxyz", bulk("Ar", "fcc", a=5.4, cubic=True).repeat((2, 2, 1)))
    [block] = re.findall(r"## From Python\n+```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    exec(compile(block, page, "exec"), {})
    assert capsys.readouterr().out == PRINTED[page]
