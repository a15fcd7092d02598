"""Readers of checkpoints, one file per format, each with `recognises(path)` and `read(path, elements)`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any

from mlplugins import files, registry
from mlplugins.checkpoints import _elsewhere, unpickle
from mlplugins.errors import BadInput

if TYPE_CHECKING:
    from mlplugins.checkpoints.native import Checkpoint

NOT_FORMATS = ("added", "native", "unpickle")

NATIVE = {"family", "format", "hyperparameters"}
"""Strings that our own checkpoints hold."""


def formats() -> list[str]:
    """Names of the foreign formats.

    >>> "sevennet" in formats()
    True
    """
    return registry.available(__name__, NOT_FORMATS)


def reader(path: Path) -> ModuleType:
    """The file of the format that recognises `path` by its content.

    Raises:
        BadInput: no such file, damaged, or no format recognises it.
    """
    if not files.exists(path, file=True):
        folder = _elsewhere.what_folder_it_is(path)
        raise BadInput(f"{path}: {folder}" if folder else f"no such checkpoint: '{path}'")
    _elsewhere.require_arrived(path)
    for name in formats():
        module = registry.load(__name__, name, "checkpoint format", NOT_FORMATS)
        if module.recognises(path):
            return module
    what = _elsewhere.what_it_is(path)
    if what is not None:
        raise BadInput(f"{path}: {what}")
    if _is_torchscript(path):
        raise BadInput(
            f"{path}: a TorchScript program that is no metatomic model; convert the checkpoint that it was "
            "made from"
        )
    contents = unpickle.names(path)  # damaged files are refused here, with the reason
    if contents.strings >= NATIVE:
        raise BadInput(f"{path}: a checkpoint of `mlplugins train`; use `mlplugins export`")
    roots = sorted({name.partition(".")[0] for name in contents.imports} - {"collections", "_codecs"})
    raise BadInput(
        f"{path}: not a checkpoint of a known format ({', '.join(formats())}); "
        f"it was written with {', '.join(roots) or 'plain Python objects'}"
    )


def read(
    path: Path,
    elements: list[str] | None = None,
    head: str | None = None,
    conditions: Mapping[str, float] = MappingProxyType({}),
) -> Checkpoint:
    """Read a foreign checkpoint of any format.

    Args:
        path: the file, or the folder of a run with its model.pt.
        elements: keep only these (symbols).
        head: which one of several; formats without heads refuse it.
        conditions: `total_charge`, e, and `total_spin` (multiplicity) that the model is fixed to; formats
            without them refuse them.

    Raises:
        BadInput: see `reader`, and what the format's own `read` refuses.
    """
    if _elsewhere.what_folder_it_is(path) is None:  # that of MatGL has a model.pt of another kind
        path = files.in_folder(path, "model.pt")
    found = reader(path)
    takes = inspect.signature(found.read).parameters
    chosen: dict[str, Any] = {}
    if head is not None:
        if "head" not in takes:
            raise BadInput(f"head '{head}': {path} is of a format without heads; name none")
        chosen["head"] = head
    if conditions:
        if "conditions" not in takes:
            named = ", ".join(
                f"{name.removeprefix('total_')} {value:g}" for name, value in conditions.items()
            )
            raise BadInput(
                f"{named}: {path} is of a format without charges and spins, or a model.pt, which keeps its "
                "own: give none, or convert the checkpoint that it was made from"
            )
        chosen["conditions"] = conditions
    checkpoint: Checkpoint = found.read(path, elements, **chosen)
    return checkpoint


def is_native(path: Path) -> bool:
    """Whether the file is a checkpoint of `mlplugins train` or `finetune`.

    Raises:
        BadInput: no such file.
    """
    if not files.exists(path, file=True):
        raise BadInput(f"no such checkpoint: '{path}'")
    try:
        return not _is_torchscript(path) and unpickle.names(path).strings >= NATIVE
    except BadInput:
        return False  # a package, or damaged: `reader` knows


def _is_torchscript(path: Path) -> bool:
    return any("/code/" in name for name in unpickle.entries(path))
