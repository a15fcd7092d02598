"""Restricted unpickler of torch files: builds tensors, containers and named stubs, and executes nothing.

A pickle is a program: it may import any function and call it. Here every name that it imports resolves to a
constructor of this file (tensors, containers) or to a `Stub`, a passive record of the name and its arguments.
"""

from __future__ import annotations

import collections
import io
import math
import pickle
import pickletools
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mlplugins import files
from mlplugins.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor

STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
BYTES = {"bool": 1, "uint8": 1, "int8": 1, "int16": 2, "float16": 2, "bfloat16": 2}
BYTES |= {"int32": 4, "float32": 4, "int64": 8, "float64": 8}
"""Of one element, by name of the dtype."""
DEEPEST = 500
"""Nesting of tuples in lists in …; models have some tens, and Python does not bound the hash of a tuple."""
LARGEST_TEXT = 50_000_000
"""Bytes of an entry that is not a tensor: metadata, configurations."""
LEGACY_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""First bytes of the files that torch.save wrote before torch 1.6."""


class Names(NamedTuple):
    """What a file contains: the names that it imports (`module.name`) and its strings."""

    imports: frozenset[str]
    strings: frozenset[str]


class Stub:
    """An object of a foreign class, as data: `name`, constructor arguments, state, items; it does nothing.

    Attributes:
        name: `module.qualname` of the foreign class or function.
        arguments: positional arguments of its construction.
        state: what pickle would have given to `__setstate__`.
        items: elements, if it was a list or a dictionary.
    """

    name = ""
    arguments: tuple[Any, ...]
    state: Any
    items: list[Any]

    def __new__(cls, *arguments: Any) -> Stub:
        """All there is to do: pickle does not call `__init__` on every way to an object."""
        stub = super().__new__(cls)
        stub.arguments, stub.state, stub.items = arguments, None, []
        return stub

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def append(self, item: Any) -> None:
        """Pickle's way to fill a list."""
        self.items.append(item)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items.append((key, value))

    def __repr__(self) -> str:
        return f"<{self.name}>"


class TensorShape(NamedTuple):
    """What stands for a tensor where its numbers are not read.

    Attributes:
        size: its length along every axis.
        dtype: `float32`, …
    """

    size: tuple[int, ...]
    dtype: str


class _Constructor:
    """A function that pickle may call; pickle's BUILD cannot change it."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("state for a function")


class _Dtype(str):
    """Name of a dtype where a storage has it: what a forged file puts there is text."""

    __slots__ = ()


@dataclass
class _Storage:
    """A tensor storage: its bytes (None: not read), number of elements and dtype."""

    data: bytearray | None = field(repr=False)
    n: int
    dtype: str


@dataclass(frozen=True)
class _Layout:
    """Where an archive has the bytes of its storages."""

    archive: zipfile.ZipFile
    root: str
    storages: str

    def bytes(self, key: str) -> bytearray:
        return bytearray(self.archive.read(self._entry(key)))

    def n_bytes(self, key: str) -> int:
        return self.archive.getinfo(self._entry(key)).file_size

    def _entry(self, key: str) -> str:
        return f"{self.root}/{self.storages.format(key)}"


def names(path: Path | str) -> Names:
    """Imports and strings of a torch file, read without building anything.

    Raises:
        BadInput: not a file of torch.save, or truncated.
    """
    imports: set[str] = set()
    recent: list[str] = []
    with _archive(Path(path)) as archive:
        program = _program(archive, Path(path))
    try:
        for opcode, argument, _ in pickletools.genops(program):
            if opcode.name in ("GLOBAL", "INST"):
                imports.add(str(argument).replace(" ", ".", 1))
            elif opcode.name == "STACK_GLOBAL":
                imports.add(".".join(recent[-2:]))
            elif isinstance(argument, str):
                recent.append(argument)
    except Exception as error:  # pickletools raises whatever a broken program leads it to
        raise BadInput(f"{path}: the pickle inside is broken ({error})") from error
    return Names(frozenset(imports), frozenset(recent))


def entries(path: Path | str) -> list[str]:
    """Names within a zip file; none if it is no zip file, or damaged.

    >>> entries("no such file")
    []
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except Exception:  # zipfile raises anything, from BadZipFile to struct.error
        return []


def text(path: Path | str, name: str) -> bytes:
    """The entry `name`, without the archive's own folder before it.

    Raises:
        BadInput: not a zip file, damaged, no such entry, or one that is larger than a text is.
    """
    path = Path(path)
    with _archive(path) as archive:
        found = [info for info in archive.infolist() if info.filename.partition("/")[2] == name]
        if len(found) != 1 or found[0].file_size > LARGEST_TEXT:
            raise BadInput(f"{path}: expected one entry '{name}' of less than {LARGEST_TEXT / 1e6:.0f} MB")
        try:
            return archive.read(found[0])
        except Exception as error:  # as above
            raise BadInput(f"{path}: damaged or truncated ({error})") from error


