"""What is known of one quantity, and what its values are: names, unit, shape, irreps, labels, errors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

MILLI = 1000.0

VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
"""Components of a symmetric tensor in the order of data files and of ASE: xx yy zz yz xz xy."""

Array = NDArray[np.float64]


class Derivative(NamedTuple):
    """A quantity that is a derivative of another, which no model has to return.

    Attributes:
        of: the quantity that is differentiated.
        to: `positions` (of an energy with the opposite sign: F = −∂E/∂r) or `strain` (over the volume:
            σ = ∂E/∂ε / V).
    """

    of: str
    to: Literal["positions", "strain"]


class Label(NamedTuple):
    """A name under which data files may hold a quantity.

    Attributes:
        option: in `data.keys` and `--keys`.
        key: in the files, unless the user names another; None: read only if the user names it.
        is_virial: the files hold −V times the quantity, as QUIP and MACE write virials.
    """

    option: str
    key: str | None
    is_virial: bool = False


class TensorPart(NamedTuple):
    """The components of a tensor that turn among themselves.

    Attributes:
        name: `isotropic`, `antisymmetric` or `traceless` (and symmetric).
        projector: (9, 9), of the tensor as a row of nine numbers.
        shown: which of the nine are counted in errors.
    """

    name: str
    projector: Array
    shown: tuple[int, ...]


def _parts() -> dict[str, TensorPart]:
    one, transposed = np.eye(9), np.eye(9).reshape(3, 3, 9).transpose(1, 0, 2).reshape(9, 9)
    trace = np.outer(np.eye(3).ravel(), np.eye(3).ravel()) / 3
    voigt = tuple(3 * i + j for i, j in VOIGT)
    return {
        "0e": TensorPart("isotropic", trace, (0,)),
        "1e": TensorPart("antisymmetric", (one - transposed) / 2, voigt[3:]),
        "2e": TensorPart("traceless", (one + transposed) / 2 - trace, voigt),
    }


PARTS = _parts()
"""By irrep."""


@dataclass(frozen=True)
class Quantity:
    """One quantity: everything about it that is needed in more than one place.

    Attributes:
        name: in `data.keys`, the loss, metrics.json and log.csv; the entry of a family's result; the
            attribute of `Results`.
        noun: in titles.
        symbol: in tables.
        unit: of labels and predictions everywhere in the package, as metatomic spells units (eV/A^3, e*A).
        irreps: of its components under rotation and inversion, as e3nn spells them (1o: a vector, 1e: an
            axial vector such as a magnetic moment).
        per: whether there is one for each `atom` or one for each `system`. What a family returns per atom is
            added up for the latter.
        shape: Cartesian components; of scalars any.
        symmetric: a symmetric tensor, of whose components errors count xx yy zz yz xz xy.
        extensive: grows with the number of atoms: errors are given per atom.
        additive: predictions of several models for one structure add up, as the terms of a `sum` do.
        per_volume: a density. Models deliver the volume times it, also where there is no volume, and the loss
            takes the volume times its error over the number of atoms.
        baseline: its zero is arbitrary: energies of the elements are subtracted before training.
        derivative: of which other quantity it is the derivative; None: families return it themselves.
        key: default name in data files; None: as `name`.
        other_keys: names that are preferred to `key` where the user named none and a frame has them.
        other_labels: other conventions of the same quantity in data files.
        like: names in data files that say this quantity (a regular expression, case ignored).
        required: every frame must have it.
        loss: default weight in the loss.
        milli: errors are given in thousandths of the unit.
        output: name of the output of a metatomic model: one that metatomic knows, else `mlplugins::…`; None
            only for a derivative, which engines compute.
        description: of that output.
        ase, ase_per_atom: the quantity, and its share of every atom, among ASE's own properties
            (`ase.calculators.calculator.all_properties`; other names fail). Without `ase` the calculator
            has it in `results` under `name`, and no `get_…` method returns it.
        ipi: key of i-PI's extras; None if it is not passed on, or has a place of its own in i-PI's protocol.
        lammps: names in LAMMPS, thermo keywords or columns of a dump.
        head: file of `mlplugins.heads` that predicts it from the features of a family; None: families return
            it themselves. The loss then counts in units of the root mean square of its labels, each irrep of
            a tensor in its own.
        along_edges: the head returns a vector g_e for every edge of the graph, of which forces and stress are
            made as of the gradients of an energy (`models.base.edge_sums`).
        learns: the quantity whose labels it learns from; None: its own.
        made: its labels and predictions are made of those of other quantities: files do not hold it, models
            do not return it.
        file_units: units that data files may have it in → how many of `unit` one of them is. If there are
            any, it is read only where the user names the label and its unit: neither is ever guessed.
    """

    name: str
    noun: str
    symbol: str
    unit: str
    irreps: str = "0e"
    per: Literal["system", "atom"] = "system"
    shape: tuple[int, ...] = ()
    symmetric: bool = False
    extensive: bool = False
    additive: bool = False
    per_volume: bool = False
    baseline: bool = False
    derivative: Derivative | None = None
    key: str | None = None
    other_keys: tuple[str, ...] = ()
    other_labels: tuple[Label, ...] = ()
    like: str = ""
    required: bool = False
    loss: float = 1.0
    milli: bool = True
    output: str | None = None
    description: str = ""
    ase: str | None = None
    ase_per_atom: str | None = None
    ipi: str | None = None
    lammps: tuple[str, ...] = ()
    head: str | None = None
    along_edges: bool = False
    learns: str | None = None
    made: bool = False
    file_units: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """A record that contradicts itself is refused where it is written, not after a training.

        Raises:
            ValueError: irreps that are not those of a tensor of this shape, or no name of an output.
        """
        self.turned(np.zeros(self.full_shape(1)), np.eye(3))
        if self.derivative is None and self.output is None and not self.made:
            raise ValueError(
                f"{self.name}: its values need an `output`, a name of metatomic's or mlplugins::{self.name}; "
                "only derivatives, and what is made of others, have none"
            )

    @property
    def labels(self) -> tuple[Label, ...]:
        """Its names in data files.

        >>> from mlplugins.quantities import QUANTITIES
        >>> [(label.option, label.key) for label in QUANTITIES["stress"].labels]
        [('stress', 'stress'), ('virial', None)]
        """
        if self.learns is not None or self.made:
            return ()
        key = None if self.file_units else self.key or self.name
        return (Label(self.name, key), *self.other_labels)

    @cached_property
    def parts(self) -> tuple[TensorPart, ...]:
        """Of a tensor that a head predicts: what its irreps stand for, which are learned and compared one by
        one; else none.

        >>> from mlplugins.quantities import QUANTITIES
        >>> [part.name for part in QUANTITIES["polarizability"].parts]
        ['isotropic', 'traceless']
        """
        irreps = self.irreps.replace(" ", "").split("+")
        return tuple(PARTS[ir] for ir in irreps) if self.head and self.shape == (3, 3) else ()

    @property
    def output_unit(self) -> str:
        """Unit of the output as metatomic spells it, which knows no ppm."""
        return self.unit.replace("ppm", "")

    @property
    def compared_unit(self) -> str:
        """Unit of the values whose errors are given, as text.

        >>> from mlplugins.quantities import QUANTITIES
        >>> [QUANTITIES[name].compared_unit for name in ("energy", "forces", "stress")]
        ['eV/atom', 'eV/Å', 'eV/Å³']
        """
        text = re.sub(r"\bA\b", "Å", self.unit).replace("^3", "³").replace("^2", "²").replace("*", "·")
        return text + "/atom" * self.extensive

    @property
    def error_unit(self) -> str:
        """Unit of errors, as text.

        >>> from mlplugins.quantities import QUANTITIES
        >>> QUANTITIES["stress"].error_unit
        'meV/Å³'
        """
        return "m" * self.milli + self.compared_unit

    @property
    def error_scale(self) -> float:
        """`error_unit`s in one `compared_unit`."""
        return MILLI if self.milli else 1.0

    def error_key(self, kind: str) -> str:
        """Name of an error in metrics.json and `evaluate --json`; after `name` and `_`, in log.csv.

        >>> from mlplugins.quantities import QUANTITIES
        >>> QUANTITIES["energy"].error_key("mae"), QUANTITIES["stress"].error_key("rmse")
        ('mae_meV_per_atom', 'rmse_meV_per_A3')
        """
        unit = self.error_unit.translate({ord("Å"): "A", ord("³"): "3", ord("²"): "2", ord("·"): "_"})
        return f"{kind}_{unit.replace('/', '_per_')}"

    def column(self, kind: str) -> str:
        """Name of an error in log.csv.

        >>> from mlplugins.quantities import QUANTITIES
        >>> QUANTITIES["forces"].column("rmse")
        'forces_rmse_meV_per_A'
        """
        return f"{self.name}_{self.error_key(kind)}"

    @property
    def components_text(self) -> str:
        """Name of its single values.

        >>> from mlplugins.quantities import QUANTITIES
        >>> QUANTITIES["energy"].components_text, QUANTITIES["forces"].components_text
        ('energy', 'force components')
        """
        return self.noun + " components" * bool(self.shape)

    def full_shape(self, n_atoms: int) -> tuple[int, ...]:
        """Shape of its value for a structure of `n_atoms`.

        >>> from mlplugins.quantities import QUANTITIES
        >>> QUANTITIES["forces"].full_shape(4), QUANTITIES["stress"].full_shape(4)
        ((4, 3), (3, 3))
        """
        return (n_atoms, *self.shape) if self.per == "atom" else self.shape

    def turned(self, value: Any, matrix: Array) -> Array:
        """Its value for a structure whose positions and cell vectors x became `matrix` @ x.

        Args:
            value: before.
            matrix: (3, 3), orthogonal; its determinant is −1 with an inversion.

        >>> from mlplugins.quantities import QUANTITIES
        >>> QUANTITIES["forces"].turned([[1.0, 0.0, 0.0]], -np.eye(3)).tolist()
        [[-1.0, 0.0, 0.0]]
        >>> QUANTITIES["stress"].turned(np.diag([1.0, 2.0, 3.0]), np.eye(3)[[1, 2, 0]]).diagonal().tolist()
        [2.0, 3.0, 1.0]

        Raises:
            ValueError: a shape that is not the one of a Cartesian tensor with these irreps.
        """
        found = re.findall(r"(\d+)([eo])", self.irreps)  # of 4x1o the 1o
        rank, parities = max(int(degree) for degree, _ in found), {parity for _, parity in found}
        if len(parities) != 1 or (rank > 0 and self.shape != (3,) * rank):
            raise ValueError(
                f"{self.name}: no Cartesian tensor of shape {self.shape} has irreps {self.irreps}"
            )
        array = np.asarray(value, dtype=np.float64)
        for axis in range(array.ndim - rank, array.ndim):
            array = np.moveaxis(np.tensordot(array, matrix, axes=(axis, 1)), -1, axis)
        natural = "eo"[rank % 2]
        return array if parities == {natural} else array * np.sign(np.linalg.det(matrix))

    def of_copies(self, value: Any, n: int) -> Array:
        """Its value for `n` copies of a structure that do not interact, or for a supercell.

        >>> from mlplugins.quantities import QUANTITIES
        >>> QUANTITIES["energy"].of_copies(-2.0, 3).item()
        -6.0
        >>> QUANTITIES["forces"].of_copies(np.ones((4, 3)), 2).shape
        (8, 3)
        """
        if self.per == "atom":
            return np.concatenate([np.asarray(value)] * n)
        return np.asarray(value) * (n if self.extensive else 1)
