"""Model families, one file each: plain tensors in, per-atom quantities out (see `base`)."""

from types import ModuleType

from mlplugins import registry

NOT_FAMILIES = ("base", "composition")


def families() -> list[str]:
    """Names of all model families.

    >>> "nequip" in families()
    True
    """
    return registry.available(__name__, NOT_FAMILIES)


def family(name: str) -> ModuleType:
    """The file of a model family: `Hyperparameters`, `Model`, perhaps `REFERENCES`.

    >>> family("lennard-jones").Hyperparameters().cutoff
    8.5

    Raises:
        BadInput: no such family.
    """
    return registry.load(__name__, name, "model family", NOT_FAMILIES)
