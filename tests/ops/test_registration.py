"""Which function serves which device, the reference in both languages, and torch's own checks of the ops."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections import Counter

import pytest
import torch
from torch.utils import _pytree as pytree

from mlplugins.ops import reference

from . import cases

NAMES = sorted({case.partition(" ")[0] for case in cases.arguments()})
REFERENCE = torch._C.DispatchKey.CompositeExplicitAutograd


def _run(form: str, *words: str) -> str:
    result = subprocess.run(
        [sys.executable, "-W", "ignore", *words],
        env={**os.environ, "MLPLUGINS_OPS": "off" if form == "reference" else "on", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout[-500:] + result.stderr[-3000:]
    return result.stdout


@pytest.mark.slow
def test_checks_of_torch_for_the_compiled_ops(native_build):
    checked = _run("compiled", "-m", "tests.ops.check_ops", "compiled").splitlines()
    assert checked == list(cases.arguments())


@pytest.mark.slow
@pytest.mark.parametrize("which", ["first", pytest.param("all", marks=pytest.mark.exhaustive)])
def test_checks_of_torch_for_the_reference(which):
    """Of each op its first case: a second one takes another way in Python, whose numbers others check."""
    checked = _run("reference", "-m", "tests.ops.check_ops", "reference", which).splitlines()
    assert {case.partition(" ")[0] for case in checked} == set(NAMES) - cases.ONLY_COMPILED
    assert (len(checked) > len(set(NAMES) - cases.ONLY_COMPILED)) == (which == "all")


SCHEMAS = """
import torch
from mlplugins import ops
ops.load()
for name in {names}:
    if hasattr(torch.ops.mlplugins, name):
        print(getattr(torch.ops.mlplugins, name).default._schema)
"""
OF_0_1_0 = [  # what model files call: may not change
    "convolution(Tensor h, Tensor y, Tensor w, Tensor[] edges, int n_centers, Tensor[] tables) -> Tensor",
    "edge_rows(Tensor centers, Tensor neighbors, Tensor vectors) -> (Tensor first, Tensor row)",
    "ghost_exchange(Tensor h) -> Tensor",
    "kernel_sum(Tensor q, Tensor packed, Tensor values, str kernel, float sigma) "
    "-> (Tensor energy, Tensor gradient)",
    "linear(Tensor x, Tensor[] weights, int[] terms, int n_out) -> Tensor",
    "molecular_kernel(Tensor positions, Tensor[] tables, str kernel, float sigma) "
    "-> (Tensor energy, Tensor gradient, Tensor farthest)",
    "radial_convolution(Tensor h, Tensor y, Tensor[] radial, Tensor[] weights, Tensor[] edges, "
    "int n_centers, Tensor[] tables) -> Tensor",
    "symmetric_contraction(Tensor x, Tensor coefficients, Tensor species, Tensor monomials, int n_out) "
    "-> Tensor",
    "table_convolution(Tensor h, Tensor y, Tensor x, Tensor knots, Tensor[] edges, int n_centers, "
    "Tensor[] tables) -> Tensor",
]


@pytest.mark.slow
def test_schemas_are_those_of_old_files_and_one_in_both_forms(compiled):
    ours = [str(getattr(torch.ops.mlplugins, name).default._schema) for name in NAMES]
    plain = _run("reference", "-c", SCHEMAS.format(names=NAMES)).splitlines()
    assert {f"mlplugins::{schema}" for schema in OF_0_1_0} <= set(plain) <= set(ours)


def _numbers(op, arguments):
    """All numbers of the result; of rows of edges, which rows they are is free, the edges' lengths."""
    result = op(*arguments)
    if len(arguments) == 3 and all(isinstance(each, torch.Tensor) for each in arguments):
        return [arguments[2].norm(dim=1)[result[0]][result[1]]]
    return [result] if isinstance(result, torch.Tensor) else list(result)


