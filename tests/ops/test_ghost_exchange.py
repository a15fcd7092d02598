"""The op mlplugins::ghost_exchange: compiled and reference, identity, communication and its adjoint."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest
import torch

from mlplugins import ops
from mlplugins.ops import build

IDENTITY = """
import torch
from mlplugins import ops
assert ops.load() == "{kind}"
assert ops.load() == "{kind}"
op = torch.ops.mlplugins.ghost_exchange
h = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
out = op(h)
assert torch.equal(out, h) and out.data_ptr() != h.data_ptr()
assert torch.autograd.gradcheck(op, h) and torch.autograd.gradgradcheck(op, h)
print(torch.ops.mlplugins.ghost_exchange.default._schema)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["compiled", "reference"])
def test_identity(native_build, kind):
    """Both definitions, each in a process of its own."""
    environment = {**os.environ, "MLPLUGINS_OPS": "off" if kind == "reference" else "on"}
    result = subprocess.run(
        [sys.executable, "-c", IDENTITY.format(kind=kind)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "mlplugins::ghost_exchange(Tensor h) -> Tensor"


Callback = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int
)


class Exchange(ctypes.Structure):
    _fields_ = [("context", ctypes.c_void_p), ("forward", Callback), ("backward", Callback)]


OWNERS = {3: 0, 4: 2, 5: 0}  # ghost row → owner row; two ghosts of one owner


@pytest.fixture
def communication(native_build):
    """A communication over one rank, as LAMMPS does it over several; the calls are recorded."""
    if ops.load() != "compiled":
        pytest.fail("the compiled ops do not load")
    library = ctypes.CDLL(str(build.ops_library()))
    library.mlplugins_set_exchange.restype = ctypes.c_void_p
    library.mlplugins_set_exchange.argtypes = [ctypes.c_void_p]
    assert library.mlplugins_exchange_active() == 1
    calls = []

    def rows(address, n, width, size):
        kind = ctypes.c_double if size == 8 else ctypes.c_float
        buffer = (kind * (n * width)).from_address(address)
        return torch.frombuffer(buffer, dtype=torch.float64 if size == 8 else torch.float32).reshape(n, width)

    def forward(context, address, n, width, size):
        calls.append(("forward", n, width, size))
        h = rows(address, n, width, size)
        for ghost, owner in OWNERS.items():
            h[ghost] = h[owner]

    def backward(context, address, n, width, size):
        calls.append(("backward", n, width, size))
        g = rows(address, n, width, size)
        for ghost, owner in OWNERS.items():
            g[owner] += g[ghost]
            g[ghost] = 0.0

    exchange = Exchange(None, Callback(forward), Callback(backward))
    library.mlplugins_set_exchange(ctypes.addressof(exchange))
    yield calls
    library.mlplugins_set_exchange(None)


def reference(h: torch.Tensor) -> torch.Tensor:
    index = torch.tensor([OWNERS.get(k, k) for k in range(6)])
    return h[index]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scripted", [False, True])
def test_communication_and_its_adjoint(communication, dtype, scripted):
    """Values and gradients are those of the indexing that the communication stands for."""
    op = torch.ops.mlplugins.ghost_exchange

    def layer(h: torch.Tensor) -> torch.Tensor:
        return torch.ops.mlplugins.ghost_exchange(torch.tanh(h))

    if scripted:
        op = torch.jit.script(layer)

    torch.manual_seed(0)
    h = torch.randn(6, 4, dtype=dtype, requires_grad=True)
    weight = torch.randn(6, 4, dtype=dtype)
    for _ in range(3):  # also after TorchScript has optimised
        expected = reference(torch.tanh(h) if scripted else h)
        assert torch.equal(op(h), expected)
        (gradient,) = torch.autograd.grad((op(h) * weight).sum(), h)
        (wanted,) = torch.autograd.grad((expected * weight).sum(), h)
        assert torch.allclose(gradient, wanted, rtol=0, atol=1e-6 if dtype == torch.float32 else 1e-14)
    assert ("backward", 6, 4, h.element_size()) in communication


def test_input_is_not_changed(communication):
    h = torch.randn(6, 2, dtype=torch.float64)
    before = h.clone()
    out = torch.ops.mlplugins.ghost_exchange(h)
    assert torch.equal(h, before)
    assert not torch.equal(out, h)
    strided = torch.randn(2, 6, dtype=torch.float64).T
    assert torch.equal(torch.ops.mlplugins.ghost_exchange(strided), reference(strided))


def test_refusals(communication):
    with pytest.raises(RuntimeError, match="expected \\(n_nodes, n_features\\), got 1 dimensions"):
        torch.ops.mlplugins.ghost_exchange(torch.ones(6))
    with pytest.raises(RuntimeError, match="expected float32 or float64"):
        torch.ops.mlplugins.ghost_exchange(torch.ones(6, 2, dtype=torch.int64))


def test_second_derivatives_communicate_too(communication):
    """Of the exchange and its adjoint, in both orders: gradients of gradients are those of the indexing."""

    def second(exchange):
        torch.manual_seed(0)
        h = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
        u, v = torch.randn(2, 6, 2, dtype=torch.float64)
        (first,) = torch.autograd.grad((torch.sin(exchange(h**2)) * u).sum(), h, create_graph=True)
        return torch.autograd.grad((first * v).sum(), h)[0]

    found = second(torch.ops.mlplugins.ghost_exchange)
    assert [name for name, *_ in communication] == ["forward", "backward", "forward", "backward"]
    assert torch.allclose(found, second(reference), rtol=0, atol=1e-13)


SOURCES = torch.tensor([1, 5, 0, 2, 2])  # the neighbour of each of five edges; three centres, three ghosts


def test_copies_of_messages(communication):
    """Beside an exchange: values, what flows back along each edge, and gradients through the copies."""
    op = torch.ops.mlplugins
    torch.manual_seed(0)
    h = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    u = torch.randn(8, 2, dtype=torch.float64)
    op.message_copies(SOURCES, 6)
    try:
        out = op.ghost_exchange(torch.cat([h, torch.zeros(5, 2, dtype=h.dtype)]))
    finally:
        (copies,) = op.message_copies(None, 0)
    rows = reference(torch.cat([h, torch.zeros(3, 2, dtype=h.dtype)]))
    expected = torch.cat([rows[:3], rows[SOURCES]])
    assert torch.equal(out, expected)
    along, whole = torch.autograd.grad((torch.sin(out) * u).sum(), [copies, h], retain_graph=True)
    assert torch.allclose(along, (torch.cos(expected) * u)[3:], rtol=0, atol=1e-13)
    assert torch.allclose(
        whole, torch.autograd.grad((torch.sin(expected) * u).sum(), h, retain_graph=True)[0]
    )
    through, same = (torch.autograd.grad(each, h, u[3:])[0] for each in (copies, expected[3:]))
    assert torch.allclose(through, same, rtol=0, atol=1e-13)
    assert op.message_copies(None, 0) == []
    assert torch.equal(op.ghost_exchange(torch.ones(6, 2)), torch.ones(6, 2))


def test_copies_that_do_not_fit_are_refused(communication):
    op = torch.ops.mlplugins
    with pytest.raises(RuntimeError, match="expected int64 sources"):
        op.message_copies(SOURCES.float(), 6)
    op.message_copies(SOURCES, 6)
    try:
        with pytest.raises(RuntimeError, match="6 nodes and 5 edges, but ghost_exchange got features of"):
            op.ghost_exchange(torch.ones(4, 2))
    finally:
        op.message_copies(None, 0)
