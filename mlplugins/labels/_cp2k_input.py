"""Input files of CP2K: sections and keywords as text, of which some are replaced and all others stay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ase import Atoms

from mlplugins.errors import BadInput
from mlplugins.structures import state


@dataclass
class InputSection:
    """A section of the input: its head after `&`, and what it holds in order."""

    head: str
    items: list[str | InputSection] = field(default_factory=list)

    @property
    def name(self) -> str:
        """In capitals."""
        return self.head.split()[0].upper()

    def sections(self, name: str) -> list[InputSection]:
        """Its sections of this name."""
        return [item for item in self.items if isinstance(item, InputSection) and item.name == name]

    def section(self, path: Sequence[str]) -> InputSection:
        """The section at `path` below, made where there is none."""
        if not path:
            return self
        found = self.sections(path[0].upper())
        if not found:
            found = [InputSection(path[0].upper())]
            self.items.append(found[0])
        return found[0].section(path[1:])

    def drop(self, name: str) -> None:
        """Remove the sections and keywords of this name."""
        self.items = [item for item in self.items if _name(item) != name]

    def set(self, path: str, value: object) -> None:
        """Give a keyword, `SECTION/SECTION/KEYWORD`, a value."""
        *sections, keyword = path.upper().split("/")
        section = self.section(sections)
        section.drop(keyword)
        section.items.append(f"{keyword} {value}")

    def lines(self, depth: int = 0) -> Iterator[str]:
        """As text."""
        for item in self.items:
            if isinstance(item, str):
                yield "  " * depth + item
            else:
                yield "  " * depth + f"&{item.head}"
                yield from item.lines(depth + 1)
                yield "  " * depth + f"&END {item.name}"


def _name(item: str | InputSection) -> str:
    return item.name if isinstance(item, InputSection) else item.split()[0].upper()


def parse(text: str, where: str) -> InputSection:
    """The sections of an input; comments go, preprocessor lines (`@SET`, …) stay.

    Raises:
        BadInput: a section that is not closed, or an end without a section.

    >>> "\\n".join(parse("&GLOBAL ! all\\n RUN_TYPE MD\\n&END", "h2.inp").lines())
    '&GLOBAL\\n  RUN_TYPE MD\\n&END GLOBAL'
    """
    stack = [InputSection("INPUT")]
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.partition("!")[0].partition("#")[0].strip()
        if not line:
            continue
        if not line.startswith("&"):
            stack[-1].items.append(line)
        elif line[1:4].upper() == "END" and line[4:5].strip() == "":
            named = line[4:].split()
            if len(stack) == 1 or (named and named[0].upper() != stack[-1].name):
                raise BadInput(f"{where}, line {number}: '{line}' ends {_inside(stack)}")
            stack.pop()
        elif line[1:].strip():
            section = InputSection(line[1:].strip())
            stack[-1].items.append(section)
            stack.append(section)
    if len(stack) > 1:
        raise BadInput(f"{where}: '&{stack[-1].head}' is not closed by &END")
    return stack[0]


def _inside(stack: Sequence[InputSection]) -> str:
    return f"no section: '&{stack[-1].head}' is open" if len(stack) > 1 else "no section: none is open"


def single_point(text: str, where: str, atoms: Atoms, changes: Mapping[str, object]) -> str:
    """The input of a single point of `atoms`, by the settings of a user's input.

    Args:
        text: the user's input.
        where: its name, for messages.
        atoms: in their order; a charge or spin multiplicity in `info` is set, too.
        changes: keywords with other values, by `SECTION/…/KEYWORD`.

    Raises:
        BadInput: not one section FORCE_EVAL; atoms without a cell and an input without one.
    """
    root = parse(text, where)
    if len(root.sections("FORCE_EVAL")) != 1:
        raise BadInput(f"{where}: expected one section &FORCE_EVAL, got {len(root.sections('FORCE_EVAL'))}")
    root.set("GLOBAL/RUN_TYPE", "ENERGY_FORCE")
    root.set("GLOBAL/PROJECT", "label")
    root.drop("MOTION")
    evaluation = root.section(["FORCE_EVAL"])
    evaluation.set("STRESS_TENSOR", "ANALYTICAL" if atoms.pbc.all() else "NONE")
    prints = evaluation.section(["PRINT"])
    for name in ("FORCES", "STRESS_TENSOR"):
        prints.drop(name)
        prints.items.append(InputSection(f"{name} ON", ["NDIGITS 12"] if name == "FORCES" else []))
    subsys = evaluation.section(["SUBSYS"])
    subsys.drop("TOPOLOGY")
    if atoms.cell.rank == 3:
        subsys.drop("CELL")
        vectors = [f"{axis} {_row(vector)}" for axis, vector in zip("ABC", atoms.cell.array)]
        periodic = "".join(axis for axis, is_ in zip("XYZ", atoms.pbc) if is_) or "NONE"
        subsys.items.append(InputSection("CELL", [*vectors, f"PERIODIC {periodic}"]))
    elif not subsys.sections("CELL"):
        raise BadInput(f"{where}: CP2K needs a cell, which neither the structure nor this input has")
    subsys.drop("COORD")
    rows = [f"{symbol} {_row(place)}" for symbol, place in zip(atoms.symbols, atoms.positions)]
    subsys.items.append(InputSection("COORD", list(rows)))
    for keyword, name in (("CHARGE", state.CHARGE), ("MULTIPLICITY", state.SPIN)):
        electrons = state.stated(atoms.info, name)
        if electrons is not None:
            if electrons != round(electrons):
                raise BadInput(f"{where}: {name} {electrons:g}; CP2K takes whole numbers")
            root.set(f"FORCE_EVAL/DFT/{keyword}", round(electrons))
    for path, value in changes.items():
        root.set(path, value)
    return "\n".join(root.lines()) + "\n"


def _row(vector: Sequence[float]) -> str:
    return " ".join(f"{value:.10f}" for value in vector)
