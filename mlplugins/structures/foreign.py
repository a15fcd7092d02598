"""What ASE's readers fill in where a file does not say it: refused by name, or taken out.

ASE 3.29 reads LAMMPS' types as atomic numbers (1 = H, 2 = He, …), gives frames of a dump that hold forces an
energy of 0, takes all dumps for units `metal`, fills sites of a CIF that are partly occupied, reads the names
NA and CL of a gro file as N and C (CA of a pdb as Ca), the cell of 1 Å that stands for none in a pdb as one,
and rows of a database without their keys and data (charge, spin, functional, further labels).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import ase.db
import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_masses, atomic_numbers
from ase.io.formats import UnknownFileTypeError, filetype, open_with_compression, string2index

from mlplugins.errors import BadInput
from mlplugins.structures import lammps_data, poscar

CARBON = 6
DUMP, BINARY_DUMP, DATA, CIF = "lammps-dump-text", "lammps-dump-binary", "lammps-data", "cif"
POSCAR = "vasp"
DATABASES = ("db", "json")
PDB, NAMED = "proteindatabank", ("gromacs", "proteindatabank")
TWO_LETTERS = set(
    [
        "Ba",
        "Be",
        "Br",
        "Ca",
        "Cd",
        "Ce",
        "Cl",
        "Co",
        "Cr",
        "Cs",
        "Cu",
        "Fe",
        "Na",
        "Ni",
        "Pb",
        "Pd",
        "Pt",
        "Se",
        "Si",
        "Sn",
    ]
)
"""Elements whose symbols, in capitals, are names of atoms of other elements in force fields."""
OF_PROTEINS = set(
    [
        "ALA",
        "ARG",
        "ASN",
        "ASP",
        "ASH",
        "CYS",
        "CYX",
        "GLN",
        "GLU",
        "GLH",
        "GLY",
        "HIS",
        "HID",
        "HIE",
        "HIP",
        "ILE",
        "LEU",
        "LYS",
        "LYN",
        "MET",
        "PHE",
        "PRO",
        "SER",
        "THR",
        "TRP",
        "TYR",
        "VAL",
        "ACE",
        "NME",
        "NH",
        "HSD",
        "HSE",
        "HSP",
        "HISA",
        "HISB",
        "HISD",
        "HISE",
        "HISH",
        "ASPH",
        "ASPP",
        "GLUH",
        "GLUP",
        "LYSH",
        "LSN",
        "CYSH",
        "CYM",
    ]
)
"""Residues of which two-letter names are no such elements, without their digits (NH2)."""
IONS_OF_CHARMM = {"SOD": "Na", "POT": "K", "CES": "Cs", "RUB": "Rb"}
"""Names of ions that begin like another element (sulfur, phosphorus, cerium, ruthenium)."""
HYDROGEN = ("D", "T")
"""What heavy hydrogen is called beside its mass."""
LENGTHS_OF_NOTHING = "lj"
"""The units of LAMMPS of which ASE knows no lengths."""
FULL = 0.99
"""Occupancy of a site from which on it counts as full."""
SURE_U = 0.3
"""How far the mass of a LAMMPS type may be off that of its element, u: isotopes are farther, and then nearer
to another element (T to He, 18O to F, 13C as near to N)."""
_COLUMNS = re.compile(r"ITEM: ATOMS\s+(.+)")
_SECTION = re.compile(r"[A-Z][A-Za-z ]*(#.*)?$")
HOW = (
    "dump the elements (dump … element, dump_modify … element Li P S), or write the frames as extended xyz "
    "with ase.io.read(FILE, index=':', specorder=['Li', 'P', 'S'])"
)


def read(path: str, index: int | str) -> Atoms | list[Atoms]:
    """`ase.io.read`, without what the file does not say.

    Raises:
        BadInput: atoms whose elements, or sites whose atoms, the file does not tell; whatever else ASE's
            readers raise is left as it is.
    """
    known = _format(path)
    more: dict[str, Any] = {}
    if known == DUMP:
        more = _of_dump(path)
    elif known == BINARY_DUMP:
        raise BadInput(f"{path}: a binary dump does not say the elements of its types: {HOW}")
    elif known == POSCAR:
        poscar.require_elements(path)
    if known in DATABASES:
        found = _rows(path, index)
    elif known == DATA:
        found = _chosen(lammps_data.read(path), index)
    else:
        found = ase.io.read(path, index=index, **more)
    for number, atoms in enumerate(found if isinstance(found, list) else [found]):
        where = f"{path}, frame {number}" if isinstance(found, list) else path
        take_masses(atoms)
        if known == DUMP:
            _without_made_up_energy(atoms)
            _require_elements(atoms, where)
        elif known == DATA:
            _correct_elements(atoms, path)
        elif known == CIF:
            _require_full(atoms, where)
        elif known in NAMED and (known != PDB or _lacks_elements(path)):
            _take_names(atoms, where)
        if known == PDB and np.allclose(atoms.cell.lengths(), 1.0):  # as the standard has it of molecules
            atoms.set_cell(None)
            atoms.pbc = False
    return found


def _chosen(atoms: Atoms, index: int | str) -> Atoms | list[Atoms]:
    """The only structure of a file, as a slice or a number chooses it."""
    wanted = string2index(index) if isinstance(index, str) else index
    return [atoms][wanted]


def _rows(path: str, index: int | str) -> Atoms | list[Atoms]:
    """Rows of an ASE database, with their keys and data in `info`."""
    wanted = string2index(index) if isinstance(index, str) else index
    with ase.db.connect(path, serial=True) as database:
        if isinstance(wanted, int) and wanted >= 0:
            found = list(database.select(offset=wanted, limit=1))
            return _with_keys(found[0]) if found else ase.io.read(path, index=index)  # which says so
        rows = list(database.select())[wanted]
    return [_with_keys(row) for row in rows] if isinstance(rows, list) else _with_keys(rows)


def _with_keys(row: Any) -> Atoms:
    atoms: Atoms = row.toatoms()
    # ASE shows the sum of the initial charges in place of a key `charge`, and that of masses for `mass`
    keys = {key: vars(row).get(key, value) for key, value in row.key_value_pairs.items()}
    atoms.info = {**row.data, **keys, **atoms.info}
    return atoms


def take_masses(atoms: Atoms) -> None:
    """Masses of a column `mass` (other programs in extended xyz) or `Mass` (OVITO); ASE knows `masses` only.

    >>> atoms = Atoms("H")
    >>> atoms.new_array("mass", np.array([2.014]))
    >>> take_masses(atoms)
    >>> float(atoms.get_masses()[0])
    2.014
    """
    named = [name for name in ("mass", "Mass") if name in atoms.arrays]
    if named and not atoms.has("masses"):
        atoms.set_masses(atoms.arrays[named[0]])


def _format(path: str) -> str:
    if lammps_data.recognises(path):
        return DATA
    try:
        return str(filetype(path))
    except (UnknownFileTypeError, OSError, ValueError, KeyError, IndexError):
        return ""


def _of_dump(path: str) -> dict[str, Any]:
    """Arguments for ASE's reader of a dump: the units that its first lines state."""
    units = None
    with open_with_compression(path, "r") as lines:
        for line in lines:
            if line.startswith("ITEM: UNITS"):
                units = next(lines, "").strip()
            if match := _COLUMNS.match(line):
                columns = match[1].split()
                if not {"element", "mass"} & set(columns):
                    raise BadInput(
                        f"{path}: the dump does not say the elements of its types (columns: "
                        f"{' '.join(columns)}), and ASE would take type 1 for H, 2 for He, …: {HOW}"
                    )
                if "element" not in columns:
                    _require_masses(lines, columns.index("mass"), path)
                break
    if units == LENGTHS_OF_NOTHING:
        raise BadInput(f"{path}: a dump in units lj, which have no lengths in Å: write it in Å")
    return {} if units is None else {"units": units}


