"""The restricted unpickler: the same content as torch.load, and nothing executed, whatever the file says."""

import contextlib
import io
import os
import pickle
import pickletools
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch

from mlplugins.checkpoints import unpickle
from mlplugins.errors import BadInput


def nothing(name):
    return False


def anything(name):
    return True


def write(path, program, storages=None):
    """A file in torch.save's layout around a pickle program."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", program)
        archive.writestr("a/version", "3\n")
        for key, data in (storages or {}).items():
            archive.writestr(f"a/data/{key}", data)
    return path


def test_reads_what_torch_reads(tmp_path):
    weight = torch.randn(4, 5)
    content = {
        "state": OrderedDict(a=weight, view=weight[1:3, ::2], transposed=weight.T, scalar=torch.tensor(2.5)),
        "parameter": torch.nn.Parameter(torch.randn(3, dtype=torch.float64)),
        "kinds": [torch.arange(3), torch.tensor([True, False]), torch.ones(2, dtype=torch.bfloat16)],
        "empty": torch.zeros(0, 3),
        "options": {"n": 3, "x": 1.5, "name": "Bessel", "none": None, 7: (1, 2), "size": torch.Size([2, 3])},
        "device": torch.device("cuda", 1),
        "dtype": torch.float64,
        "set": {1, 2},
    }
    torch.save(content, tmp_path / "a.pth")
    read = unpickle.load(tmp_path / "a.pth", nothing)
    assert list(read) == list(content)
    for name, tensor in content["state"].items():
        assert torch.equal(read["state"][name], tensor)
    assert torch.equal(read["parameter"], content["parameter"].detach())
    for mine, theirs in zip(read["kinds"], content["kinds"]):
        assert mine.dtype == theirs.dtype
        assert torch.equal(mine, theirs)
    assert read["empty"].shape == (0, 3)
    assert read["options"] == {**content["options"], "size": (2, 3)}
    assert (read["device"], read["dtype"], read["set"]) == ("cuda:1", torch.float64, {1, 2})


def test_tensors_share_their_storage(tmp_path):
    weight = torch.randn(4)
    torch.save([weight, weight[2:]], tmp_path / "a.pth")
    first, second = unpickle.load(tmp_path / "a.pth", nothing)
    first[2] = 8.0
    assert float(second[0]) == 8.0


class Foreign:
    def __init__(self):
        self.width = 3
        self.weight = torch.ones(2)


class Executes:
    """The classic: unpickling calls a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def test_foreign_classes_become_stubs_or_errors(tmp_path):
    torch.save({"model": Foreign(), "array": np.arange(3)}, tmp_path / "a.pth")
    read = unpickle.load(tmp_path / "a.pth", anything)
    stub = read["model"]
    assert isinstance(stub, unpickle.Stub)
    assert stub.name.endswith("test_unpickle.Foreign")
    assert stub.state["width"] == 3
    assert torch.equal(stub.state["weight"], torch.ones(2))
    assert read["array"].name.endswith("_reconstruct")
    with pytest.raises(
        BadInput, match=r"contains '.*test_unpickle\.Foreign', which this reader does not know"
    ):
        unpickle.load(tmp_path / "a.pth", lambda name: name.startswith("numpy."))


def hostile(target):
    """Objects whose unpickling would create the file `target`."""
    command = f"touch {target}"
    inner = Executes(os.system, command)
    return {
        "os.system": inner,
        "eval": Executes(eval, f"open({str(target)!r}, 'w')"),
        "open": Executes(open, str(target), "w"),
        "getattr": Executes(getattr, os, "system"),
        "nested": {"state": [OrderedDict(a=(1, {"b": inner}))]},
        "in arguments": Executes(OrderedDict, [("a", inner)]),
        "two steps": Executes(map, Executes(getattr, os, "system"), [command]),
        "torch.load": Executes(torch.load, str(target)),
        "in a tensor": Executes(torch._utils._rebuild_tensor_v2, inner, 0, (1,), (1,), False, OrderedDict()),
    }