def load(
    path: Path | str,
    allowed: Callable[[str], bool],
    program: str = "data.pkl",
    storages: str = "data/{}",
    shapes: bool = False,
) -> Any:
    """The content of a torch file; foreign classes become `Stub`s if `allowed(name)`, else an error.

    Args:
        path: file written by torch.save (zip format, torch ≥ 1.6).
        allowed: decides by `module.name` which foreign classes may appear, as stubs.
        program: the pickle within the archive's folder.
        storages: where in it a tensor's bytes are; torch.package has ".data/{}.storage".
        shapes: give a `TensorShape` for every tensor, and the name of every dtype; torch is not imported.

    Raises:
        BadInput: not such a file, truncated, or a class or function that is not allowed (it is named).

    >>> import tempfile
    >>> import torch
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     torch.save({"weight": torch.ones(2)}, f"{folder}/a.pth")
    ...     load(f"{folder}/a.pth", lambda name: False)
    {'weight': tensor([1., 1.])}
    """
    path = Path(path)
    with _archive(path) as archive:
        layout = _Layout(archive, next(iter(archive.namelist()), "").split("/")[0], storages)
        content = _program(archive, path, program)
        try:
            _require_bounded(content)
            return _Unpickler(layout, content, allowed, shapes).load()
        except _NotAllowed as error:
            raise BadInput(f"{path}: {error}; nothing of it was executed") from error
        except Exception as error:  # a broken or hostile program may raise anything
            raise BadInput(f"{path}: not a readable checkpoint, or truncated ({error})") from error


class _NotAllowed(pickle.UnpicklingError):
    pass


def _archive(path: Path) -> zipfile.ZipFile:
    if not files.exists(path, file=True):
        raise BadInput(f"no such checkpoint: '{path}'")
    try:
        return zipfile.ZipFile(path)
    except Exception as error:  # zipfile raises anything, from BadZipFile to struct.error
        with path.open("rb") as stream:
            legacy = stream.read(len(LEGACY_MAGIC)) == LEGACY_MAGIC
        if legacy:
            raise BadInput(
                f"{path}: written in the format of torch < 1.6; load and save it once with a newer torch"
            ) from error
        raise BadInput(f"{path}: not a checkpoint of torch.save, or truncated ({error})") from error


def _program(archive: zipfile.ZipFile, path: Path, name: str = "data.pkl") -> bytes:
    entries = [info for info in archive.infolist() if info.filename.count("/") == 1]
    programs = [info for info in archive.infolist() if info.filename.partition("/")[2] == name]
    if len(programs) != 1:
        raise BadInput(f"{path}: a zip file, but not one of torch.save (no {name})")
    data = [info for info in archive.infolist() if "/code/" not in info.filename]  # programs are not read
    if any(info.compress_type != zipfile.ZIP_STORED for info in data):
        raise BadInput(f"{path}: compressed entries, which torch.save never writes")
    if sum(info.file_size for info in data) > path.stat().st_size:
        raise BadInput(f"{path}: entries larger than the file, which torch.save never writes")
    try:
        for info in entries:
            if info.filename.endswith("/byteorder") and archive.read(info) != b"little":
                raise BadInput(f"{path}: written on a big-endian machine")
        return archive.read(programs[0])
    except BadInput:
        raise
    except Exception as error:  # as above
        raise BadInput(f"{path}: damaged or truncated ({error})") from error


CONTAINERS = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"}
"""What adds to the object below its arguments, instead of making a new one."""


def _require_bounded(program: bytes) -> None:
    """Refuse a program that asks for more than a file of its size can hold, before it runs.

    pickle reserves memory for announced lengths and memo indices as they come. Lengths are checked by
    `pickletools`, which reads every argument; indices count the objects, so there are fewer than bytes.

    Raises:
        UnpicklingError: an argument beyond the end, an index beyond all objects, nesting without end.
    """
    stack: list[int] = []  # nesting of every object; -1: a mark
    memo: dict[int, int] = {}
    argument: Any
    for opcode, argument, _ in pickletools.genops(program):
        name = opcode.name
        if name == "PROTO" and int(argument) > pickle.HIGHEST_PROTOCOL:
            raise pickle.UnpicklingError(f"unsupported pickle protocol: {argument}")
        if "PUT" in name or name == "MEMOIZE":
            index = len(memo) if argument is None else int(argument)
            if index > len(program):
                raise pickle.UnpicklingError(f"memo index {index} in a program of {len(program)} bytes")
            memo[index] = stack[-1]
        elif "GET" in name:
            stack.append(memo.get(int(argument), 0))
        elif name == "DUP":
            stack.append(stack[-1])
        else:
            _nest(stack, opcode)


def _nest(stack: list[int], opcode: pickletools.OpcodeInfo) -> None:
    """Effect of an opcode on the nesting of the objects on the stack."""
    taken = [kind.name for kind in opcode.stack_before]
    parts: list[int] = []
    if "mark" in taken:
        while stack[-1] >= 0:
            parts.append(stack.pop())
        stack.pop()
    plain = 0 if opcode.name == "OBJ" else len(set(taken) - {"mark", "stackslice"})
    if "mark" not in taken:
        plain = len(taken)
    parts += [stack.pop() for _ in range(plain)]
    if opcode.name in CONTAINERS:
        *items, container = parts
        depth = max([container, *(item + 1 for item in items)])
    else:
        depth = 1 + max(parts, default=-1)
    if depth > DEEPEST:
        raise pickle.UnpicklingError(f"nested more than {DEEPEST} deep")
    stack += [-1 if kind.name == "mark" else depth for kind in opcode.stack_after]


