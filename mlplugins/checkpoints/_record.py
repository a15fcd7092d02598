"""Shared by all readers: which elements are kept, and the record of the source file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from mlplugins import files
from mlplugins.errors import BadInput, MlpluginsError


def source(kind: str, path: Path, version: str | None, **more: Any) -> dict[str, Any]:
    """Format, name, hash and version of the file that was read."""
    return {"format": kind, "file": path.name, "sha256": files.sha256(path), "version": version, **more}


def details(potential: nn.Module, hyperparameters: Any, **more: Any) -> dict[str, Any]:
    """Hyper-parameters (a dataclass) and number of parameters, and `more`."""
    n_parameters = sum(parameter.numel() for parameter in potential.parameters())
    return {"hyperparameters": asdict(hyperparameters), "n_parameters": n_parameters, **more}


@contextmanager
def intact(path: Path, what: str) -> Iterator[None]:
    """Turn what a damaged or forged file leads its reader to raise into one sentence that names the file.

    Raises:
        BadInput: whatever went wrong; errors raised on purpose keep their text.
    """
    try:
        yield
    except BadInput as error:
        text = str(error)
        raise BadInput(text if text.startswith(str(path)) else f"{path}: {text}") from error
    except MlpluginsError:
        raise
    except Exception as error:  # there is nothing that a forged file could not lead to
        reason = " ".join(str(error).split())
        raise BadInput(f"{path}: not an intact {what} ({type(error).__name__}: {reason})") from error


def whole(option: str, value: Any, highest: int | None = None) -> int:
    """A number of a configuration that must be whole here, and at most `highest`.

    >>> whole("polynomial_cutoff_p", 6.0)
    6

    Raises:
        BadInput: it is not.
    """
    if not float(value).is_integer() or (highest is not None and value > highest):
        limit = "" if highest is None else f" up to {highest}"
        raise BadInput(f"the option '{option}: {value}' is not supported (only whole numbers{limit})")
    return int(value)


def kept(known: Sequence[str], wanted: Sequence[str] | None) -> tuple[list[str], list[int]]:
    """Symbols to keep, and their rows in the tables of the file.

    >>> kept(["H", "O", "S"], ["S", "H"])
    (['S', 'H'], [2, 0])

    Raises:
        BadInput: no symbol, one twice, or one that the model does not know.
    """
    if wanted is None:
        return list(known), list(range(len(known)))
    wrong = [s for k, s in enumerate(wanted) if s not in known or s in wanted[:k]]
    if wrong or not wanted:
        raise BadInput(
            f"elements {' '.join(wrong) or 'none'}: expected different symbols that the model knows; "
            f"it knows {' '.join(sorted(known))}"
        )
    return list(wanted), [list(known).index(symbol) for symbol in wanted]
