"""Is a model file physical, and is it the same in every engine?"""

from mlplugins.checks.suite import CheckOptions, CheckReport, check

__all__ = ["CheckOptions", "CheckReport", "check"]
