"""Several temperatures in one call: what `mlplugins conductivity` does.

From Python:
    import mlplugins
    report = mlplugins.conductivity("runs.yaml", "conductivity")
    report.runs[0].sigma_tracer
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from mlplugins import errors, files
from mlplugins.analysis import watched
from mlplugins.analysis.arrhenius import arrhenius
from mlplugins.analysis.choices import HOP_LENGTH_A
from mlplugins.analysis.comparison import Comparison, Measured, read_system
from mlplugins.analysis.conductivity import analyse
from mlplugins.analysis.current import CurrentSource
from mlplugins.analysis.observables.base import registered
from mlplugins.analysis.repeats import Repeats, other_temperature
from mlplugins.analysis.report import Report
from mlplugins.analysis.report_files import write_report
from mlplugins.analysis.result import RunResult
from mlplugins.analysis.sample import AnalysisSettings
from mlplugins.analysis.sites import read_sites
from mlplugins.analysis.trajectory import ReadSettings, Trajectory, read_trajectory
from mlplugins.analysis.watched import Watched
from mlplugins.config import Count, Positive, Section, read_yaml, validated
from mlplugins.config import read as content_of
from mlplugins.errors import BadInput

EXPECTED = "keys such as species, charge and runs"
WRITTEN = ("results.json", "results.csv", "msd.csv", "report.html")
BYTES_WITH_PROGRESS = 20_000_000
Progress = Callable[[str], AbstractContextManager[Callable[[float, int], None]]]
"""What is being read → what to call with the fraction read so far and the number of frames."""


def _charged(value: float) -> float:
    if value == 0:
        raise ValueError("a neutral species carries no current; expected e.g. 1 for Li")
    return value


Charge = Annotated[float, AfterValidator(_charged)]


class Uncertainty(Section):
    """The table of the model's uncertainty that a run left: steps and largest values."""

    file: str
    what: str = "uncertainty"
    unit: str = "eV/Å"
    keep_above: Positive | None = None
    stop_above: Positive | None = None
    first_step: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _has_a_limit(self) -> Uncertainty:
        if self.keep_above is None and self.stop_above is None:
            raise ValueError("expected keep_above, stop_above or both: the limit of what the model knows")
        return self


class RunConfig(Section):
    """One run: its files in order and what they do not hold."""

    files: Annotated[list[str], Field(min_length=1)]
    temperature: Positive
    timestep: Positive | None = None
    interval: Count | None = None
    volume: Positive | None = None
    green_kubo: str | None = None
    uncertainty: Uncertainty | None = None


class Measurement(Section):
    """A measured value to compare with: σ in mS/cm, D in cm²/s, or both."""

    temperature: Positive
    sigma: Positive | None = None
    D: Positive | None = None
    label: str = "measured"

    @model_validator(mode="after")
    def _has_a_value(self) -> Measurement:
        if self.sigma is None and self.D is None:
            raise ValueError("expected sigma (mS/cm), D (cm²/s) or both")
        return self


class OtherReport(Section):
    """Another report whose results stand in the Arrhenius figure."""

    results: str
    label: str | None = None


class Config(Section):
    """A study: the keys of the YAML file.

    The names of files are relative to the working directory, but `load` takes those in a YAML file as beside
    it.
    """

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
    dynamics: dict[str, str | float] = {}
    experiment: list[Measurement] = []
    compare: list[OtherReport] = []


def conductivity(
    configuration: Path | str | Mapping[str, Any] | Config,
    directory: Path | str | None = None,
    progress: Progress | None = None,
) -> Report:
    """Read the runs, pool and fit those of each temperature, fit the Arrhenius law, write the report.

    Args:
        configuration: of `mlplugins conductivity`: a YAML file, its content, or the validated object.
        directory: where results.json, report.html, the tables and the figures go; None writes nothing.
        progress: shown while a long trajectory is read.

    Returns:
        All results; `runs` from cold to hot, `as_json()` is the content of results.json.

    Raises:
        BadInput: a wrong configuration, a directory that cannot be written to, trajectories that cannot be
            read or pooled, or one of them twice.
        RunFailed: a file could not be written.
    """
    config = load(configuration)
    if directory is not None:
        _require_outputs(Path(directory), config)
    sites, names = read_sites(Path(config.sites)) if config.sites else (None, ())
    settings = AnalysisSettings(
        charge=config.charge,
        discard_ps=config.discard_ps,
        window_ps=None if config.fit_window is None else (config.fit_window[0], config.fit_window[1]),
        estimator=config.fit,
        hop_length_a=config.hop_length,
        carriers=config.carriers,
        viscosity_mpa_s=config.viscosity,
        sites=sites,
        site_names=names,
        sampler="kinisi" if config.kinisi else "closed",
    )
    comparison = _comparison(config)
    temperatures = sorted({entry.temperature for entry in config.runs})
    sources = {temperature: _current_source(config, temperature) for temperature in temperatures}
    observables = registered()
    results: list[RunResult] = []
    readings: dict[str, None] = {}
    repeats = Repeats()
    for temperature in temperatures:
        entries = [entry for entry in config.runs if entry.temperature == temperature]
        runs = [repeats.new(_read(entry, config, progress), entry.files) for entry in entries]
        readings |= dict.fromkeys(run.reading for run in runs)
        looks = tuple(_watched(entry, config) for entry in entries)
        own = replace(settings, current=sources[temperature], watched=looks)
        results.append(analyse(runs, temperature, own, observables))
    law, notes = arrhenius(results)
    named = [text for entry in config.runs if (text := other_temperature(entry.files, entry.temperature))]
    warnings = [*named, *(text for result in results for text in result.warnings), *notes]
    assumptions = _assumptions(config, readings)
    dynamics = {name: str(value) for name, value in config.dynamics.items()}
    report = Report(config.species, results, law, warnings, assumptions, dynamics, comparison)
    if directory is not None:
        write_report(report, Path(directory))
        files.write_json(Path(directory) / "results.json", report.as_json())
    return report


