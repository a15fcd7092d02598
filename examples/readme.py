"""README's output and picture of the demo, from the demo's folder (`make readme`).

python examples/readme.py demo
"""

from __future__ import annotations

import io
import re
import shutil
import sys
from datetime import date
from pathlib import Path

import demo
from rich.console import Console

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"(Its output here \()[^)]*(\):\n\n```\n)(.*?)(\n```\n)", re.S)
FIGURE = "arrhenius.png"


def main() -> None:
    """Replace the block in README.md and docs/images/demo.png."""
    output = Path(sys.argv[1])
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    if len(BLOCK.findall(text)) != 1:
        sys.exit("README.md: expected one block after 'Its output here (DATE):'")
    day = date.fromtimestamp((output / "lammps.json").stat().st_mtime)
    shown = printed(output)
    text = BLOCK.sub(lambda found: f"{found[1]}{day.day} {day:%B %Y}{found[2]}{shown}{found[4]}", text)
    readme.write_text(text, encoding="utf-8")
    shutil.copy(output / "report-lammps" / FIGURE, ROOT / "docs" / "images" / "demo.png")


def printed(output: Path) -> str:
    """What the demo prints at its end, from the results in its folder."""
    screen = io.StringIO()
    demo.console = Console(file=screen, width=100)
    demo.summary(output)
    return "\n".join(line.rstrip() for line in screen.getvalue().strip("\n").splitlines())


if __name__ == "__main__":
    main()
