"""Heads: what a trunk predicts beside its energy, from the features of its layers. One file each.

A file has `Hyperparameters` (a frozen dataclass) and `Head(nn.Module)`, made of the name of a quantity, the
`Trunk` and the hyper-parameters. Its forward takes a `Graph` and what the family returned for it (the
features of its layers; `harmonics` of the directions of the edges, if it has them), and gives the quantity
per atom, (n_centers, …), or for every edge, (E, 3), if its record says `along_edges`. Before the training
`initialise` tells it how large its labels are.
"""

from collections.abc import Collection, Mapping
from dataclasses import fields
from types import ModuleType
from typing import Any, NamedTuple

from torch import nn

from mlplugins import registry
from mlplugins.errors import BadInput, nearest
from mlplugins.nn.irreps import o3
from mlplugins.nn.linear import blocks
from mlplugins.quantities import ENERGY, QUANTITIES


class Trunk(NamedTuple):
    """What heads stand on.

    Attributes:
        n_species: number of elements.
        cutoff: range of the edges, Å.
        layers: irreps of the features that a family returns beside its energy, by name, in the order of its
            layers.
        inputs: what the family takes of a structure as a whole, e.g. its `charge`.
        heads: those that stand on it already, by the name of their quantity.
    """

    n_species: int
    cutoff: float
    layers: Mapping[str, o3.Irreps]
    inputs: Collection[str] = ()
    heads: Mapping[str, nn.Module] = {}

    def channels(self, ir: o3.Irrep) -> list[tuple[str, int, int, int]]:
        """Where features of one irrep stand: layer, offset, 2l + 1, channels.

        >>> Trunk(1, 5.0, {"h1": o3.Irreps("4x0e+2x1o")}).channels(o3.Irrep("1o"))
        [('h1', 4, 3, 2)]
        """
        return [
            (layer, offset, dim, mul)
            for layer, irreps in self.layers.items()
            for (offset, dim, mul), (_, own) in zip(blocks(irreps), irreps)
            if own == ir and mul > 0
        ]

    @property
    def last(self) -> tuple[str, int]:
        """The last layer, and the number of its scalars, with which its features begin."""
        name, irreps = list(self.layers.items())[-1]
        return name, irreps.count(o3.Irrep("0e"))


class LabelSizes(NamedTuple):
    """How large the labels of a quantity are, per atom of what is extensive.

    Attributes:
        rms: root mean square of each part of a tensor, or of the whole; of what `constants` leave.
        constants: of scalars and of the isotropic part of tensors, the best constant of every element.
        by_element: `rms` of the atoms of every element, for each part; of quantities of atoms.
    """

    rms: tuple[float, ...]
    constants: tuple[float, ...] = ()
    by_element: tuple[tuple[float, ...], ...] = ()


def predictable() -> list[str]:
    """Quantities for which there is a head.

    >>> "dipole" in predictable()
    True
    """
    return [name for name, quantity in QUANTITIES.items() if quantity.head is not None]


def settings(name: str, values: Mapping[str, Any] | None = None) -> Any:
    """The `Hyperparameters` of the head of a quantity (a class), which `values` are to be.

    Raises:
        BadInput: no head predicts it, or its head has no such hyper-parameter.
    """
    own = _file(name).Hyperparameters
    known = [field.name for field in fields(own)]
    for key in values or ():
        if key not in known:
            raise BadInput(f"heads: {name}: unknown key '{key}': {nearest(key, known)}")
    return own


def made(name: str, trunk: Trunk, values: Mapping[str, Any]) -> nn.Module:
    """The head of a quantity on a trunk, with these hyper-parameters.

    Raises:
        BadInput: no such head, a hyper-parameter that it lacks, or features that it cannot be made of.
    """
    own = settings(name, values)
    head: nn.Module = _file(name).Head(name, trunk, own(**values))
    return head


def _file(name: str) -> ModuleType:
    if name.startswith(ENERGY):
        return registry.load(__name__, "energy", "head")
    if name not in predictable():
        raise BadInput(f"heads: no head predicts '{name}': {nearest(name, predictable())}")
    return registry.load(__name__, str(QUANTITIES[name].head), "head")
