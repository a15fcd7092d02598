"""Formaldehyde from DFT labels to infrared spectra: training, harmonic lines, MD in every engine, TRPMD.

    MLPLUGINS_REFERENCE_DATA=… python benchmarks/h2co.py [STEP …] [-o runs/h2co]    about ten minutes of CPU

The set (B3LYP/cc-pVDZ, 4001 frames, of the package Asparagus) has dipoles in no unit that one would guess:
they are the numbers in atomic units times 0.2082, so that 2.5417 makes e·Å of them. STEP (default: all, in
this order; what is there is not made again):

    train      1000 frames, 100 to choose the epoch, 500 to test; what `evaluate` says of the unit as it is
    harmonic   lines of the potential, and intensities of the derivatives of its dipole (ASE's Infrared)
    limit      NVE in each engine, every mode displaced by kT at 1 mK: intensities against those, line by line
    md         300 K in each engine, several runs
    trpmd      path integrals (i-PI, ring polymers) at 300 K; only if named: ten CPU-minutes a run
    figure     spectra, intensities of bands (standard errors over the runs) and the figure
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixCom
from ase.io import Trajectory, read, write
from ase.md.langevin import Langevin
from ase.md.md import MolecularDynamics
from ase.md.velocitydistribution import thermalize_momenta
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from ase.vibrations import Infrared

import mlplugins
from mlplugins import MLCalculator, plotting
from mlplugins.analysis.spectra.settings import Settings

SET = "h2co/h2co_B3LYP_cc-pVDZ_4001.npz"
E_A = 2.5417
"""Of the dipoles in the file."""
N_TRAIN, N_VALIDATION, N_TEST = 1000, 100, 500
CONFIGURATION: dict[str, Any] = {
    "heads": {"dipole": {"unit": "e*A", "key": "mu"}},
    "model": {
        "family": "nequip",
        "cutoff": 4.0,
        "num_layers": 3,
        "num_features": 16,
        "l_max": 2,
        "radial_mlp": [32],
    },
    "training": {"batch_size": 10, "lr": 0.01},
    "export": {"dtype": "float64", "radial_tables": "off"},
}
KM_PER_MOL = 42.2561
"""Of (D/Å)²/u."""
KELVIN, COLD = 300.0, 0.001
BOX = 30.0
ENGINES = ("lammps", "ase", "ipi")
BANDS = {
    "ν4 + ν6": (950.0, 1380.0),
    "ν3": (1380.0, 1620.0),
    "ν2": (1620.0, 2000.0),
    "ν1 + ν5": (2500.0, 3200.0),
}
GAS = (1167.3, 1249.1, 1500.2, 1746.0, 2782.5, 2843.3)
"""Fundamentals of the gas, cm⁻¹: G. Herzberg, Electronic Spectra of Polyatomic Molecules (1966); NIST."""
DECK = """\
units metal
atom_modify map yes
boundary p p p
read_data start.data
mass 1 15.999
mass 2 12.011
mass 3 1.008
pair_style mlplugins {model}
pair_coeff * * O C H
neighbor 2.0 bin
timestep {step}
{start}
compute mu all pair mlplugins
fix mu all ave/time {every} 1 {every} c_mu[*] file mu.dat format " %.10g"
thermo 1000
run {steps}
"""
WARM = """\
velocity all create {kelvin} {seed} mom yes rot yes dist gaussian
fix warm all langevin {kelvin} {kelvin} 0.1 {seed}
fix move all nve
run {warm}
unfix warm
fix mix all langevin {kelvin} {kelvin} 1.0 {seed}
velocity all zero linear"""
XML = """\
<simulation verbosity='quiet'>
  <output prefix='out'>
    <properties stride='100' filename='md'>[step, time{{picosecond}}, conserved{{electronvolt}},
      temperature{{kelvin}}, potential{{electronvolt}}]</properties>
    <trajectory stride='{every}' filename='mu' extra_type='dipole'> extras </trajectory>
  </output>
  <total_steps>{steps}</total_steps>
  <prng><seed>{seed}</seed></prng>
  <ffdirect name='ml' pbc='false'>
    <pes>custom</pes> <pes_path>{driver}</pes_path>
    <parameters>{{model: {model}, template: start.xyz, pbc: false}}</parameters>
  </ffdirect>
  <system>
    <initialize nbeads='{beads}'>
      <file mode='xyz' units='angstrom' cell_units='angstrom'>start.xyz</file>{velocities}
    </initialize>
    <forces><force forcefield='ml'/></forces>
    <ensemble><temperature units='kelvin'>{kelvin}</temperature></ensemble>
    <motion mode='dynamics'>
      <dynamics mode='{mode}'>
        <timestep units='femtosecond'>{step}</timestep>{thermostat}
      </dynamics>
    </motion>
  </system>
