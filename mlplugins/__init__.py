"""Machine-learned interatomic potentials in the engines people already use: ASE, LAMMPS and i-PI.

Every command of `mlplugins VERB` is a function here, with the same files and numbers, which are imported
when they are asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlplugins.analysis.conduction_trend_report import thermal
    from mlplugins.analysis.spectra.report import spectra
    from mlplugins.analysis.study import conductivity
    from mlplugins.checks.suite import check
    from mlplugins.engines.ase.calculator import MLCalculator
    from mlplugins.labels import label
    from mlplugins.simulation.campaign import simulate
    from mlplugins.training import train
    from mlplugins.workflows.barrier import barrier
    from mlplugins.workflows.committee import committee
    from mlplugins.workflows.convert import convert, export_checkpoint
    from mlplugins.workflows.evaluate import evaluate
    from mlplugins.workflows.finetune import finetune
    from mlplugins.workflows.info import info
    from mlplugins.workflows.learn import learn
    from mlplugins.workflows.select import select
    from mlplugins.workflows.uncertainty import uncertainty

    __version__: str

__all__ = [
    "MLCalculator",
    "__version__",
    "barrier",
    "check",
    "committee",
    "conductivity",
    "convert",
    "evaluate",
    "export_checkpoint",
    "finetune",
    "info",
    "label",
    "learn",
    "select",
    "simulate",
    "spectra",
    "thermal",
    "train",
    "uncertainty",
]

_PLACES = {
    "MLCalculator": "mlplugins.engines.ase.calculator",
    "barrier": "mlplugins.workflows.barrier",
    "check": "mlplugins.checks.suite",
    "committee": "mlplugins.workflows.committee",
    "conductivity": "mlplugins.analysis.study",
    "convert": "mlplugins.workflows.convert",
    "evaluate": "mlplugins.workflows.evaluate",
    "export_checkpoint": "mlplugins.workflows.convert",
    "finetune": "mlplugins.workflows.finetune",
    "info": "mlplugins.workflows.info",
    "label": "mlplugins.labels",
    "learn": "mlplugins.workflows.learn",
    "select": "mlplugins.workflows.select",
    "simulate": "mlplugins.simulation.campaign",
    "spectra": "mlplugins.analysis.spectra.report",
    "thermal": "mlplugins.analysis.conduction_trend_report",
    "train": "mlplugins.training",
    "uncertainty": "mlplugins.workflows.uncertainty",
}


def __getattr__(name: str) -> Any:
    # torch, ASE and all else are imported only when something is asked for
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    if name == "__version__":  # reading it takes as long as the rest of `mlplugins --help`
        return _version()
    raise AttributeError(f"module 'mlplugins' has no attribute '{name}'")


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("mlplugins")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "0.0.0"


def __dir__() -> list[str]:
    return sorted(__all__)
