"""The settings of a campaign of molecular dynamics: the keys of the YAML of `mlplugins simulate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, IPvAnyAddress, model_validator

from mlplugins import config
from mlplugins.dynamics.start import Velocities


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, int | float | str) else value


def _number(value: Any) -> Any:
    """YAML's `true` is no number, and `1e5` (without a point) is one although YAML 1.1 reads a word."""
    if isinstance(value, bool):
        raise ValueError(f"expected a number, got {str(value).lower()}")
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


Number = BeforeValidator(_number)
Positive = Annotated[config.Positive, Number]
Finite = Annotated[float, Number, Field(allow_inf_nan=False)]
Count = Annotated[config.Count, Number]
CountOrZero = Annotated[int, Number, Field(ge=0, lt=2**53)]
Seed = Annotated[int, Number, Field(ge=1, le=900_000_000)]  # the limit of LAMMPS' generators

COLDEST, HOTTEST = 1e-3, 1e6  # K
SHORTEST, LONGEST = 0.01, 1000.0  # fs
GREATEST_PRESSURE = 1e4  # GPa
GREATEST_CHARGE = 20.0  # e
DIRECT = "direct"  # of `mts.inner`


def label(temperature: float) -> str:
    """How a temperature is printed in the names of folders.

    >>> label(300), label(1000.5)
    ('0300', '1000.5')
    """
    whole, point, rest = f"{temperature:g}".partition(".")
    return whole.rjust(4, "0") + point + rest


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class Thermostat(_Strict):
    """Thermostat of the production run.

    `csvr` (stochastic velocity rescaling, Bussi 2007) exists in every engine and leaves diffusion alone;
    `nose-hoover` is a chain of length 3 (LAMMPS, ASE); `langevin` thermalises every mode but slows diffusion.
    With `beads` csvr is i-PI's pile_g and langevin its pile_l, which `pile` names as well.
    """

    kind: Literal["csvr", "nose-hoover", "langevin", "pile"] = "csvr"
    time_constant: Positive = 100.0  # fs


class Barostat(_Strict):
    """Barostat of `ensemble: npt` and of the NPT equilibration.

    `iso` scales the cell, `aniso` its lengths one by one, `flexible` its angles too.
    """

    coupling: Literal["iso", "aniso", "flexible"] = "iso"
    time_constant: Positive = 1000.0  # fs


class Equilibration(_Strict):
    """Before production: `npt_steps` to find the mean cell, which is kept, then `steps` of Langevin NVT."""

    steps: CountOrZero = 1000
    npt_steps: CountOrZero = 0
    time_constant: Positive = 100.0  # fs, Langevin


class MultipleTimeSteps(_Strict):
    """Reversible multiple time steps (Tuckerman 1992): a cheap model moves the atoms, and every `every` of
    its steps the difference between the model and the cheap one gives a kick.

    `timestep` is the outer step, which all numbers of steps count; the inner step is `timestep / every`.
    `inner` is `direct`, the direct forces of the model itself, or the file of a cheaper model.
    """

    inner: Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, Path) else value)]
    every: Annotated[int, Number, Field(ge=1, le=1000)]

    @model_validator(mode="after")
    def _several(self) -> MultipleTimeSteps:
        if self.every == 1:
            raise ValueError(
                "'mts.every': expected the number of inner steps in an outer one, 2 or more, got 1: the "
                "inner model would cost time and change nothing; leave mts out"
            )
        return self


class Mobile(_Strict):
    """The ion whose conductivity is wanted; goes into `conductivity.yaml`."""

    species: str
    charge: Finite

    @model_validator(mode="after")
    def _plausible(self) -> Mobile:
        if self.charge == 0 or abs(self.charge) > GREATEST_CHARGE:
            raise ValueError(
                f"'mobile.charge': expected the ion's charge in e, such as 1 or -2, got {self.charge:g}"
            )
        return self


class Cluster(_Strict):
    """Where runs, or labels, are executed through Parsl; without it this is this machine.

    `options` are those of Parsl's provider: partition, account, walltime, worker_init, scheduler_options, …
    `address` is that of this machine which the jobs connect to (default: of its host name); Parsl listens on
    no other, and encrypts.
    """

    provider: Literal["local", "slurm", "pbspro", "torque", "lsf", "grid_engine", "condor"] = "local"
    options: dict[str, Any] = {}
    address: IPvAnyAddress | None = None
    workers: Count = 1  # runs or labels at a time in one job
    drain: Positive | None = None  # s after which a job begins nothing new, of its time limit
    jobs: Count = 1  # jobs at a time
    retries: CountOrZero = 1  # a job that hits its time limit is submitted again and continues


