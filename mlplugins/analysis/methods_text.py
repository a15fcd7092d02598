"""The methods paragraph of a report, with its numbers and citations, ready to paste."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence

from mlplugins import __version__
from mlplugins.analysis.arrhenius import ArrheniusResult
from mlplugins.analysis.diffusion import OLS_LAGS
from mlplugins.analysis.observables.base import found_in, registered
from mlplugins.analysis.result import RunResult

REFERENCES = {
    "tor": "S. von Bülow, J. T. Bullerjahn, G. Hummer, J. Chem. Phys. 153, 021101 (2020), 10.1063/5.0008316; "
    "J. T. Bullerjahn, S. von Bülow, M. Heidari, J. Hénin, G. Hummer, J. Chem. Theory Comput. 19, 3406 "
    "(2023), "
    "10.1021/acs.jctc.3c00308.",
    "fft": "V. Calandrini, E. Pellegrini, P. Calligari, K. Hinsen, G. R. Kneller, Collection SFN 12, 201 "
    "(2011), "
    "10.1051/sfn/201112010.",
    "gls": "X. Michalet, A. J. Berglund, Phys. Rev. E 85, 061916 (2012), 10.1103/PhysRevE.85.061916.",
    "bayes": "A. R. McCluskey, S. W. Coles, B. J. Morgan, J. Chem. Theory Comput. 21, 79 (2025), "
    "10.1021/acs.jctc.4c01249.",
    "cluster": "A. C. Cameron, J. B. Gelbach, D. L. Miller, J. Bus. Econ. Stat. 29, 238 (2011), "
    "10.1198/jbes.2010.07136.",
    "hops": "X. He, Y. Zhu, A. Epstein, Y. Mo, npj Comput. Mater. 4, 18 (2018), 10.1038/s41524-018-0074-y.",
}


class _Citations:
    """Numbers references in the order in which they are cited."""

    def __init__(self, references: Mapping[str, str]) -> None:
        self.references = references
        self.names: list[str] = []

    def __call__(self, *names: str) -> str:
        for name in names:
            if name not in self.names:
                self.names.append(name)
        return "[" + ", ".join(str(self.names.index(name) + 1) for name in names) + "]"

    def listed(self) -> str:
        return "".join(f"<li>{html.escape(self.references[name])}</li>" for name in self.names)


def methods(runs: Sequence[RunResult], law: ArrheniusResult | None, drift: str) -> str:
    """Paragraph and numbered references, HTML; `drift` names the reference that was held fixed, or `none`."""
    observables = registered()
    cite = _Citations(
        dict(item for each in observables.values() for item in each.references.items()) | REFERENCES
    )

    def of(paragraph: str) -> Iterator[str]:
        for name, each in observables.items():
            found = found_in(name, runs)
            if found and each.paragraph == paragraph:
                yield each.sentence(found, cite)

    sentences = [
        *_motion(runs, drift, cite),
        *_fit(runs, cite),
        *of("fit"),
        _conductivity(cite),
        *of("conductivity"),
        *_law(law),
    ]
    text = " ".join(sentence for sentence in sentences if sentence)
    return f"<p>{text}</p><ol>{cite.listed()}</ol>"


def _motion(runs: Sequence[RunResult], drift: str, cite: _Citations) -> list[str]:
    lengths = sorted({round(run.length_ps) for run in runs})
    span = f"{lengths[0]}" if len(lengths) == 1 else f"{lengths[0]}–{lengths[-1]}"
    held = "no drift was removed" if drift == "none" else f"the drift of the {html.escape(drift)} was removed"
    temperatures = ", ".join(f"{run.temperature_k:g}" for run in runs)
    return [
        f"Trajectories of {runs[0].n_atoms} atoms with {runs[0].n_ions} {html.escape(runs[0].species)} at "
        f"{temperatures} K ({span} ps per temperature) were analysed with mlplugins "
        f"{html.escape(__version__)}.",
        "Displacements are sums over the steps between frames of the change of the fractional coordinates "
        "times the mean of the two cells: the motion relative to the homogeneous strain of the cell (in a "
        f"constant cell this is TOR unwrapping {cite('tor')}); {held}. Mean squared displacements are "
        f"averages over all time origins and ions, by fast Fourier transform {cite('fft')}.",
    ]


def _fit(runs: Sequence[RunResult], cite: _Citations) -> list[str]:
    low = min(run.diffusion.window.low_ps for run in runs)
    high = max(run.diffusion.window.high_ps for run in runs)
    fixed = all(run.diffusion.window.fixed for run in runs)
    ordinary = runs[0].diffusion.estimator == "ols"
    model = f"the covariance of overlapping displacements {cite('gls', 'bayes')}"
    if fixed:
        how = (
            f"ordinary least squares on at most {OLS_LAGS} even lags"
            if ordinary
            else f"generalised least squares with {model} of Brownian motion with local noise"
        )
        texts = [
            "D* is the slope of MSD = c + 6 D* t inside the fit window (given by the user; "
            f"{low:.3g}–{high:.3g} ps), by {how}."
        ]
    else:
        texts = [
            "D* is the long-time slope of MSD = c + 6 D* t + Σ u<sub>k</sub> (1 − exp(−t/τ<sub>k</sub>)) "
            f"over all lags up to half of the run, by generalised least squares with {model} of a Gaussian "
            "process with the fitted MSD; the changes of slope between octaves of lags limit the "
            "size of the decays, and what these may hide is part of the error. The fit window "
            f"({low:.3g}–{high:.3g} ps over all temperatures) is the earliest one whose ordinary slope "
            "agrees with it and whose points lie on the line."
        ]
        if ordinary:
            texts.append("The values are the ordinary slopes of the windows.")
    texts.append(
        "Its error combines the scatter between blocks of time and between ions (V = V<sub>time</sub> + "
        f"V<sub>ion</sub> − V<sub>both</sub> {cite('cluster')}) and becomes a 95 % interval of ln D with "
        "Student's t."
    )
    if any(run.diffusion.curved for run in runs):
        texts.append(
            "Where the MSD is curved inside the window, the intervals of D*, D<sub>σ</sub> and H include the "
            "ordinary and the generalised fit; where its slope changes after a third of the run or falls to "
            "its end, they include that slope and those beside a decay comparable with the run as well."
        )
    return texts


def _conductivity(cite: _Citations) -> str:
    return (
        "σ<sub>tracer</sub> = N z² e² D*/(V k T) (Nernst–Einstein); σ<sub>collective</sub> is the same "
        "with D<sub>σ</sub> from the MSD of the collective displacement Σ r/√N; the Haven ratio is "
        "σ<sub>tracer</sub>/σ<sub>collective</sub>. "
        f"Trajectories with few hops are flagged {cite('hops')}."
    )


def _law(law: ArrheniusResult | None) -> list[str]:
    if law is None:
        return []
    texts = [
        "The Arrhenius line is a weighted fit of ln D against 1/kT; D and σ at 300 K are given with the "
        "prediction band (Student's t with n − 2 degrees of freedom, or the known errors, whichever is "
        "wider); σ(300 K) is the Nernst–Einstein value."
    ]
    if law.regimes is not None or law.vft is not None:
        texts.append(
            "A broken line and the Vogel–Fulcher–Tammann law were compared with the single line by the "
            "decrease of χ² (χ² or F test; their intervals at 300 K are confidence intervals of the law, "
            "without the scatter of the points; probabilities of the single line: "
            + ", ".join(f"{found.probability:.2g}" for found in (law.regimes, law.vft) if found)
            + ")."
        )
    return texts