</simulation>
"""


class Run(NamedTuple):
    """How a run moves; lengths in fs. At a temperature of zero: NVE from rest."""

    step: float
    every: int
    steps: int
    kelvin: float
    beads: int = 1
    discard: int = 0
    """Samples at its start that belong to the equilibration."""


class Work(NamedTuple):
    """What all steps need."""

    folder: Path
    data: Path
    arguments: argparse.Namespace

    @property
    def model(self) -> Path:
        return self.folder / "model" / "model.pt"

    def report(self, name: str, found: dict[str, Any]) -> None:
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps(found, indent=1, ensure_ascii=False), encoding="utf-8")
        print(name, path.read_text(encoding="utf-8"), flush=True)


def frames(data: Path, chosen: Sequence[int], factor: float = E_A) -> list[Atoms]:
    content = np.load(data)
    found = []
    for k in chosen:
        atoms = Atoms(content["Z"][k], content["R"][k], info={"mu": factor * content["D"][k]})
        atoms.calc = SinglePointCalculator(atoms, energy=content["E"][k], forces=content["F"][k])
        found.append(atoms)
    return found


def train(work: Work) -> None:
    order = np.random.default_rng(0).permutation(len(np.load(work.data)["E"]))
    ends = np.cumsum([0, N_TRAIN, N_VALIDATION, N_TEST])
    paths = {}
    for name, low, high in zip(("train", "validation", "test"), ends[:-1], ends[1:], strict=True):
        paths[name] = work.folder / f"{name}.extxyz"
        if not paths[name].exists():
            write(paths[name], frames(work.data, order[low:high]))
    files = {name: str(path) for name, path in paths.items()}
    training = {**CONFIGURATION["training"], "epochs": work.arguments.epochs}
    trained = mlplugins.train({**CONFIGURATION, "data": files, "training": training}, work.model.parent)
    report = {name: trained.metrics[name] for name in ("test", "n_parameters", "cpu_s", "best_epoch")}
    labels = np.array([a.info["mu"] for a in read(paths["test"], ":")])
    report["test dipole component, RMS about the mean, e·Å"] = float(np.sqrt(np.mean(labels.var(axis=0))))
    raw = work.folder / "raw.extxyz"
    write(raw, frames(work.data, order[-200:], 1.0))
    for unit in ("e*A", "Debye"):
        command = ["mlplugins", "evaluate", str(work.model), str(raw), "--keys", f"dipole=mu:{unit}"]
        said = subprocess.run(command, capture_output=True, text=True)
        lines = (said.stdout + said.stderr).splitlines()
        report[f"as it stands, called {unit}"] = [line.strip() for line in lines if "dipole" in line]
    work.report("train", report)


def at_rest(work: Work) -> Atoms:
    """The minimum of the potential."""
    atoms = read(work.folder / "train.extxyz", 0)
    atoms.calc = MLCalculator(work.model)
    BFGS(atoms, logfile=None).run(fmax=1e-6, steps=500)
    atoms.positions -= atoms.get_center_of_mass()
    return atoms


def harmonic(work: Work) -> None:
    atoms = at_rest(work)
    lines = Infrared(atoms, name=str(work.folder / "infrared"), delta=0.005)
    lines.clean()
    lines.run()
    found = {
        "cm-1": lines.get_frequencies()[-6:].real.tolist(),
        "km/mol": (KM_PER_MOL * lines.intensities[-6:]).tolist(),
        "modes": [lines.get_mode(k).tolist() for k in range(6, 12)],
        "dipole, Debye": float(np.linalg.norm(atoms.get_dipole_moment()) / units.Debye),
    }
    born = atoms.calc.get_property("born_effective_charges", atoms)
    masses = atoms.get_masses()
    for name, mode in zip(("km/mol of Z*",), (np.array(found["modes"]),), strict=True):
        unit = mode / np.sqrt((masses[None, :, None] * mode**2).sum(axis=(1, 2)))[:, None, None]
        slopes = np.einsum("iab,kib->ka", born, unit) / units.Debye
        found[name] = (KM_PER_MOL * (slopes**2).sum(axis=1)).tolist()
    work.report("harmonic", found)


def lammps(work: Work, atoms: Atoms, run: Run, here: Path, seed: int) -> Path:
    boxed = atoms.copy()
    boxed.set_cell([BOX] * 3)
    boxed.center()
    write(here / "start.data", boxed, format="lammps-data", specorder=["O", "C", "H"], masses=False)
    warm = WARM.format(kelvin=run.kelvin, seed=4711 + seed, warm=round(500 / run.step))
    start = warm if run.kelvin else "fix move all nve"
    values = {"model": work.model, "step": run.step / 1000, "every": run.every, "steps": run.steps}
    (here / "in.lmp").write_text(DECK.format(start=start, **values))
    command = [shutil.which("lmp") or "lmp", "-in", "in.lmp", "-log", "log.lammps", "-screen", "none"]
    subprocess.run(command, cwd=here, check=True)
    return here / "mu.dat"


def ase(work: Work, atoms: Atoms, run: Run, here: Path, seed: int) -> Path:
    atoms = atoms.copy()
    atoms.calc = MLCalculator(work.model)
    step, random = run.step * units.fs, np.random.default_rng(seed)
    dynamics: MolecularDynamics = VelocityVerlet(atoms, step)
    if run.kelvin:
        thermalize_momenta(atoms, temperature_K=run.kelvin, rng=random)
        atoms.set_constraint(FixCom())
        for friction, steps in ((0.01, round(500 / run.step)), (0.001, 0)):
            given = {"temperature_K": run.kelvin, "friction": friction / units.fs, "rng": random}
            dynamics = Langevin(atoms, step, fixcm=False, **given)
            dynamics.run(steps)
    path = here / "dipoles.traj"
    with Trajectory(path, "w", atoms, properties=["dipole"]) as trajectory:
        dynamics.attach(trajectory.write, interval=run.every)
        dynamics.run(run.steps)
    return path


def ipi(work: Work, atoms: Atoms, run: Run, here: Path, seed: int) -> list[Path]:
    boxed = atoms.copy()
    boxed.set_cell([BOX] * 3)
    boxed.center()
    write(
        here / "start.xyz",
        boxed,
        format="xyz",
        comment=f"# CELL(abcABC): {3 * f'{BOX} '}90 90 90",
        fmt="%20.12f",
    )
    driver = subprocess.run(["mlplugins", "ipi-driver", "--path"], check=True, capture_output=True, text=True)
    kind, tau = ("pile_g", 100.0) if run.beads > 1 else ("langevin", 1000.0)
    more = "<pile_lambda>0.5</pile_lambda>" if run.beads > 1 else ""
    warm = f"\n        <thermostat mode='{kind}'><tau units='femtosecond'>{tau}</tau>{more}</thermostat>"
    hot = run.kelvin * (2 if run.beads == 1 else 1)  # at rest: half of it goes to the potential energy
    speeds = f"\n      <velocities mode='thermal' units='kelvin'>{hot}</velocities>"
    steps = run.steps + run.discard * run.every
    values = {"step": run.step, "every": run.every, "steps": steps, "kelvin": run.kelvin or COLD}
    values |= {"seed": seed, "beads": run.beads, "model": work.model, "driver": driver.stdout.strip()}
    values |= {"mode": "nvt", "thermostat": warm, "velocities": speeds}
    if not run.kelvin:
        values |= {"mode": "nve", "thermostat": "", "velocities": ""}
    (here / "input.xml").write_text(XML.format(**values))
    with (here / "log.i-pi").open("w") as log:
        subprocess.run(["i-pi", "input.xml"], cwd=here, check=True, stdout=log, stderr=log)
    return sorted(here.glob("out.mu_*"))


def moved(work: Work, engine: str, atoms: Atoms, run: Run, here: Path, seed: int) -> list[Path]:
    """Files of dipoles of a run, which is not repeated."""
    done = here / "done"
    if not done.exists():
        shutil.rmtree(here, ignore_errors=True)
        here.mkdir(parents=True)
        files = {"lammps": lammps, "ase": ase, "ipi": ipi}[engine](work, atoms, run, here, seed)
        done.write_text("\n".join(map(str, files if isinstance(files, list) else [files])))
    return [Path(line) for line in done.read_text().splitlines()]


def limit(work: Work) -> None:
    """All modes at their turning points with an energy of kT each: nothing of this is random."""
    known = json.loads((work.folder / "harmonic.json").read_text())
    atoms = at_rest(work)
    masses = atoms.get_masses()
    for cm, mode in zip(known["cm-1"], np.array(known["modes"]), strict=True):
        unit = mode / np.sqrt((masses[:, None] * mode**2).sum())
        omega = 200 * np.pi * units._c * cm
        atoms.positions += np.sqrt(2 * units._k * COLD / units._amu) / omega * 1e10 * unit
    run = Run(step=0.25, every=4, steps=12_000, kelvin=0.0)
    known_cm, known_km = np.array(known["cm-1"]), np.array(known["km/mol"])
    for engine in work.arguments.engines:
        files = moved(work, engine, atoms, run, work.folder / "limit" / engine, 1)
        settings = Settings(
            interval_fs=run.step * run.every, temperature_k=COLD, high_cm=4000.0, width_cm=30.0
        )
        if engine != "ase":
            settings = Settings(timestep_fs=run.step, temperature_k=COLD, high_cm=4000.0, width_cm=30.0)
        found = mlplugins.spectra("ir", files, settings, work.folder / "limit" / f"report-{engine}")
        report: dict[str, Any] = {"cm-1": [round(p.position, 2) for p in found.peaks]}
        for name, (low, high) in BANDS.items():
            inside = (known_cm > low) & (known_cm < high)
            expected = float(known_km[inside].sum())
            area = bands(found)[name][0]
            report[name] = {"km/mol": area, "harmonic": expected, "%": 100 * (area / expected - 1)}
        work.report(f"limit-{engine}", report)


def classical(work: Work) -> None:
    run = Run(step=0.5, every=2, steps=round(2000 * work.arguments.ps), kelvin=KELVIN, discard=500)
    atoms = at_rest(work)
    for engine in work.arguments.engines:
        for seed in range(1, work.arguments.runs + 1):
            moved(work, engine, atoms, run, work.folder / f"{engine}{seed}", seed)


def quantum(work: Work) -> None:
    steps = round(4000 * work.arguments.quantum_ps)
    run = Run(0.25, 4, steps, KELVIN, work.arguments.beads, discard=500)
    atoms = at_rest(work)
    for seed in range(1, work.arguments.quantum_runs + 1):
        moved(work, "ipi", atoms, run, work.folder / f"trpmd{seed}", seed)


def finished(work: Work, name: str) -> list[list[Path]]:
    """Files of dipoles of the runs that are there."""
    found = sorted(work.folder.glob(f"{name}[0-9]*/done"))
    return [[Path(line) for line in done.read_text().splitlines()] for done in found]


def bands(found: Any) -> dict[str, tuple[float, float]]:
    """Intensity, km/mol, and mean position, cm⁻¹, of every band."""
    result = {}
    for name, (low, high) in BANDS.items():
        inside = (found.per_cm > low) & (found.per_cm < high)
        area = float(np.trapezoid(found.main[inside], found.per_cm[inside]))
        centre = float(np.trapezoid((found.main * found.per_cm)[inside], found.per_cm[inside]) / area)
        result[name] = (area, centre)
    return result


def summary(work: Work, name: str, runs: list[list[Path]], settings: Settings) -> tuple[Any, dict[str, Any]]:
    """The spectrum of all runs, and means and standard errors of bands over the runs."""
    beads = len(runs[0])
    settings = settings if beads == 1 else Settings(**{**settings.__dict__, "beads": beads})
    each = []
    for k, files in enumerate(runs):
        found = mlplugins.spectra("ir", files, settings, work.folder / "spectra" / f"{name}{k + 1}")
        each.append(bands(found))
    whole = mlplugins.spectra(
        "ir", [f for files in runs for f in files], settings, work.folder / "spectra" / name
    )
    report: dict[str, Any] = {"warnings": list(whole.warnings), "runs": len(runs)}
    for band in BANDS:
        values = np.array([row[band] for row in each])
        errors = values.std(axis=0, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else [np.nan] * 2
        pairs = zip(("km/mol", "cm-1"), values.mean(axis=0), errors, strict=True)
        report[band] = {unit: [round(float(v), 2), round(float(e), 2)] for unit, v, e in pairs}
    return whole, report


def figure(work: Work) -> None:
    known = json.loads((work.folder / "harmonic.json").read_text())
    lines, heights = np.array(known["cm-1"]), np.array(known["km/mol"])
    report: dict[str, Any] = {"harmonic": {}}
    for name, (low, high) in BANDS.items():
        inside = (lines > low) & (lines < high)
        centre = float((lines * heights)[inside].sum() / heights[inside].sum())
        report["harmonic"][name] = {"km/mol": float(heights[inside].sum()), "cm-1": centre}
    spectra = {}
    common = {"temperature_k": KELVIN, "high_cm": 4000.0, "width_cm": 30.0}
    for engine in ENGINES:
        runs = finished(work, engine)
        if not runs:
            continue
        given = {"interval_fs": 1.0} if engine == "ase" else {"timestep_fs": 0.5}
        settings = Settings(**common, **given, discard_ps=0.5 if engine == "ipi" else 0.0)
        spectra[f"classical, {engine}"], report[engine] = summary(work, engine, runs, settings)
    if runs := finished(work, "trpmd"):
        settings = Settings(**common, timestep_fs=0.25, discard_ps=0.5)
        spectra["TRPMD"], report["trpmd"] = summary(work, "trpmd", runs, settings)
    work.report("spectra", report)
    drawn(spectra, lines, heights, work.folder / "h2co")


def drawn(spectra: dict[str, Any], lines: Any, heights: Any, path: Path) -> None:
    with plotting.style():
        canvas = plotting.canvas(plotting.PAGE, 5.2, "Formaldehyde: infrared spectra of one potential.")
        axes = canvas.subplots(len(spectra), 1, sharex=True)
        for ax, (name, found) in zip(axes, spectra.items(), strict=True):
            main, error = found.main, found.errors[next(iter(found.curves))]
            ax.fill_between(found.per_cm, main - error, main + error, color=plotting.SKY, alpha=0.5, lw=0)
            ax.plot(found.per_cm, main, color=plotting.BLUE, label=name)
            ax.vlines(lines, 0, heights / 40, color=plotting.ORANGE, label="harmonic lines, km/mol / 40")
            top = 1.15 * float(main[found.per_cm > 800].max())
            ax.plot(GAS, [0.94 * top] * 6, "v", color=plotting.INK, label="gas, measured")
            ax.set(xlim=(800, 3300), ylim=(0, top), ylabel="km/mol per cm⁻¹")
            plotting.finish(ax)
            ax.legend(loc="upper center", bbox_to_anchor=(0.6, 1.0))
        axes[-1].set_xlabel("wave number, cm⁻¹")
        plotting.save(canvas, path)


STEPS = {
    "train": train,
    "harmonic": harmonic,
    "limit": limit,
    "md": classical,
    "trpmd": quantum,
    "figure": figure,
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("steps", nargs="*", metavar="STEP", help=f"of {', '.join(STEPS)}")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/h2co"))
    parser.add_argument("--epochs", type=int, default=59)
    parser.add_argument("--runs", type=int, default=3, help="classical, in each engine")
    parser.add_argument("--ps", type=float, default=2.0, help="of a classical run")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES, help="of limit and md")
    parser.add_argument("--beads", type=int, default=16)
    parser.add_argument("--quantum-runs", type=int, default=1)
    parser.add_argument("--quantum-ps", type=float, default=1.5)
    arguments = parser.parse_args()
    if unknown := set(arguments.steps) - set(STEPS):
        parser.error(f"no such step: {', '.join(sorted(unknown))}; expected {', '.join(STEPS)}")
    root = os.environ.get("MLPLUGINS_REFERENCE_DATA")
    data = Path(root or "") / SET
    if not root or not data.exists():
        print(f"skipped: {SET} is not there (MLPLUGINS_REFERENCE_DATA names its folder)")
        return 0
    folder = arguments.output.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for name in arguments.steps or [name for name in STEPS if name != "trpmd"]:
        STEPS[name](Work(folder, data, arguments))
    return 0


if __name__ == "__main__":
    sys.exit(main())
