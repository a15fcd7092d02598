"""The i-PI driver's connection: signals, sockets left behind, hosts, malformed messages."""

from __future__ import annotations

import signal
import socket
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.io import write
from ipi.interfaces.sockets import MESSAGE

from mlplugins.engines.ipi.driver import MLDriver, connect, serve
from mlplugins.engines.ipi.program import driver_file
from mlplugins.engines.ipi.xyz import upright
from mlplugins.errors import BadInput, RunFailed

from .conftest import crystal
from .ipi_tools import BIN, LIMIT, finish
from .test_ipi import (
    NVE,
    assert_first_step_is_ases,
    new_processes,  # noqa: F401
    processes,  # noqa: F401
    properties,
    socket_forcefield,
    wait_for,
    write_input,
)
from .test_ipi_template import by_element, salt, sent

DYING = Path(__file__).with_name("dying_driver.py")


def steps(folder) -> int:
    return len(properties(folder)["step"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, signal.SIGKILL, pytest.param(signal.SIGHUP, marks=pytest.mark.exhaustive)],  # as SIGTERM
)
def test_a_killed_driver_makes_room_for_another(processes, argon_model, tmp_path, number):  # noqa: F811
    """Killed in an evaluation; without exit_on_disconnect i-PI waits for the next driver."""
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip(f"{number.name} is ignored by all processes started here (nohup)")
    write_input(tmp_path, socket_forcefield("unix", "k", exit_on_disconnect=False), NVE, steps=25)
    server = processes.ipi()
    words = [int(number), argon_model, "init.xyz", "--sockets-prefix", processes.prefix, "--unix", "k"]
    first = processes.start(sys.executable, DYING, *words)
    output, _ = first.communicate(timeout=LIMIT)
    assert first.returncode == (-number if number == signal.SIGKILL else 128 + number), output
    if number != signal.SIGKILL:
        assert f"mlplugins: ended by {signal.Signals(number).name}" in output
        assert "ms per structure" in output
    assert "Traceback" not in output
    assert "23 structures in 23 calls" in processes.drive(argon_model, "--unix", "k")
    finish(server)
    assert steps(tmp_path) == 26


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_killed_driver_program_of_ipi_makes_room_for_another(processes, argon_model, tmp_path, number):  # noqa: F811
    atoms = bulk("Ar", "fcc", a=5.3, cubic=True) * (5, 5, 5)
    write_input(
        tmp_path, socket_forcefield("unix", "l", exit_on_disconnect=False), NVE, steps=60, atoms=atoms
    )
    server = processes.ipi()
    wait_for(tmp_path / "s_l")
    words = ["-m", "custom", "-P", driver_file(), "-o", f"model={argon_model},template=init.xyz"]
    driver = processes.start(BIN / "i-pi-driver-py", *words, "-u", "-a", "l", "-S", processes.prefix)
    wait_for(tmp_path / "out.md", rows=12)  # 8 lines of header, 4 of 60 steps
    driver.send_signal(number)
    output, _ = driver.communicate(timeout=LIMIT)
    assert driver.returncode == 128 + number, output
    assert f"mlplugins: ended by {number.name}" in output
    assert "Traceback" not in output
    processes.drive(argon_model, "--unix", "l")
    finish(server)
    assert steps(tmp_path) == 61


@pytest.mark.slow
def test_term_ends_ipi_that_is_told_to_follow(processes, argon_model, tmp_path):  # noqa: F811
    write_input(tmp_path, socket_forcefield("unix", "m"), steps=10**6)
    server = processes.ipi()
    driver = processes.driver(argon_model, "--unix", "m", "--json", "summary.json")
    wait_for(tmp_path / "out.md", rows=20)
    driver.terminate()
    finish(driver, expected=128 + signal.SIGTERM)
    assert (tmp_path / "summary.json").exists()
    assert "Client shutdown" in server.communicate(timeout=30)[0]