def _require_masses(lines: Iterable[str], column: int, path: str) -> None:
    """Refuse masses of no element in the first frame of a dump."""
    for line in lines:
        words = line.split()
        if line.startswith("ITEM:") or len(words) <= column:
            return
        if not nearest_element(float(words[column])):
            raise BadInput(f"{path}: no element has the mass of an atom, {words[column]} u: {HOW}")


def _without_made_up_energy(atoms: Atoms) -> None:
    """A dump holds no energy; ASE gives 0 to frames with forces."""
    if atoms.calc is not None:
        results = {name: value for name, value in atoms.calc.results.items() if name != "energy"}
        atoms.calc = SinglePointCalculator(atoms, **results)


def _require_elements(atoms: Atoms, where: str) -> None:
    """Refuse the `C` that LAMMPS writes for all types where dump_modify named no elements."""
    types = atoms.arrays.get("type")
    if types is not None and (atoms.numbers == CARBON).all() and len(np.unique(types)) > 1:
        raise BadInput(
            f"{where}: atoms of {len(np.unique(types))} types are all called C, which LAMMPS does where "
            f"`dump_modify … element` was left out: {HOW}"
        )


def _correct_elements(atoms: Atoms, path: str) -> None:
    """Elements of a data file by type labels or the comments of its masses, else by masses of elements.

    Raises:
        BadInput: a type without a name that is an element, and without such a mass.
    """
    masses, names = _types(path)
    types = np.asarray(atoms.arrays["type"])
    own = atoms.get_masses()
    for number in np.unique(types).tolist():
        mass, name = masses.get(number), names.get(number, "")
        if name not in (*atomic_numbers, *HYDROGEN) and mass is None:
            raise BadInput(
                f"{path}: type {number} has no mass, and ASE takes types for atomic numbers (1 = H, 2 = He): "
                "write the section Masses, e.g. '1 6.94 # Li'"
            )
        name = "H" if name in HYDROGEN else name
        element = atomic_numbers.get(name) or nearest_element(mass or 0.0)
        if not element:
            raise BadInput(
                f"{path}: no element has the mass of type {number}, {mass:g} u: name the element behind it, "
                f"'{number} {mass:g} # Li'"
            )
        atoms.numbers[types == number] = element
    if masses:
        atoms.set_masses(own)


