"""Ranks of LAMMPS that start warm: `mpirun` starts small programs, each of which hands what it got to a fork.

Two ranks load torch twice, 0.4 s of processor time each. Here the process of the tests forks its ranks first;
`mpirun` then starts this file as often, which sends its streams, its connection to `mpirun` and its
variables to a fork, and lives and dies with it.
"""

import array
import contextlib
import fcntl
import json
import os
import signal
import socket
import sys

CONNECTION = "PMI_FD"
"""Names the descriptor by which a rank talks to `mpirun`."""
STREAMS = 3
MESSAGE_BYTES = 1 << 20


def main(address: str) -> int:
    """Lend this process to a fork; its exit status."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MESSAGE_BYTES)
        line.connect(f"\0{address}")
        said = json.dumps({"folder": os.getcwd(), "variables": dict(os.environ)}).encode()
        lent = array.array("i", [*range(STREAMS), int(os.environ[CONNECTION])])
        line.sendmsg([said], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, lent)])
        status = line.recv(1)
    if not status:  # a signal ended it
        os.kill(os.getpid(), signal.SIGKILL)
    return status[0]


def listener() -> tuple[str, socket.socket]:
    """Where the programs that `mpirun` starts find the forks."""
    waiting = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    waiting.bind(f"\0mlplugins-ranks-{os.getpid()}-{os.urandom(8).hex()}")
    waiting.listen()
    return waiting.getsockname()[1:].decode(), waiting


def take(waiting: socket.socket) -> tuple[dict[str, str], socket.socket]:
    """In a fork: take the streams, the folder and the variables of the next program; end when it ends."""
    line, _ = waiting.accept()
    room = socket.CMSG_SPACE((STREAMS + 1) * array.array("i").itemsize)
    said, [(_, _, lent)], _, _ = line.recvmsg(MESSAGE_BYTES, room)
    numbers = array.array("i", lent)
    for number in range(STREAMS):
        os.dup2(numbers[number], number)
    content = json.loads(said)
    os.chdir(content["folder"])
    # whatever ends the program ends the fork: the kernel sends SIGKILL when the line is closed
    fcntl.fcntl(line, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(line, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(line, fcntl.F_SETFL, fcntl.fcntl(line, fcntl.F_GETFL) | os.O_ASYNC)
    return {**content["variables"], CONNECTION: str(numbers[STREAMS])}, line


def tell(line: socket.socket, status: int) -> None:
    """In a fork: the exit status of its program."""
    with contextlib.suppress(OSError):
        line.send(bytes([status & 0xFF]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
