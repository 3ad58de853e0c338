"""Timers of a worker's Python side: a heap of calls to make later."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable
from typing import Any

MOST_TIMEOUT_US = 1 << 50  # 35 years; no sum of it and a clock wraps
_MOST_SECONDS = MOST_TIMEOUT_US / 1e6


def seconds_from_now(seconds: float) -> float:
    """Any number of seconds as one to reckon with: 0 to 35 years. Raises ValueError for what is no number."""
    if seconds != seconds:
        raise ValueError("nan seconds: give a number")
    return min(max(seconds, 0.0), _MOST_SECONDS)


def timeout_us(seconds: float) -> int:
    """A timeout in microseconds, at least one. Raises ValueError for 0, what is less, and what is no number."""
    if not seconds > 0:
        raise ValueError(f"a timeout of {seconds} s: give more than 0, or None for none")
    return max(int(min(seconds, _MOST_SECONDS) * 1e6), 1)


class Timer:
    """A call to come; `cancel` takes it back."""

    __slots__ = ("arguments", "cancelled", "function", "when")

    def __init__(self, when: float, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self.when, self.function, self.arguments, self.cancelled = when, function, arguments, False

    def cancel(self) -> None:
        self.cancelled = True


class Timers:
    """Calls by the time (seconds) they are due, those of one time in the order they were asked for."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._count = itertools.count()

    def add(self, when: float, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Timer:
        timer = Timer(when, function, arguments)
        heapq.heappush(self._heap, (when, next(self._count), timer))
        return timer

    @property
    def next_at(self) -> float:
        """When the first is due; infinity if there is none."""
        while self._heap and self._heap[0][2].cancelled:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else math.inf

    def due(self, now: float) -> list[Timer]:
        """Take out those whose time has come."""
        ready = []
        while self._heap and self._heap[0][0] <= now:
            timer = heapq.heappop(self._heap)[2]
            if not timer.cancelled:
                ready.append(timer)
        return ready
