"""Figures of several rounds: the median with the lowest and the highest, three significant digits each."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass


def number(value: float) -> str:
    """Three significant digits, without an exponent; `-` for what there is none of."""
    if math.isnan(value):
        return "-"
    decimals = 0 if value >= 100 else 1 if value >= 10 else 2
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if decimals else text


@dataclass(frozen=True)
class Spread:
    """The median of the rounds, with the lowest and the highest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        found = list(values)
        return cls(statistics.median(found), min(found), max(found))

    def text(self, scale: float = 1.0) -> str:
        """`median (lowest-highest)`."""
        median, low, high = (number(value / scale) for value in (self.median, self.low, self.high))
        return f"{median} ({low}-{high})" if low != high else median
