"""How often the 95 % intervals of D*, D_σ and H hold the truth: many synthetic walks with known D.

    python benchmarks/coverage.py --walks 400                 every kind of `motions.py`: 6 CPU-min
    python benchmarks/coverage.py --only barriers cages       the kinds whose names hold one of these words
    python benchmarks/coverage.py --save now.json             also keep the numbers (kinds that the file holds
                                                              are not run again), and, after a change,
    python benchmarks/coverage.py --against now.json          both on the same walks
    python benchmarks/coverage.py --into benchmarks/RESULTS.md
    python benchmarks/coverage.py --bayes --kinisi            also the regression (and kinisi's sampler, slow)

Walks are kept in a folder (`--cache`) and read from there the next time. Printed for each quantity: share of
intervals that hold the truth, of all and of those that are determined, share of walks without a determined
value, median of the value over the truth (of all walks that have one), median of high over low (of those that
are determined); how often a slow decay was seen. With 400 walks a share near 95 % has a standard error of
1 %, the median of values whose intervals span a factor of two one of 1 %.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlplugins.analysis import curvature, diffusion, late
from mlplugins.analysis.bayes import kinisi_posterior, msd_points, posterior, window_points
from mlplugins.analysis.blocks import Paths, collective_paths
from mlplugins.analysis.value import Value

sys.path.insert(0, str(Path(__file__).parent))
from motions import FRAME_PS, KINDS, Kind

Floats = NDArray[np.float64]
Rows = dict[str, list[list[float]]]
BATCH = 50
START, END = "<!-- coverage -->", "<!-- end of coverage -->"


def batches(kind: Kind, walks: int, cache: Path) -> Iterator[tuple[NDArray[np.float32], Floats]]:
    """Walks and their D, from the cache where they are there."""
    for number in range(-(-walks // BATCH)):
        text = f"{kind.name}, {kind.frames} {kind.ions} {kind.together}"
        path = cache / f"{text.replace(' ', '_').replace(',', '')}-{number}.npz"
        if not path.exists():
            random = np.random.default_rng([zlib.crc32(text.encode()), number])
            moved, truth = kind.walks(random, BATCH)
            cache.mkdir(parents=True, exist_ok=True)
            np.savez(path, moved=moved, truth=truth)
        stored = np.load(path)
        left = walks - number * BATCH
        yield stored["moved"][:left], stored["truth"][:left]


@lru_cache(maxsize=8)
def _forms(lags: tuple[int, ...], frames: int, blocks: int) -> tuple[Floats, Floats]:
    """A basis of the smooth MSDs, and the covariance of the lags as quadratic forms of its coefficients."""
    x = np.array(lags, dtype=float)
    taus = curvature._taus(x, curvature.SLOWEST * frames)
    lag = np.arange(2.0 * lags[-1] + 2)
    decays = 1 - np.exp(-lag[:, None] / taus)
    columns = np.column_stack([lag, lag > 0, decays, lag[:, None] - taus * decays])
    vectors, sizes, _ = np.linalg.svd(columns / np.linalg.norm(columns, axis=0), full_matrices=False)
    basis = vectors[:, sizes > 1e-8 * sizes[0]]
    count, terms = len(lags), basis.shape[1]
    forms = np.empty((count, count, terms, terms))
    for a, m in enumerate(lags):
        for b, n in enumerate(lags[a:], a):
            shift = np.arange(-n, m + 1)
            pair = basis[abs(shift + n)] + basis[abs(m - shift)] - basis[abs(shift + n - m)]
            pair -= basis[abs(shift)]
            own, other = (frames - m) / blocks, (frames - n) / blocks
            ahead = (other - own) * (blocks - 1) / 2
            pairs = np.minimum(own, ahead + other - shift) - np.maximum(0, ahead - shift)
            form = (pair * np.maximum(pairs, 0)[:, None]).T @ pair * 1.5 / (own * other)
            forms[a, b] = forms[b, a] = form
    return basis, forms


def remembering(lags: NDArray[np.intp], msd: Floats, frames: int, blocks: int = 1) -> Floats:
    """`curvature.process_covariance` in a hundredth of the time for walks that are alike."""
    basis, forms = _forms(tuple(int(lag) for lag in lags), frames, blocks)
    part = basis.T @ curvature._smooth(lags.astype(float), msd, frames)
    return curvature._positive(np.einsum("k,abkl,l->ab", part, forms, part, optimize=True))


def speed_up() -> None:
    """Put `remembering` in the place of what it is compared with here."""
    lags = np.unique(np.geomspace(5, 255, 20).round().astype(np.intp))
    msd = 2 + 0.1 * lags + 3 * (1 - np.exp(-lags / 40.0))
    exact = curvature.process_covariance(lags, msd, 300, 2)
    assert np.allclose(remembering(lags, msd, 300, 2), exact, rtol=1e-5), "not the same covariance"
    for module in (curvature, diffusion, late):
        module.process_covariance = remembering  # type: ignore[attr-defined]


def coverage(kind: Kind, walks: int, cache: Path, bayes: bool, kinisi: bool) -> Rows:
    """Rows of (low, value, high, truth, determined) by quantity; `slow` alone."""
    rows: Rows = {}
    for moved, truths in batches(kind, walks, cache):
        for path, truth in zip(moved, truths):
            paths = Paths([path.astype(float)], [[(0, len(path))]], 1000 * FRAME_PS)
            result = diffusion.diffusion(paths)
            found: dict[str, tuple[Value | None, float]] = {
                "D*": (result.tracer, truth),
                "D_σ": (result.collective, kind.together * truth),
                "H": (result.haven, 1 / kind.together),
            }
            if bayes or kinisi:
                points = msd_points(paths, window_points(paths, result.window))
                charge = collective_paths(paths)
                both = msd_points(charge, window_points(paths, result.window))
                for name, each, factor in (("D*", points, 1), ("D_σ", both, kind.together)):
                    found[f"{name} Bayes"] = (posterior(each, paths.interval_fs), factor * truth)
                    if kinisi:
                        found[f"{name} kinisi"] = (kinisi_posterior(each, paths.interval_fs), factor * truth)
            for name, (value, exact) in found.items():
                if value is not None:
                    sure = float(value.determined and value.low > 0)
                    row = [value.low, value.value, value.high, float(exact), sure]
                    rows.setdefault(name, []).append(row)
            rows.setdefault("slow", []).append([float(result.slow)])
    return rows


def summary(row: Sequence[Sequence[float]], walks: int) -> str:
    """Held, of the determined, undetermined (per cent of all), median, width."""
    low, value, high, exact, sure = np.array(row).T
    held, on = (low < exact) & (exact < high), sure > 0
    width = f"{np.median(high[on] / low[on]):.2f}" if on.any() else "–"
    among = f"{100 * held[on].mean():.1f}" if on.any() else "–"
    lost = 100 * (1 - on.sum() / walks)
    return f"{100 * held.mean():.1f} | {among} | {lost:.1f} | {np.median(value / exact):.3f} | {width}"


def table(found: dict[str, Rows], before: dict[str, Rows]) -> str:
    """Markdown: a row for each kind, and one before it for an earlier estimator."""
    names = [name for name in next(iter(found.values())) if name != "slow"]
    heads = [f"{name} held | of determined | undetermined, % | median/truth | high/low" for name in names]
    lines = [f"| walks | | {' | '.join(heads)} | slow decay seen, % |", "|---" * (3 + 5 * len(names)) + "|"]
    for kind, rows in found.items():
        for label, each in (("before", before.get(kind)), ("now", rows)):
            if each is None:
                continue
            walks = len(each["slow"])
            parts = [summary(each[name], walks) for name in names if name in each]
            slow = 100 * np.mean(each["slow"])
            lines.append(f"| {kind} | {label} ({walks}) | {' | '.join(parts)} | {slow:.1f} |")
    return "\n".join(lines)


def write(path: Path, text: str) -> None:
    """Exchange what is between the two marks."""
    old = path.read_text(encoding="utf-8")
    first, _, rest = old.partition(START)
    _, _, last = rest.partition(END)
    path.write_text(f"{first}{START}\n{text}\n{END}{last}", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--walks", type=int, default=400)
    parser.add_argument("--only", nargs="+", default=[""], metavar="WORD")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "mlplugins-walks")
    parser.add_argument("--save", type=Path, metavar="FILE.json")
    parser.add_argument("--against", type=Path, metavar="FILE.json")
    parser.add_argument("--into", type=Path, metavar="FILE.md")
    parser.add_argument("--bayes", action="store_true")
    parser.add_argument("--kinisi", action="store_true")
    arguments = parser.parse_args()
    chosen = [kind for kind in KINDS if any(word in kind.name for word in arguments.only)]
    before: dict[str, Any] = json.loads(arguments.against.read_text()) if arguments.against else {}
    done = arguments.save and arguments.save.exists()
    found: dict[str, Rows] = json.loads(arguments.save.read_text()) if done else {}
    speed_up()
    for kind in chosen:
        start = time.process_time()
        if kind.name not in found:
            options = arguments.bayes, arguments.kinisi
            found[kind.name] = coverage(kind, arguments.walks, arguments.cache, *options)
            if arguments.save:
                arguments.save.write_text(json.dumps(found))
        rows = table({kind.name: found[kind.name]}, before).splitlines()
        print("\n".join(rows if kind is chosen[0] else rows[2:]), flush=True)
        print(f"  {time.process_time() - start:.0f} CPU-s", file=sys.stderr, flush=True)
    found = {kind.name: found[kind.name] for kind in chosen}
    if arguments.into:
        write(arguments.into, table(found, before))
    return 0


if __name__ == "__main__":
    sys.exit(main())
