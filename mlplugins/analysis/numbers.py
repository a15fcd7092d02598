"""How reports print numbers: the interval decides the digits of all three, a table has one power of ten.

Half of the interval, to two significant digits, says where value and ends are rounded. Where the ends are
more than a factor of ten apart there is no such place: each number then has two significant digits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Context, Decimal

from mlplugins.analysis.value import UNDETERMINED, Value
from mlplugins.units import MS_CM_PER_S_CM

FACTOR_OF_ENDS = 10.0
"""High over low from which on one place does not fit value and ends."""
NO_POWER = range(-2, 4)
"""Exponents of numbers that are printed without a power of ten."""
DASH = "–"
UNKNOWN = "undetermined"


@dataclass(frozen=True)
class Unit:
    """What numbers are multiplied by before they are printed, and the unit they then have."""

    factor: float = 1.0
    text: str = ""

    def heads(self, name: str) -> str:
        """Head of a column.

        >>> Unit(1e6, "10⁻⁶ cm²/s").heads("D")
        'D (10⁻⁶ cm²/s)'
        """
        return f"{name} ({self.text})" if self.text else name


def unit_of(values: Iterable[Value | None], unit: str) -> Unit:
    """A power of ten for which the numbers of a table are near one; none where they are near it as they are.

    >>> unit_of([Value(2e-6, 1e-6, 4e-6, 0.3), None], "cm²/s").text
    '10⁻⁶ cm²/s'
    >>> unit_of([Value(0.2, 0.1, 0.3, 0.3)], "eV").text
    'eV'
    """
    exponent = _exponent_of(values)
    if exponent in NO_POWER:
        return Unit(1.0, unit)
    return Unit(10.0**-exponent, f"10{raised(exponent)} {unit}")


def conductivity_unit(values: Iterable[Value | None]) -> Unit:
    """mS/cm or S/cm, of conductivities in mS/cm.

    >>> conductivity_unit([Value(448.0, 290.0, 690.0, 0.2)]).text
    'S/cm'
    >>> conductivity_unit([Value(3.1, 2.0, 5.0, 0.2)]).text
    'mS/cm'
    """
    known = list(values)
    exponent = _exponent_of(known)
    if exponent in (-1, 0, 1):
        return Unit(1.0, "mS/cm")
    whole = unit_of((value and value.scaled(1 / MS_CM_PER_S_CM) for value in known), "S/cm")
    return Unit(whole.factor / MS_CM_PER_S_CM, whole.text)


def _exponent_of(values: Iterable[Value | None]) -> int:
    """Of the geometric mean; an interval that holds zero counts by its larger end."""
    sizes = [
        max(abs(value.low), abs(value.high)) if value.low <= 0 <= value.high else abs(value.value)
        for value in values
        if value is not None
    ]
    logs = [math.log10(size) for size in sizes if 0 < size < math.inf]
    return math.floor(sum(logs) / len(logs) + 1e-9) if logs else 0


def parts(value: Value | None, unit: Unit = Unit()) -> tuple[str, str]:  # noqa: B008  (frozen)
    """A value and its interval as they are printed.

    >>> parts(Value(1.234e-6, 1.0e-6, 1.5e-6, 0.1), Unit(1e6))
    ('1.23', '[1.00, 1.50]')
    >>> parts(Value(19.0, 0.34, 1034.0, 1.0))
    ('19', '[0.34, 1000]')
    >>> parts(Value(0.84, 0.05, 9.0, 1.3, limit=30.0))
    ('undetermined', '[0.050, 9.0]')
    >>> parts(Value(0.84, 1.7e-30, 3.7e33, 74.0))
    ('0.84', '[undetermined]')
    """
    if value is None or math.isnan(value.value):
        return DASH, ""
    middle, low, high = (unit.factor * number for number in (value.value, value.low, value.high))
    shown = _interval(middle, low, high)
    ends = f"[{shown[1]}, {shown[2]}]"
    if value.determined:
        return shown[0], ends
    if value.high < UNDETERMINED * value.low:
        return UNKNOWN, ends
    return (UNKNOWN, "") if value.limit < UNDETERMINED else (significant(middle), f"[{UNKNOWN}]")


def _interval(middle: float, low: float, high: float) -> tuple[str, str, str]:
    half = (high - low) / 2
    wide = high > FACTOR_OF_ENDS * low > 0 or low < FACTOR_OF_ENDS * high < 0
    if wide or not 0 < half < math.inf:
        return significant(middle), significant(low), significant(high)
    places = decimals(half)
    return rounded(middle, places), rounded(low, places), rounded(high, places)


def span(value: Value | None, unit: Unit = Unit()) -> str:  # noqa: B008  (frozen)
    """`value [low, high]` in one piece; the unit is not printed.

    >>> span(Value(1.0, 0.5, 2.0, 0.3)), span(None)
    ('1.00 [0.50, 2.00]', '–')
    """
    return " ".join(text for text in parts(value, unit) if text)


def measured(value: Value | None, unit: str) -> str:
    """`value [low, high] unit` with a power of ten of its own where one is needed, for sentences.

    >>> measured(Value(1.234e-6, 1.0e-6, 1.5e-6, 0.1), "cm²/s")
    '1.23 [1.00, 1.50] × 10⁻⁶ cm²/s'
    """
    own = conductivity_unit([value]) if unit == "mS/cm" else unit_of([value], unit)
    times = "× " if own.text.startswith("10") else ""
    text = span(value, own)
    return text if text in (DASH, UNKNOWN) else f"{text} {times}{own.text}".rstrip()


def decimals(uncertainty: float) -> int:
    """Decimal places that show two significant digits of an uncertainty, after it is rounded to them.

    >>> decimals(0.0994), decimals(0.0995), decimals(12.0), decimals(370.0)
    (3, 2, 0, -1)
    """
    return 1 - _exponent(uncertainty, 2)


def significant(number: float, digits: int = 2) -> str:
    """A number with so many significant digits.

    >>> significant(0.0995), significant(1034.0), significant(0.0), significant(-3.7e33)
    ('0.10', '1000', '0', '−3.7 × 10³³')
    """
    if math.isnan(number):
        return DASH
    if math.isinf(number):
        return "∞" if number > 0 else "−∞"
    exponent = _exponent(number, digits)
    if number == 0 or -5 < exponent < 6:
        return rounded(number, digits - 1 - exponent)
    return f"{rounded(number / 10.0**exponent, digits - 1)} × 10{raised(exponent)}"


def as_given(number: float) -> str:
    """A number with the digits that it was given with.

    >>> as_given(2.4), as_given(2.4e-5)
    ('2.4', '2.4 × 10⁻⁵')
    """
    mantissa, power, exponent = f"{number:g}".partition("e")
    return f"{mantissa} × 10{raised(int(exponent))}" if power else mantissa


def rounded(number: float, places: int) -> str:
    """A number to so many decimal places (negative: to tens, hundreds, …); nothing is zero without digits.

    >>> rounded(-0.004, 2), rounded(1034.0, -2), rounded(0.0, 3)
    ('0.00', '1000', '0')
    """
    if number == 0:
        return "0"
    text = f"{_decimal(number).quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP):f}"
    sign = "−" if text.startswith("-") and text.strip("-0.") else ""
    return sign + text.removeprefix("-")


def raised(exponent: int) -> str:
    """
    >>> raised(-12)
    '⁻¹²'
    """
    return str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _exponent(number: float, digits: int) -> int:
    """Of the leading digit after rounding: 0.0995 is 0.10 with two digits."""
    if number == 0 or not math.isfinite(number):
        return 0
    return Context(digits, ROUND_HALF_UP).plus(_decimal(number)).adjusted()


def _decimal(number: float) -> Decimal:
    """Without the noise of binary numbers: 0.995 is rounded up, as on paper."""
    return Decimal(f"{number:.12e}")
