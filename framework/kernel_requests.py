"""A codec before a handler over kernel sockets: the stack's `RequestBatch` on events that the kernel brought.

Codecs are compiled, so this alone loads numba where the stack isn't.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from types import SimpleNamespace
from typing import Any

import numpy as np

from mpserve.dataplane.layout import CORE, EVENT_ROWS
from mpserve.dataplane.limits import Limits
from mpserve.dataplane.memory import allocate, unregister
from mpserve.framework.codec import Codec
from mpserve.framework.kernel_channel import KernelChannel, Row
from mpserve.framework.request_batch import RequestBatch

LEAST_ARENA = 1 << 20


class KernelRequests:
    """The requests of one channel's batches; the interface of `RequestBatch`."""

    def __init__(self, channel: KernelChannel, codec: Codec) -> None:
        self._channel = channel
        self._record = allocate(CORE, 1)
        self._events = allocate(np.int64, 5 * EVENT_ROWS)
        self._arena = allocate(np.uint8, LEAST_ARENA)
        self._record[0].events = self._events.ctypes.data
        self._record[0].arena = self._arena.ctypes.data
        limits = Limits(max_connections=len(channel.connections))
        core: Any = SimpleNamespace(address=self._record.ctypes.data, limits=limits)  # as much of one as is read
        self._batch = RequestBatch(core, codec)

    def passes(self, events: int, payload: bytes) -> Iterator[tuple[Iterator[Row], bytes]]:
        """Rows, and the bytes that they are ranges of, until the batch is through."""
        self._put_payload(payload)
        rows = self._channel.events(events)
        while part := list(islice(rows, EVENT_ROWS)):
            table = self._events.reshape(5, EVENT_ROWS)
            kinds, slots, starts, ends = np.array(part, np.int64).T
            table[0, : len(part)], table[1, : len(part)] = kinds, slots
            table[3, : len(part)], table[4, : len(part)] = starts, ends
            yield from self._batch.passes(len(part), payload)

    def _put_payload(self, payload: bytes) -> None:
        if len(payload) > len(self._arena):
            unregister(self._arena.ctypes.data)
            self._arena = allocate(np.uint8, 2 * len(payload))
            self._record[0].arena = self._arena.ctypes.data
        self._arena[: len(payload)] = np.frombuffer(payload, np.uint8)

    @property
    def counters(self) -> dict[str, int]:
        """Requests given, streams that were BAD, and how many of these for want of a buffer."""
        return self._batch.counters

    def close(self) -> None:
        self._batch.close()
        for array in (self._record, self._events, self._arena):
            unregister(array.ctypes.data)
