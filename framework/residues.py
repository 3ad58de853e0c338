"""Buffers for requests that have come in part: a bounded pool, one buffer for each connection that has such a request.

A buffer begins with the codec's columns, so that what it knows of the unfinished request is kept with it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mpserve.dataplane.jit import inner
from mpserve.dataplane.memory import allocate, copy, native64, record_at, set_native64, unregister

NO_RESIDUE = 0  # buffers are numbered from 1, so that a zeroed record has none
POOL_BYTES = 64 << 20  # what all buffers of a core may take together ...
LEAST_BUFFERS = 16  # ... unless that is for fewer than these

POOL = np.dtype(
    [
        (name, "i8")
        for name in (
            "buffers buffer_bytes buffer_count free free_count "  # where they are, how large, how many; the free ones
            "most columns out "  # bytes of a request, words of a row; the row of requests that came whole
            "requests bad too_many"  # counters: requests given; streams ended as BAD; for want of a buffer
        ).split()
    ]
)

pool_at = record_at(POOL)


class Residues:
    """The memory of one core's pool, for requests of `most` bytes and rows of `columns` words."""

    def __init__(self, most: int, columns: int, connections: int) -> None:
        size = -(-(8 * columns + most + 8) // 64) * 64
        count = min(connections, max(POOL_BYTES // size, LEAST_BUFFERS))
        self._arrays = [allocate(POOL, 1), allocate(np.uint8, size * count), allocate(np.int64, count)]
        self._arrays.append(allocate(np.int64, columns))
        pool, buffers, free, out = self._arrays
        self.record: Any = pool[0]
        self.address = int(pool.ctypes.data)
        self.record.buffers, self.record.free, self.record.out = (a.ctypes.data for a in (buffers, free, out))
        self.record.buffer_bytes, self.record.buffer_count, self.record.free_count = size, count, count
        self.record.most, self.record.columns = most, columns
        free[:] = np.arange(count, 0, -1)

    @property
    def counters(self) -> dict[str, int]:
        """Requests given, streams that were BAD, and how many of these for want of a buffer."""
        pool = self.record
        return {"requests": int(pool.requests), "bad_requests": int(pool.bad), "residues_full": int(pool.too_many)}

    def close(self) -> None:
        for array in self._arrays:
            unregister(array.ctypes.data)


@inner
def take_residue(pool):
    """A buffer's number, or NO_RESIDUE."""
    if pool.free_count == 0:
        return NO_RESIDUE
    pool.free_count -= 1
    return native64(pool.free + 8 * pool.free_count)


@inner
def give_residue(pool, number):
    set_native64(pool.free + 8 * pool.free_count, number)
    pool.free_count += 1


@inner
def columns_address(pool, number):
    return pool.buffers + (number - 1) * pool.buffer_bytes


@inner
def bytes_address(pool, number):
    return pool.buffers + (number - 1) * pool.buffer_bytes + 8 * pool.columns


@inner
def drop_residue(pool, row):
    """The connection's unfinished request is over, or was whole and given."""
    if row.residue != NO_RESIDUE:
        give_residue(pool, row.residue)
        row.residue = NO_RESIDUE
    row.residue_length = row.residue_complete = 0


@inner
def keep_residue(pool, row, address, length):
    """Keep the bytes of an unfinished request, and the columns; False if there is no buffer."""
    number = take_residue(pool)
    if number == NO_RESIDUE:
        pool.too_many += 1
        return False
    copy(columns_address(pool, number), pool.out, 8 * pool.columns)
    copy(bytes_address(pool, number), address, length)
    row.residue = number
    row.residue_length = length
    row.residue_complete = 0
    return True
