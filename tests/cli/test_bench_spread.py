"""Figures of several rounds as text."""

import math

import pytest

from mpserve.cli.bench.spread import Spread, number


@pytest.mark.parametrize(
    ("value", "text"), [(123456.0, "123456"), (99.94, "99.9"), (1.5, "1.5"), (0.25, "0.25"), (30.0, "30")]
)
def test_numbers_have_no_exponent(value: float, text: str) -> None:
    assert number(value) == text


def test_what_there_is_none_of_is_a_dash() -> None:
    assert number(math.nan) == "-"


def test_a_spread_is_the_median_with_lowest_and_highest() -> None:
    assert Spread.of([3000.0, 1000.0, 2000.0]).text(1000) == "2 (1-3)"
    assert Spread.of([7.0, 7.0]).text() == "7"