class SimulationConfig(_Strict):
    """A campaign: every temperature with every seed, in one engine.

    >>> SimulationConfig(model="model.pt", structure="a.cif", temperatures=600, steps=100).temperatures
    [600.0]
    """

    model: Path
    structure: str  # a file readable by ASE, or file@index
    engine: str = "lammps"
    ensemble: Literal["nve", "nvt", "npt"] = "nvt"
    temperatures: Annotated[list[Positive], BeforeValidator(_as_list), Field(min_length=1)]  # K
    seeds: Annotated[list[Seed], BeforeValidator(_as_list), Field(min_length=1)] = [1]
    timestep: Positive = 2.0  # fs; with mts the outer step
    mts: MultipleTimeSteps | None = None
    steps: Count
    equilibration: Equilibration = Equilibration()
    thermostat: Thermostat = Thermostat()
    barostat: Barostat = Barostat()
    pressure: Finite = 0.0  # GPa
    velocities: Velocities = "auto"  # auto: the structure's own if it has any, else thermal
    beads: Count = 1  # of the ring polymer of every atom: path integrals, i-PI
    supercell: tuple[Count, Count, Count] = (1, 1, 1)
    dump_interval: Count = 10  # steps
    log_interval: Count = 100  # steps
    restart_interval: Count = 1000  # steps
    stop_above: Positive | None = None  # uncertainty on an atom that ends a run, in the unit of the model's
    keep_above: Positive | None = None  # above it frames are kept in a file of their own
    watch_interval: Count | None = None  # steps between looks; None: dump_interval
    probes: CountOrZero = 8  # of a predicted uncertainty of forces; 0: exactly
    mobile: Mobile | None = None
    ranks: Count = 1  # of one run, LAMMPS
    threads: Count = 1  # per rank; ranks × threads × parallel beyond the cores is several times slower
    parallel: Count = 1  # runs at the same time
    device: Literal["cpu", "cuda"] = "cpu"
    cluster: Cluster | None = None

    @model_validator(mode="after")
    def _consistent(self) -> SimulationConfig:
        for name in ("temperatures", "seeds"):
            values = getattr(self, name)
            if len(set(values)) != len(values):
                raise ValueError(f"'{name}' holds a value twice: {values}")
        self._plausible()
        self._require_watch()
        if self.steps < self.dump_interval:
            raise ValueError(
                f"'steps' ({self.steps}) is smaller than 'dump_interval' ({self.dump_interval}): "
                "no frame would be written"
            )
        if self.thermostat.kind == "pile" and self.beads == 1:
            raise ValueError(
                "'thermostat.kind': pile thermostats a ring polymer: it needs 'beads' of 2 or more"
            )
        return self

    def _require_watch(self) -> None:
        """Settings of a watch without one, and thresholds in the wrong order."""
        if not self.watches:
            for name in ("watch_interval", "probes"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"'{name}' needs 'stop_above' or 'keep_above': nothing is watched")
        if self.stop_above and self.keep_above and self.keep_above >= self.stop_above:
            raise ValueError(
                f"'keep_above' ({self.keep_above:g}) must be below 'stop_above' ({self.stop_above:g}): "
                "frames between the two are kept, and the one above the latter"
            )

    @property
    def watches(self) -> bool:
        """Whether the runs watch their own uncertainty."""
        return self.stop_above is not None or self.keep_above is not None

    def _plausible(self) -> None:
        """Values in other units than these, and temperatures that share a folder."""
        for t in self.temperatures:
            if not COLDEST <= t <= HOTTEST:
                raise ValueError(f"'temperatures': {t:g} K; expected {COLDEST:g} to {HOTTEST:g} K")
        labels = [label(t) for t in self.temperatures]
        alike = [t for t, name in zip(self.temperatures, labels) if labels.count(name) > 1]
        if alike:
            raise ValueError(
                f"'temperatures': {', '.join(map(str, alike))} differ by less than what is printed, "
                f"and would share the folder T{label(alike[0])}; expected six different digits"
            )
        if not SHORTEST <= self.timestep <= LONGEST:
            raise ValueError(
                f"'timestep': {self.timestep:g} fs; expected {SHORTEST:g} to {LONGEST:g} fs (1 ps = 1000 fs)"
            )
        if abs(self.pressure) > GREATEST_PRESSURE:
            raise ValueError(
                f"'pressure': {self.pressure:g} GPa; expected at most {GREATEST_PRESSURE:g} GPa "
                "(1 bar = 1e-4 GPa)"
            )

    @property
    def total_steps(self) -> int:
        """All steps of one run, equilibration included."""
        return self.equilibration.npt_steps + self.equilibration.steps + self.steps

    @property
    def needs_pressure(self) -> bool:
        """Whether any stage changes the cell."""
        return self.ensemble == "npt" or self.equilibration.npt_steps > 0