@pytest.mark.parametrize("name", sorted(hostile("x")))
@pytest.mark.parametrize("allowed", [nothing, anything])
def test_nothing_is_executed(tmp_path, name, allowed):
    target = tmp_path / "executed"
    try:
        program = pickle.dumps(hostile(target)[name], protocol=2)
    except TypeError:  # modules cannot be pickled as objects; a hand-written program can name them
        program = b"\x80\x02cbuiltins\ngetattr\ncos\npath\nX\x06\x00\x00\x00system\x86R."
    path = write(tmp_path / "evil.pth", program)
    refused = pytest.raises(BadInput, match="nothing of it was executed|not a readable checkpoint")
    stubs_suffice = allowed is anything and name != "in a tensor"
    with contextlib.nullcontext() if stubs_suffice else refused:
        unpickle.load(path, allowed)
    unpickle.names(path)
    assert not target.exists()


def test_the_culprit_is_named(tmp_path):
    path = write(tmp_path / "evil.pth", pickle.dumps(Executes(os.system, "true")))
    with pytest.raises(BadInput, match=r"contains '(posix|nt)\.system', which this reader does not know"):
        unpickle.load(path, nothing)


@pytest.mark.parametrize(
    ("program", "text"),
    [
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x01\x00\x00\x00aK\x01sb.", "state for a function"),
        (b"\x80\x02ccollections\nOrderedDict\n}X\x01\x00\x00\x00aK\x01sb.", "state for a function"),
        (b"\x80\x02ctorch\nFloatStorage\n)R.", "not a readable checkpoint"),
        (b"\x80\x02Pos.system\n.", "not a readable checkpoint"),
        (b"\x80\x02X\x07\x00\x00\x00storageQ.", "not a readable checkpoint"),
        (b"\x80\x02K\x01", "not a readable checkpoint"),
        (b"", "not a readable checkpoint"),
        (b"\x80\x63.", "unsupported pickle protocol"),
        (b"(" * 10 + b"t" * 20 + b".", "not a readable checkpoint"),
        # sizes that no file of this length can hold: pickle would reserve the memory first
        (b"\x80\x02Nr\xff\xff\xff\x7f.", "memo index 2147483647 in a program of 9 bytes"),
        (b"\x80\x02Np99999999999\n.", "memo index 99999999999"),
        (b"\x80\x04\x8e" + (1 << 40).to_bytes(8, "little") + b"abc.", "expected 1099511627776 bytes"),
        (b"\x80\x05\x96" + (1 << 40).to_bytes(8, "little") + b"abc.", "expected 1099511627776 bytes"),
        (b"\x80\x02X\xff\xff\xff\x7fabc.", "expected 2147483647 bytes"),
        # the hash of a tuple of a tuple of … ends the process if nothing bounds it
        (b"\x80\x02}N" + b"\x85" * 600 + b"Ns.", "nested more than 500 deep"),
        (b"\x80\x02}N" + b"q\x00h\x00\x85" * 600 + b"Ns.", "nested more than 500 deep"),
    ],
)
def test_broken_programs_are_refused(tmp_path, program, text):
    with pytest.raises(BadInput, match=text):
        unpickle.load(write(tmp_path / "a.pth", program), nothing)


def test_long_flat_containers_are_not_deep(tmp_path):
    content = {"rows": [[k, (k, {"k": k})] for k in range(5000)], "set": set(range(3000))}
    torch.save(content, tmp_path / "a.pth")
    assert unpickle.load(tmp_path / "a.pth", nothing) == content


def tensor_program(size, stride, offset=0, n_elements=4):
    """A pickle of one tensor on storage "0", with sizes of our choice."""

    class Storage:
        pass

    class Writer(pickle.Pickler):
        def persistent_id(self, thing):
            if isinstance(thing, Storage):
                return ("storage", torch.FloatStorage, "0", "cpu", n_elements)
            return None

    stream = io.BytesIO()
    arguments = Storage(), offset, size, stride, False, OrderedDict()
    Writer(stream, 2).dump(Executes(torch._utils._rebuild_tensor_v2, *arguments))
    return stream.getvalue()


