"""i-PI driver: a model.pt behind i-PI's sockets and in its `ffdirect`; a batch of beads is one model call."""

from __future__ import annotations

import atexit
import contextlib
import inspect
import json
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
from ase.io import read
from numpy.typing import NDArray

from mlplugins.engines.artifact import Committee, NeighborCache, Structure, combine, load_all
from mlplugins.errors import BadInput, MissingDependency, MlpluginsError, RunFailed, nearest

try:
    from ipi.interfaces.sockets import HDRLEN, MESSAGE, InterfaceSocket
    from ipi.pes.dummy import Dummy_driver
    from ipi.utils.softexit import softexit
    from ipi.utils.units import unit_to_internal, unit_to_user
except ImportError as error:
    raise MissingDependency(f"the i-PI driver needs i-PI ({error}): pip install 'mlplugins[ipi]'") from error

Array = NDArray[np.float64]
SKIN = 0.5
"""Default skin of the neighbour list, Å."""

SOCKETS_PREFIX: str = inspect.signature(InterfaceSocket).parameters["sockets_prefix"].default
"""Where i-PI puts its unix sockets unless told otherwise."""


class Reply(NamedTuple):
    """What i-PI expects for one structure, in atomic units."""

    potential: float
    forces: Array  # (N, 3)
    virial: Array  # (3, 3), −V·stress
    extras: str  # JSON


@dataclass(frozen=True)
class Options:
    """Options of the driver, given as `-o key=value,…` or in `<parameters>`.

    Attributes:
        model: file, or several joined by `+` for a committee (`a.pt+b.pt`).
        template: any structure file that ASE reads: the elements, in i-PI's order, and the periodicity.
        device: `cpu`, `cuda`, `cuda:1`, …
        skin: the neighbour list is reused until an atom has moved by half of this, Å; 0 switches it off.
        pbc: `true`, `false`, or `template`: as the template says (i-PI's own xyz files are periodic).
        variant: which energy of a model that has several (`pbe` of `energy/pbe`).
        committee_forces: also send each model's forces and virial, which i-PI's weighted baseline needs.
    """

    model: str
    template: str
    device: str = "cpu"
    skin: float = SKIN
    pbc: bool | str = "template"
    committee_forces: bool = False
    variant: str | None = None


class MLDriver(Dummy_driver):
    """i-PI's `PES` interface: `driver(cell, positions)` for one structure, or for lists of them as one batch.

    Takes the fields of `Options` as keywords. The extras are JSON, in atomic units; for M > 1 models:
    `committee_pot` (M,), `energy_uncertainty` (sample standard deviation of the M energies),
    `max_force_uncertainty` (largest standard deviation of a force component) and, with `committee_forces`,
    `committee_force` (M, 3N) and `committee_virial` (M, 9): the keys that `<ffcommittee>` reads.

    Raises:
        BadInput: an unknown option, an unreadable model or template, an element that the model does not know.
        RunFailed: the model gave NaN or infinity.
    """

    def __init__(self, *args: Any, verbosity: Any = None, verbose: bool = False, **options: Any) -> None:
        names = list(Options.__dataclass_fields__)
        unknown = sorted(set(options) - set(names))
        if args or unknown:
            name = str((unknown or args)[0])
            raise BadInput(f"i-PI driver: unknown option '{name}': {nearest(name, names)}")
        missing = [name for name in ("model", "template") if name not in options]
        if missing:
            raise BadInput(f"i-PI driver: '{missing[0]}' is missing; expected model=FILE,template=FILE")
        self.options = Options(**options)
        self.n_calls = 0
        self.n_structures = 0
        self.seconds = 0.0
        super().__init__(verbose=verbose)

    def check_parameters(self) -> None:
        """Load the models and the template (i-PI calls this once)."""
        options = self.options
        self.artifacts = load_all(_paths(options.model), options.device, options.variant)
        self.numbers, self.pbc = _read_template(options.template, options.pbc)
        self._lists = NeighborCache(float(options.skin))

    def compute_structure(self, cell: Array, pos: Array) -> Reply:
        """Evaluate one structure: cell (3, 3) with the vectors as columns, positions (N, 3), bohr."""
        return self._evaluate([cell], [pos])[0]

    def compute(self, cell: Array | list[Array], pos: Array | list[Array]) -> Reply | list[Reply]:
        """Evaluate one structure, or lists of them in one model call."""
        if not isinstance(cell, list):
            return self._evaluate([cell], [np.asarray(pos)])[0]
        if not isinstance(pos, list) or len(cell) != len(pos):
            raise BadInput("i-PI driver: a batch needs as many cells as positions")
        # i-PI fills an incomplete batch by repeating its last structure
        n = len(pos)
        while n > 1 and np.array_equal(pos[n - 1], pos[n - 2]) and np.array_equal(cell[n - 1], cell[n - 2]):
            n -= 1
        replies = self._evaluate(cell[:n], pos[:n])
        return replies + [replies[-1]] * (len(pos) - n)

    def _evaluate(self, cells: Sequence[Array], positions: Sequence[Array]) -> list[Reply]:
        start = time.perf_counter()
        structures = [self._structure(cell, pos) for cell, pos in zip(cells, positions)]
        by_model = [artifact.evaluate(structures, lists=self._lists) for artifact in self.artifacts]
        replies = [self._reply(combine(members)) for members in zip(*by_model)]
        self.n_calls += 1
        self.n_structures += len(structures)
        self.seconds += time.perf_counter() - start
        return replies

    def _structure(self, cell: Array, pos: Array) -> Structure:
        points = unit_to_user("length", "angstrom", np.asarray(pos)).reshape(-1, 3)
        if len(points) != len(self.numbers):
            raise BadInput(
                f"i-PI sends {len(points)} atoms, but the template '{self.options.template}' has "
                f"{len(self.numbers)}; give the structure that i-PI starts from"
            )
        rows = unit_to_user("length", "angstrom", np.asarray(cell).T)
        return Structure(self.numbers, points, rows, self.pbc)

    def _reply(self, committee: Committee) -> Reply:
        mean = committee.mean
        return Reply(
            float(_energy(mean.energy)), _force(mean.forces), _energy(mean.virial), self._extras(committee)
        )

    def _extras(self, committee: Committee) -> str:
        members = committee.members
        if len(members) == 1:
            return "{}"
        extras: dict[str, Any] = {
            "committee_pot": [_energy(member.energy) for member in members],
            "energy_uncertainty": _energy(committee.energy_spread),
            "max_force_uncertainty": float(_force(committee.forces_spread.max())),
        }
        if self.options.committee_forces:
            extras["committee_force"] = [_force(member.forces).ravel().tolist() for member in members]
            extras["committee_virial"] = [_energy(member.virial).ravel().tolist() for member in members]
        return json.dumps(extras)


