"""Trajectories → MSD, diffusion coefficient, ionic conductivity, Arrhenius law, with error bars and a report.

One run (several files of it are joined in order):
    mlplugins conductivity run.lammpstrj --species Li --charge 1 --temperature 600 --timestep 2

Several temperatures, in a YAML file:
    mlplugins conductivity runs.yaml -o conductivity

    species: Li
    charge: 1
    timestep: 2                      # fs; or in each run
    discard_ps: 5
    runs:
      - {files: [600K.lammpstrj], temperature: 600}
      - {files: [700K-a.xyz, 700K-b.xyz], temperature: 700}
      - {files: [800K.traj], temperature: 800, interval: 50}    # MD steps per frame

Two entries of the same temperature are independent runs and are pooled. Reads LAMMPS dumps, i-PI and
extended xyz, ASE .traj, XDATCAR, and with --topology the formats of MDAnalysis (XTC, TRR, DCD, NetCDF,
…); also compressed. Needs times: --timestep where the file holds step numbers only, --interval (MD steps
between frames) where it does not hold even those.

Several charged species (L_ij, transference numbers): --carriers Cl=-1, or carriers: {Cl: -1} in the YAML.
A Green–Kubo check: green_kubo: FILE in a run of the YAML, a LAMMPS dump with vx vy vz or the file of a
fix ave/correlate of the charge current.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, Field
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from mlplugins import files
from mlplugins.analysis.arrhenius import arrhenius
from mlplugins.analysis.conductivity import HOP_LENGTH_A, AnalysisSettings, RunResult
from mlplugins.analysis.current import CurrentSource, green_kubo_of
from mlplugins.analysis.linefit import ESTIMATORS
from mlplugins.analysis.markup import span
from mlplugins.analysis.quantities import study
from mlplugins.analysis.report import Report, write_report
from mlplugins.analysis.sites import read_sites
from mlplugins.analysis.trajectory import DRIFTS, ReadSettings, Trajectory, read_trajectory
from mlplugins.cli._common import OutputFolder, add_json, console
from mlplugins.config import Count, Positive, Section, read_yaml, validated
from mlplugins.errors import BadInput

EXPECTED = "keys such as species, charge and runs"
CONFIG_SUFFIXES = (".yaml", ".yml")
BYTES_WITH_PROGRESS = 20_000_000


def _charged(value: float) -> float:
    if value == 0:
        raise ValueError("a neutral species carries no current; expected e.g. 1 for Li")
    return value


Charge = Annotated[float, AfterValidator(_charged)]


class RunConfig(Section):
    """One run: its files in order and what they do not hold."""

    files: Annotated[list[str], Field(min_length=1)]
    temperature: Positive
    timestep: Positive | None = None
    interval: Count | None = None
    volume: Positive | None = None
    green_kubo: str | None = None


class Config(Section):
    """The YAML file of several runs."""

    species: str
    charge: Charge = 1.0
    runs: Annotated[list[RunConfig], Field(min_length=1)]
    timestep: Positive | None = None
    interval: Count | None = None
    type_map: list[str] = []
    discard_ps: Annotated[float, Field(ge=0)] = 0.0
    fit_window: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    fit: Literal["gls", "ols"] = "gls"
    drift: Literal["framework", "all", "none"] = "framework"
    hop_length: Positive = HOP_LENGTH_A
    carriers: dict[str, Charge] = {}
    viscosity: Positive | None = None
    volume: Positive | None = None
    sites: str | None = None
    topology: str | None = None
    kinisi: bool = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "trajectories", nargs="+", metavar="TRAJ", help="files of ONE run in order, or one YAML file"
    )
    parser.add_argument("--species", help="element of the mobile ions, e.g. Li")
    parser.add_argument("--charge", type=float, help="charge of the mobile ion in e (default 1)")
    parser.add_argument("--temperature", type=float, metavar="K")
    parser.add_argument(
        "--timestep", type=float, metavar="FS", help="MD time step, where the file holds no times"
    )
    parser.add_argument(
        "--interval", type=int, metavar="STEPS", help="MD steps between frames; wins over the file"
    )
    parser.add_argument("--type-map", nargs="+", metavar="EL", help="elements of the LAMMPS types in order")
    parser.add_argument("--discard-ps", type=float, metavar="PS", help="equilibration left out (default 0)")
    parser.add_argument(
        "--fit-window", type=float, nargs=2, metavar=("LO", "HI"), help="ps (default: chosen)"
    )
    parser.add_argument("--fit", choices=ESTIMATORS, help="generalised (default) or ordinary least squares")
    parser.add_argument(
        "--drift", choices=DRIFTS, help="whose centre of mass is held fixed (default framework)"
    )
    parser.add_argument(
        "--hop-length", type=float, metavar="A", help=f"for the count of hops (default {HOP_LENGTH_A:g})"
    )
    parser.add_argument(
        "--carriers", nargs="+", metavar="EL=CHARGE", help="other mobile charged species, e.g. Cl=-1"
    )
    parser.add_argument("--sites", metavar="FILE", help="fractional coordinates of sites (default: found)")
    parser.add_argument("--topology", metavar="FILE", help="elements for formats of MDAnalysis")
    parser.add_argument(
        "--viscosity", type=float, metavar="MPA_S", help="of a liquid: finite-size correction (Yeh–Hummer)"
    )
    parser.add_argument(
        "--volume", type=float, metavar="A3", help="of the material in Å³, where the cell's is not it (slabs)"
    )
    parser.add_argument(
        "--kinisi", action="store_true", default=None, help="sample the Bayesian check with kinisi (slower)"
    )
    parser.add_argument("-o", "--output", type=OutputFolder, default="conductivity", metavar="DIR")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Read, analyse, print a table, write the report."""
    config, base = _configuration(args)
    screen = console()
    settings = AnalysisSettings(
        charge=config.charge,
        discard_ps=config.discard_ps,
        window_ps=None if config.fit_window is None else (config.fit_window[0], config.fit_window[1]),
        estimator=config.fit,
        hop_length_a=config.hop_length,
        carriers=config.carriers,
        viscosity_mpa_s=config.viscosity,
        sites=read_sites(Path(config.sites)) if config.sites else None,
        sampler="kinisi" if config.kinisi else "closed",
    )
    temperatures = sorted({entry.temperature for entry in config.runs})
    sources = {temperature: _current_source(config, base, temperature) for temperature in temperatures}
    results = []
    readings: dict[str, None] = {}
    for temperature in temperatures:
        entries = [entry for entry in config.runs if entry.temperature == temperature]
        runs = [_read(entry, config, base, screen) for entry in entries]
        readings |= dict.fromkeys(run.reading for run in runs)
        result = study(runs, temperature, settings)
        results.append(_with_green_kubo(result, sources[temperature]))
    law, notes = arrhenius(results)
    warnings = [*(text for result in results for text in result.warnings), *notes]
    report = Report(config.species, results, law, warnings, _assumptions(config, base, readings))
    _print(screen, report)
    paths = write_report(report, args.output)
    files.write_json(args.output / "results.json", report.as_json())
    files.write_json(args.json, report.as_json())
    screen.print(f"report: {next(path for path in paths if path.suffix == '.html')}", soft_wrap=True)
    return 0