def test_a_tensor_stays_in_its_storage(tmp_path):
    data = {"0": np.arange(4, dtype=np.float32).tobytes()}
    path = write(tmp_path / "a.pth", tensor_program((2, 2), (2, 1)), data)
    assert unpickle.load(path, nothing).tolist() == [[0.0, 1.0], [2.0, 3.0]]
    for size, stride, offset, n in [
        ((5,), (1,), 0, 4),
        ((2,), (1,), 3, 4),
        ((2,), (-1,), 1, 4),
        ((10**12,), (0,), 0, 4),
        ((2, 2), (1,), 0, 4),
        ((4,), (1,), 0, 5),
    ]:
        path = write(tmp_path / "a.pth", tensor_program(size, stride, offset, n), data)
        with pytest.raises(BadInput, match="not a readable checkpoint"):
            unpickle.load(path, nothing)


def test_damaged_files_are_refused(tmp_path):
    good = tmp_path / "good.pth"
    torch.save({"a": torch.ones(1000)}, good)
    content = good.read_bytes()
    bad = tmp_path / "bad.pth"
    for n in (0, 10, len(content) // 2, len(content) - 10):
        bad.write_bytes(content[:n])
        with pytest.raises(BadInput, match="not a checkpoint of torch.save, or truncated"):
            unpickle.load(bad, nothing)
    bad.write_bytes(b"model: {family: nequip}")
    with pytest.raises(BadInput, match="not a checkpoint of torch.save"):
        unpickle.names(bad)
    torch.save({"a": torch.ones(2)}, bad, _use_new_zipfile_serialization=False)
    with pytest.raises(BadInput, match="format of torch < 1.6"):
        unpickle.load(bad, nothing)
    with pytest.raises(BadInput, match="no such checkpoint"):
        unpickle.load(tmp_path / "nowhere", nothing)
    flipped = bytearray(content)
    flipped[content.index(np.ones(4, dtype=np.float32).tobytes())] ^= 1
    bad.write_bytes(flipped)
    with pytest.raises(BadInput, match="Bad CRC"):
        unpickle.load(bad, nothing)


def test_other_zip_files_are_refused(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/readme", "hello")
    with pytest.raises(BadInput, match=r"a zip file, but not one of torch.save \(no data.pkl\)"):
        unpickle.load(path, nothing)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"\x80\x02K\x01." + b" " * 10000)
    with pytest.raises(BadInput, match="compressed entries"):
        unpickle.load(path, nothing)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02K\x01.")
        archive.writestr("a/byteorder", "big")
    with pytest.raises(BadInput, match="big-endian"):
        unpickle.load(path, nothing)


def test_names(tmp_path):
    torch.save({"model": Foreign(), "text": "hello"}, tmp_path / "a.pth")
    names = unpickle.names(tmp_path / "a.pth")
    assert any(name.endswith("test_unpickle.Foreign") for name in names.imports)
    assert {"model", "text", "hello", "width"} <= names.strings
    program = write(tmp_path / "b.pth", b"\x80\x02K\x01")
    with pytest.raises(BadInput, match="the pickle inside is broken"):
        unpickle.names(program)


def test_every_import_of_a_file_is_accounted_for():
    """What pickle may call is exactly the list of the module; none of it is the foreign object itself."""
    assert all(callable(function) for function in unpickle.CONSTRUCTORS.values())
    assert "torch.storage._load_from_bytes" not in unpickle.CONSTRUCTORS
    opcodes = {opcode.name for opcode in pickletools.opcodes}
    assert {"GLOBAL", "STACK_GLOBAL", "INST", "EXT1", "PERSID", "BINPERSID"} <= opcodes
