"""What a spectrum is made of: how columns become densities, and densities curves, for each kind.

`SpectrumKind.prepare` turns columns into components whose densities `welch` adds up in groups; its `curves`
turns these into spectra over wave numbers. For dipoles and polarizabilities S(ω) is taken of the differences
of neighbouring samples and multiplied by (ωΔt/2)²/sin²(ωΔt/2)/Δt²: that is ω²S(ω) of a line, without the
leakage of a constant.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mlplugins.analysis.readers._text import Floats
from mlplugins.errors import BadInput
from mlplugins.units import (
    A3_PER_E2_A2_EV,
    A_FS_PER_ATOMIC_VELOCITY,
    A_PER_BOHR,
    ASE_TIME_PER_FS,
    BOLTZMANN_EV_K,
    E_A_PER_DEBYE,
    FS_PER_PS,
    KELVIN_PER_PER_CM,
    PER_CM_PER_FS,
    absorption_km_mol,
    absorption_per_cm,
    stokes_cross_section_cm2_sr,
)

CORRECTIONS = ("harmonic", "standard", "schofield", "none")
AXES = "xyz"
HIGHEST_X = 1000.0
"""hν/kT beyond which nothing is told apart."""
LASER_NM_PER_CM = 1e7
CROSS_SECTION_UNIT = 1e-30


@dataclass(frozen=True)
class Conditions:
    """What spectra need beside the series.

    Attributes:
        temperature_k: K; NaN where it is not needed.
        volume_a3: Å³; None: of the whole system.
        interval_fs: between samples.
        correction: of `CORRECTIONS`.
        laser_per_cm: wave number of the light that is scattered; None: Raman activities.
        unit: of the series, for power spectra.
    """

    temperature_k: float
    volume_a3: float | None
    interval_fs: float
    correction: str
    laser_per_cm: float | None = None
    unit: str = ""


@dataclass(frozen=True)
class Channels:
    """How columns are added up.

    Attributes:
        transform: (n, columns) → (n, components).
        groups: (components,).
        names: of the groups.
    """

    transform: Callable[[Floats], Floats]
    groups: NDArray[np.intp]
    names: tuple[str, ...]


@dataclass(frozen=True)
class SpectrumKind:
    """One kind of spectrum.

    Attributes:
        name: on the command line.
        title: of the report.
        what: is read, as ASE and i-PI call it.
        counts: numbers of columns that make sense; empty: any.
        units: of files → how many of ours (e·Å, Å³, Å/fs) one is.
        differenced: ω²S is wanted, so differences are analysed.
        prepare: (number of columns, order of tensors, symbols, masses) → `Channels`.
        curves: (wave numbers (F,), densities (…, F) by group, `Conditions`) → spectra by name, first the one
            whose peaks are sought.
        labels: `Conditions` → name of the axis, its unit, unit of an integral over it.
    """

    name: str
    title: str
    what: str
    counts: tuple[int, ...]
    units: Mapping[str, float]
    differenced: bool
    prepare: Callable[[int, str, Sequence[str], Floats], Channels]
    curves: Callable[[Floats, Mapping[str, Floats], Conditions], dict[str, Floats]]
    labels: Callable[[Conditions], tuple[str, str, str]]
    centred: bool = field(default=False)


def quantum(per_cm: Floats, temperature_k: float, correction: str) -> Floats:
    """Factor on the spectrum with the harmonic correction, x = hν/kT.

    The harmonic correction, S x/(1 − e^(−x)), is contained in the classical formula, and exact for Kubo's
    correlation (ring polymers, centroids); standard: 2/(1 + e^(−x)), Schofield: e^(x/2), none: 1 (R. Ramírez
    et al., J. Chem. Phys. 121, 3973 (2004)).

    >>> [float(round(quantum(np.array([3000.0]), 300.0, name)[0], 4)) for name in CORRECTIONS]
    [1.0, 0.139, 92.5275, 0.0695]
    """
    x = np.clip(per_cm * KELVIN_PER_PER_CM / temperature_k, 1e-6, HIGHEST_X)
    factors: dict[str, Callable[[], Floats]] = {
        "harmonic": lambda: np.ones_like(x),
        "standard": lambda: np.tanh(x / 2) / (x / 2),
        "schofield": lambda: np.sinh(x / 2) / (x / 2),
        "none": lambda: -np.expm1(-x) / x,
    }
    return factors[correction]()


def of_differences(per_cm: Floats, interval_fs: float) -> Floats:
    """Density of the derivative over that of differences, 1/fs²."""
    half = np.pi * per_cm / PER_CM_PER_FS * interval_fs
    return 1.0 / np.sinc(half / np.pi) ** 2 / interval_fs**2


def _dipole(columns: int, order: str, symbols: Sequence[str], masses: Floats) -> Channels:
    return Channels(lambda values: values, np.zeros(3, dtype=np.intp), ("dipole",))


def _infrared(per_cm: Floats, density: Mapping[str, Floats], state: Conditions) -> dict[str, Floats]:
    factor = of_differences(per_cm, state.interval_fs) * quantum(
        per_cm, state.temperature_k, state.correction
    )
    if state.volume_a3 is None:
        factor = factor * absorption_km_mol(1.0, state.temperature_k)
    else:
        factor = factor * absorption_per_cm(1.0, state.volume_a3, state.temperature_k)
    return {"infrared": density["dipole"] * factor}


def _infrared_labels(state: Conditions) -> tuple[str, str, str]:
    if state.volume_a3 is None:
        return "absorption", "km/mol per cm⁻¹", "km/mol"
    return "n(ν)α(ν)", "cm⁻¹", "cm⁻²"


def _tensor(columns: int, order: str, symbols: Sequence[str], masses: Floats) -> Channels:
    """Tr α/3 and the components of α − Tr α/3."""
    where = np.arange(9)
    if columns == 6:
        pairs = [(AXES.index(word[0]), AXES.index(word[1])) for word in order.split()]
        where = np.array([3 * i + j for i, j in pairs] + [3 * j + i for i, j in pairs])

    def transform(values: Floats) -> Floats:
        full = np.empty((len(values), 9))
        full[:, where] = np.tile(values, (1, len(where) // columns))
        full = (full + full.reshape(-1, 3, 3).transpose(0, 2, 1).reshape(-1, 9)) / 2
        mean = full[:, ::4].sum(axis=1) / 3
        full[:, ::4] -= mean[:, None]
        return np.column_stack([mean, full])

    return Channels(transform, np.array([0] + [1] * 9, dtype=np.intp), ("mean", "anisotropy"))


def _raman(per_cm: Floats, density: Mapping[str, Floats], state: Conditions) -> dict[str, Floats]:
    factor = of_differences(per_cm, state.interval_fs) * quantum(
        per_cm, state.temperature_k, state.correction
    )
    thermal = BOLTZMANN_EV_K * state.temperature_k * ASE_TIME_PER_FS**2  # u Å²/fs²
    factor = factor * 2 / PER_CM_PER_FS / thermal
    if state.laser_per_cm is not None:
        shift = np.maximum(per_cm, per_cm[1])
        bose = -np.expm1(-shift * KELVIN_PER_PER_CM / state.temperature_k)
        with np.errstate(invalid="ignore"):
            per_activity = stokes_cross_section_cm2_sr(1.0, 1.0, 0.0) / shift  # (ν̃₀ − ν̃)⁴ = 1
        factor = factor * per_activity * (state.laser_per_cm - per_cm) ** 4 / bose / CROSS_SECTION_UNIT
    isotropic = 45 * density["mean"] * factor
    anisotropic = 7 * 1.5 * density["anisotropy"] * factor  # γ² = (3/2) Tr β²
    return {
        "total": isotropic + anisotropic,
        "isotropic": isotropic,
        "anisotropic": anisotropic,
        "VV": isotropic + 4 / 7 * anisotropic,
        "VH": 3 / 7 * anisotropic,
    }


def _raman_labels(state: Conditions) -> tuple[str, str, str]:
    if state.laser_per_cm is None:
        return "Raman activity", "Å⁴/u per cm⁻¹", "Å⁴/u"
    return "dσ/dΩ", "10⁻³⁰ cm²/sr per cm⁻¹", "10⁻³⁰ cm²/sr"


def _velocities(columns: int, order: str, symbols: Sequence[str], masses: Floats) -> Channels:
    """√m v, grouped by element."""
    if 3 * len(symbols) != columns:
        raise BadInput(
            f"velocities of {columns} components, but {len(symbols)} atoms: expected three of each"
        )
    names = tuple(dict.fromkeys(symbols))
    groups = np.repeat([names.index(symbol) for symbol in symbols], 3).astype(np.intp)
    roots = np.repeat(np.sqrt(masses), 3)
    return Channels(lambda values: values * roots, groups, names)


def _states(per_cm: Floats, density: Mapping[str, Floats], state: Conditions) -> dict[str, Floats]:
    thermal = BOLTZMANN_EV_K * state.temperature_k * ASE_TIME_PER_FS**2
    parts = {name: values * 2 / PER_CM_PER_FS / thermal for name, values in density.items()}
    total = np.sum(list(parts.values()), axis=0)
    return {"total": total, **(parts if len(parts) > 1 else {})}


def _columns(columns: int, order: str, symbols: Sequence[str], masses: Floats) -> Channels:
    return Channels(lambda values: values, np.zeros(columns, dtype=np.intp), ("power",))


def _power(per_cm: Floats, density: Mapping[str, Floats], state: Conditions) -> dict[str, Floats]:
    return {"power": density["power"] * 2 / PER_CM_PER_FS}


def _power_labels(state: Conditions) -> tuple[str, str, str]:
    unit = f"({state.unit})²" if re.search(r"\W", state.unit) else f"{state.unit or 'unit'}²"
    return "power", f"{unit} per cm⁻¹", unit


DIPOLES = {"e*A": 1.0, "Debye": E_A_PER_DEBYE, "e*Bohr": A_PER_BOHR, "atomic": A_PER_BOHR}
POLARIZABILITIES = {
    "A^3": 1.0,
    "Bohr^3": A_PER_BOHR**3,
    "atomic": A_PER_BOHR**3,
    "e^2*A^2/eV": A3_PER_E2_A2_EV,
}
VELOCITIES = {
    "A/fs": 1.0,
    "A/ps": 1 / FS_PER_PS,
    "atomic": A_FS_PER_ATOMIC_VELOCITY,
    "ase": ASE_TIME_PER_FS,
}
KINDS = {
    kind.name: kind
    for kind in (
        SpectrumKind(
            "ir",
            "Infrared spectrum",
            "dipole",
            (3,),
            DIPOLES,
            True,
            _dipole,
            _infrared,
            _infrared_labels,
        ),
        SpectrumKind(
            "raman",
            "Raman spectrum",
            "polarizability",
            (6, 9),
            POLARIZABILITIES,
            True,
            _tensor,
            _raman,
            _raman_labels,
        ),
        SpectrumKind(
            "vdos",
            "Vibrational density of states",
            "velocities",
            (),
            VELOCITIES,
            False,
            _velocities,
            _states,
            lambda state: ("density of states", "modes per cm⁻¹", "modes"),
        ),
        SpectrumKind(
            "power", "Power spectrum", "series", (), {}, False, _columns, _power, _power_labels, True
        ),
    )
}
