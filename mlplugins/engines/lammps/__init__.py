"""LAMMPS: data files, decks, runs of the stock `lmp` with `pair_style mlplugins`, and reading its output."""

from mlplugins.engines.lammps.data import Box, restricted_box, type_order, write_data
from mlplugins.engines.lammps.deck import DATA, DECK, deck_head, quoted
from mlplugins.engines.lammps.output import read_dump, read_log, restart_is_readable
from mlplugins.engines.lammps.program import LOG, Finished, command, require, run
from mlplugins.engines.lammps.single_point import (
    NKTV2P_METAL,
    evaluate,
    evaluate_all,
    run_structure,
)

__all__ = [
    "DATA",
    "DECK",
    "LOG",
    "NKTV2P_METAL",
    "Box",
    "Finished",
    "command",
    "deck_head",
    "evaluate",
    "evaluate_all",
    "quoted",
    "read_dump",
    "read_log",
    "require",
    "restart_is_readable",
    "restricted_box",
    "run",
    "run_structure",
    "type_order",
    "write_data",
]
