"""Writing results: complete files or none, with the user's umask, JSON without NaN; and testing before the
work whether a result can be written at all."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import hashlib
import json
import math
import os
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlplugins.errors import BadInput, RunFailed

TEMPORARY = ".mlplugins-{}.tmp"
"""Unfinished files beside their places; short, as the name itself may be as long as names may be."""

LOCK_POLL_S = 0.2
LEFT_S = 60.0
"""Age from which an unfinished file may have been left by a process that was killed."""


def exists(path: Path | str, file: bool = False) -> bool:
    """Whether something of this name (with `file`: a file) is there; False for names that nothing can have.

    >>> exists("x" * 5000), exists(".")
    (False, True)
    """
    try:
        return Path(path).is_file() if file else Path(path).exists()
    except (OSError, ValueError):  # longer than names may be, a null character
        return False


def in_folder(path: Path | str, *names: str) -> Path:
    """The file that is meant: `path`, or where it is a folder (of a run, of a campaign) the first of `names`
    that it holds.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> (folder / "model.pt").touch()
    >>> in_folder(folder, "checkpoint.ckpt", "model.pt").name, in_folder("a.pt", "model.pt").name
    ('model.pt', 'a.pt')
    """
    path = Path(path)
    return next((path / name for name in names if exists(path / name, file=True)), path)


def write_bytes(path: Path, data: bytes, lasting: bool = False) -> None:
    """Replace `path` by `data` in one step: whatever happens, it is the old file or the new one.

    The mode is what the umask makes of rw-rw-rw-, or that of the file that is replaced.

    Args:
        path: where to; its folder is made. Devices and pipes (`/dev/stdout`) are written to as they are.
        data: all of the file.
        lasting: on the disk, not only in the system's memory, before the old file goes.

    Raises:
        RunFailed: it cannot be written (disk full, no permission); the old file is intact.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_bytes(Path(folder) / "new" / "a.txt", b"whole")
    ...     sorted(p.name for p in (Path(folder) / "new").iterdir())
    ['a.txt']
    """
    try:
        if _is_stream(path):
            path.write_bytes(data)
            return
        with replacing(path) as temporary, temporary.open("wb") as stream:
            stream.write(data)
            if lasting:
                stream.flush()
                os.fsync(stream.fileno())
    except OSError as error:
        state = "the previous file is intact" if path.is_file() else "nothing was written"
        raise RunFailed(
            f"cannot write {path}: {error.strerror or error} ({len(data) / 1e6:.1f} MB needed); {state}"
        ) from error


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_text(path: Path, text: str) -> None:
    """As `write_bytes`, in UTF-8."""
    write_bytes(path, text.encode(errors="backslashreplace"))


def write_json(path: Path | None, content: Any) -> None:
    """Write JSON as `write_bytes` (nothing if `path` is None); NaN and infinity, not in JSON, become null."""
    if path is not None:
        write_text(path, json.dumps(plain(content), indent=2, allow_nan=False) + "\n")


def plain(value: Any) -> Any:
    """Values in JSON form: arrays as lists, keys and unknown objects as text, NaN and infinity as None.

    >>> plain({1: (float("nan"), 2.0), "path": Path("a")})
    {'1': [None, 2.0], 'path': 'a'}
    """
    if hasattr(value, "tolist"):  # numpy scalars and arrays
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """An empty temporary file beside `path` that takes its place if the block ends without an error.

    Unfinished files that killed processes have left there are removed.

    Raises:
        OSError: the folder cannot be made or written to.
    """
    path = Path(os.path.realpath(path))  # a link stays a link
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path.parent)
    temporary = path.with_name(TEMPORARY.format(secrets.token_hex(8)))
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)  # the umask takes its part
    try:
        with contextlib.suppress(OSError):  # file systems without locks: nothing is swept there
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.is_file():
            os.fchmod(descriptor, path.stat().st_mode & 0o777)
        yield temporary
        os.replace(temporary, path)
    finally:
        os.close(descriptor)
        temporary.unlink(missing_ok=True)


def _sweep(folder: Path) -> None:
    """Remove unfinished files whose writers are gone: old files without the lock that a writer holds."""
    for left in folder.glob(TEMPORARY.format("*")):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime < LEFT_S:
                continue
            descriptor = os.open(left, os.O_RDWR)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                left.unlink()
            finally:
                os.close(descriptor)


@contextlib.contextmanager
def locked(path: Path, wait_s: float, remedy: str = "wait for it or end it") -> Iterator[int]:
    """Exclusive use of a folder by means of a file in it, whose descriptor child processes may inherit.

    Args:
        path: the file, which is made.
        wait_s: how long a process that was killed may take to end.
        remedy: of a folder that is in use.

    Raises:
        BadInput: another process still has it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    deadline = time.monotonic() + wait_s
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise BadInput(
                        f"'{path.parent}' is in use by another process (`fuser {path}` names it): {remedy}"
                    ) from None
                time.sleep(LOCK_POLL_S)
        yield descriptor
    finally:
        os.close(descriptor)


