"""Model families, one file each: plain tensors in, per-atom quantities out (see `base`)."""

from dataclasses import dataclass
from typing import Any

from mlplugins import registry

NOT_FAMILIES = ("base", "capabilities", "composition")


@dataclass(frozen=True)
class Family:
    """What the file of a model family defines.

    Attributes:
        Hyperparameters: frozen dataclass.
        Model: class derived from `mlplugins.models.base.Potential`, of elements and hyper-parameters.
        references: papers to cite (`REFERENCES`).
        solver: file of `training.solvers` that trains it in closed form (`Model.solver`); None: gradients do.
        targets: labels that a closed form learns from, unless configured otherwise (`TARGETS`).
    """

    Hyperparameters: Any
    Model: Any
    references: list[str]
    solver: str | None
    targets: str | None


def families() -> list[str]:
    """Names of all model families.

    >>> "nequip" in families()
    True
    """
    return registry.available(__name__, NOT_FAMILIES)


def family(name: str) -> Family:
    """The model family of this name.

    >>> family("lennard-jones").Hyperparameters().cutoff
    8.5

    Raises:
        BadInput: no such family.
    """
    from mlplugins.models.capabilities import SolvedInClosedForm  # costs torch, as every family does

    given = vars(registry.load(__name__, name, "model family", NOT_FAMILIES))
    model = given["Model"]
    return Family(
        Hyperparameters=given["Hyperparameters"],
        Model=model,
        references=list(given.get("REFERENCES", [])),
        solver=model.solver if issubclass(model, SolvedInClosedForm) else None,
        targets=given.get("TARGETS"),
    )
