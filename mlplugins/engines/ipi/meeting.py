"""The structures that the i-PI driver meets: which are new to it, whether they fit the template."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mlplugins.engines.ipi import template as templates
from mlplugins.engines.ipi.options import Options
from mlplugins.engines.ipi.template import Template
from mlplugins.errors import RunFailed
from mlplugins.model_file.structure import Array

STEP = 1.0
"""Displacement from one evaluation to the next (Å, along an axis) that no integrator makes: beads and systems
that are served in turn are told apart by it."""
MOVED = 4
"""Atoms that may have taken one another's places: `<atomswap>` tries and rejects exchanges of two."""
MOST, MOST_BYTES = 256, 64e6
"""The last structures, which are remembered: no more, and of no more memory (but two)."""


class Meeting:
    """Compares the first structure of every system and bead with the template.

    i-PI sends positions and a cell, not which `<system>` they are of. A structure that no integrator has made
    of one of those before is another system's (or another bead's) first.

    Args:
        template: the template.
        options: of the driver.
        reach: distance beyond which atoms do not feel each other, Å.
        say: called with what is to be known about new structures.
    """

    def __init__(
        self, template: Template, options: Options, reach: float, say: Callable[[str], None]
    ) -> None:
        self._template, self._options, self._reach, self._say = template, options, reach, say
        most = int(MOST_BYTES / max(template.positions.nbytes, 1))
        self._last: deque[Array] = deque(maxlen=min(max(most, 2), MOST))  # the latest first
        self._turn = 0
        self._told = False
        self.pbc: NDArray[np.bool_] | None = None

    def look(self, cell: Array, positions: Array) -> tuple[NDArray[np.bool_], bool]:
        """The periodic directions, and whether a structure continues none of those before: a new one is
        compared with the template.

        Raises:
            BadInput: another order of the atoms, a cell that contradicts the template, mixed-up units.
            RunFailed: the first positions or cell are not finite.
        """
        is_new = not self._continues(positions)
        if self.pbc is None:
            self.pbc = self._first(cell, positions)
        elif is_new and not (np.isfinite(positions).all() and np.isfinite(cell).all()):
            return self.pbc, False  # its evaluation will fail
        elif is_new:
            self._further(cell, positions)
        self._last.appendleft(positions)
        return self.pbc, is_new

    def _continues(self, positions: Array) -> bool:
        """Systems and beads take turns: first the structure as far back as the one before found its own."""
        for back in (self._turn, *range(len(self._last))):
            if back < len(self._last) and _moved_on(positions, self._last[back]):
                self._turn = back
                return True
        return False

    def _first(self, cell: Array, positions: Array) -> NDArray[np.bool_]:
        """Compare the first structure with the template; returns the periodicity."""
        bad = np.flatnonzero(~np.isfinite(positions).all(axis=1))
        if len(bad) or not np.isfinite(cell).all():
            what = f"position of atom {bad[0]}" if len(bad) else "cell"
            raise RunFailed(f"i-PI's first structure: the {what} is not finite: look at its start file")
        match = self._match(cell, positions)
        pbc = templates.periodicity(self._template, self._options.pbc, cell, positions, self._reach)
        images = " (no atom feels an image, as if not periodic)" if pbc.all() else ""
        if not templates.isolated_in(cell, positions, self._reach):
            images = ""
        self._say(f"first structure: {templates.describe(pbc, cell)}{images}; {match}")
        return pbc

    def _further(self, cell: Array, positions: Array) -> None:
        if self._match(cell, positions) == templates.UNLIKE and not self._told:
            self._told = True
            self._say(
                "warning: a structure that continues none of those before (of another <system>?) is not like "
                f"the template '{self._template.path}': its atoms are taken for those of the template, in "
                "that order. Systems of other atoms, or in another order, need a force field and a driver "
                "of their own"
            )

    def _match(self, cell: Array, positions: Array) -> str:
        if self._options.order != "check":
            return "not compared with the template"
        return templates.compare(self._template, cell, positions)


def _moved_on(positions: Array, before: Array) -> bool:
    steps = np.abs(positions - before)
    if steps.max() < STEP:
        return True
    far = ~(steps < STEP).all(axis=1)  # or not finite
    if far.sum() > MOVED:
        return False
    apart = np.abs(positions[far][:, None] - before[far][None]).max(axis=-1)
    return bool((apart.min(axis=1) < templates.SAME).all())
