"""The runtime of the program in a model.pt: TorchScript. Another runtime is another file like this one.

It loads the program and the libraries that it names, says of which class it is and where it runs, and runs
it: `load`, `class_name`, `device`, `running`, `FAILURES`, `reason`. The other half, which writes the program,
is `write.py`.
"""

from __future__ import annotations

import os
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from metatomic.torch import AtomisticModel

from mlplugins.errors import BadInput
from mlplugins.model_file.archive import Archive

EXTENSIONS = "MLPLUGINS_EXTENSIONS"
"""Environment variable: directories of TorchScript extensions of others' models, separated by colons."""

SUPPLIED = ("mlplugins_ops", "metatensor_torch", "metatomic_torch")
"""Extensions that this package brings along."""

FAILURES = (RuntimeError, torch.jit.Error)
"""What a program raises that fails while it runs."""


def load(archive: Archive, extensions: str | Path | None) -> AtomisticModel:
    """The model of a verified file.

    Args:
        archive: the file.
        extensions: directory of libraries that it needs, beside those of `MLPLUGINS_EXTENSIONS`.

    Raises:
        BadInput: no such directory, or the program does not load; with the reason and what to do.
    """
    missing = _load_extensions(archive, extensions)
    try:
        with warnings.catch_warnings(), running():
            warnings.filterwarnings("ignore", category=DeprecationWarning)  # torch.jit is metatomic's format
            warnings.filterwarnings("ignore", category=FutureWarning)
            module = torch.jit.load(str(archive.path))
            return AtomisticModel(module, module.metadata(), module.capabilities())
    except Exception as error:
        needs = ""
        if missing:
            needs = (
                f", and the extension(s) {', '.join(missing)}, which the file names, were not found: load "
                f"their Python package first, or name their directory in {EXTENSIONS} or with `extensions`"
            )
        raise archive.failed(reason(error) + needs) from error


def device(name: str) -> torch.device:
    """The device of this name.

    Raises:
        BadInput: an impossible or absent one.
    """
    try:
        target = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise BadInput(f"device: expected cpu, cuda or cuda:N, got '{name}'") from error
    if target.type == "cuda" and (target.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise BadInput(f"device '{name}': torch sees {count} CUDA device(s) here; use device='cpu'")
    return target


def class_name(module: Any) -> str:
    """Qualified name of the class of a loaded module."""
    return str(module._c.qualified_name)


class running:  # noqa: N801  (a context manager; one of `contextmanager` takes four times as long)
    """Gradients on, also under the caller's `no_grad`; and plain TorchScript execution.

    The profiling executor would specialise on the number of edges and compile again at each new one, a second
    or more in the first steps. All three switches are thread-local and reset on exit.
    """

    def __enter__(self) -> None:
        self._modes: ExitStack | None = None
        if torch.is_inference_mode_enabled() or not torch.is_grad_enabled():
            self._modes = ExitStack()
            self._modes.enter_context(torch.inference_mode(False))
            self._modes.enter_context(torch.enable_grad())
        self._optimise = torch._C._get_graph_executor_optimize()
        torch._C._set_graph_executor_optimize(False)  # as `torch.jit.optimized_execution`

    def __exit__(self, *_: object) -> None:
        torch._C._set_graph_executor_optimize(self._optimise)
        if self._modes is not None:
            self._modes.close()


def _load_extensions(archive: Archive, directory: str | Path | None) -> list[str]:
    """Load the libraries that the file names, from the user's directories only; returns those not found.

    metatomic's own loader would open whatever absolute path a file states.
    """
    named = [str(directory)] if directory else []
    named += [part for part in os.environ.get(EXTENSIONS, "").split(os.pathsep) if part]
    for folder in named:
        if not Path(folder).is_dir():
            raise BadInput(f"extensions: no such directory: '{folder}'")
    loaded = {Path(path).stem.removeprefix("lib") for path in torch.ops.loaded_libraries}
    missing = []
    for name, _ in archive.extensions:
        if name in loaded or name in SUPPLIED:
            continue
        files = (f"lib{name}.so", f"{name}.so", f"lib{name}.dylib", f"{name}.dll")
        found = [path for folder in named for path in sorted(Path(folder).rglob("*")) if path.name in files]
        if not found:
            missing.append(name)
            continue
        try:
            torch.ops.load_library(str(found[0]))
        except OSError as error:
            raise archive.failed(f"its extension {found[0]} cannot be loaded ({error})") from error
    return missing


def reason(error: BaseException) -> str:
    """Why a program failed, in one line."""
    # the TorchScript interpreter's trace comes first, and its reason last
    text = str(error).rpartition("RuntimeError: ")[2] if isinstance(error, RuntimeError) else str(error)
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    if "RuntimeError: " in str(error):
        return " ".join(lines)
    return lines[-1] if lines else type(error).__name__
