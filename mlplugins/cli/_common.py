"""What several commands share: `--json`, the console, reading YAML configurations."""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console

from mlplugins.errors import BadInput


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add `--json FILE`, the machine-readable result."""
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the result as JSON (see docs/json.md)"
    )


def write_json(path: Path | None, result: dict[str, Any]) -> None:
    """Write `result` to `path` atomically (nothing if `path` is None); NaN and infinity become null."""
    if path is None:
        return
    text = json.dumps(_finite(result), indent=2) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(text)
    os.chmod(temporary, 0o644)  # as other results; mkstemp hides it from everybody else
    os.replace(temporary, path)


def _finite(value: Any) -> Any:
    if hasattr(value, "tolist"):  # numpy scalars and arrays
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def console() -> Console:
    """The console for tables and progress (stderr is left to errors)."""
    return Console(soft_wrap=False)


def existing_file(text: str) -> Path:
    """The path of a file that exists (to be called in `run`: argparse would hide the text).

    >>> existing_file("no/such/file")
    Traceback (most recent call last):
    ...
    mlplugins.errors.BadInput: no such file: 'no/such/file'
    """
    path = Path(text)
    if not path.is_file():
        raise BadInput(f"no such file: '{text}'")
    return path