def require_writable(
    path: Path, what: str, folder: bool = False, inputs: Any = (), written: Sequence[str] = ()
) -> None:
    """Refuse an output that cannot be written, before anything is computed for it. Nothing is left behind.

    Args:
        path: the file, or with `folder` the folder, to be written; folders above it may be missing.
        what: names it in messages, e.g. `--json`.
        folder: whether it is a folder that files will be written to.
        inputs: files that are read, as `named_in` finds them.
        written: names of the files in the folder.

    Raises:
        BadInput: a folder where a file is expected or the reverse, a name that no file can have, no
            permission, one of the inputs.

    >>> require_writable(Path("."), "--json")
    Traceback (most recent call last):
    ...
    mlplugins.errors.BadInput: --json .: a folder; expected the name of a file
    """
    place = f"{what} {path}"
    try:
        if path.exists() and path.is_dir() != folder:
            found, expected = ("file", "folder") if folder else ("folder", "file")
            raise BadInput(f"{place}: a {found}; expected the name of a {expected}")
        if not _is_stream(path):
            target = Path(os.path.realpath(path))
            _probe(target if folder else target.parent, "" if folder else target.name)
    except OSError as error:
        raise BadInput(f"{place}: cannot be written ({error.strerror or error})") from error
    for target in [path / name for name in written] if folder else [path]:
        if target.is_file() and any(target.samefile(name) for name in named_in(inputs)):
            raise BadInput(f"{what} {target}: an input, which would be overwritten; choose another name")


def named_in(value: Any, folder: Path | str = "") -> Iterator[str]:
    """Files that a value names: paths (from `folder` on), patterns, `file@slice`, lists or mappings of them.

    >>> list(named_in(["files.py", {"data": "no/such@:5"}, 3]))
    []
    >>> list(named_in(Path(__file__)))[0] == __file__
    True
    """
    if isinstance(value, str | Path):
        for name in dict.fromkeys((str(value), str(value).rpartition("@")[0])):
            path = os.path.join(folder, name)
            yield from [path] if name and exists(path, file=True) else _matching(path)
    elif isinstance(value, Mapping):
        yield from named_in(list(value.values()), folder)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from named_in(item, folder)


def _matching(pattern: str) -> list[str]:
    with contextlib.suppress(OSError, ValueError):  # a null character, too long
        return [name for name in glob.glob(pattern) if exists(name, file=True)] if "*" in pattern else []
    return []


def _probe(folder: Path, name: str) -> None:
    """Make a file, and remove it, in the folder or in the nearest one above it that exists."""
    missing = [name]
    while not folder.exists():
        missing.append(folder.name)
        folder = folder.parent
    if max(len(os.fsencode(part)) for part in missing) > os.pathconf(folder, "PC_NAME_MAX"):
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    trial = folder / TEMPORARY.format(secrets.token_hex(8))
    os.close(os.open(trial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    trial.unlink()


def _is_stream(path: Path) -> bool:
    return path.exists() and not path.is_file() and not path.is_dir()
