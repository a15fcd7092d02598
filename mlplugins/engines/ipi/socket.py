"""Connecting to i-PI's socket, and an orderly end on a signal."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mlplugins.errors import BadInput, RunFailed

STALE_S = 2.0
"""A unix socket that refuses for so long has no listener; i-PI listens at once after it has made it."""

SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGTERM", "SIGHUP", "SIGQUIT", "SIGXCPU", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)
)
"""Signals that schedulers, `timeout`, `kill` and closed terminals send, and that end a process."""

ADVICE = "start `i-pi input.xml`, and check <address> and <port> of its <ffsocket>"


@contextlib.contextmanager
def orderly_end(before: Callable[[], None] = lambda: None, more: tuple[int, ...] = ()) -> Iterator[None]:
    """Context in which a signal that would kill the process unwinds it instead, with exit code 128 + signal.

    A driver killed in an evaluation would otherwise leave its caller without a summary, and i-PI with a
    connection that is reset, on which i-PI 3.3.1 waits for ever.

    Args:
        before: called first.
        more: more signals.
    """
    previous = install_orderly_end(before, more)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def install_orderly_end(before: Callable[[], None], more: tuple[int, ...] = ()) -> dict[int, Any]:
    """As `orderly_end`, for good. Returns the handlers that were there before."""
    if threading.current_thread() is not threading.main_thread():
        return {}

    def end(number: int, frame: object) -> None:
        os.write(2, f"mlplugins: ended by {signal.Signals(number).name}\n".encode())
        before()
        sys.exit(128 + number)

    # one that is ignored (nohup) or handled by somebody else stays so
    chosen = [n for n in SIGNALS if signal.getsignal(n) is signal.SIG_DFL]
    return {number: signal.signal(number, end) for number in (*chosen, *more)}


def connect(unix: str | None, host: str, port: int, wait: float, prefix: str) -> socket.socket:
    """See `mlplugins.engines.ipi.driver.connect`."""
    if unix is None:
        if not 0 < port < 65536:
            raise BadInput(f"port: expected 1 to 65535, got {port}")
        if not host:
            raise BadInput("host: expected a name or an address, got an empty one")
        where, open_once = f"{host}:{port}", lambda left: _open_tcp(host, port, left)
    else:
        path = _unix_path(unix, prefix)
        where, open_once = f"unix socket {path}", lambda left: _open_unix(path)
    if not 0 <= wait < 1e9:
        raise BadInput(f"wait: expected seconds, zero or more, got {wait}")
    deadline = time.monotonic() + wait
    refused_since = None
    said = False
    while True:
        now = time.monotonic()
        try:
            return open_once(max(deadline - now, 1.0))
        except OSError as error:
            reason = error.strerror or str(error)
            refused_since = (refused_since or now) if isinstance(error, ConnectionRefusedError) else None
        if unix is not None and refused_since is not None and now - refused_since > min(STALE_S, wait):
            raise RunFailed(_stale(path))
        if now >= deadline:
            raise RunFailed(f"no i-PI at {where} ({reason}) within {wait:g} s: {ADVICE}")
        if not said and wait > 1.0:
            print(f"mlplugins: no i-PI at {where} yet ({reason}); waiting up to {wait:g} s", flush=True)
            said = True
        time.sleep(0.1)


def _unix_path(name: str, prefix: str) -> str:
    path = prefix + name
    if not name:
        raise BadInput("unix: expected the <address> of i-PI's <ffsocket mode='unix'>, got an empty name")
    if name.startswith(prefix):
        raise BadInput(
            f"unix: expected the <address> alone, such as '{name.removeprefix(prefix)}': '{prefix}' is put "
            f"before it; got '{name}'"
        )
    if len(os.fsencode(path)) > 107:
        raise BadInput(f"unix: a socket's path has at most 107 bytes, '{path}' has {len(os.fsencode(path))}")
    folder = Path(path).parent
    if not folder.is_dir():
        raise BadInput(f"unix: no such folder: '{folder}', where the socket '{path}' would be")
    return path


def _stale(path: str) -> str:
    if not stat.S_ISSOCK(os.stat(path).st_mode):
        return f"'{path}' is a file, not a socket: {ADVICE}"
    return (
        f"nobody listens at the unix socket {path}: an i-PI that was killed has left it behind, and no other "
        f"can start while it is there: rm {path}, then {ADVICE}"
    )


def _open_unix(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(path)
    except PermissionError as error:
        connection.close()
        raise RunFailed(f"no permission for the unix socket {path}: it belongs to another user") from error
    except OSError:
        connection.close()
        raise
    return connection


def _open_tcp(host: str, port: int, timeout: float) -> socket.socket:
    try:
        connection = socket.create_connection((host, port), timeout=timeout)
    except (socket.gaierror, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RunFailed(f"the host '{host}' cannot be found ({reason}): check --host") from error
    connection.settimeout(None)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 8)):
        if hasattr(socket, name):  # a node that lost its power says nothing
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return connection
