"""Precisions that a model computes in; not in `card.py`, which `info` imports without torch."""

import torch

DTYPES = {"float32": torch.float32, "float64": torch.float64}