class HostedDriver(MLDriver):
    """`MLDriver` inside a process of i-PI (`i-pi-driver-py` or `ffdirect`): an error stops that process.

    i-PI evaluates `ffdirect` in a thread of its own when it is threaded; an exception there would end that
    thread only, and i-PI would wait for ever. So i-PI is told to stop.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        try:
            super().__init__(*args, **options)
        except MlpluginsError as error:
            _stop_process(error)

    def __call__(self, cell: Any, pos: Any) -> Any:
        try:
            return self.compute(cell, pos)
        except MlpluginsError as error:
            _stop_process(error)


def _stop_process(error: MlpluginsError) -> NoReturn:
    message = f"mlplugins: error: {error}"
    print(message, file=sys.stderr, flush=True)
    if threading.current_thread() is threading.main_thread():
        _close_drivers_socket()
    else:
        threading.Thread(target=_stop_ipi, args=(message, error.exit_code), daemon=True).start()
    raise SystemExit(error.exit_code)


def _stop_ipi(message: str, code: int) -> None:
    if not softexit.hard_exit:  # i-PI as a library (a notebook): leave the process alone
        softexit.trigger(status="bad", message=message)
        return
    softexit.hard_exit = False  # i-PI's own hard exit reports success whatever happened
    atexit.register(_leave, code)
    softexit.cleanup("bad", message)  # writes RESTART, closes force fields
    _leave(code)


def _leave(code: int) -> None:
    with softexit.lock:  # held while RESTART is written
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _close_drivers_socket() -> None:
    """Close the socket of `i-pi-driver-py`, which is a local variable of its loop."""
    frame = sys._getframe()
    while frame is not None:
        connection = frame.f_locals.get("sock")
        if isinstance(connection, socket.socket):
            _close(connection)
            return
        frame = frame.f_back  # type: ignore[assignment]


def _close(connection: socket.socket) -> None:
    # i-PI sends GETFORCE along with POSDATA. Closing with that unread resets the connection, and i-PI 3.3.1
    # then waits for ever; after an orderly end it reports that the client died.
    connection.settimeout(0.0)
    with contextlib.suppress(OSError):
        while connection.recv(65536):
            pass
    connection.close()


def _paths(model: str) -> list[str]:
    return [model] if Path(model).is_file() else [part.strip() for part in str(model).split("+")]


def _read_template(path: str, pbc: bool | str) -> tuple[NDArray[np.integer], NDArray[np.bool_]]:
    """Atomic numbers and periodicity."""
    if not Path(path).is_file():
        raise BadInput(f"no such template file: '{path}'")
    try:
        atoms = read(path, index=0)
    except Exception as error:  # ASE's readers raise whatever they meet
        raise BadInput(f"template '{path}': ASE cannot read it: {error}") from error
    if isinstance(pbc, bool):
        return atoms.numbers, np.array([pbc] * 3)
    if pbc != "template":
        raise BadInput(f"pbc: expected true, false or template, got '{pbc}'")
    head = Path(path).read_text(encoding="utf-8", errors="replace")[:2000]
    if not atoms.pbc.any() and re.search(r"CELL[\[({]", head):
        return atoms.numbers, np.array([True] * 3)
    return atoms.numbers, np.array(atoms.pbc)


def _energy(value: Any) -> Any:
    return unit_to_internal("energy", "electronvolt", value)


def _force(value: Any) -> Any:
    return unit_to_internal("force", "ev/ang", value)


def connect(
    unix: str | None = None,
    host: str = "localhost",
    port: int = 31415,
    wait: float = 60.0,
    prefix: str = SOCKETS_PREFIX,
) -> socket.socket:
    """Connect to i-PI, waiting up to `wait` seconds until it listens.

    Args:
        unix: name of a unix socket (the `<address>` in the XML); None for TCP.
        host: TCP host.
        port: TCP port.
        wait: seconds.
        prefix: directory and prefix of unix sockets.

    Raises:
        RunFailed: nobody listens.
    """
    address = f"unix socket {prefix}{unix}" if unix else f"{host}:{port}"
    deadline = time.monotonic() + wait
    while True:
        try:
            return _connect_unix(prefix + unix) if unix else _connect_tcp(host, port)
        except OSError as error:
            if time.monotonic() >= deadline:
                raise RunFailed(
                    f"no i-PI at {address} ({error.strerror or error}): start `i-pi input.xml` and check the "
                    "<address> and <port> of its <ffsocket>"
                ) from error
            time.sleep(0.1)


def _connect_unix(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(path)
    except OSError:
        connection.close()
        raise
    return connection


def _connect_tcp(host: str, port: int) -> socket.socket:
    connection = socket.create_connection((host, port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def serve(driver: MLDriver, connection: socket.socket) -> None:
    """Answer i-PI's requests until it says EXIT.

    Raises:
        RunFailed: i-PI closed the connection without a word.
        MlpluginsError: an evaluation failed; the connection is closed, so that i-PI notices.
    """
    try:
        _Client(driver, connection).loop()
    except OSError as error:
        raise RunFailed(
            f"lost i-PI after {driver.n_calls} evaluations ({error.strerror or error}): it stopped, or "
            "was killed; its own output says why"
        ) from error
    finally:
        _close(connection)


class _Client:
    """The client's side of i-PI's socket protocol, single structures and batches."""

    def __init__(self, driver: MLDriver, connection: socket.socket) -> None:
        self._driver = driver
        self._socket = connection
        self._batch = 1
        self._initialised = False
        self._replies: list[Reply] | None = None

    def loop(self) -> None:
        answers = {
            MESSAGE["status"]: self._status,
            MESSAGE["init"]: self._initialise,
            MESSAGE["posdata"]: self._positions,
            MESSAGE["getforce"]: self._send_forces,
        }
        while (header := self._receive(HDRLEN)) != MESSAGE["exit"]:
            if header not in answers:
                raise RunFailed(f"i-PI sent an unknown message: {header!r}")
            answers[header]()

    def _receive(self, n_bytes: int) -> bytes:
        chunks = bytearray()
        while len(chunks) < n_bytes:
            part = self._socket.recv(n_bytes - len(chunks))
            if not part:
                raise ConnectionResetError("connection closed")
            chunks += part
        return bytes(chunks)

    def _array(self, shape: Sequence[int], dtype: type = np.float64) -> NDArray[Any]:
        n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return np.frombuffer(self._receive(n_bytes), dtype=dtype).reshape(shape)

    def _status(self) -> None:
        if not self._initialised:
            self._socket.sendall(MESSAGE["needinit"])
        else:
            self._socket.sendall(MESSAGE["havedata" if self._replies is not None else "ready"])

    def _initialise(self) -> None:
        _, length = self._array((2,), np.int32)
        text = self._receive(int(length)).decode("utf-8", "replace")
        announced = re.search(r"batch_size\s*:\s*(\d+)", text)
        self._batch = int(announced.group(1)) if announced else 1
        self._initialised = True

    def _positions(self) -> None:
        n = self._batch
        if n == 1:
            cells = self._array((1, 2, 3, 3))
            n_atoms = int(self._array((), np.int32))
        else:
            n_atoms = int(self._array((), np.int32))
            cells = self._array((n, 2, 3, 3))
        positions = self._array((n, n_atoms, 3))
        replies = self._driver.compute([cell[0] for cell in cells], list(positions))
        self._replies = replies if isinstance(replies, list) else [replies]

    def _send_forces(self) -> None:
        replies = self._replies or []
        extras = [reply.extras.encode() for reply in replies]
        parts = [
            MESSAGE["forceready"],
            np.array([reply.potential for reply in replies]).tobytes(),
            np.int32(len(replies[0].forces)).tobytes(),
            np.array([reply.forces for reply in replies]).tobytes(),
            np.array([reply.virial for reply in replies]).tobytes(),
            *(np.int32(len(extra)).tobytes() + extra for extra in extras),
        ]
        self._socket.sendall(b"".join(parts))
        self._replies = None
