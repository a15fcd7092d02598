"""The errors that mlplugins raises; the command line turns them into one sentence and an exit code."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator


class MlpluginsError(Exception):
    """Base of all errors raised on purpose. `exit_code` is what the command line returns."""

    exit_code = 1


class BadInput(MlpluginsError, ValueError):
    """Wrong use or wrong input: refused before anything was computed (exit code 2)."""

    exit_code = 2


class MissingDependency(MlpluginsError, ImportError):
    """An optional package is absent; the text holds the pip line (exit code 2)."""

    exit_code = 2


class RunFailed(MlpluginsError, RuntimeError):
    """The work started and failed (exit code 1)."""


class RunStopped(MlpluginsError, RuntimeError):
    """The work ended at a limit that the user set, what is done being recorded (exit code 3)."""

    exit_code = 3


class Interrupted(KeyboardInterrupt):
    """Work that was ended by a signal in good order: what is done is saved.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.number = number


@contextlib.contextmanager
def needed(what: str, extra: str) -> Iterator[None]:
    """Context for imports of optional packages: a missing one raises an error with the pip command.

    >>> with needed("drawing", "train"):
    ...     import no_such
    Traceback (most recent call last):
    ...
    mlplugins.errors.MissingDependency: drawing needs the package 'no_such': pip install 'mlplugins[train]'
    """
    try:
        yield
    except ImportError as missing:
        if isinstance(missing, MissingDependency) or (missing.name or "").startswith("mlplugins"):
            raise
        raise MissingDependency(
            f"{what} needs the package '{missing.name}': pip install 'mlplugins[{extra}]'"
        ) from missing


def nearest(name: str, valid: Iterable[str], known_as: str = "") -> str:
    """Return a hint that names the right name, or the nearest valid one and all valid ones.

    Args:
        name: what came.
        valid: what could have come.
        known_as: the valid name of the same thing, where it is known; empty: the one spelled most alike.

    >>> nearest("famly", ["family", "cutoff"])
    "did you mean 'family'? Valid: cutoff, family"
    >>> nearest("zzz", ["family"])
    'Valid: family'
    >>> nearest("r_max", ["family", "cutoff"], "cutoff")
    "it is called 'cutoff' here"
    """
    names = sorted(valid)
    lower = {other.lower(): other for other in reversed(names)}
    close = [lower[found] for found in difflib.get_close_matches(name.lower(), lower, n=1)]
    if known_as and close != [known_as]:
        return f"it is called '{known_as}' here"
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{hint}Valid: {', '.join(names)}"