def _configuration(args: argparse.Namespace) -> tuple[Config, Path]:
    """The configuration from the YAML file or from the options; options win over the file."""
    names = (
        "species",
        "charge",
        "timestep",
        "interval",
        "type_map",
        "discard_ps",
        "fit_window",
        "fit",
        "drift",
        "hop_length",
        "sites",
        "topology",
        "viscosity",
        "volume",
        "kinisi",
    )
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if args.carriers is not None:
        given["carriers"] = _charges(args.carriers)
    configs = [name for name in args.trajectories if Path(name).suffix in CONFIG_SUFFIXES]
    if not configs:
        for name in ("species", "temperature"):
            if getattr(args, name) is None:
                raise BadInput(
                    f"--{name} is missing, e.g. --species Li --charge 1 --temperature 600 --timestep 2"
                )
        entry = {"files": args.trajectories, "temperature": args.temperature}
        return _validated({**given, "runs": [entry]}, "command line"), Path()
    if len(args.trajectories) > 1:
        raise BadInput(f"{configs[0]} is a configuration; give it alone, its 'runs' name the trajectories")
    if args.temperature is not None:
        raise BadInput("--temperature cannot be given with a YAML file; each of its runs has its own")
    path = Path(configs[0])
    content = read_yaml(path, EXPECTED)
    for name in ("sites", "topology"):
        if isinstance(content.get(name), str):
            content[name] = str(path.parent / content[name])
    return _validated({**content, **given}, str(path)), path.parent


