"""Values and derivatives of a native op against those of its reference."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
DRAWS = 8


Operation = Callable[..., Any]


def assert_equal(
    derivatives: Operation, ops: tuple[Operation, Operation], case: tuple, names: Sequence[str]
) -> None:
    """derivatives(op, case) of the native op and of its reference, relative to the largest element (or one).

    A few numbers, sums of many terms that may cancel, are no scale of their own rounding in float32: of those
    several draws of the case are compared together.
    """
    draws = [[derivatives(op, case) for op in ops]]
    if any(t.dtype == torch.float32 and 0 < t.numel() < DRAWS for t in draws[0][1]):
        for seed in range(1, DRAWS):
            other = _drawn_again(case, torch.Generator().manual_seed(seed))
            draws.append([derivatives(op, other) for op in ops])
    for place, name in enumerate(names[: len(draws[0][1])]):
        for got, expected in draws:
            assert len(got) == len(expected) <= len(names)
            assert got[place].shape == expected[place].shape, name
            assert got[place].dtype == expected[place].dtype, name
        a, b = (torch.cat([draw[side][place].detach().flatten() for draw in draws]) for side in (0, 1))
        if b.numel() == 0:
            continue
        scale, error = float(b.abs().max()), float((a - b).abs().max())
        assert error <= TOLERANCE[b.dtype] * max(scale, 1.0), f"{name}: {error} of {scale}"


def _drawn_again(value: Any, generator: torch.Generator) -> Any:
    """The matrices to differentiate by, drawn anew; all else as it is."""
    if isinstance(value, tuple | list):
        return type(value)(_drawn_again(part, generator) for part in value)
    if isinstance(value, torch.Tensor) and value.requires_grad and value.dim() > 1:
        return torch.randn(value.shape, dtype=value.dtype, generator=generator, requires_grad=True)
    return value
