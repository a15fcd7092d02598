"""i-PI driver: a model.pt behind i-PI's sockets and in its `ffdirect`; a batch of beads is one model call."""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from mlplugins.engines.ipi import socket as _ipi_socket
from mlplugins.engines.ipi import watching
from mlplugins.engines.ipi.extras import BORN, SENT, all_energies, extras
from mlplugins.engines.ipi.options import Options, checked
from mlplugins.engines.ipi.program import sockets_prefix
from mlplugins.errors import BadInput, MissingDependency, MlpluginsError, RunFailed, nearest
from mlplugins.model_file.artifact import (
    Committee,
    NeighborCache,
    PlainStructure,
    combine,
    evaluate_together,
    load_all,
    sources,
)
from mlplugins.model_file.card import has_no_energy
from mlplugins.model_file.doubts import of_first
from mlplugins.structures import state as states

try:
    from ipi.interfaces.sockets import HDRLEN, MESSAGE
    from ipi.pes.dummy import Dummy_driver
    from ipi.utils.softexit import softexit

    from mlplugins.engines.ipi import template as _ipi_template
    from mlplugins.engines.ipi.meeting import Meeting
except ImportError as error:
    raise MissingDependency(f"the i-PI driver needs i-PI ({error}): pip install 'mlplugins[ipi]'") from error

Array = NDArray[np.float64]
MOST_TEXT = 1 << 20
"""Longest INIT text that is taken for one, bytes."""
QUIET_S = 10.0
"""Silence after which the driver says that it waits for i-PI's first word, s."""
SOCKETS_PREFIX = sockets_prefix()
"""Where i-PI puts its unix sockets unless told otherwise."""


class Reply(NamedTuple):
    """Result for one structure as i-PI expects it, in atomic units."""

    potential: float
    forces: Array  # (N, 3)
    virial: Array  # (3, 3), −V·stress
    extras: str  # JSON