def _charges(words: Sequence[str]) -> dict[str, float]:
    charges = {}
    for word in words:
        name, equals, charge = word.partition("=")
        try:
            charges[name] = float(charge)
        except ValueError as error:
            raise BadInput(f"--carriers {word}: expected ELEMENT=CHARGE, e.g. Cl=-1") from error
        if not equals or charges[name] == 0:
            raise BadInput(f"--carriers {word}: expected ELEMENT=CHARGE with a charge, e.g. Cl=-1")
    return charges


def _current_source(config: Config, base: Path, temperature: float) -> CurrentSource | None:
    """What the Green–Kubo check of one temperature reads; refused before anything is computed."""
    named = [entry for entry in config.runs if entry.temperature == temperature and entry.green_kubo]
    if not named:
        return None
    if len(named) > 1:
        raise BadInput(f"green_kubo in {len(named)} runs at {temperature:g} K; expected it in one of them")
    path = base / str(named[0].green_kubo)
    if not path.is_file():
        raise BadInput(f"no such file for Green–Kubo: '{path}'")
    charges = {config.species: config.charge, **config.carriers}
    timestep = named[0].timestep or config.timestep
    return CurrentSource(path, charges, timestep, tuple(config.type_map), config.discard_ps)


def _with_green_kubo(result: RunResult, source: CurrentSource | None) -> RunResult:
    if source is None or result.further is None:
        return result
    if not np.isfinite(result.volume_a3):
        raise BadInput(
            "green_kubo: σ needs the volume of the material, which this run has not; give --volume"
        )
    found = green_kubo_of(source, result.volume_a3, result.temperature_k)
    texts = [f"{result.temperature_k:g} K: {text}" for text in found.warnings]
    further = replace(result.further, green_kubo=found)
    return replace(result, further=further, warnings=(*result.warnings, *texts))


def _validated(content: dict[str, Any], source: str) -> Config:
    config = validated(Config, content, source)
    if config.species in config.carriers:
        raise BadInput(f"{source}: carriers: '{config.species}' is the species already; name only others")
    return config


def _read(entry: RunConfig, config: Config, base: Path, screen: Console) -> Trajectory:
    files = [base / name for name in entry.files]
    settings = ReadSettings(
        species=config.species,
        timestep_fs=entry.timestep or config.timestep,
        interval=entry.interval or config.interval,
        type_map=tuple(config.type_map),
        drift=config.drift,
        carriers=tuple(name for name in config.carriers if name != config.species),
        topology=Path(config.topology) if config.topology else None,
        volume_a3=entry.volume or config.volume,
    )
    size = sum(path.stat().st_size for path in files if path.is_file())
    if size < BYTES_WITH_PROGRESS:
        return read_trajectory(files, settings)
    with _progress(screen) as bar:
        task = bar.add_task(f"reading {entry.temperature:g} K", total=1.0, frames=0)
        settings = ReadSettings(**{**settings.__dict__, "progress": _updater(bar, task)})
        return read_trajectory(files, settings)


def _progress(screen: Console) -> Progress:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[frames]} frames", markup=False),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=screen, transient=True)


