"""Quantities that a model can predict: one table, one record each, and the results for one structure.

Data files, batches, the loss, errors, log.csv, plots, outputs of model.pt and what engines pass on are loops
over `QUANTITIES`. A further quantity that a family returns, or that a head (`mlplugins.heads`) makes of its
features, is one more record in `QUANTITIES` below; only an engine that is to *use* it needs code of its own.
A vector of the system and a scalar of every atom:

    Quantity(
        name="polarization", noun="polarization", symbol="P", unit="e*A", irreps="1o", shape=(3,),
        extensive=True, additive=True, output="mlplugins::polarization", ase="polarization",
    )
    Quantity(
        name="charges", noun="charge", symbol="q", unit="e", per="atom", output="mlplugins::partial_charges",
        ase="charges", ipi="charges",
    )

How its components behave under rotation and inversion is `irreps`; `check` and `FamilySuite` test that.
`tests/test_quantities.py` compares every record with metatomic, ASE and e3nn.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlplugins import units

MILLI = 1000.0

VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
"""Components of a symmetric tensor in the order of data files and of ASE: xx yy zz yz xz xy."""

Array = NDArray[np.float64]


class Derivative(NamedTuple):
    """A quantity that is a derivative of another, which no model has to return.

    Attributes:
        of: the quantity that is differentiated.
        to: `positions` (with the opposite sign: F = −∂E/∂r) or `strain` (over the volume: σ = ∂E/∂ε / V).
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
            it themselves. The loss then counts in units of the root mean square of its labels.
        along_edges: the head returns a vector g_e for every edge of the graph, of which forces and stress are
            made as of the gradients of an energy (`models.base.edge_sums`).
        learns: the quantity whose labels it learns from; None: its own.
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
    file_units: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """A record that contradicts itself is refused where it is written, not after a training.

        Raises:
            ValueError: irreps that are not those of a tensor of this shape, or no name of an output.
        """
        self.turned(np.zeros(self.full_shape(1)), np.eye(3))
        if self.derivative is None and self.output is None:
            raise ValueError(
                f"{self.name}: its values need an `output`, a name of metatomic's or mlplugins::{self.name}; "
                "only derivatives have none"
            )

    @property
    def labels(self) -> tuple[Label, ...]:
        """Its names in data files.

        >>> [(label.option, label.key) for label in QUANTITIES["stress"].labels]
        [('stress', 'stress'), ('virial', None)]
        """
        if self.learns is not None:
            return ()
        key = None if self.file_units else self.key or self.name
        return (Label(self.name, key), *self.other_labels)

    @property
    def compared_unit(self) -> str:
        """Unit of the values whose errors are given, as text.

        >>> [QUANTITIES[name].compared_unit for name in ("energy", "forces", "stress")]
        ['eV/atom', 'eV/Å', 'eV/Å³']
        """
        text = re.sub(r"\bA\b", "Å", self.unit).replace("^3", "³").replace("^2", "²").replace("*", "·")
        return text + "/atom" * self.extensive

    @property
    def error_unit(self) -> str:
        """Unit of errors, as text.

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

        >>> QUANTITIES["energy"].error_key("mae"), QUANTITIES["stress"].error_key("rmse")
        ('mae_meV_per_atom', 'rmse_meV_per_A3')
        """
        unit = self.error_unit.translate({ord("Å"): "A", ord("³"): "3", ord("²"): "2", ord("·"): "_"})
        return f"{kind}_{unit.replace('/', '_per_')}"

    def column(self, kind: str) -> str:
        """Name of an error in log.csv.

        >>> QUANTITIES["forces"].column("rmse")
        'forces_rmse_meV_per_A'
        """
        return f"{self.name}_{self.error_key(kind)}"

    @property
    def components_text(self) -> str:
        """Name of its single values.

        >>> QUANTITIES["energy"].components_text, QUANTITIES["forces"].components_text
        ('energy', 'force components')
        """
        return self.noun + " components" * bool(self.shape)

    def full_shape(self, n_atoms: int) -> tuple[int, ...]:
        """Shape of its value for a structure of `n_atoms`.

        >>> QUANTITIES["forces"].full_shape(4), QUANTITIES["stress"].full_shape(4)
        ((4, 3), (3, 3))
        """
        return (n_atoms, *self.shape) if self.per == "atom" else self.shape

    def turned(self, value: Any, matrix: Array) -> Array:
        """Its value for a structure whose positions and cell vectors x became `matrix` @ x.

        Args:
            value: before.
            matrix: (3, 3), orthogonal; its determinant is −1 with an inversion.

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

        >>> QUANTITIES["energy"].of_copies(-2.0, 3).item()
        -6.0
        >>> QUANTITIES["forces"].of_copies(np.ones((4, 3)), 2).shape
        (8, 3)
        """
        if self.per == "atom":
            return np.concatenate([np.asarray(value)] * n)
        return np.asarray(value) * (n if self.extensive else 1)