@pytest.mark.slow
@pytest.mark.parametrize("road", ["socket", "program", "ffdirect"])
def test_sorted_template_in_every_road(processes, passing_model, tmp_path, road):  # noqa: F811
    atoms = upright(salt()).atoms
    write(tmp_path / "sorted.extxyz", by_element(atoms))
    parameters = f"model={passing_model},template=sorted.extxyz"
    if road == "ffdirect":
        forcefield = f"""<ffdirect name='ml'><pes>custom</pes><pes_path>{driver_file()}</pes_path>
          <parameters>{{{parameters.replace("=", ":")}}}</parameters></ffdirect>"""
        write_input(tmp_path, forcefield, atoms=atoms)
        output = finish(processes.ipi(), expected=2)
    else:
        write_input(tmp_path, socket_forcefield("unix", "n"), atoms=atoms)
        server = processes.ipi()
        wait_for(tmp_path / "s_n")
        if road == "socket":
            output = processes.drive(passing_model, "--unix", "n", template="sorted.extxyz", expected=2)
        else:
            words = ["-m", "custom", "-P", driver_file(), "-o", parameters]
            driver = processes.start(BIN / "i-pi-driver-py", *words, "-u", "-a", "n", "-S", processes.prefix)
            output = finish(driver, expected=2)
        server.communicate(timeout=30)
    assert "stand in another order than those of the template 'sorted.extxyz'" in output
    assert "Traceback" not in output


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 8])
def test_shared_memory_is_refused(processes, argon_model, tmp_path, batch):  # noqa: F811
    extra = f"<batch_size>{batch}</batch_size>"
    write_input(tmp_path, socket_forcefield("shm", "p", extra), beads=batch, steps=1)
    server = processes.ipi()
    output = processes.drive(argon_model, "--unix", "p", expected=2)
    assert "<ffsocket mode='shm'> needs `i-pi-driver-py --shm`: use that, or mode='unix'" in output
    server.communicate(timeout=30)


@pytest.mark.slow
def test_template_without_cell_in_real_ipi(processes, argon_model, tmp_path):  # noqa: F811
    write_input(tmp_path, socket_forcefield("unix", "o"), steps=1)
    rows = (tmp_path / "init.xyz").read_text().splitlines()
    (tmp_path / "plain.xyz").write_text("\n".join([rows[0], "argon crystal", *rows[2:]]) + "\n")
    server = processes.ipi()
    output = processes.drive(argon_model, "--unix", "o", template="plain.xyz")
    finish(server)
    assert_first_step_is_ases(tmp_path, argon_model)
    assert "Ar32, periodic if i-PI's cell says so" in output
    assert "first structure: periodic, cell 10.6 × 10.6 × 10.6 Å; the template's positions" in output


def test_socket_left_behind(tmp_path, monkeypatch):
    """Nobody will ever listen there: said within seconds, not after the time to wait."""
    monkeypatch.setattr("mlplugins.engines.ipi.socket.STALE_S", 0.2)
    left = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    left.bind(str(tmp_path / "s_dead"))
    left.close()
    with pytest.raises(
        RunFailed, match=r"nobody listens at the unix socket .*s_dead: an i-PI that was killed"
    ):
        connect("dead", prefix=str(tmp_path / "s_"), wait=600)
    (tmp_path / "s_file").write_text("")
    with pytest.raises(RunFailed, match="s_file' is a file, not a socket"):
        connect("file", prefix=str(tmp_path / "s_"), wait=600)


def test_impossible_addresses(tmp_path):
    prefix = str(tmp_path / "s_")
    with pytest.raises(RunFailed, match=r"the host 'no-such-host\.invalid' cannot be found"):
        connect(host="no-such-host.invalid", wait=600)
    with pytest.raises(BadInput, match="port: expected 1 to 65535, got 99999"):
        connect(port=99999)
    with pytest.raises(BadInput, match="port: expected 1 to 65535, got 0"):
        connect(port=0)
    with pytest.raises(BadInput, match="got an empty name"):
        connect("", prefix=prefix)
    with pytest.raises(BadInput, match="expected the <address> alone, such as 'water'"):
        connect(prefix + "water", prefix=prefix)
    with pytest.raises(BadInput, match="no such folder"):
        connect("a/b", prefix=prefix)
    with pytest.raises(BadInput, match="at most 107 bytes"):
        connect("x" * 120, prefix=prefix)
    with pytest.raises(BadInput, match="wait: expected seconds"):
        connect("a", prefix=prefix, wait=float("nan"))


