"""The configuration of `mlplugins barrier`, and the folder that it belongs to."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from mlplugins import engines, files
from mlplugins.config import Count, Positive, Section, read, validated
from mlplugins.engines.band import ImageBand, Relaxed
from mlplugins.errors import BadInput, nearest

EXPECTED = "keys such as model, structure and hop, or initial and final"
RECORD, CONTENTS = "settings.json", "sha256"
FREE = ("steps", "vibrations", "largest_move")
"""What may change from one call to the next."""
MOST_IMAGES = 99

Site = Annotated[int, Field(ge=0)] | tuple[float, float, float]


class Hop(Section):
    """An atom of a crystal that hops into a vacancy of its own kind.

    Attributes:
        species: symbol of the atom.
        sites: where it starts, and the vacancy: numbers of atoms (from 0, of the supercell) or positions, Å.
            None: the first atom of the species and its nearest neighbour.
    """

    species: str
    sites: tuple[Site, Site] | None = None


class BarrierConfig(Section):
    """A path to be found.

    Attributes:
        model: model.pt.
        structure: crystal of which one atom is taken out, `file` or `file@index`.
        supercell: repetitions of it.
        hop: in this crystal.
        initial, final: instead: two structures of the same atoms.
        order: of equal atoms in the two: `nearest` assigns them, `file` takes them as they come, such as for
            an atom that goes past another one instead of pushing it on.
        engine: that optimises the path.
        images: between the end points.
        fmax: largest force on an atom of the saddle, and across the path, eV/Å; the end points are relaxed to
            half of it.
        steps: of each optimisation at most.
        spring: constant of the springs between images, eV/Å².
        climb: whether the highest image climbs to the saddle.
        cell: `fixed`, or `relaxed`: that of the crystal, or of the first structure, first.
        vibrations: also the modes of the saddle and the attempt frequency.
        largest_move: Å; a path on which an atom moves farther is refused.
        device: as of `MLCalculator`.
    """

    model: str
    structure: str | None = None
    supercell: tuple[Count, Count, Count] = (1, 1, 1)
    hop: Hop | None = None
    initial: str | None = None
    final: str | None = None
    order: Literal["nearest", "file"] = "nearest"
    engine: str = "ase"
    images: Annotated[int, Field(ge=1, le=MOST_IMAGES)] = 7
    fmax: Positive = 0.02
    steps: Count = 500
    spring: Positive = 0.1
    climb: bool = True
    cell: Literal["fixed", "relaxed"] = "fixed"
    vibrations: bool = False
    largest_move: Positive = 6.0
    device: str = "cpu"

    @model_validator(mode="after")
    def _consistent(self) -> BarrierConfig:
        crystal = self.structure is not None and self.hop is not None
        pair = self.initial is not None and self.final is not None
        given = [k for k in ("structure", "hop", "initial", "final") if getattr(self, k) is not None]
        if crystal == pair or len(given) != 2:
            raise ValueError(
                f"expected 'structure' and 'hop', or 'initial' and 'final', got {', '.join(given) or 'none'}"
            )
        if pair and self.supercell != (1, 1, 1):
            raise ValueError(
                "'supercell' is for a 'structure' with a 'hop': repeat initial and final yourself"
            )
        return self


def load(source: Path | str | Mapping[str, Any]) -> BarrierConfig:
    """Read and check a configuration; paths in a YAML file are relative to it.

    Raises:
        BadInput: unknown or ill-typed keys, an engine that is none or optimises no paths, no such model.
    """
    content, where = read(source, EXPECTED)
    for key in ("supercell", "hop"):
        content = content | {key: _tuples(content[key])} if key in content else content
    base = Path(source).absolute().parent if isinstance(source, str | Path) else Path.cwd()
    config = validated(BarrierConfig, content, where)
    band_optimiser(config.engine, f"{where}: 'engine': ")
    located = {
        key: str(base / getattr(config, key))
        for key in ("model", "structure", "initial", "final")
        if getattr(config, key) is not None
    }
    return config.model_copy(update=located)


def band_optimiser(name: str, where: str = "") -> Callable[[ImageBand], Relaxed]:
    """What the engine of this name offers for paths.

    Raises:
        BadInput: beginning with `where`, no such engine, or one that optimises no paths.
    """
    able = {each: engines.load(each).ABILITIES.band for each in engines.available()}
    found = able.get(name)
    if found is None:
        valid = [each for each, band in able.items() if band is not None]
        raise BadInput(f"{where}'{name}': {nearest(name, valid)}")
    return found


def _tuples(value: Any) -> Any:
    """Lists of YAML as the tuples of the sections."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def record(config: BarrierConfig, folder: Path) -> dict[str, Any]:
    """What is kept of the configuration in the folder, of which nothing is written here.

    Raises:
        BadInput: the folder was begun with another configuration, which is named, or holds something else.
    """
    path = folder / RECORD
    prints = {
        key: files.sha256(Path(name))
        for key in ("model", "structure", "initial", "final")
        for name in list(files.named_in(getattr(config, key)))[:1]
    }
    now: dict[str, Any] = files.plain({**config.model_dump(mode="json"), CONTENTS: prints})
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        differing = [k for k in {**before, **now} if k not in FREE and before.get(k) != now.get(k)]
        if differing:
            said = "; ".join(
                f"'{k}' was {before.get(k)!r}, is {now.get(k)!r}" for k in differing if k != CONTENTS
            )
            changed = [k for k in prints if before.get(CONTENTS, {}).get(k) != prints[k]]
            if changed and not said:
                said = f"the file of {' and of '.join(map(repr, changed))} has another content"
            raise BadInput(
                f"'{folder}' was begun with another configuration: {said}. Put the old values back, or "
                f"choose another folder (-o); {', '.join(FREE)} may change"
            )
    elif any(entry.name != "lock" for entry in folder.iterdir()):
        raise BadInput(f"'{folder}' is not empty and holds no path; choose another folder (-o)")
    return now
