"""Numbers as reports print them: the interval decides the digits, one power of ten for a table."""

import math
import re

import numpy as np
import pytest

from mlplugins.analysis.numbers import (
    conductivity_unit,
    decimals,
    measured,
    parts,
    rounded,
    significant,
    span,
    unit_of,
)
from mlplugins.analysis.value import UNKNOWN, Value


def value(middle, low, high, **more):
    return Value(middle, low, high, 0.1, **more)


@pytest.mark.parametrize(
    ("uncertainty", "places"),
    [
        (0.0994, 3),
        (0.0995, 2),
        (0.0996, 2),
        (0.994, 2),
        (0.995, 1),
        (9.96, 0),
        (95.0, 0),
        (99.6, -1),
        (1e-9, 10),
    ],
)
def test_two_digits_of_the_uncertainty_after_rounding(uncertainty, places):
    """0.0995 is 0.10: two decimals, not three."""
    assert decimals(uncertainty) == places


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((1.2345, 1.0, 1.5), "1.23 [1.00, 1.50]"),
        ((0.58, 0.37, 0.89), "0.58 [0.37, 0.89]"),
        ((448.0, 290.0, 690.0), "450 [290, 690]"),
        ((1284.0, 1270.0, 1298.0), "1284 [1270, 1298]"),
        ((-0.1, -0.5, 0.3), "−0.10 [−0.50, 0.30]"),
        ((-0.001, -0.5, 0.5), "0.00 [−0.50, 0.50]"),
        ((0.0, 0.0, 0.032), "0 [0, 0.032]"),
        ((1.4, 0.0, 2.6), "1.4 [0, 2.6]"),
        ((19.0, 0.34, 1034.0), "19 [0.34, 1000]"),
        ((2.5, 1.0, 10.0), "2.5 [1.0, 10.0]"),
        ((2.5, 1.0, 10.1), "2.5 [1.0, 10]"),
        ((-19.0, -1034.0, -0.34), "−19 [−1000, −0.34]"),
        ((1.0, 0.0, math.inf), "1.0 [0, ∞]"),
        ((3.0, 3.0, 3.0), "3.0 [3.0, 3.0]"),
        ((math.nan, 0.0, 1.0), "–"),
    ],
)
def test_value_and_interval(numbers, text):
    assert span(value(*numbers)) == text


def test_what_is_not_determined_is_not_printed_as_a_number():
    assert span(None) == "–"
    assert parts(value(0.84, 0.05, 9.0, limit=UNKNOWN)) == ("undetermined", "[0.050, 9.0]")
    assert parts(value(0.84, 1.7e-30, 3.7e33, limit=UNKNOWN)) == ("undetermined", "")
    assert parts(value(0.84, 1.7e-30, 3.7e33)) == ("0.84", "[undetermined]")
    assert parts(value(0.0, 0.0, 2.0, limit=UNKNOWN)) == ("undetermined", "")
    assert measured(None, "mS/cm") == "–"
    assert measured(value(0.0, 0.0, 2.0, limit=UNKNOWN), "mS/cm") == "undetermined"


def test_rounding_never_changes_a_number_by_more_than_its_last_digit():
    """Printed numbers are those of the JSON to two digits of the half-width, whatever their size."""
    random = np.random.default_rng(1)
    for _ in range(500):
        middle = 10.0 ** random.uniform(-3, 5)
        ends = sorted(middle * np.exp(random.normal(size=2) * random.uniform(0.001, 1.0)))
        low, high = min(ends[0], middle), max(ends[1], middle)
        shown = [
            float(text.replace("−", "-")) for text in re.findall(r"[−\d.]+", span(value(middle, low, high)))
        ]
        wide = high > 10 * low
        for printed, true in zip(shown, (middle, low, high)):
            allowed = 0.05 * true if wide else 0.05 * (high - low) / 2
            assert abs(printed - true) <= allowed * (1 + 1e-9) + 1e-12, (middle, low, high)


def test_one_power_of_ten_for_a_column():
    column = [value(5.8e-6, 3.7e-6, 8.9e-6), value(2.75e-5, 1.76e-5, 4.31e-5), None]
    unit = unit_of(column, "cm²/s")
    assert unit.heads("D*") == "D* (10⁻⁵ cm²/s)"
    assert span(column[0], unit) == "0.58 [0.37, 0.89]"
    assert unit_of([None], "eV").text == "eV"
    assert unit_of([value(0.0, 0.0, 0.0)], "eV").text == "eV"
    assert unit_of([value(0.0, 0.0, 3e-8)], "cm²/s").text == "10⁻⁸ cm²/s"
    assert unit_of([value(2e-5, 1e-5, math.inf)], "cm²/s").text == "10⁻⁵ cm²/s"


@pytest.mark.parametrize(
    ("sigma", "text", "siemens"),
    [
        (448.0, "S/cm", 1.0),
        (99.0, "mS/cm", 1e-3),
        (3.1, "mS/cm", 1e-3),
        (0.1, "mS/cm", 1e-3),
        (0.02, "10⁻⁵ S/cm", 1e-5),
        (1e-6, "10⁻⁹ S/cm", 1e-9),
    ],
)
def test_conductivity_in_the_unit_that_reads_well(sigma, text, siemens):
    unit = conductivity_unit([value(sigma, sigma / 2, sigma * 2)])
    assert unit.text == text
    assert sigma * unit.factor * siemens == pytest.approx(sigma * 1e-3)


def test_sentences_have_a_power_of_their_own():
    assert measured(value(1.234e-6, 1e-6, 1.5e-6), "cm²/s") == "1.23 [1.00, 1.50] × 10⁻⁶ cm²/s"
    assert measured(value(448.0, 290.0, 690.0), "mS/cm") == "0.45 [0.29, 0.69] S/cm"


def test_single_numbers():
    assert significant(0.0995) == "0.10"
    assert significant(-1e-7) == "−1.0 × 10⁻⁷"
    assert significant(123456.0) == "120000"
    assert rounded(-0.004, 2) == "0.00"
