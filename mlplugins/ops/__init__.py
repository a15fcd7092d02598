"""The ops of mlplugins models: compiled (libmlplugins_ops) if built, else their plain-torch reference."""

from __future__ import annotations

import warnings

_loaded = ""
_fallback: list[object] = []  # keeps the Python definitions alive


def load() -> str:
    """Make `torch.ops.mlplugins.*` available; call it before `torch.jit.load`.

    The compiled library is loaded if `mlplugins build` made a current one, or mlplugins-native has one for
    this torch, and `MLPLUGINS_OPS` is not `off`; otherwise the plain-torch reference is registered under the
    same names. Later calls change nothing.

    Returns:
        `"compiled"` or `"reference"`.

    >>> load() in ("compiled", "reference")
    True
    >>> import torch
    >>> torch.ops.mlplugins.ghost_exchange(torch.ones(2, 3)).shape
    torch.Size([2, 3])
    """
    global _loaded
    if not _loaded:  # to look for the build takes longer than to load a small model
        _loaded = _load()
    return _loaded


def _load() -> str:
    import torch

    from mlplugins.ops import build, plain, shapes

    library = build.ops_library()
    if library is not None:
        try:
            torch.ops.load_library(str(library))
            shapes.register()
            return "compiled"
        except OSError as error:
            warnings.warn(
                f"cannot load {library}: {error}. Run `mlplugins build --force`; until then the slower "
                "plain-torch ops are used.",
                RuntimeWarning,
                stacklevel=2,
            )
    if hasattr(torch.ops.mlplugins, "ghost_exchange"):  # LAMMPS in this process brought the library
        shapes.register()
        return "compiled"
    _fallback.append(plain.register())
    shapes.register()
    return "reference"