class _Unpickler(pickle.Unpickler):
    def __init__(
        self, layout: _Layout, program: bytes, allowed: Callable[[str], bool], shapes: bool = False
    ) -> None:
        super().__init__(io.BytesIO(program), encoding="utf-8")
        self.layout = layout
        self.allowed = allowed
        self.constructors = CONSTRUCTORS | ({} if shapes else TENSORS)
        self.shapes = shapes
        self.known: dict[str, Any] = {}
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Replacement for an import of the pickle: never the imported object itself."""
        full = f"{module}.{name}"
        if full not in self.known:
            self.known[full] = self._resolve(module, name, full)
        return self.known[full]

    def _resolve(self, module: str, name: str, full: str) -> Any:
        if full in self.constructors:
            return _Constructor(self.constructors[full])
        if module == "torch" and name in STORAGES:
            return _Dtype(STORAGES[name])
        if module == "torch" and name in BYTES:
            return name if self.shapes else _torch_dtype(name)
        if self.allowed(full):
            return type(name.rpartition(".")[2] or "Stub", (Stub,), {"name": full})
        raise _NotAllowed(f"the file contains '{full}', which this reader does not know")

    def persistent_load(self, identity: Any) -> Any:
        """A storage, from its entry in the archive."""
        kind, dtype, key, _, n_elements = identity
        if kind != "storage" or not isinstance(dtype, _Dtype):
            raise pickle.UnpicklingError(f"unknown persistent object {kind!r} of {dtype!r}")
        key = str(key)  # torch.package counts with numbers
        if key not in self.storages:
            data = None if self.shapes else self.layout.bytes(key)
            n_bytes = self.layout.n_bytes(key) if data is None else len(data)
            if n_bytes != int(n_elements) * BYTES[dtype]:
                raise pickle.UnpicklingError(f"storage {key} has {n_bytes} bytes for {n_elements} {dtype}")
            self.storages[key] = _Storage(data, int(n_elements), str(dtype))
        return self.storages[key]


def _torch_dtype(name: str) -> Any:
    import torch

    return getattr(torch, name)


def _shape(
    storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> TensorShape:
    """The shape that torch._utils._rebuild_tensor_v2 makes, with its bounds checked."""
    if not isinstance(storage, _Storage) or len(size) != len(stride):
        raise pickle.UnpicklingError("a tensor without a storage")
    if min((offset, *size, *stride), default=0) < 0:
        raise pickle.UnpicklingError("a tensor with negative sizes")
    n, last = storage.n, offset + sum((k - 1) * s for k, s in zip(size, stride))
    if math.prod(size) > 0 and (last >= n or math.prod(size) > n):
        raise pickle.UnpicklingError(f"a tensor of size {size} in a storage of {n} elements")
    return TensorShape(tuple(size), storage.dtype)


def _tensor(
    storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> Tensor:
    """torch._utils._rebuild_tensor_v2, with its bounds checked."""
    import torch

    shape = _shape(storage, offset, size, stride)
    dtype = _torch_dtype(shape.dtype)
    if math.prod(size) == 0 or storage.data is None:
        return torch.empty(size, dtype=dtype)
    return torch.frombuffer(storage.data, dtype=dtype).as_strided(size, stride, offset)


def _parameter(tensor: Any, *_: Any) -> Any:
    from torch import Tensor

    if not isinstance(tensor, Tensor):
        raise pickle.UnpicklingError("a parameter without a tensor")
    return tensor


def _parameter_shape(tensor: Any, *_: Any) -> Any:
    if not isinstance(tensor, TensorShape):
        raise pickle.UnpicklingError("a parameter without a tensor")
    return tensor


def _text(text: str, encoding: str = "latin1") -> bytes:
    """_codecs.encode, which old pickles use for bytes."""
    return str(text).encode("latin1" if encoding == "latin1" else "utf-8")


def _ordered(*arguments: Any) -> collections.OrderedDict[Any, Any]:
    return collections.OrderedDict(*arguments)


TENSORS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.nn.parameter.Parameter": _parameter,
}

CONSTRUCTORS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor_v2": _shape,
    "torch._utils._rebuild_parameter": _parameter_shape,
    "torch.nn.parameter.Parameter": _parameter_shape,
    "torch.Size": lambda *sizes: tuple(*sizes),
    "torch.device": lambda *parts: ":".join(str(part) for part in parts),
    "collections.OrderedDict": _ordered,
    "builtins.set": lambda *items: set(*items),
    "__builtin__.set": lambda *items: set(*items),
    "builtins.slice": lambda *bounds: slice(*bounds),
    "__builtin__.slice": lambda *bounds: slice(*bounds),
    "builtins.complex": lambda *parts: complex(*parts),
    "_codecs.encode": _text,
}
"""The only functions that a pickle can reach, those of `TENSORS` in their place where tensors are read."""