class MLDriver(Dummy_driver):
    """i-PI's `PES` interface: `driver(cell, positions)` for one structure, or for lists of them as one batch.

    Takes the fields of `Options` as keywords. The extras are JSON (`extras.extras`).

    Attributes:
        artifacts: the models.
        template: what the template file says.
        numbers: (N,) atomic numbers.
        info: charge and spin multiplicity, of the options or else of the template.

    Raises:
        BadInput: an unknown option, an unreadable model or template, an element that the model does not know;
            atoms in another order than the template's, a cell that contradicts it, mixed-up units.
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
        self.options = checked(Options(**options))
        self.n_calls = 0
        self.n_structures = 0
        self.seconds = 0.0
        super().__init__(verbose=verbose)

    def check_parameters(self) -> None:
        """Load the models and the template (i-PI calls this once)."""
        options = self.options
        flags = bool(options.baseline), bool(options.non_conservative)
        self.artifacts = load_all(_paths(options.model), options.device, options.variant, None, *flags)
        self.template = _ipi_template.read_template(str(options.template))
        self.numbers = self.template.numbers
        self.info = self._info()
        self._said: set[str] = set()
        ours = all(artifact.family is not None for artifact in self.artifacts)
        reach = max(artifact.cutoff if ours else artifact.interaction_range for artifact in self.artifacts)
        self._meeting = Meeting(self.template, options, reach, self._tell)
        self._sent = SENT | {BORN} if options.bec else SENT
        self._sent |= all_energies(self.artifacts) if options.energies else frozenset()
        for artifact in self.artifacts:
            if options.bec and BORN not in artifact.more:
                raise BadInput(
                    f"bec: '{artifact.path.name}' has no dipole whose derivative the Born effective charges "
                    "are: leave bec out, or train with heads: {dipole: {unit: …}}"
                )
        self._lists = NeighborCache(float(options.skin))
        self._watch = watching.watch(options, self.artifacts)

    def _info(self) -> dict[str, Any]:
        """Charge and spin for models that take them, in their range."""
        info = dict(self.template.info)
        for name, option in states.OPTIONS.items():
            value = getattr(self.options, option)
            if value is None:
                continue
            info = {key: own for key, own in info.items() if key not in states.NAMES[name]} | {name: value}
            for artifact in self.artifacts:
                artifact.require_input(name, option)
        for artifact in self.artifacts:
            artifact.state(info, f"i-PI driver, template '{self.template.path}' and options")
        return info

    def _keywords(self) -> dict[str, float]:
        """What the models are given of the whole structure, defaults included."""
        taken = {name for artifact in self.artifacts for name in artifact.inputs}
        return states.keywords(states.of(self.info)._asdict(), taken) if taken else {}

    def describe(self, where: str = "") -> str:
        """Model, precision, device, atoms and periodicity in words, with `where` in between."""
        first, count = self.artifacts[0], sum(artifact.n_members for artifact in self.artifacts)
        models = f"{count} models, " if count > 1 else ""
        formula = Atoms(numbers=self.numbers).get_chemical_formula("metal")
        known = self.options.pbc if isinstance(self.options.pbc, bool) else self.template.pbc
        periodic = "periodic if i-PI's cell says so"
        if known is not None:
            flags = np.broadcast_to(known, 3)
            periodic = ("" if flags.all() else "partly " if flags.any() else "not ") + "periodic"
        return (
            f"{self.options.model} ({models}{first.family or first.name}, {first.dtype}, {first.device}), "
            f"{len(self.numbers)} atoms{where}: {formula}, {periodic}"
            + "".join(f", {name} {value:g}" for name, value in self._keywords().items())
            + ("" if self.options.baseline else "; energies without composition energies (baseline off)")
            + ("; direct forces" if self.options.non_conservative else "")
            + (f"; {first.energy_output} of {', '.join(first.energies)}" if len(first.energies) > 1 else "")
            + (
                "; no energies were learned: energy and forces are zero"
                if has_no_energy(first.record)
                else ""
            )
            + (f"; outputs that are not passed on: {', '.join(first.unused)}" if first.unused else "")
        )

    @property
    def pbc(self) -> NDArray[np.bool_] | None:
        """Periodic directions; None before the first structure."""
        return self._meeting.pbc

    def say(self, text: str) -> None:
        """Called with what is odd or to be known about first structures; prints nothing here."""

    def _tell(self, text: str) -> None:
        self.say(text)  # which classes and callers replace

    def compute_structure(self, cell: Array, pos: Array) -> Reply:
        """Evaluate one structure: cell (3, 3) with the vectors as columns, positions (N, 3), bohr."""
        return self._evaluate([cell], [pos])[0]

    def compute(self, cell: Array | list[Array], pos: Array | list[Array]) -> Reply | list[Reply]:
        """Evaluate one structure, or lists of them in one model call."""
        if not isinstance(cell, list):
            return self._evaluate([cell], [np.asarray(pos)])[0]
        if not isinstance(pos, list) or len(cell) != len(pos):
            raise BadInput("i-PI driver: a batch needs as many cells as positions")
        n = len(pos)  # i-PI fills an incomplete batch by repeating its last structure
        while n > 1 and np.array_equal(pos[n - 1], pos[n - 2]) and np.array_equal(cell[n - 1], cell[n - 2]):
            n -= 1
        replies = self._evaluate(cell[:n], pos[:n])
        return replies + [replies[-1]] * (len(pos) - n)

    def _evaluate(self, cells: Sequence[Array], positions: Sequence[Array]) -> list[Reply]:
        start = time.perf_counter()
        self._new: list[int] = []
        structures = [self._structure(k, *each) for k, each in enumerate(zip(cells, positions))]
        first = self.artifacts[0]
        if len(self.artifacts) == 1 and first.n_members == 1 and first.has_uncertainty:
            probes = watching.probes(self.options, self._watch, len(structures))
            results = first.evaluate(structures, False, self._lists, True, self._sent, probes)
            committees = [combine([result]) for result in results]
        else:
            committees = evaluate_together(self.artifacts, structures, lists=self._lists, wanted=self._sent)
        for k in self._new:
            for said in of_first(self.artifacts, sources(self.artifacts), structures[k], committees[k]):
                if said not in self._said:
                    self.say(f"warning: {said}")
                self._said.add(said)
        if self._watch is not None:
            self._watch.look(structures, committees)
        replies = [self._reply(committee) for committee in committees]
        self.n_calls += 1
        self.n_structures += len(structures)
        self.seconds += time.perf_counter() - start
        return replies

    def _structure(self, index: int, cell: Array, pos: Array) -> PlainStructure:
        points = (np.asarray(pos) / _ipi_template.ANGSTROM).reshape(-1, 3)
        self.require_count(len(points))
        rows = np.asarray(cell).T / _ipi_template.ANGSTROM
        pbc, is_new = self._meeting.look(rows, points)
        if is_new:
            self._new.append(index)
        return PlainStructure(self.numbers, points, rows, pbc, self.info)

    def require_count(self, n_atoms: int) -> None:
        """Refuse structures whose size differs from that of the template."""
        if n_atoms != len(self.numbers):
            raise BadInput(
                f"i-PI sends {n_atoms} atoms, but the template '{self.options.template}' has "
                f"{len(self.numbers)}; give the structure that i-PI starts from"
            )

    def _reply(self, committee: Committee) -> Reply:
        mean, options = committee.mean, self.options
        return Reply(
            float(_energy(mean.energy)),
            _force(mean.forces),
            _energy(mean.virial),
            extras(committee, bool(options.committee_forces), bool(options.force_uncertainty)),
        )


class HostedDriver(MLDriver):
    """`MLDriver` inside a process of i-PI (`i-pi-driver-py` or `ffdirect`): an error stops that process.

    i-PI evaluates `ffdirect` in a thread of its own when it is threaded; an exception there would end that
    thread only, and i-PI would wait for ever. So i-PI is told to stop.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self._watched = False
        try:
            super().__init__(*args, **options)
        except MlpluginsError as error:
            _stop_process(error)
        self.say(self.describe())

    def say(self, text: str) -> None:
        print(f"mlplugins: {text}", flush=True)

    def __call__(self, cell: Any, pos: Any) -> Any:
        if not self._watched:
            self._watched = True
            if _drivers_socket() is not None:  # else it is i-PI itself, which handles signals
                _ipi_socket.install_orderly_end(_close_drivers_socket, (signal.SIGINT,))
        try:
            return self.compute(cell, pos)
        except MlpluginsError as error:
            _stop_process(error)
        except Exception as error:  # i-PI would wait for ever after any other, too
            _stop_process(RunFailed(f"i-PI driver: {type(error).__name__}: {error}"))


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
    connection = _drivers_socket()
    if connection is not None:
        _close(connection)


