"""Findings about an installation: what is present and works, with the remedy of a fault."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata

OK, FAULT, NOTE = "ok", "fault", "note"
TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Finding:
    """One line of `mlplugins doctor`: `status` is `ok`, `note` (works, could be better) or `fault`."""

    name: str
    status: str
    found: str
    remedy: str = ""


def package(name: str, remedy: str, needed: bool = False) -> Finding:
    """Whether a distribution is installed.

    >>> package("numpy", "").status, package("no-such-package", "pip install it").status
    ('ok', 'note')
    """
    try:
        return Finding(name, OK, metadata.version(name))
    except metadata.PackageNotFoundError:
        return Finding(name, FAULT if needed else NOTE, "not installed", remedy)


def answer(
    arguments: Sequence[str], environment: dict[str, str] | None = None, text: str = ""
) -> subprocess.CompletedProcess[str] | None:
    """Output of a program for the input `text`; None if there is no such program, or it does not end."""
    try:
        return subprocess.run(
            arguments,
            env={**os.environ, **(environment or {})},
            input=text,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
