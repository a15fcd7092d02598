"""The YAML of `mlplugins simulate`, validated: an unknown key is refused with the nearest valid one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, IPvAnyAddress, model_validator

from mlplugins.config import read_yaml, validated
from mlplugins.errors import BadInput


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, int | float) else value


EXPECTED = "keys such as model, structure, temperatures and steps"
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=1, lt=2**31)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class Thermostat(_Strict):
    """Thermostat of the production run.

    `csvr` (stochastic velocity rescaling, Bussi 2007) exists in all three engines and leaves diffusion alone;
    `nose-hoover` is a chain of length 3 (LAMMPS, ASE); `langevin` thermalises every mode but slows diffusion.
    """

    kind: Literal["csvr", "nose-hoover", "langevin"] = "csvr"
    time_constant: Positive = 100.0  # fs


class Barostat(_Strict):
    """Barostat of `ensemble: npt` and of the NPT equilibration."""

    coupling: Literal["iso", "aniso"] = "iso"
    time_constant: Positive = 1000.0  # fs


class Equilibration(_Strict):
    """Before production: `npt_steps` to find the mean cell, which is kept, then `steps` of Langevin NVT."""

    steps: Annotated[int, Field(ge=0)] = 1000
    npt_steps: Annotated[int, Field(ge=0)] = 0
    time_constant: Positive = 100.0  # fs, Langevin


class Mobile(_Strict):
    """The ion whose conductivity is wanted; goes into `conductivity.yaml`."""

    species: str
    charge: float


class Cluster(_Strict):
    """Where the runs go through Parsl; without it they run here.

    `options` are those of Parsl's provider: partition, account, walltime, worker_init, scheduler_options, …
    `address` is that of this machine which the jobs connect to (default: of its host name); Parsl listens on
    no other, and encrypts.
    """

    provider: Literal["local", "slurm", "pbspro", "torque", "lsf", "grid_engine", "condor"] = "local"
    options: dict[str, Any] = {}
    address: IPvAnyAddress | None = None
    workers: Count = 1  # runs at a time in one job
    jobs: Count = 1  # jobs at a time
    retries: Annotated[int, Field(ge=0)] = (
        1  # a job that hits its time limit is submitted again and continues
    )


class SimulationConfig(_Strict):
    """A campaign: every temperature with every seed, in one engine.

    >>> SimulationConfig(model="model.pt", structure="a.cif", temperatures=600, steps=100).temperatures
    [600.0]
    """

    model: Path
    structure: str  # a file readable by ASE, or file@index
    engine: Literal["lammps", "ipi", "ase"] = "lammps"
    ensemble: Literal["nve", "nvt", "npt"] = "nvt"
    temperatures: Annotated[list[Positive], BeforeValidator(_as_list), Field(min_length=1)]  # K
    seeds: Annotated[list[Seed], BeforeValidator(_as_list), Field(min_length=1)] = [1]
    timestep: Positive = 2.0  # fs
    steps: Count
    equilibration: Equilibration = Equilibration()
    thermostat: Thermostat = Thermostat()
    barostat: Barostat = Barostat()
    pressure: float = 0.0  # GPa
    supercell: tuple[Count, Count, Count] = (1, 1, 1)
    dump_interval: Count = 10  # steps
    log_interval: Count = 100  # steps
    restart_interval: Count = 1000  # steps
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
        if self.steps < self.dump_interval:
            raise ValueError(
                f"'steps' ({self.steps}) is smaller than 'dump_interval' ({self.dump_interval}): "
                "no frame would be written"
            )
        if self.ranks > 1 and self.engine != "lammps":
            raise ValueError(
                f"'ranks': engine {self.engine} runs on 1 rank, got {self.ranks}; use engine lammps"
            )
        if self.thermostat.kind == "nose-hoover" and self.engine == "ipi":
            raise ValueError("'thermostat.kind': i-PI has no nose-hoover; use csvr or langevin")
        if self.barostat.coupling == "aniso" and self.engine != "lammps":
            raise ValueError(f"'barostat.coupling': aniso needs engine lammps, got {self.engine}; use iso")
        return self

    @property
    def total_steps(self) -> int:
        """All steps of one run, equilibration included."""
        return self.equilibration.npt_steps + self.equilibration.steps + self.steps

    @property
    def needs_pressure(self) -> bool:
        """Whether any stage changes the cell."""
        return self.ensemble == "npt" or self.equilibration.npt_steps > 0


def load_all(path: Path, engine: str | None = None) -> list[SimulationConfig]:
    """One campaign for each engine of the file (`engine: lammps`, or `engine: [lammps, ipi]`), or for the
    given one.

    Raises:
        BadInput: as `load`; an engine named twice.
    """
    named = read_yaml(path, EXPECTED).get("engine", "lammps")
    engines = [engine] if engine is not None else named if isinstance(named, list) else [None]
    if not engines or len(set(engines)) != len(engines):
        raise BadInput(f"{path}: 'engine': {named}; expected engines, each once")
    return [load(path, name) for name in engines]


def load(path: Path, engine: str | None = None) -> SimulationConfig:
    """Read a campaign; paths in it are relative to the file.

    Args:
        path: the YAML file.
        engine: overrides the file's engine.

    Raises:
        BadInput: no such file, not YAML, unknown or ill-typed keys (all of them are named).
    """
    content = read_yaml(path, EXPECTED)
    if engine is not None:
        content["engine"] = engine
    config = parse(content, str(path))
    base = path.resolve().parent
    name, at, index = config.structure.rpartition("@")
    file, suffix = (name, at + index) if at else (config.structure, "")
    return config.model_copy(update={"model": base / config.model, "structure": str(base / file) + suffix})


def parse(content: dict[str, Any], where: str) -> SimulationConfig:
    """Validate a campaign that was read from `where` (a name for the messages); paths are left as they are.

    Raises:
        BadInput: unknown or ill-typed keys (all of them are named).
    """
    return validated(SimulationConfig, content, where)