QUANTITIES: dict[str, Quantity] = {
    quantity.name: quantity
    for quantity in (
        Quantity(
            name="energy",
            noun="energy",
            symbol="E",
            unit="eV",
            extensive=True,
            additive=True,
            baseline=True,
            other_keys=("free_energy",),
            like="energy",
            required=True,
            output="energy",
            description="potential energy",
            ase="energy",
            ase_per_atom="energies",
            lammps=("pe",),
        ),
        Quantity(
            name="forces",
            noun="force",
            symbol="F",
            unit="eV/A",
            irreps="1o",
            per="atom",
            shape=(3,),
            additive=True,
            derivative=Derivative("energy", "positions"),
            like="force|gradient",
            loss=100.0,
            ase="forces",
            lammps=("fx", "fy", "fz"),
        ),
        Quantity(
            name="stress",
            noun="stress",
            symbol="σ",
            unit="eV/A^3",
            irreps="0e+2e",
            shape=(3, 3),
            symmetric=True,
            additive=True,
            per_volume=True,
            derivative=Derivative("energy", "strain"),
            other_labels=(Label("virial", None, is_virial=True),),
            like="stress|virial",
            ase="stress",
            ase_per_atom="stresses",
            lammps=("pxx", "pyy", "pzz", "pyz", "pxz", "pxy"),
        ),
        Quantity(
            name="dipole",
            noun="dipole",
            symbol="μ",
            unit="e*A",
            irreps="1o",
            shape=(3,),
            extensive=True,
            additive=True,
            like="dipole|^mu$",
            output="mlplugins::dipole",
            description="electric dipole moment, from − to +",
            ase="dipole",
            ipi="dipole",
            head="tensor",
            file_units={"e*A": 1.0, "Debye": units.E_A_PER_DEBYE, "e*Bohr": units.A_PER_BOHR},
        ),
        Quantity(
            name="direct_forces",
            noun="direct force",
            symbol="F direct",
            unit="eV/A",
            irreps="1o",
            per="atom",
            shape=(3,),
            additive=True,
            loss=10.0,
            output="non_conservative_force",
            description="forces that are no gradient of the energy, in pairs that add up to zero",
            head="direct",
            along_edges=True,
            learns="forces",
        ),
        Quantity(
            name="direct_stress",
            noun="direct stress",
            symbol="σ direct",
            unit="eV/A^3",
            irreps="0e+2e",
            shape=(3, 3),
            symmetric=True,
            additive=True,
            per_volume=True,
            derivative=Derivative("direct_forces", "strain"),
            output="non_conservative_stress",
            description="stress of the direct forces",
            learns="stress",
        ),
    )
}
"""By name, in the order of tables, columns and plots."""


def labels() -> list[Label]:
    """The names of all quantities in data files.

    >>> [label.option for label in labels()][:4]
    ['energy', 'forces', 'stress', 'virial']
    """
    return [label for quantity in QUANTITIES.values() for label in quantity.labels]


def with_labels() -> list[Quantity]:
    """Quantities with labels of their own.

    >>> [quantity.name for quantity in with_labels()][:3]
    ['energy', 'forces', 'stress']
    """
    return [quantity for quantity in QUANTITIES.values() if quantity.learns is None]


def with_derivatives(names: Iterable[str]) -> list[str]:
    """These quantities and their derivatives, in the order of the table.

    >>> with_derivatives(["energy"])
    ['energy', 'forces', 'stress']
    """
    own = set(names)
    return [n for n, q in QUANTITIES.items() if n in own or (q.derivative and q.derivative.of in own)]


@dataclass(frozen=True)
class Results:
    """Predictions for one structure, whatever computed them.

    Attributes:
        energy: eV, the per-atom energies summed in double precision.
        forces: (N, 3), eV/Å.
        virial: (3, 3), −∂E/∂ε = −V·stress, eV, symmetric; also without a periodic cell. None from an engine
            that reports a stress only.
        stress: (3, 3), (1/V) ∂E/∂ε, eV/Å³, ASE's sign (positive = the cell wants to shrink); None without
            periodicity or without three cell vectors (a slab with a vacuum vector has one, as in ASE).
        energies: (N,), eV; None if the model has only the total, or nobody asked.
        virials: (N, 3, 3) per-atom virials, eV, which add up to `virial`: of each neighbour vector, half to
            either atom. None unless asked for.
        uncertainty: standard deviation of the energy as the model predicts it, eV. None unless asked for.
        uncertainties: (N,), the same of the per-atom energies.
        more: values of the other quantities of the table, by name; None: none.
    """

    energy: float
    forces: Array
    virial: Array | None = None
    stress: Array | None = None
    energies: Array | None = None
    virials: Array | None = None
    uncertainty: float | None = None
    uncertainties: Array | None = None
    more: Mapping[str, Array] | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Results:
        """Results from values by name of the quantity, None where there is none.

        >>> Results.of({"energy": -1.0, "forces": np.zeros((2, 3)), "dipole": np.ones(3)}).more
        {'dipole': array([1., 1., 1.])}
        """
        own = {name: values[name] for name in values if name in cls.__dataclass_fields__}
        more = {name: values[name] for name in values if name not in own and values[name] is not None}
        return cls(**own, more=more or None)

    def get(self, name: str) -> Any:
        """Value of a quantity of the table; None if there is none.

        >>> Results(-1.0, np.zeros((2, 3))).get("energy"), Results(-1.0, np.zeros((2, 3))).get("stress")
        (-1.0, None)
        """
        return self.more[name] if self.more and name in self.more else getattr(self, name, None)
