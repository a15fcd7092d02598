"""Configurations: the only YAML reader, base class of sections, and errors in words."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from mlplugins import files, synonyms
from mlplugins.errors import BadInput, nearest

LARGEST_FILE = 10_000_000
"""Bytes; a configuration has some thousand, a trajectory given by mistake far more."""

MOST_VALUES, DEEPEST = 200_000, 40
"""Values and nesting of one configuration, aliases written out."""


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _knots(value: Any) -> Any:
    """`off` is false to YAML; the fewest knots are those of the tables."""
    from mlplugins.models.capabilities import FEWEST_KNOTS

    value = "off" if value is False else _whole(value)
    if value in (None, "off") or (type(value) is int and value >= FEWEST_KNOTS):
        return value
    raise ValueError(f"expected a number of knots from {FEWEST_KNOTS}, off or null")


Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, BeforeValidator(_whole), Field(ge=1, lt=2**53)]
"""1, 2, …; 1e6 as well."""
Seed = Annotated[int, BeforeValidator(_whole), Field(ge=0, lt=2**31)]
"""What every library takes as a seed."""
Knots = Annotated[Any, BeforeValidator(_knots)]
"""Of radial tables; `off`: none; None: as many as are certified, in float32 only."""

Model = TypeVar("Model", bound=BaseModel)


class Section(BaseModel):
    """A part of a configuration: no unknown keys, no silent conversions, no NaN, never changed afterwards."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def read_yaml(path: Path, expected: str) -> dict[str, Any]:
    """Keys and values of a configuration file: YAML with the numbers of YAML 1.2 (1e-3, but not 24:00:00).

    Args:
        path: the file.
        expected: its main keys, for the message of a file that holds something else.

    Raises:
        BadInput: no such file, not YAML, no mapping, a key twice or one that is no string, a number that is
            not finite, more values than a configuration has.
    """
    if not files.exists(path, file=True):
        folder = "is a folder; expected a configuration file" if files.exists(path) else ""
        raise BadInput(f"'{path}' {folder}" if folder else f"no such configuration file: '{path}'")
    try:
        size = path.stat().st_size
        if size > LARGEST_FILE:
            raise BadInput(f"{path}: {size / 1e6:.0f} MB; expected a configuration with {expected}")
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not valid YAML: not a text file in UTF-8; expected {expected}") from error
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from error
    content = parse_yaml(text, str(path), Loader)
    if not isinstance(content, dict):
        found = "nothing" if content is None else type(content).__name__
        raise BadInput(f"{path}: expected a mapping with {expected}, got {found}")
    _check(content, str(path))
    return content


def read(
    source: Path | str | Mapping[str, Any], expected: str, where: str = "configuration"
) -> tuple[dict[str, Any], str]:
    """Keys and values of a configuration, given as a file or as they are, and its name for messages.

    Args:
        source: a YAML file, or what one would hold (paths, tuples and numpy's numbers are taken, too).
        expected: its main keys, for the message about something else.
        where: what messages call a source that is no file.

    Raises:
        BadInput: as `read_yaml`.

    >>> read({"data": {"train": Path("md.extxyz")}}, "'data'")
    ({'data': {'train': 'md.extxyz'}}, 'configuration')
    """
    if isinstance(source, str | Path):
        return read_yaml(Path(source), expected), str(source)
    if not isinstance(source, Mapping):
        found = type(source).__name__
        raise BadInput(f"{where}: expected a file or a mapping with {expected}, got {found}")
    content = _as_read(source)
    _check(content, where)
    return content, where


def _as_read(value: Any) -> Any:
    """A value as YAML would give it."""
    if isinstance(value, Mapping):
        return {key: _as_read(item) for key, item in value.items()}
    if hasattr(value, "tolist"):  # numpy scalars and arrays
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_as_read(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def parse_yaml(text: str | bytes, where: str, loader: type[yaml.SafeLoader] = yaml.SafeLoader) -> Any:
    """Content of YAML text from `where`, by a safe loader.

    Raises:
        BadInput: not YAML.
    """
    try:
        return yaml.load(text, Loader=loader)  # a safe loader
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError, TypeError) as error:
        # ValueError: a number of thousands of digits; TypeError: a key that is a list
        reason = "nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise BadInput(f"{where}: not valid YAML: {reason}") from error