def _require_outputs(folder: Path, config: Config) -> None:
    """Refuse what would fail after the work, or replace an input."""
    with errors.needed("the report", "analysis"):
        from mlplugins import plotting  # noqa: F401
    inputs = [files.in_folder(each.results, "results.json") for each in config.compare]
    inputs += [Path(name) for each in config.runs for name in (*each.files, each.green_kubo or "")]
    inputs += [Path(name) for name in (config.sites, config.topology) if name]
    written = (*WRITTEN, *(name for each in registered().values() for name in each.files))
    files.require_writable(folder, "directory", folder=True, inputs=inputs, written=written)


def load(configuration: Path | str | Mapping[str, Any] | Config, where: str = "configuration") -> Config:
    """A YAML file, or its content read from `where`, validated.

    Raises:
        BadInput: no such file, unknown, missing or ill-typed keys, the species among the other carriers.
    """
    if isinstance(configuration, (str, Path)):
        return load(read(Path(configuration)), str(configuration))
    config = configuration
    if not isinstance(config, Config):
        config = validated(Config, *content_of(config, EXPECTED, where))
    if config.species in config.carriers:
        raise BadInput(f"{where}: carriers: '{config.species}' is the species already; name only others")
    return config


def read(path: Path) -> dict[str, Any]:
    """Content of a YAML file, with the files that it names as beside it."""
    content = read_yaml(path, EXPECTED)
    _beside(path.parent, content, ("sites", "topology"))
    runs = content.get("runs")
    for entry in runs if isinstance(runs, list) else ():
        if isinstance(entry, dict):
            _beside(path.parent, entry, ("files", "green_kubo"))
            if isinstance(entry.get("uncertainty"), dict):
                _beside(path.parent, entry["uncertainty"], ("file",))
    others = content.get("compare")
    for entry in others if isinstance(others, list) else ():
        if isinstance(entry, dict):
            _beside(path.parent, entry, ("results",))
    return content


def _beside(folder: Path, section: dict[str, Any], names: Sequence[str]) -> None:
    """Files in a section that is not validated yet."""
    for name in names:
        value = section.get(name)
        if isinstance(value, str) and name != "files":
            section[name] = str(folder / value)
        elif isinstance(value, list):
            section[name] = [str(folder / each) if isinstance(each, str) else each for each in value]


def _comparison(config: Config) -> Comparison:
    measured = [Measured(each.temperature, each.sigma, each.D, each.label) for each in config.experiment]
    return Comparison(measured, [read_system(Path(each.results), each.label) for each in config.compare])


def _current_source(config: Config, temperature: float) -> CurrentSource | None:
    """What the Green–Kubo check of one temperature reads; refused before anything is computed."""
    named = [entry for entry in config.runs if entry.temperature == temperature and entry.green_kubo]
    if not named:
        return None
    if len(named) > 1:
        raise BadInput(f"green_kubo in {len(named)} runs at {temperature:g} K; expected it in one of them")
    path = Path(str(named[0].green_kubo))
    if not path.is_file():
        raise BadInput(f"no such file for Green–Kubo: '{path}'")
    charges = {config.species: config.charge, **config.carriers}
    timestep = named[0].timestep or config.timestep
    return CurrentSource(path, charges, timestep, tuple(config.type_map), config.discard_ps)


def _watched(entry: RunConfig, config: Config) -> Watched | None:
    """The uncertainty along one run."""
    given, step = entry.uncertainty, entry.timestep or config.timestep
    if given is None:
        return None
    if step is None:
        raise BadInput(f"uncertainty: '{given.file}' counts MD steps: give their length, timestep (fs)")
    limit = given.keep_above or given.stop_above or 0.0  # one of them is given
    limits = (limit, given.stop_above)
    return watched.read(Path(given.file), (given.what, given.unit), limits, given.first_step, step)


def _read(entry: RunConfig, config: Config, progress: Progress | None) -> Trajectory:
    paths = [Path(name) for name in entry.files]
    settings = ReadSettings(
        species=config.species,
        timestep_fs=entry.timestep or config.timestep,
        interval=entry.interval or config.interval,
        type_map=tuple(config.type_map),
        drift=config.drift,
        carriers=tuple(config.carriers),
        topology=Path(config.topology) if config.topology else None,
        volume_a3=entry.volume or config.volume,
    )
    size = sum(path.stat().st_size for path in paths if path.is_file())
    if progress is None or size < BYTES_WITH_PROGRESS:
        return read_trajectory(paths, settings)
    with progress(f"reading {entry.temperature:g} K") as update:
        return read_trajectory(paths, replace(settings, progress=update))


def _assumptions(config: Config, readings: Iterable[str]) -> Sequence[tuple[str, str]]:
    named = "; ".join(
        f"{entry.temperature:g} K: {', '.join(str(Path(name)) for name in entry.files)}"
        for entry in config.runs
    )
    reference = {
        "framework": "centre of mass of all atoms but "
        f"{', '.join([config.species, *config.carriers])} (of all atoms where there are no others)",
        "all": "centre of mass of all atoms",
        "none": "none",
    }
    return (
        ("files", named),
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