def _updater(bar: Progress, task: Any) -> Callable[[float, int], None]:
    return lambda fraction, frames: bar.update(task, completed=fraction, frames=frames)


@dataclass(frozen=True)
class _Column:
    title: str
    text: Callable[[RunResult], str]


COLUMNS = (
    _Column("T (K)", lambda run: f"{run.temperature_k:g}"),
    _Column("D (cm²/s)", lambda run: span(run.diffusion.tracer)),
    _Column("σ tracer (mS/cm)", lambda run: span(run.sigma_tracer)),
    _Column("σ collective (mS/cm)", lambda run: span(run.sigma_collective)),
    _Column("Haven ratio", lambda run: span(run.diffusion.haven, 2)),
    _Column("fit (ps)", lambda run: f"{run.diffusion.window.low_ps:.3g}–{run.diffusion.window.high_ps:.3g}"),
)


def _print(screen: Console, report: Report) -> None:
    table = Table(title=f"{report.species}: value [95 % interval]", title_justify="left")
    for column in COLUMNS:
        # "undetermined" in one piece, also on 80 columns
        table.add_column(column.title, justify="right", min_width=12 if "ratio" in column.title else None)
    for result in report.runs:
        table.add_row(*(column.text(result) for column in COLUMNS))
    screen.print(table)
    for result in report.runs:
        if result.further is not None and result.further.onsager is not None:
            found = result.further.onsager
            screen.print(
                f"{result.temperature_k:g} K, all carriers: σ = {span(found.sigma)} mS/cm   Haven ratio = "
                f"{span(found.haven, 2)}   (the table is {report.species} alone)",
                soft_wrap=True,
                highlight=False,
                markup=False,
            )
    law = report.arrhenius
    if law:
        screen.print(
            f"Ea = {span(law.activation_ev)} eV   D(300 K) = {span(law.room_d)} cm²/s   "
            f"σ(300 K) = {span(law.room_sigma)} mS/cm{report.headline_note}",
            soft_wrap=True,
            highlight=False,
            markup=False,
        )
    for text in report.warnings:
        screen.print(f"warning: {text}", style="yellow", soft_wrap=True, highlight=False, markup=False)


def _assumptions(config: Config, base: Path, readings: Iterable[str]) -> Sequence[tuple[str, str]]:
    files = "; ".join(
        f"{entry.temperature:g} K: {', '.join(str(base / name) for name in entry.files)}"
        for entry in config.runs
    )
    reference = {
        "framework": "centre of mass of all atoms but "
        f"{', '.join([config.species, *config.carriers])} (of all atoms where there are no others)",
        "all": "centre of mass of all atoms",
        "none": "none",
    }
    return (
        ("files", files),
        ("mobile species", f"{config.species}, charge {config.charge:+g} e"),
        ("time step", f"{config.timestep:g} fs" if config.timestep else "from the files or per run"),
        ("equilibration left out", f"{config.discard_ps:g} ps of each run"),
        ("unwrapping", f"{'; '.join(readings)}; motion relative to the strain of the cell"),
        ("drift removed", reference[config.drift]),
        (
            "fit",
            "generalised least squares" if config.fit == "gls" else "ordinary least squares",
        ),
        ("fit window", "chosen, see above" if config.fit_window is None else "fixed by the user"),
        ("hop length (for warnings only)", f"{config.hop_length:g} Å"),
        (
            "volume",
            "of the cell, mean over the frames read, equilibration included"
            if config.volume is None
            else f"{config.volume:g} Å³, given",
        ),
        (
            "finite size",
            "not corrected" if config.viscosity is None else f"Yeh–Hummer, η = {config.viscosity:g} mPa s",
        ),
        *([("charges", _charge_text(config))] if config.carriers else []),
        ("correlations beyond the window", "none: D is the slope inside the fit window"),
        ("quantum effects", "none: classical ions"),
    )


def _charge_text(config: Config) -> str:
    return ", ".join(f"{name} {charge:+g} e" for name, charge in config.carriers.items())
