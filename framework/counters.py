"""What the workers of a server count, where every one of them can read it: rows of int64 words, each with one writer.

The stack's COUNTERS lie in a named segment, a row a worker; what a worker counts beside them lies in the `Group`. Both
outlive a worker: its successor counts on. Readers take no lock, so numbers of one row may be an instant apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mpserve.framework import mailbox
from mpserve.framework.group import COUNTERS, Group

LIVE = mailbox.COUNTERS  # counted in place; the others are put there now and then
OF_WORKER = ("handler_errors", "slow_callbacks", "requests", "bad_requests", "residues_full")
PAIR_OF_LINES = 128  # processors fetch cache lines in pairs: no two rows share one


def row_stride(row_bytes: int) -> int:
    """Bytes from one row of the segment to the next."""
    return -(-row_bytes // PAIR_OF_LINES) * PAIR_OF_LINES


def segment_bytes(row_bytes: int, rows: int) -> int:
    """A segment of one row is that row and nothing else."""
    return row_stride(row_bytes) * (rows - 1) + row_bytes


def read_segment(memory: Any, names: Sequence[str], rows: int) -> list[dict[str, int]]:
    """The rows of a segment by name; one that is shorter still holds zeros."""
    words = memoryview(memory).cast("B").cast("q")
    stride = row_stride(8 * len(names)) // 8
    found = []
    for row in range(rows):
        values = words[row * stride : row * stride + len(names)].tolist()
        found.append(dict(zip(names, values + [0] * (len(names) - len(values)), strict=True)))
    words.release()
    return found


def published_names(over_kernel: bool) -> tuple[str, ...]:
    """What a row in the group holds, in order: over kernel sockets also what the stack's counters would tell."""
    if not over_kernel:
        return LIVE + OF_WORKER
    from mpserve.framework.kernel_channel import Counters

    return LIVE + OF_WORKER + tuple(vars(Counters()))


class Published:
    """One worker's row in the group."""

    def __init__(self, group: Group, over_kernel: bool) -> None:
        self._group, self.names = group, published_names(over_kernel)
        assert len(self.names) <= COUNTERS
        self._words = group.counters_of(group.index)
        self._first = len(LIVE)
        self._last: Mapping[str, int] = {}
        before = self._words[self._first : len(self.names)].tolist()
        self._before = dict(zip(self.names[self._first :], before, strict=True))  # what its predecessors counted

    def total(self, own: Mapping[str, int]) -> dict[str, int]:
        """What this process counted and its predecessors, by name: all of `own`, and what is counted in place."""
        live = dict(zip(LIVE, self._words[: self._first].tolist(), strict=True))
        return live | {name: self._before.get(name, 0) + value for name, value in own.items()}

    def publish(self, own: Mapping[str, int]) -> None:
        """Put there what this process has counted by now."""
        if own == self._last:
            return
        self._last = own
        words = self._words
        for at, name in enumerate(self.names[self._first :], self._first):
            if name in own:
                words[at] = self._before[name] + own[name]

    def close(self) -> None:
        self._words.release()


def read_published(group: Group, names: Sequence[str]) -> list[dict[str, int]]:
    """Every worker's row in the group, by name."""
    return [dict(zip(names, group.counters_of(index).tolist(), strict=False)) for index in range(group.workers)]


def add_up(rows: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """The sum of all workers', by name; `core` is none of it."""
    total: dict[str, int] = {}
    for row in rows:
        for name, value in row.items():
            if name != "core":
                total[name] = total.get(name, 0) + value
    return total
