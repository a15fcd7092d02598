"""Makes the figures of the pages: python docs/images/make.py [NAME …]

`first` (learning and parity) and `analyst` are of the runs that the pages describe, ten minutes on one core.
`speed` and `universal` draw the tables of benchmarks/RESULTS.md and docs/universal.md, with the functions of
benchmarks/plot_speed.py and examples/06_universal. `demo.png` is of `make demo` and `make readme`.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import mlplugins
from mlplugins import plotting
from mlplugins.testing.walks import LatticeWalk, crystal, write_lammps_dump

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
EXAMPLES = ROOT / "examples"
NUMBER = r"\d[\d.]*"


def main() -> None:
    """Draw what is named, by default everything."""
    figures = {"first": first, "analyst": analyst, "speed": speed, "universal": universal}
    with tempfile.TemporaryDirectory() as name:
        for figure in sys.argv[1:] or figures:
            figures[figure](Path(name))


def first(folder: Path) -> None:
    """Train as the page does."""
    mlplugins.train(EXAMPLES / "01_train.yaml", folder / "potential")
    for figure in ("learning", "parity"):
        shutil.copy(folder / "potential" / f"{figure}.png", HERE / f"first_{figure}.png")


def analyst(folder: Path) -> None:
    """Analyse as the page does."""
    walk = LatticeWalk(frames=1000, ions=60, hop=2.5, rate=0.4, frame_ps=0.1)
    write_lammps_dump(crystal(walk), folder / "600K.lammpstrj", every=50)
    run = {"files": [str(folder / "600K.lammpstrj")], "temperature": 600}
    settings = {"species": "Li", "charge": 1, "timestep": 2.0, "runs": [run]}
    mlplugins.conductivity(settings, folder / "report")
    shutil.copy(folder / "report/msd.png", HERE / "analyst_msd.png")


def speed(folder: Path) -> None:
    """The float32 rows of the comparison with the stock packages."""
    drawing = _program(ROOT / "benchmarks/plot_speed.py")
    records, case = [], None
    for model, atoms, _, exact, tables, *_ in _rows(
        ROOT / "benchmarks/RESULTS.md", "| model | atoms | stock |"
    ):
        if model:
            case = next(
                (name for name, title in drawing.TITLES.items() if model.startswith(title.split(",")[0])),
                None,
            )
        for variant, text in (("exact", exact), ("tables", tables)):
            [ratio] = re.findall(rf"\(({NUMBER})×\)", text)
            records.append({"case": case, "variant": variant, "atoms": int(atoms), "ratio": float(ratio)})
    with plotting.style():
        drawing.draw([row for row in records if row["case"]], list(drawing.TITLES), HERE / "speed.png")


def universal(folder: Path) -> None:
    """The learning curve and the diffusion coefficients of SevenNet-0, its tuned form and the student."""
    page, drawing = ROOT / "docs/universal.md", _program(EXAMPLES / "06_universal/run.py")
    results: dict[str, Any] = {"fine-tuned": {}, "scratch": {}, "ms_per_call": {}}
    for frames, base, tuned, _, scratch, *_ in _rows(page, "| training frames |"):
        if frames.isdecimal():
            results["fine-tuned"][int(frames)] = {"test": _errors(tuned), "base": _errors(base)}
            results["scratch"][int(frames)] = {"test": _errors(scratch)}
    for model, cost, *values in _rows(page, "| | CPU-ms per call"):
        name = model.split(",")[0]
        results["ms_per_call"][name] = float(cost.split()[0])
        runs = [dict(zip(("value", "low", "high"), map(float, re.findall(NUMBER, text)))) for text in values]
        scaled = [{key: 1e-5 * value for key, value in run.items()} for run in runs]
        results[name] = {"runs": [{"T_K": T, "D_cm2_s": D} for T, D in zip((700, 850, 1000), scaled)]}
    with plotting.style():
        drawing.plot_learning(results, HERE / "universal_learning_curve.png")
        drawing.plot_diffusion(results, HERE / "universal_diffusion.png")


def _errors(cell: str) -> dict[str, dict[str, float]]:
    energy, forces, _ = map(float, cell.split(" / "))
    return {"energy": {"mae_meV_per_atom": energy}, "forces": {"mae_meV_per_A": forces}}


def _rows(page: Path, head: str) -> list[list[str]]:
    """Cells of the table whose first line begins with `head`."""
    lines = page.read_text(encoding="utf-8").splitlines()
    start = next(k for k, line in enumerate(lines) if line.startswith(head)) + 2
    end = next(k for k in range(start, len(lines)) if not lines[k].startswith("|"))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[start:end]]


def _program(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
