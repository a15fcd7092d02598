"""Checks of a model file (physics, equality of the engines) and of the installation."""

from typing import Any

__all__ = ["CheckOptions", "CheckReport", "CompareOptions", "LabelComparison", "check", "compare"]


def __getattr__(name: str) -> Any:
    # torch is imported only when a model is checked: `mlplugins doctor` works without
    if name in __all__:
        from mlplugins.checks import comparison, suite

        return getattr(suite if hasattr(suite, name) else comparison, name)
    raise AttributeError(f"module 'mlplugins.checks' has no attribute '{name}'")
