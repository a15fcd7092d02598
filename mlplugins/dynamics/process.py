"""Child processes of a host engine: started together, stopped together, never left behind."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from mlplugins.dynamics.run import Command, Stage

PR_SET_PDEATHSIG = 1
GRACE_S = 10.0

_libc = ctypes.CDLL(None) if sys.platform == "linux" else None  # loaded here: not allowed after fork


class RunningStage:
    """The processes of a started stage.

    Args:
        stage: what to start.
        directory: working directory.
        lock: file descriptor of the run's lock; the children hold it as long as they live, so that a second
            `simulate` notices processes that survived the first.
    """

    def __init__(self, stage: Stage, directory: Path, lock: int) -> None:
        self.stage = stage
        self._directory = directory
        self._lock = lock
        self._leader = self._start(stage.leader)
        self._waiting = list(stage.servants)
        self._servants: list[subprocess.Popen[bytes]] = []
        self._deserted_at: float | None = None

    def poll(self) -> int | None:
        """Exit status of the stage, or None while it runs."""
        status = self._leader.poll()
        if status is not None:
            return self._ended(status)
        if self._waiting and self.stage.ready():
            self._servants = [self._start(command) for command in self._waiting]
            self._waiting = []
        if any(process.poll() is not None for process in self._servants):
            # the leader may be about to end by itself; otherwise it would wait for its servant for ever
            self._deserted_at = self._deserted_at or time.monotonic()
            if time.monotonic() - self._deserted_at > GRACE_S:
                self.stop()
                return next((p.returncode for p in self._servants if p.returncode), 1)
        return None

    def _ended(self, status: int) -> int:
        """Status of the stage once the leader has ended: the servants follow by themselves or are stopped."""
        deadline = time.monotonic() + (GRACE_S if status == 0 else 1.0)
        while time.monotonic() < deadline and any(process.poll() is None for process in self._servants):
            time.sleep(0.05)
        failed = next((p.returncode for p in self._servants if p.poll()), 0)
        self.stop()
        return status or failed

    def stop(self) -> None:
        """Stop the processes that still run: SIGTERM first, then SIGKILL."""
        running = [process for process in (self._leader, *self._servants) if process.poll() is None]
        for process in running:
            _signal_group(process, signal.SIGTERM)
        deadline = time.monotonic() + GRACE_S
        for process in running:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _signal_group(process, signal.SIGKILL)
                process.wait()

    def _start(self, command: Command) -> subprocess.Popen[bytes]:
        with (self._directory / command.output).open("ab") as stream:
            return subprocess.Popen(
                command.arguments,
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={**os.environ, **command.environment},
                start_new_session=True,  # Ctrl-C is ours to handle: the hosts then end in order
                pass_fds=(self._lock,),
                preexec_fn=die_with_parent,
            )


def die_with_parent() -> None:
    """Let the kernel end this process (SIGTERM) when its parent ends."""
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
