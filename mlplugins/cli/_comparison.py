"""`mlplugins check --against`: its options and its table."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mlplugins.cli import _model_file
from mlplugins.cli._common import named
from mlplugins.errors import BadInput

if TYPE_CHECKING:
    from mlplugins.checks.comparison import LabelComparison


def work(args: argparse.Namespace, progress: Callable[[str, int, int], None]) -> LabelComparison:
    """Compare labels with a model, as the command line says."""
    from mlplugins.checks.comparison import CompareOptions, compare

    try:
        limits = {k: float(v) for k, v in named("--tolerance", args.tolerance, "X").items()}
    except ValueError as error:
        raise BadInput(
            f"--tolerance: expected LABEL=X with a number X, got '{' '.join(args.tolerance)}'"
        ) from error
    if len(args.variant) > 1 or "all" in args.variant:
        raise BadInput(
            f"--variant: labels are of one energy: expected one name with --against, got "
            f"'{' '.join(args.variant)}'"
        )
    options = CompareOptions(
        tuple(args.engines),
        tuple(args.ranks or (1,)),
        named("--keys", args.keys),
        limits,
        variant=next(iter(args.variant), None),
    )
    return compare(args.model, args.against, options, args.device, progress)


def show(report: LabelComparison, out: Console) -> None:
    """Largest and RMS differences per quantity and engine, then what explains them."""
    from mlplugins.quantities import QUANTITIES

    table = Table(title=f"{report.model.path.name}, {report.model.dtype}", box=SIMPLE_HEAD, pad_edge=False)
    for column in ("quantity", "engine", "frames", "largest", "RMS", ""):
        right = column in ("frames", "largest", "RMS")
        table.add_column(column, justify="right" if right else "left", no_wrap=column != "engine")
    rows = sorted(report.rows, key=lambda row: [*QUANTITIES].index(row.quantity))
    for row in rows:
        engine = f"{row.engine} ({row.detail})" if row.detail else row.engine
        engine += f" × {row.ranks}" * (row.ranks > 1)
        cells = (str(row.n_structures), f"{row.largest:.2e}", f"{row.rms:.2e}")
        judged = row.tolerance is not None or not row.passed
        table.add_row(f"{row.quantity}, {row.unit}", engine, *cells, verdict(row.passed) if judged else "")
    out.print(table)
    worst = (f"{row.quantity}: largest difference in {row.where}" for row in rows if row.where)
    for text in dict.fromkeys(worst):
        out.print(text, soft_wrap=True, markup=False, highlight=False)
    for text in dict.fromkeys(f"{row.engine}: {row.note}" for row in report.rows if row.note):
        out.print(Text("FAILED", style="red"), text, soft_wrap=True)
    radial = _model_file.radial(report.model.record)
    for text in (
        *([radial] if radial else []),
        *report.explanations,
        *(f"note: {text}" for text in report.notes),
    ):
        out.print(text, soft_wrap=True, markup=False, highlight=False)


def verdict(passed: bool) -> Text:
    """Last cell of a row."""
    return Text("passed", style="green") if passed else Text("FAILED", style="red")