class Loader(yaml.SafeLoader):
    """YAML 1.1 without its traps: repeated keys, octal and sexagesimal numbers, dates; with 1.2's 1e-3."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - as the base declares it

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag not in (STRING, MERGE):
                shown = f"'{key.value}'" if isinstance(key, yaml.ScalarNode) else "(a list or a mapping)"
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {shown} is no string to YAML; put it in quotes", key.start_mark
                )
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key '{key.value}' twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def whole(self, node: yaml.ScalarNode) -> int:
        """A whole number; a leading zero does not make it octal."""
        text = self.construct_scalar(node).replace("_", "").lower()
        return int(text, 0 if re.match(r"[-+]?0[box]", text) else 10)


STRING, MERGE = (f"tag:yaml.org,2002:{name}" for name in ("str", "merge"))
PATTERNS = {
    "bool": (r"yes|no|true|false|on|off", "yYnNtTfFoO"),
    "int": (r"[-+]?(0b[01_]+|0o[0-7_]+|0x[0-9a-f_]+|\d[\d_]*)", "-+0123456789"),
    "float": (
        r"[-+]?(\d[\d_]*\.?[\d_]*(e[-+]?\d+)?|\.\d[\d_]*(e[-+]?\d+)?|\.inf)|\.nan",
        "-+0123456789.",
    ),
    "null": (r"~|null|", ["~", "n", "N", ""]),
    "merge": (r"<<", "<"),
}
for _tag, (_pattern, _first) in PATTERNS.items():
    Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$", re.IGNORECASE), list(_first)
    )
Loader.add_constructor("tag:yaml.org,2002:int", Loader.whole)


def _check(content: Any, where: str) -> None:
    """Refuse values that no configuration may contain, at any depth."""
    waiting: list[tuple[str, Any, int]] = [("", content, 0)]
    count = 0
    while waiting:
        place, value, depth = waiting.pop()
        count += 1
        if count > MOST_VALUES or depth > DEEPEST:
            raise BadInput(f"{where}: more than {MOST_VALUES} values or {DEEPEST} levels; no configuration")
        if isinstance(value, dict):
            waiting += [(f"{place}.{key}".lstrip("."), item, depth + 1) for key, item in value.items()]
        elif isinstance(value, list):
            waiting += [(f"{place}.{k}", item, depth + 1) for k, item in enumerate(value)]
        elif isinstance(value, float) and not math.isfinite(value):
            raise BadInput(f"{where}: '{place}': expected a finite number, got {value}")
        elif isinstance(value, str) and "\0" in value:
            raise BadInput(f"{where}: '{place}': holds a null character")
        elif not isinstance(value, str | int | float | None):
            raise BadInput(f"{where}: '{place}': expected text or a number, got {type(value).__name__}")


def validated(model: type[Model], content: Mapping[str, Any], where: str) -> Model:
    """`content`, read from `where`, as a `model`.

    Raises:
        BadInput: unknown, missing or ill-typed keys; all of them are named.

    >>> class Run(Section):
    ...     steps: Count
    >>> validated(Run, {"steps": 1e4}, "md.yaml").steps
    10000
    >>> validated(Run, {"steps": 5, "step": 5}, "md.yaml")
    Traceback (most recent call last):
    ...
    mlplugins.errors.BadInput: md.yaml: unknown key 'step': did you mean 'steps'? Valid: steps
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise BadInput(f"{where}: " + "; ".join(sentences(error, model))) from error


def hyperparameters(cls: type, values: Mapping[str, Any], where: str) -> Any:
    """`values`, read from `where`, as the dataclass `cls`: strict types, but whole numbers pass as floats and
    lists as any sequence, as in JSON.

    Raises:
        BadInput: an unknown, missing or ill-typed key, or NaN.
    """
    try:
        text = json.dumps(values)
        if "NaN" in re.sub(r'"(\\.|[^"\\])*"', "", text):
            raise BadInput(f"{where}: expected finite numbers, got {text}")
        return TypeAdapter(cls).validate_json(text, strict=True)
    except ValidationError as error:
        raise BadInput(f"{where}: " + "; ".join(sentences(error, cls))) from error
    except TypeError as error:  # no JSON
        raise BadInput(f"{where}: {error}") from error


SHAPES = {"tuple_type": "expected a list", "model_type": "expected keys and values"}
"""Words for types of Python."""


def sentences(error: ValidationError, root: type) -> list[str]:
    """One sentence per wrong key of `root`, a model or a dataclass."""
    found: dict[str, list[str]] = {}
    for item in error.errors(include_url=False):
        path, section = _place(root, item["loc"])
        key = ".".join(path)
        if item["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            valid = _fields(section)
            known_as = synonyms.here(path[-1], valid, _fields(root))
            found[f"unknown key '{key}'"] = [nearest(path[-1], valid, known_as)]
        elif item["type"] in ("missing", "missing_argument"):
            found[f"missing key '{key}'"] = []
        else:
            found.setdefault(f"'{key}'" if key else "", []).append(_reason(item, bool(key)))
    return [": ".join(filter(None, (key, " or ".join(dict.fromkeys(r))))) for key, r in found.items()]


def _reason(item: Any, named: bool) -> str:
    message = SHAPES.get(item["type"]) or str(item["msg"]).removeprefix("Value error, ")
    if not named:
        return message
    value = repr(item["input"])
    shown = value if len(value) <= 80 else f"{value[:77]}…"
    return f"{message[0].lower()}{message[1:]}, got {shown}"


def _place(root: type, location: tuple[int | str, ...]) -> tuple[list[str], Any]:
    """The keys of a place, without pydantic's names for the members of a union, and the section around it."""
    path: list[str] = []
    here: Any = root
    section: Any = root
    for part in location:
        members = _members(here)
        if len(members) > 1:
            here = next((m for m in members if _name(m) == re.split(r"\W", str(part))[0]), None)
            continue
        [kind] = members or [None]
        path.append(str(part))
        if _fields(kind):
            section, here = kind, _fields(kind).get(str(part))
        else:
            arguments = [a for a in typing.get_args(kind) if a is not Ellipsis]
            here = arguments[-1] if arguments else None
    return path, section


def _members(annotation: Any) -> list[Any]:
    """What an annotation allows, besides None."""
    if typing.get_origin(annotation) is Annotated:
        return _members(typing.get_args(annotation)[0])
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        return [m for a in typing.get_args(annotation) if a is not type(None) for m in _members(a)]
    return [] if annotation is None else [annotation]


def _name(annotation: Any) -> str:
    return str(getattr(typing.get_origin(annotation) or annotation, "__name__", ""))


def _fields(kind: Any) -> dict[str, Any]:
    """Annotations of a model or dataclass by name; empty for anything else."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {name: field.annotation for name, field in kind.model_fields.items()}
    return typing.get_type_hints(kind) if isinstance(kind, type) and dataclasses.is_dataclass(kind) else {}
