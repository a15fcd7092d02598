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
        name="magmoms", noun="magnetic moment", symbol="m", unit="", per="atom", output="mlplugins::magmoms",
        ase="magmoms", ipi="magmoms",
    )

How its components behave under rotation and inversion is `irreps`; `check` and `FamilySuite` test that.
`tests/test_quantities.py` compares every record with metatomic, ASE and e3nn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mlplugins import units
from mlplugins.quantity import MILLI, VOIGT, Array, Derivative, Label, Quantity

__all__ = [
    "ENERGY",
    "MILLI",
    "QUANTITIES",
    "VOIGT",
    "Label",
    "Quantity",
    "Results",
    "labels",
    "with_derivatives",
    "with_labels",
]

ENERGY = "energy/"
"""What names of further energies begin with, `energy/scan`: other levels of theory, other states."""

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
            name="charges",
            noun="charge",
            symbol="q",
            unit="e",
            per="atom",
            additive=True,
            like="charges$",
            output="mlplugins::charges",
            description="charges of the atoms, which add up to that of the structure",
            ase="charges",
            ipi="charges",
            head="charges",
            file_units={"e": 1.0},
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
            head="dipole",
            file_units={"e*A": 1.0, "Debye": units.E_A_PER_DEBYE, "e*Bohr": units.A_PER_BOHR},
        ),
        Quantity(
            name="born_effective_charges",
            noun="Born effective charge",
            symbol="Z*",
            unit="e",
            irreps="0e+1e+2e",
            per="atom",
            shape=(3, 3),
            additive=True,
            derivative=Derivative("dipole", "positions"),
            like="born|^bec$",
            ase="born_effective_charges",
            ipi="BEC",
            file_units={"e": 1.0},
        ),
        Quantity(
            name="polarizability",
            noun="polarizability",
            symbol="α",
            unit="A^3",
            irreps="0e+2e",
            shape=(3, 3),
            symmetric=True,
            extensive=True,
            additive=True,
            like="polari[sz]abilit|^alpha$",
            output="mlplugins::polarizability",
            description="static electric dipole polarizability (as a volume)",
            ipi="polarizability",
            head="tensor",
            file_units={
                "A^3": 1.0,
                "Bohr^3": units.A_PER_BOHR**3,
                "e^2*A^2/eV": units.EV_PER_HARTREE * units.A_PER_BOHR,
            },
        ),
        Quantity(
            name="shielding",
            noun="shielding",
            symbol="σ NMR",
            unit="ppm",
            irreps="0e+1e+2e",
            per="atom",
            shape=(3, 3),
            milli=False,
            like="shielding|^cs_tensor$",
            output="mlplugins::shielding",
            description="magnetic shielding tensors of the nuclei, ppm",
            ipi="shielding",
            head="tensor",
            file_units={"ppm": 1.0},
        ),
        Quantity(
            name="isotropic_shielding",
            noun="isotropic shielding",
            symbol="σ iso",
            unit="ppm",
            per="atom",
            milli=False,
            like="^cs(_iso)?$",
            output="mlplugins::isotropic_shielding",
            description="isotropic magnetic shieldings of the nuclei, ppm",
            ipi="isotropic_shielding",
            head="tensor",
            file_units={"ppm": 1.0},
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
        Quantity(
            name="gap",
            noun="gap to the energy before",
            symbol="ΔE",
            unit="eV",
            loss=0.0,
            made=True,
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
    return [each for each in QUANTITIES.values() if each.learns is None and not each.made]


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
        forces_uncertainty: (N, 3), the same of the components of the forces, eV/Å.
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
    forces_uncertainty: Array | None = None
    more: Mapping[str, Array] | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Results:
        """Results from values by name of the quantity, None where there is none.

        >>> import numpy as np
        >>> Results.of({"energy": -1.0, "forces": np.zeros((2, 3)), "dipole": np.ones(3)}).more
        {'dipole': array([1., 1., 1.])}
        """
        own = {name: values[name] for name in values if name in cls.__dataclass_fields__}
        more = {name: values[name] for name in values if name not in own and values[name] is not None}
        return cls(**own, more=more or None)

    def get(self, name: str) -> Any:
        """Value of a quantity of the table; None if there is none.

        >>> import numpy as np
        >>> Results(-1.0, np.zeros((2, 3))).get("energy"), Results(-1.0, np.zeros((2, 3))).get("stress")
        (-1.0, None)
        """
        return self.more[name] if self.more and name in self.more else getattr(self, name, None)
