"""Progress of long work, and how a training run ended."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mlplugins.cli import _model_file
from mlplugins.quantities import QUANTITIES


class Display:
    """Progress with the time left; on a terminal as a bar, else one line now and then."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.progress = Progress(
            TextColumn("epoch"),
            MofNCompleteColumn(),
            BarColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.description}", markup=False),
            console=console,
            disable=not console.is_terminal,
        )
        self.task = self.progress.add_task("", total=None)
        self.printed = 0.0
        self.begun: tuple[float, float] | None = None

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def start(self, epoch: int, epochs: int) -> None:
        """Training begins after `epoch` of `epochs` epochs."""
        self.progress.start()  # not before: the MD of `distill` has bars of its own
        self.progress.update(self.task, completed=epoch, total=epochs)

    def epoch(self, row: dict[str, float], epochs: int, best: bool) -> None:
        """Show the errors of an epoch."""
        text = _errors(row) + (" *" if best else "")
        self.progress.update(self.task, completed=row["epoch"], description=text)
        if self.begun is None:
            self.begun = (row["epoch"], row["seconds"])
        if not self.console.is_terminal and (row["seconds"] - self.printed > 10 or row["epoch"] == epochs):
            self.printed = row["seconds"]
            self.console.print(
                f"epoch {row['epoch']:.0f}/{epochs}  {text}  {self._left(row, epochs)}",
                highlight=False,
                soft_wrap=True,
            )

    def note(self, text: str) -> None:
        """Print a remark."""
        self.progress.console.print(f"note: {text}", highlight=False, soft_wrap=True)

    def _left(self, row: dict[str, float], epochs: int) -> str:
        first, since = self.begun or (0.0, 0.0)
        if row["epoch"] <= first:
            return ""
        left = max(0.0, (epochs - row["epoch"]) * (row["seconds"] - since) / (row["epoch"] - first))
        return f"{left:.0f} s left" if left < 120 else f"{left / 60:.0f} min left"


class Bar:
    """A bar for work in equal pieces, on a terminal, gone when it is over; remarks stay.

    Args:
        console: where to.
        what: is being done.
    """

    def __init__(self, console: Console, what: str) -> None:
        self.progress = Progress(transient=True, console=console, disable=not console.is_terminal)
        self.task = self.progress.add_task(what, total=None)

    def __enter__(self) -> Bar:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def start(self, done: int, total: int) -> None:
        """Work begins."""
        self.progress.update(self.task, completed=done, total=total)

    def step(self, done: int, total: int) -> None:
        """A piece is finished."""
        self.progress.update(self.task, completed=done, total=total)

    def note(self, text: str) -> None:
        """Print a remark."""
        self.progress.console.print(f"note: {text}", highlight=False, markup=False, soft_wrap=True)


def _errors(row: dict[str, float]) -> str:
    part = "validation" if "validation_loss" in row else "train"
    shown = []
    for name, quantity in QUANTITIES.items():
        error = row.get(f"{part}_{quantity.column('mae')}")
        if error is not None and not quantity.per_volume:
            shown.append(f"{name} {error:.3g} {quantity.error_unit}")
    return f"{part} MAE: {', '.join(shown)}"


def summary(metrics: dict[str, Any], directory: object) -> str:
    """How the run ended, and where its model is."""
    check = metrics["finite_differences"]
    radial = _model_file.radial(metrics)
    how = "" if "solver" in metrics else f"; best epoch {metrics['best_epoch']} of {metrics['epochs']}"
    return (
        f"{metrics['stopped']}{how}, "
        f"{metrics['n_parameters']} parameters, {metrics['wall_s']:.0f} s (CPU {metrics['cpu_s']:.0f} s)\n"
        f"forces = −dE/dr to {check['max_error_meV_per_A']:.1e} meV/Å by finite differences\n"
        f"{radial + chr(10) if radial else ''}"
        f"{directory}/model.pt is ready for ASE, LAMMPS and i-PI"
    )