def _drivers_socket() -> socket.socket | None:
    """The socket of `i-pi-driver-py`, which is a local variable of its loop."""
    frame = sys._getframe()
    while frame is not None:
        connection = frame.f_locals.get("sock")
        if isinstance(connection, socket.socket):
            return connection
        frame = frame.f_back  # type: ignore[assignment]
    return None


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


def _energy(value: Any) -> Any:
    return value * _ipi_template.ELECTRONVOLT


def _force(value: Any) -> Any:
    return value * _ipi_template.FORCE


def connect(
    unix: str | None = None,
    host: str = "localhost",
    port: int = 31415,
    wait: float = 60.0,
    prefix: str = SOCKETS_PREFIX,
) -> socket.socket:
    """Connect to i-PI, waiting up to `wait` seconds until it listens; reports at once that it waits.

    Args:
        unix: name of a unix socket (the `<address>` in the XML); None for TCP.
        host: TCP host.
        port: TCP port.
        wait: seconds.
        prefix: directory and prefix of unix sockets.

    Raises:
        BadInput: an impossible name, port or time.
        RunFailed: nobody listens, the socket was left behind by an i-PI that was killed, no such host.
    """
    return _ipi_socket.connect(unix, host, port, wait, prefix)


def serve(driver: MLDriver, connection: socket.socket) -> None:
    """Answer i-PI's requests until it says EXIT.

    Raises:
        RunFailed: i-PI closed the connection without a word.
        MlpluginsError: an evaluation failed; the connection is closed, so that i-PI notices.
    """
    client = _Client(driver, connection)
    try:
        client.loop()
    except OSError as error:
        end = "it stopped, or was killed; its own output says why"
        if not client.initialised:
            end = "it ended before it had work for this driver; its own output says why"
        raise RunFailed(
            f"lost i-PI after {driver.n_calls} evaluations ({error.strerror or error}): {end}"
        ) from error
    finally:
        _close(connection)


