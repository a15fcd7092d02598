"""Charges of ions against those that their elements have in compounds."""

from __future__ import annotations

from mlplugins.analysis.sample import AnalysisSettings

CHARGES = {
    +1: ("Li", "Na", "K", "Rb", "Cs", "Ag"),
    +2: ("Be", "Mg", "Ca", "Sr", "Ba", "Zn", "Cd"),
    +3: ("Al", "Sc", "Y", "La"),
    -1: ("F", "Cl", "Br", "I"),
    -2: ("O", "S", "Se"),
}
"""Of elements that are mobile with one charge only; H, Cu and other metals have several."""

_USUAL = {symbol: charge for charge, symbols in CHARGES.items() for symbol in symbols}


def doubts(species: str, settings: AnalysisSettings) -> list[str]:
    """Warnings about charges that the elements do not have.

    The sign of the mobile species matters only beside other carriers, where currents add up.

    >>> doubts("Mg", AnalysisSettings())
    ['charge of Mg: 1 e, but Mg ions have +2 e: σ goes with its square (charge: 2)']
    >>> doubts("O", AnalysisSettings(charge=2.0)), doubts("Cu", AnalysisSettings())
    ([], [])
    """
    given = {species: settings.charge, **settings.carriers}
    found = []
    for symbol, charge in given.items():
        usual = _USUAL.get(symbol)
        if usual is None or charge == usual or (charge == -usual and not settings.carriers):
            continue
        effect = "its sign decides how currents add up" if charge == -usual else "σ goes with its square"
        remedy = f"charge: {usual}" if symbol == species else f"carriers: {{{symbol}: {usual}}}"
        found.append(
            f"charge of {symbol}: {charge:g} e, but {symbol} ions have {usual:+d} e: {effect} ({remedy})"
        )
    return found