@pytest.mark.parametrize("case", list(cases.arguments()))
def test_reference_in_c_gives_what_the_kernels_and_the_reference_in_python_give(compiled, case):
    op, arguments = cases.operator(case), cases.detached(cases.arguments()[case])
    expected = _numbers(lambda *given: op._op_dk(REFERENCE, *given), arguments)
    assert sum(t.numel() for t in expected) > 0
    torch.testing.assert_close(_numbers(op, arguments), expected, rtol=1e-12, atol=1e-12)
    plain = getattr(reference, case.partition(" ")[0], None)
    if plain is not None:
        torch.testing.assert_close(_numbers(plain, arguments), expected, rtol=1e-12, atol=1e-12)
    else:
        assert "backward" in case or case == "ghost_exchange"


def _derivatives(function, arguments):
    """The result, gradients by all that asks for them, and those of a random mix of the gradients."""
    leaves = [t for t in pytree.tree_leaves(arguments) if isinstance(t, torch.Tensor) and t.requires_grad]
    generator = torch.Generator().manual_seed(1)

    def random(like):
        return torch.randn(like.shape, dtype=like.dtype, generator=generator)

    result = function(*arguments)
    out = [result] if isinstance(result, torch.Tensor) else list(result)
    g = [random(each).requires_grad_() for each in out]
    first = torch.autograd.grad(out, leaves, g, create_graph=True, materialize_grads=True, allow_unused=True)
    mix = sum((random(d) * d).sum() for d in first)
    second = torch.autograd.grad(mix, [*g, *leaves], materialize_grads=True, allow_unused=True)
    return [*out, *first, *second]


@pytest.fixture
def device_of_toys(compiled):
    """Kernels for a device, here in the place of the CPU's: the reference, with its calls counted."""
    calls = Counter()

    def toy(name):
        def kernel(*arguments):
            calls[name] += 1
            return getattr(torch.ops.mlplugins, name).default._op_dk(REFERENCE, *arguments)

        return kernel

    with torch.library._scoped_library("mlplugins", "IMPL") as library:
        with warnings.catch_warnings(action="ignore"):  # that kernels are replaced
            for name in NAMES:
                library.impl(name, toy(name), "CPU", allow_override=True)
        yield calls


TRAINED = [
    case for case in cases.arguments() if "backward" not in case and ("conv" in case or "linear" in case)
]


@pytest.mark.parametrize("case", [*TRAINED, "symmetric_contraction"])
def test_derivatives_of_another_device_need_kernels_alone(device_of_toys, case):
    arguments, name = cases.arguments()[case], case.partition(" ")[0]
    found = _derivatives(cases.operator(case), arguments)
    expected = _derivatives(getattr(reference, name), arguments)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-11)
    assert sum(bool(t.abs().max() > 0.01) for t in found) > len(found) / 2
    kernels = {name, "convolution", "convolution_backward"} if "convolution" in name else {name}
    if name == "symmetric_contraction":
        kernels |= {f"{name}_backward", f"{name}_double_backward"}
    made_first = "trained" in case  # the weights: then it is the convolution of given weights
    assert set(device_of_toys) == (kernels - {name} if made_first else kernels)


@pytest.mark.parametrize("name", NAMES)
def test_keys(compiled, name):
    """The kernels serve the CPU, the reference every other device, one formula all derivatives."""
    table = dict(
        line.split(": ", 1)
        for line in torch._C._dispatch_dump_table(f"mlplugins::{name}").splitlines()
        if ": " in line
    )
    if name == "ghost_exchange":
        assert "[default backend kernel]" in table["CPU"]
    else:
        assert "[kernel]" in table["CPU"]
    for device in ("CUDA", "XPU", "MPS", "PrivateUse1"):
        assert "[default backend kernel]" in table[device], table[device]
    for device in ("CPU", "CUDA", "XPU", "MPS", "PrivateUse1"):
        assert "[autograd kernel]" in table[f"Autograd{device}"], table[f"Autograd{device}"]
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"mlplugins::{name}", "Meta")
