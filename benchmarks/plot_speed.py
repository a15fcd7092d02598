"""Picture of speed.json (of speed.py): how many times faster than the stock package, by system size.

python benchmarks/plot_speed.py benchmarks/speed.json docs/images/speed.png
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from mlplugins import plotting

TITLES = {
    "mace-medium": "MACE 128x0e+128x1o, ν 3",
    "mace-small": "MACE 128x0e, ν 3",
    "mace-light": "MACE 64x0e+64x1o, ν 3",
    "sevennet-0": "SevenNet-0",
}


def main() -> None:
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    records = [
        row for row in json.loads(source.read_text()) if row.get("dtype") == "float32" and "variant" in row
    ]
    cases = [name for name in TITLES if any(row["case"] == name for row in records)]
    with plotting.style():
        draw(records, cases, target)


def draw(records: list[dict], cases: list[str], target: Path) -> None:
    """A panel for each model, a pair of bars for each size."""
    figure = plotting.canvas(plotting.PAGE, 2.4)
    axes = figure.subplots(1, len(cases), sharey=True, squeeze=False)
    for axis, case in zip(axes[0], cases):
        for shift, variant, color in ((-0.2, "exact", plotting.BLUE), (0.2, "tables", plotting.AMBER)):
            rows = [row for row in records if row["case"] == case and row["variant"] == variant]
            bars = axis.bar(
                [k + shift for k in range(len(rows))], [row["ratio"] for row in rows], 0.38, color=color
            )
            axis.bar_label(bars, fmt="%.0f×", fontsize=6, padding=1)
            bars.set_label(variant)
            axis.set_xticks(range(len(rows)), [row["atoms"] for row in rows])
        axis.set(title=TITLES[case], xlabel="atoms of water")
        axis.axhline(1, color=plotting.INK, linewidth=0.8)
    axes[0, 0].set_ylabel("times faster than stock")
    axes[0, 0].legend()
    plotting.save(figure, target)


if __name__ == "__main__":
    main()