def nearest_element(mass: float) -> int:
    """The atomic number of the element with this mass (u), 0 if none has it: isotopes are nearer to others.

    >>> nearest_element(6.9), nearest_element(3.016)
    (3, 0)
    """
    element = int(np.argmin(np.abs(atomic_masses[1:] - mass))) + 1
    return element if abs(atomic_masses[element] - mass) < SURE_U else 0


def _types(path: str) -> tuple[dict[int, float], dict[int, str]]:
    """Masses of the types of a data file, and what their labels or the comments of their masses call them."""
    masses: dict[int, float] = {}
    names: dict[int, str] = {}
    section = ""
    with open_with_compression(path, "r") as lines:
        for line in map(str.strip, lines):
            if _SECTION.match(line):
                section = line.partition("#")[0].strip()
            values, _, comment = line.partition("#")
            words = values.split()
            if len(words) != 2 or not words[0].isdigit():
                continue
            if section == "Masses":
                masses[int(words[0])] = float(words[1])
                names.setdefault(int(words[0]), (comment.split() or [""])[0])
            elif section == "Atom Type Labels":
                names[int(words[0])] = words[1]
    return masses, names


def _lacks_elements(path: str) -> bool:
    """Whether the columns of the elements are blank in a pdb file."""
    with open_with_compression(path, "r") as lines:
        atoms = (line for line in lines if line.startswith(("ATOM", "HETATM")))
        return not next(atoms, "").rstrip("\n")[76:78].strip()


def _take_names(atoms: Atoms, where: str) -> None:
    """Elements by the names of atoms and residues.

    Raises:
        BadInput: a name that is that of two elements.
    """
    kinds = list(zip(atoms.arrays["atomtypes"], atoms.arrays["residuenames"]))
    found = {kind: element_of_name(str(kind[0]), str(kind[1])) for kind in dict.fromkeys(kinds)}
    for (name, residue), symbol in found.items():
        if not symbol:
            raise BadInput(
                f"{where}: nobody can tell the element of the atoms '{name}' of '{residue}' by their name: "
                "write the elements (extended xyz, or columns 77 and 78 of a pdb file)"
            )
    atoms.numbers[:] = [atomic_numbers[found[kind]] for kind in kinds]


def element_of_name(name: str, residue: str) -> str:
    """The symbol of an atom by its name in a force field; "" where two are possible, or none is.

    >>> names = (("OW", "SOL"), ("NA", "NA"), ("CA", "ALA"), ("CL1", "LIG"), ("HO", "X"))
    >>> [element_of_name(*pair) for pair in names]
    ['O', 'Na', 'C', '', 'H']
    >>> element_of_name("SOD", "SOD"), element_of_name("CE1", "HSD")
    ('Na', 'C')
    """
    letters, of_residue = (re.sub("[^A-Za-z]", "", text) for text in (name, residue))
    one, two = letters[:1].upper(), letters[:2].capitalize()
    is_ion = letters.upper() == of_residue.upper()
    if (
        two in atomic_numbers
        and len(letters) > 1
        and (letters[1].islower() or is_ion or one not in atomic_numbers)
    ):
        return two
    if is_ion and letters.upper() in IONS_OF_CHARMM:
        return IONS_OF_CHARMM[letters.upper()]
    if two in TWO_LETTERS and of_residue.upper() not in OF_PROTEINS:
        return ""
    return one if one in atomic_numbers else ""


def _require_full(atoms: Atoms, where: str) -> None:
    """Refuse sites that are partly occupied, or by several elements."""
    sites = atoms.info.get("occupancy")
    for kinds in sites.values() if isinstance(sites, Mapping) else ():
        if len(kinds) == 1 and next(iter(kinds.values())) >= FULL:
            continue
        listed = ", ".join(f"{share:g} {symbol}" for symbol, share in kinds.items())
        raise BadInput(
            f"{where}: a site holds {listed}: such a crystal is disordered, and ASE fills every site with "
            "one atom (more atoms than there are, another charge): choose an ordered arrangement, e.g. by "
            "pymatgen's OrderDisorderedStructureTransformation, and give that"
        )
