"""Runs of a study that are one and the same, and files whose names say another temperature."""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from mlplugins.analysis import twice
from mlplugins.analysis.run import Trajectory
from mlplugins.errors import BadInput

KELVIN = re.compile(
    r"(?<![\dA-Za-z.])(\d{2,4})_?K(?![A-Za-z])|(?<![A-Za-z])(?:T|[Tt]emp(?:erature)?)_?=?(\d{3,4})(?!\d)"
)
"""600K, T600, temp_600. A small t is a time as often: t1000 says no temperature."""
ROUNDED_K = 1.0
"""298.15 K is called 298."""


class Repeats:
    """The runs read so far."""

    def __init__(self) -> None:
        self._files: dict[bytes, Sequence[str]] = {}
        self._marks: list[tuple[twice.Marks, Sequence[str]]] = []

    def new(self, run: Trajectory, names: Sequence[str]) -> Trajectory:
        """The run, if it is none of those before.

        Raises:
            BadInput: the same motion as that of another run (a file named twice, or copied), or frames of it.
        """
        if not run.displacements.any():
            return run
        key = sha256(run.displacements.tobytes()).digest()
        if key in self._files:
            raise BadInput(
                f"runs: {', '.join(names)} holds the same motion as {', '.join(self._files[key])}: "
                "a run counts once, at one temperature; name each file once"
            )
        self._files[key] = names
        if run.marks is None:
            return run
        for marks, others in self._marks:
            if (again := twice.shared(marks, run.marks)) is not None:
                raise BadInput(
                    f"runs: {', '.join(names)} holds {again[2]} frames of {', '.join(others)} (those from "
                    f"{again[0] + 1} on): each frame counts once; leave one of the files out, or cut it"
                )
        self._marks.append((run.marks, names))
        return run


def other_temperature(names: Sequence[str], temperature_k: float) -> str:
    """A warning where the name of a file, or else of its folder, says another temperature; "" otherwise.

    >>> other_temperature(["runs/Li6PS5Cl_600K_a.dump"], 700.0)
    "runs: 'runs/Li6PS5Cl_600K_a.dump' is called after 600 K, its temperature is 700 K: which is right?"
    >>> other_temperature(["600K/md.dump"], 600.0), other_temperature(["md-300-600K.dump"], 300.0)
    ('', '')
    >>> other_temperature(["md_298K.dump"], 298.15), other_temperature(["traj_t1000.xyz"], 600.0)
    ('', '')
    """
    for name in names:
        for part in (Path(name).name, Path(name).parent.name):
            said = {a or b for a, b in KELVIN.findall(part)}
            if any(abs(float(number) - temperature_k) < ROUNDED_K for number in re.findall(r"\d+", part)):
                break
            if len(said) == 1:
                return (
                    f"runs: '{name}' is called after {said.pop()} K, its temperature is {temperature_k:g} K: "
                    "which is right?"
                )
    return ""
