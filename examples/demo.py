"""The main job: PBE frames of Li6PS5Cl → potential → checks → MD in three engines → conductivity.

    python examples/demo.py            about five minutes on two cores
    python examples/demo.py --full     hours: longer training, three seeds of 300 ps per temperature

Every step is one `mlplugins` command, printed before it runs; all results are under demo/.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import yaml
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from mlplugins.analysis.comparison import as_value, read_system
from mlplugins.analysis.numbers import conductivity_unit, measured, span, unit_of

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
DATA = EXAMPLES / "data" / "li6ps5cl_pbe"
COMPARED_AT = 850  # K, the temperature that all three engines run
console = Console()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="longer training and dynamics (hours)")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "demo", help="default: demo/")
    arguments = parser.parse_args()
    output = arguments.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    write_configurations(output, arguments.full)
    structure = shlex.quote(f"{DATA}/test.extxyz@0")
    run("mlplugins train train.yaml -o potential", output)
    run(f"mlplugins check potential/model.pt {structure} --json check.json", output)
    run("mlplugins simulate lammps.yaml -o lammps", output)
    report = "mlplugins conductivity {0}/conductivity.yaml -o report-{0} --json {0}.json"
    lammps, ipi, ase = (report.format(engine) for engine in ("lammps", "ipi", "ase"))
    run_together(
        [
            f"mlplugins simulate ipi.yaml -o ipi && {ipi}",
            f"mlplugins simulate ase.yaml -o ase && {lammps} && {ase}",
        ],
        output,
    )
    summary(output)
    console.print(
        f"\nreport: {output}/report-lammps/report.html   ({(time.monotonic() - start) / 60:.1f} minutes)"
    )
    return 0


def write_configurations(output: Path, full: bool) -> None:
    """The examples' configurations with absolute paths, one campaign per engine."""
    train = yaml.safe_load((EXAMPLES / "01_train.yaml").read_text())
    train["data"].update(train=str(DATA / "train.extxyz"), test=str(DATA / "test.extxyz"))
    campaign = yaml.safe_load((EXAMPLES / "05_simulate.yaml").read_text())
    campaign.update(model=str(output / "potential" / "model.pt"), structure=f"{DATA}/train.extxyz@13")
    one = {**campaign, "temperatures": [COMPARED_AT], "parallel": 1, "steps": campaign["steps"] // 4}
    if full:
        train["training"]["epochs"] *= 4
        for each in (campaign, one):
            each.update(steps=100_000, seeds=[1, 2, 3])
    files = {
        "train.yaml": train,
        "lammps.yaml": campaign,
        "ipi.yaml": {**one, "engine": "ipi"},
        "ase.yaml": {**one, "engine": "ase"},
    }
    for name, content in files.items():
        (output / name).write_text(yaml.safe_dump(content, sort_keys=False))


def run(command: str, folder: Path) -> None:
    """One command line, in the foreground; the demo ends if it fails."""
    run_together([command], folder)


def run_together(commands: list[str], folder: Path) -> None:
    """Several command lines side by side, one core each."""
    for command in commands:
        console.rule(f"[bold]{command}", align="left")
    search = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # where mlplugins is
    environment = {"OMP_NUM_THREADS": "1", **os.environ, "PATH": search}
    running = [subprocess.Popen(command, shell=True, cwd=folder, env=environment) for command in commands]
    failed = [command for command, process in zip(commands, running) if process.wait()]
    if failed:
        sys.exit(f"demo: failed: {'; '.join(failed)}")


def summary(output: Path) -> None:
    """The answer, and the same diffusion coefficient from three engines."""
    systems = {engine: read_system(output / f"{engine}.json", engine) for engine in ("lammps", "ipi", "ase")}
    points = [(engine, point) for engine, system in systems.items() for point in system.points]
    d = unit_of((point.d_cm2_s for _, point in points), "cm²/s")
    sigma = conductivity_unit(point.sigma_tracer for _, point in points)
    heads = ("engine", "T (K)", d.heads("D(Li)"), sigma.heads("σ tracer"))
    table = Table(*heads, title="Li6PS5Cl: value [95 % interval]", title_justify="left", box=SIMPLE_HEAD)
    for engine, point in points:
        values = (span(point.d_cm2_s, d), span(point.sigma_tracer, sigma))
        table.add_row(engine, f"{point.temperature_k:g}", *values)
    console.print(table)
    same = [point.d_cm2_s for _, point in points if point.temperature_k == COMPARED_AT]
    agree = max(value.low for value in same) <= min(value.high for value in same)
    console.print(
        f"D at {COMPARED_AT} K: the intervals of the three engines {'overlap' if agree else 'DO NOT overlap'}"
    )
    arrhenius = json.loads((output / "lammps.json").read_text())["arrhenius"]
    if arrhenius:
        ea, room = as_value(arrhenius["Ea_eV"]), as_value(arrhenius["sigma_300K_mS_cm"])
        console.print(f"Ea = {measured(ea, 'eV')}, σ(300 K) = {measured(room, 'mS/cm')}", markup=False)


if __name__ == "__main__":
    sys.exit(main())