class _Client:
    """The client's side of i-PI's socket protocol, single structures and batches."""

    def __init__(self, driver: MLDriver, connection: socket.socket) -> None:
        self._driver = driver
        self._socket = connection
        self._batch = 1
        self.initialised = False
        self._replies: list[Reply] | None = None
        self._next: bytes | None = None

    def loop(self) -> None:
        answers = {
            MESSAGE["status"]: self._status,
            MESSAGE["init"]: self._initialise,
            MESSAGE["posdata"]: self._positions,
            MESSAGE["getforce"]: self._send_forces,
        }
        self._await_first_word()
        while (header := self._header()) != MESSAGE["exit"]:
            if header not in answers:
                raise RunFailed(
                    f"expected a message of i-PI's protocol, got {header!r}: is it i-PI that listens there?"
                )
            answers[header]()

    def _await_first_word(self) -> None:
        self._socket.settimeout(QUIET_S)
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            self._driver.say(
                f"connected, but i-PI has said nothing for {QUIET_S:g} s (it is starting, waiting for other "
                "drivers, or it is not i-PI that listens there); waiting"
            )
        self._socket.settimeout(None)

    def _header(self) -> bytes:
        header, self._next = self._next, None
        return header or self._receive(HDRLEN)

    def _receive(self, n_bytes: int) -> bytes:
        chunks = bytearray()
        while len(chunks) < n_bytes:
            part = self._socket.recv(min(n_bytes - len(chunks), 1 << 24))
            if not part:
                raise ConnectionResetError("connection closed")
            chunks += part
        return bytes(chunks)

    def _array(self, shape: Sequence[int], dtype: type = np.float64) -> NDArray[Any]:
        n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return np.frombuffer(self._receive(n_bytes), dtype=dtype).reshape(shape)

    def _status(self) -> None:
        if not self.initialised:
            self._socket.sendall(MESSAGE["needinit"])
        else:
            self._socket.sendall(MESSAGE["havedata" if self._replies is not None else "ready"])

    def _initialise(self) -> None:
        _, length = self._array((2,), np.int32)
        if not 0 <= length <= MOST_TEXT:
            raise RunFailed(f"malformed INIT of i-PI: {length} bytes of text")
        text = self._receive(int(length)).decode("utf-8", "replace")
        announced = re.search(r"batch_size\s*:\s*(\d+)", text)
        self._batch = max(int(announced.group(1)), 1) if announced else 1
        self.initialised = True

    def _positions(self) -> None:
        n = self._batch
        if n == 1:
            cells = self._cells(1)
            n_atoms = int(self._array((), np.int32))
        else:
            n_atoms = int(self._array((), np.int32))
        self._driver.require_count(n_atoms)  # before so many positions are awaited
        if n > 1:
            cells = self._cells(n)
        positions = self._array((n, n_atoms, 3))
        # i-PI sends GETFORCE (or STATUS) along. Were it unread when this process is killed, the connection
        # would be reset, and i-PI 3.3.1 would wait for ever; an orderly end lets it serve another driver.
        self._next = self._receive(HDRLEN)
        replies = self._driver.compute([cell[0] for cell in cells], list(positions))
        self._replies = replies if isinstance(replies, list) else [replies]

    def _cells(self, n: int) -> Array:
        start = self._receive(16)
        if b"ipi_shm_" in start:  # the name of a block of shared memory
            raise BadInput("<ffsocket mode='shm'> needs `i-pi-driver-py --shm`: use that, or mode='unix'")
        return np.frombuffer(start + self._receive(n * 144 - 16), np.float64).reshape(n, 2, 3, 3)

    def _send_forces(self) -> None:
        replies = self._replies
        if replies is None:
            raise RunFailed("i-PI asks for forces (GETFORCE), but has sent no positions (POSDATA)")
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
