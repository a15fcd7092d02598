"""The main job: PBE frames of Li6PS5Cl → potential → checks → MD in three engines → conductivity.

    python examples/demo.py            about eleven minutes on two cores
    python examples/demo.py --full     hours: longer training, three seeds and 200 ps per temperature

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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
DATA = EXAMPLES / "data" / "li6ps5cl_pbe"
MLPLUGINS = Path(sys.executable).parent / "mlplugins"
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
    run(f"mlplugins train {output}/train.yaml -o {output}/potential", output)
    run(f"mlplugins check potential/model.pt {DATA}/test.extxyz@0 --json check.json", output)
    run("mlplugins simulate lammps.yaml -o lammps", output)
    report = "mlplugins conductivity {0}/conductivity.yaml -o report-{0} --json {0}.json"
    run_side_by_side(
        ["mlplugins simulate ipi.yaml -o ipi", report.format("ipi")],
        ["mlplugins simulate ase.yaml -o ase", report.format("lammps"), report.format("ase")],
        folder=output,
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
    campaign.update(model=str(output / "potential" / "model.pt"), structure=f"{DATA}/train.extxyz@31")
    one = {**campaign, "temperatures": [COMPARED_AT], "parallel": 1, "steps": campaign["steps"] * 2 // 5}
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
    """One command, in the foreground; the demo ends if it fails."""
    console.rule(f"[bold]{command}", align="left")
    code = _call(command, folder)
    if code:
        sys.exit(f"demo: '{command}' failed with exit code {code}")


def run_side_by_side(*chains: list[str], folder: Path) -> None:
    """Chains of commands, one core each; a command that fails ends its chain, and then the demo."""
    for chain in chains:
        console.rule("[bold]" + " && ".join(chain), align="left")
    with ThreadPoolExecutor(len(chains)) as pool:
        failed = [name for name in pool.map(lambda chain: _first_failure(chain, folder), chains) if name]
    if failed:
        sys.exit(f"demo: failed: {'; '.join(failed)}")


def summary(output: Path) -> None:
    """The answer, and the same diffusion coefficient from three engines."""
    results = {
        engine: json.loads((output / f"{engine}.json").read_text()) for engine in ("lammps", "ipi", "ase")
    }
    table = Table(
        "engine", "T (K)", "D(Li) (1e-5 cm²/s)", "95 % interval", "σ tracer (mS/cm)", title="Li6PS5Cl"
    )
    for engine, result in results.items():
        for row in result["runs"]:
            d, sigma = row["D_cm2_s"], row["sigma_tracer_mS_cm"]
            table.add_row(
                engine,
                f"{row['T_K']:g}",
                f"{1e5 * d['value']:.2f}",
                f"{1e5 * d['low']:.2f} – {1e5 * d['high']:.2f}",
                f"{sigma['value']:.0f}",
            )
    console.print(table)
    same = [
        [run for run in result["runs"] if run["T_K"] == COMPARED_AT][0]["D_cm2_s"]
        for result in results.values()
    ]
    agree = max(d["low"] for d in same) <= min(d["high"] for d in same)
    console.print(
        f"D at {COMPARED_AT} K: the intervals of the three engines {'overlap' if agree else 'DO NOT overlap'}"
    )
    arrhenius = results["lammps"]["arrhenius"]
    if arrhenius:
        ea, sigma = arrhenius["Ea_eV"], arrhenius["sigma_300K_mS_cm"]
        console.print(
            f"Ea = {ea['value']:.2f} eV [{ea['low']:.2f}, {ea['high']:.2f}],  "
            f"σ(300 K) = {sigma['value']:.2g} mS/cm [{sigma['low']:.1g}, {sigma['high']:.1g}]"
        )


def _first_failure(chain: list[str], folder: Path) -> str | None:
    return next((command for command in chain if _call(command, folder)), None)


def _call(command: str, folder: Path) -> int:
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    return subprocess.run([MLPLUGINS, *shlex.split(command)[1:]], cwd=folder, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
