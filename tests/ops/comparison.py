"""Values and derivatives of a native op against those of its reference."""

from collections.abc import Sequence

import torch

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}


def assert_equal(got: Sequence[torch.Tensor], expected: Sequence[torch.Tensor], names: Sequence[str]) -> None:
    """Tensor by tensor, relative to the largest element (or one, where that is smaller)."""
    assert len(got) == len(expected) == len(names)
    for name, a, b in zip(names, got, expected):
        assert (a.shape, a.dtype) == (b.shape, b.dtype), name
        if b.numel() == 0 or (b.dtype == torch.float32 and b.numel() < 8):
            continue  # a few numbers, whose many terms may cancel, are no scale of their own rounding
        scale, error = float(b.detach().abs().max()), float((a - b).detach().abs().max())
        assert error <= TOLERANCE[b.dtype] * max(scale, 1.0), f"{name}: {error} of {scale}"
