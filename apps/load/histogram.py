"""Latencies: counts by value, exact to one part in 128, as HdrHistogram keeps them (two significant digits)."""

from __future__ import annotations

from typing import Any

import numpy as np

from mpserve.dataplane.jit import compiled
from mpserve.dataplane.memory import allocate, native64, set_native64

SUB_BITS = 8
SUB = 1 << SUB_BITS  # counts of the values below, one each; then SUB / 2 for each doubling
BUCKETS = SUB + 30 * SUB // 2  # up to about 2**38 ns, over four minutes


@compiled
def note(histogram, value):
    """Count a value (ns). Below 0 is 0, and what is too large is the largest."""
    shift = 0
    rest = max(value, 0)
    while rest >= SUB << 8:
        rest >>= 8
        shift += 8
    while rest >= SUB:
        rest >>= 1
        shift += 1
    at = histogram + 8 * min(rest + shift * (SUB // 2), BUCKETS - 1)
    set_native64(at, native64(at) + 1)


def middle(bucket: int) -> float:
    """The value (ns) in the middle of a bucket."""
    if bucket < SUB:
        return float(bucket)
    shift, rest = divmod(bucket - SUB // 2, SUB // 2)
    return ((rest + SUB // 2) + 0.5) * (1 << shift)


class Histogram:
    """The counts of one measurement."""

    def __init__(self, counts: np.ndarray | None = None) -> None:
        self.counts: Any = allocate(np.int64, BUCKETS) if counts is None else counts

    @property
    def address(self) -> int:
        return int(self.counts.ctypes.data)

    @property
    def total(self) -> int:
        return int(self.counts.sum())

    def clear(self) -> None:
        self.counts[:] = 0

    def percentile(self, percent: float) -> float:
        """The latency (us) that so many percent of the requests don't exceed; NaN of none."""
        sums = np.cumsum(self.counts)
        if sums[-1] == 0:
            return float("nan")
        return middle(int(np.searchsorted(sums, max(sums[-1] * percent / 100, 1)))) / 1000

    def pairs(self) -> list[tuple[float, int]]:
        """(us, count) of each bucket that has any."""
        return [(middle(int(at)) / 1000, int(self.counts[at])) for at in np.flatnonzero(self.counts)]
