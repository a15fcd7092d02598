"""What `MLCalculator` remembers: the structure of its results, and what it was made of."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from mlplugins.errors import BadInput
from mlplugins.model_file.archive import fingerprint
from mlplugins.structures import state as states


class Evaluated(NamedTuple):
    """What a model depends on, as bytes: copied and compared in a tenth of the time of an `Atoms`."""

    positions: bytes
    numbers: bytes
    cell: bytes
    pbc: bytes
    info: dict[str, Any]

    @classmethod
    def of(cls, atoms: Atoms) -> Evaluated:
        arrays = atoms.positions, atoms.numbers, atoms.cell.array, atoms.pbc
        positions, numbers, cell, pbc = (array.tobytes() for array in arrays)
        info = states.entries(atoms.info)
        info = {name: x.tolist() if isinstance(x, np.ndarray) else x for name, x in info.items()}
        return cls(positions, numbers, cell, pbc, info)

    def atoms(self) -> Atoms:
        return Atoms(
            np.frombuffer(self.numbers, dtype=int),
            np.frombuffer(self.positions).reshape(-1, 3),
            cell=np.frombuffer(self.cell).reshape(3, 3),
            pbc=np.frombuffer(self.pbc, dtype=bool),
            info=self.info,
        )


class Made(NamedTuple):
    """What a calculator was made of: its parameters, and the fingerprints of its model files."""

    parameters: dict[str, Any]
    files: tuple[str, ...]

    @classmethod
    def of(cls, calculator: Calculator) -> Made:
        return cls(dict(calculator.parameters), tuple(map(fingerprint, calculator.parameters["model"])))

    def require_parameters(self, calculator: Calculator) -> None:
        """Refuse parameters that were edited: the model would stay what it is, and a copy be another.

        Raises:
            BadInput: naming them.
        """
        if calculator.parameters == self.parameters:
            return
        names = {*calculator.parameters, *self.parameters}
        edited = [n for n in sorted(names) if calculator.parameters.get(n) != self.parameters.get(n)]
        raise BadInput(
            f"{calculator!r}: its parameters were edited ({', '.join(edited)}), which changes nothing: make "
            "a new MLCalculator"
        )

    def require_files(self, copy: Calculator) -> None:
        """Refuse a copy whose model files are others than those that were loaded before.

        Raises:
            BadInput: a file has changed.
        """
        now = tuple(map(fingerprint, copy.parameters["model"]))
        for path, before, after in zip(copy.parameters["model"], self.files, now):
            if before != after:
                raise BadInput(
                    f"'{path}' has changed since the calculator that is copied loaded it: the copy would "
                    "be of another model: make a new MLCalculator"
                )