@pytest.mark.long
def test_waiting_is_named_at_once(tmp_path, capsys):
    with pytest.raises(RunFailed, match="no i-PI at unix socket .* within 1.1 s: start `i-pi input.xml`"):
        connect("later", prefix=str(tmp_path / "s_"), wait=1.1)
    assert "later yet (No such file or directory); waiting up to 1.1 s" in capsys.readouterr().out


@pytest.fixture
def argon(argon_model, tmp_path):
    write(tmp_path / "t.extxyz", crystal())
    return MLDriver(model=str(argon_model), template=str(tmp_path / "t.extxyz"))


def header(text: str) -> bytes:
    return text.ljust(12).encode()


def positions_message(n_atoms: int | None = None) -> bytes:
    cell, positions = sent(crystal())
    inverse = np.linalg.inv(cell)
    count = np.int32(len(positions) if n_atoms is None else n_atoms).tobytes()
    return b"".join([MESSAGE["posdata"], cell.tobytes(), inverse.tobytes(), count, positions.tobytes()])


INIT = MESSAGE["init"] + np.int32(0).tobytes() + np.int32(1).tobytes() + b" "


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (b"SSH-2.0-OpenSSH_9.9\r\n", "got b'SSH-2.0-Open': is it i-PI that listens there"),
        (MESSAGE["init"] + np.array([0, -1], np.int32).tobytes(), "malformed INIT of i-PI: -1 bytes"),
        (INIT + positions_message(-5), "i-PI sends -5 atoms, but the template"),
        (INIT + positions_message(2**31 - 1), "i-PI sends 2147483647 atoms, but the template"),
        (INIT + MESSAGE["getforce"], "i-PI asks for forces .GETFORCE., but has sent no positions"),
        (INIT + positions_message()[:500], "lost i-PI after 0 evaluations"),
        (b"STAT", "lost i-PI after 0 evaluations"),
    ],
)
def test_malformed_messages(argon, message, error):
    server, client = socket.socketpair()
    server.sendall(message)
    server.shutdown(socket.SHUT_WR)
    with pytest.raises((RunFailed, BadInput), match=error):
        serve(argon, client)
    server.close()


def test_nothing_is_unread_in_an_evaluation(argon):
    """What kills the driver then makes an orderly end, not a reset, on which i-PI would wait for ever."""
    server, client = socket.socketpair()
    unread = []

    class Watched(type(argon)):  # type: ignore[misc]
        def compute(self, cell, pos):
            try:
                unread.append(client.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
            except BlockingIOError:
                unread.append(b"")
            return super().compute(cell, pos)

    argon.__class__ = Watched
    server.sendall(INIT + positions_message() + MESSAGE["getforce"])
    thread = threading.Thread(target=serve, args=(argon, client))
    thread.start()
    size = 12 + 8 + 4 + 32 * 24 + 72 + 4 + 2
    reply = server.recv(size, socket.MSG_WAITALL)
    server.sendall(MESSAGE["exit"])
    thread.join(timeout=LIMIT)
    server.close()
    assert unread == [b""]
    assert reply[:12] == MESSAGE["forceready"]


def test_reset_connection_is_told_in_a_sentence(argon):
    server, client = socket.socketpair()
    server.sendall(header("STATUS"))
    threading.Timer(0.2, server.close).start()
    with pytest.raises(RunFailed, match="lost i-PI after 0 evaluations"):
        serve(argon, client)


@pytest.mark.slow
def test_command_line_sentences(processes, argon_model, tmp_path):  # noqa: F811
    write(tmp_path / "init.xyz", crystal())
    for words, code, text in (
        (["--host", "no-such-host.invalid"], 1, "the host 'no-such-host.invalid' cannot be found"),
        (["--port", "99999"], 2, "port: expected 1 to 65535, got 99999"),
        (["--unix", ""], 2, "got an empty name"),
        (["--unix", "x", "--port", "0"], 2, "--unix excludes --host and --port"),
        (["--unix", "x", "--skin", "nan"], 2, "skin: expected a length in Å"),
        (["--unix", "x", "--wait", "0"], 1, "within 0 s: start `i-pi input.xml`"),
    ):
        output = processes.drive(argon_model, *words, expected=code)
        assert text in output
        assert "Traceback" not in output
