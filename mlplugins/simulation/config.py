"""Reading the YAML of `mlplugins simulate`: an unknown key is refused with the nearest valid one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mlplugins import engines
from mlplugins.config import read, validated
from mlplugins.dynamics.settings import DIRECT, SimulationConfig
from mlplugins.engines.base import Abilities
from mlplugins.errors import BadInput, nearest

EXPECTED = "keys such as model, structure, temperatures and steps"


def load_all(source: Path | str | Mapping[str, Any], engine: str | None = None) -> list[SimulationConfig]:
    """One campaign for each engine of the source (`engine: lammps`, or `engine: [lammps, ipi]`), or for the
    given one.

    Raises:
        BadInput: as `load`; an engine named twice.
    """
    content, where = read(source, EXPECTED)
    named = content.get("engine")
    chosen = [engine] if engine is not None else named if isinstance(named, list) else [None]
    if not chosen or len({str(name) for name in chosen}) != len(chosen):
        raise BadInput(f"{where}: 'engine': {named}; expected engines, each once")
    return [load(source, name) for name in chosen]


def load(source: Path | str | Mapping[str, Any], engine: str | None = None) -> SimulationConfig:
    """Read a campaign; paths in a YAML file are relative to the file.

    Args:
        source: the YAML file, or its content.
        engine: overrides the source's engine.

    Raises:
        BadInput: no such file, not YAML, unknown or ill-typed keys (all of them are named).
    """
    content, where = read(source, EXPECTED)
    if engine is not None:
        content["engine"] = engine
    config = parse(content, where)
    if not isinstance(source, str | Path):
        return config
    base = Path(source).resolve().parent
    name, at, index = config.structure.rpartition("@")
    file, suffix = (name, at + index) if at else (config.structure, "")
    places: dict[str, Any] = {"model": base / config.model, "structure": str(base / file) + suffix}
    if config.mts is not None and config.mts.inner != DIRECT:
        places["mts"] = config.mts.model_copy(update={"inner": str(base / config.mts.inner)})
    return config.model_copy(update=places)


def parse(content: dict[str, Any], where: str) -> SimulationConfig:
    """Validate a campaign that was read from `where` (a name for the messages); paths are left as they are.

    Raises:
        BadInput: unknown or ill-typed keys (all of them are named); what the engine cannot do.
    """
    config = validated(SimulationConfig, content, where)
    try:
        require_able(config)
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from error
    return config


def require_able(config: SimulationConfig) -> None:
    """Refuse what the engine cannot do, naming the engines that can.

    Raises:
        BadInput: an unknown engine, or one without the ranks, thermostat, barostat, beads or multiple time
            steps asked for.

    >>> require_able(SimulationConfig(model="m.pt", structure="a.cif", temperatures=9, steps=90))
    """
    names = engines.available()
    if config.engine not in names:
        raise BadInput(f"'engine': unknown engine '{config.engine}': {nearest(config.engine, names)}")
    engine = engines.load(config.engine)
    able, kind, coupling = engine.ABILITIES, config.thermostat.kind, config.barostat.coupling
    if config.ranks > 1 and not able.ranks:
        raise BadInput(
            f"'ranks': engine {config.engine} runs on 1 rank, got {config.ranks}; "
            f"use engine {_those_with(lambda other: other.ranks)}"
        )
    if kind != "pile" and kind not in able.thermostats:
        raise BadInput(
            f"'thermostat.kind': {engine.TITLE} has no {kind}; use {' or '.join(able.thermostats)}"
        )
    if coupling not in able.couplings:
        raise BadInput(
            f"'barostat.coupling': {coupling} needs engine {_those_with(lambda o: coupling in o.couplings)}, "
            f"got {config.engine}; use {' or '.join(able.couplings)}"
        )
    if config.beads > 1 and not able.beads:
        raise BadInput(
            f"'beads': {config.beads} needs engine {_those_with(lambda other: other.beads)}, "
            f"got {config.engine}"
        )
    if config.mts is not None and not able.mts:
        raise BadInput(
            f"'mts': {engine.TITLE} has no integrator with multiple time steps; use engine "
            f"{_those_with(lambda other: other.mts)}"
        )


def _those_with(ability: Callable[[Abilities], bool]) -> str:
    return " or ".join(name for name in engines.available() if ability(engines.load(name).ABILITIES))
