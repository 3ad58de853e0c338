"""A codec for a Python handler: once a turn, compiled code makes rows of requests out of the batch's READ events.

Rows are (kind, slot, start, end), in the order of the events; all but READ pass as they are. A request that came whole lies in the
turn's payload, one that came in parts is put behind it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from types import FunctionType
from typing import Any

import numpy as np
from numba.core.errors import NumbaError

from mpserve.dataplane.core import Core
from mpserve.dataplane.events import ACCEPT, CLOSED, READ, event_a, event_b, event_kind, event_slot
from mpserve.dataplane.jit import JIT, BoundUnit, inner
from mpserve.dataplane.layout import core_at
from mpserve.dataplane.memory import allocate, copy, record_at, set_native64, unregister
from mpserve.framework.codec import BAD, BAD_REQUEST, PARTIAL, Codec
from mpserve.framework.compiled_errors import explain
from mpserve.framework.reached import facts
from mpserve.framework.requests import body_range, bound, report, request_parser
from mpserve.framework.residues import NO_RESIDUE, Residues, drop_residue, pool_at

ROWS = 4096  # a pass; when they are full, Python is given them, and the pass goes on
JOINED_BYTES = 1 << 18  # requests that came in parts, of one pass
_ENDED, _RAW = -1, -2  # residue_complete of a connection whose stream is BAD; of one that is not the handler's

PART = np.dtype([(name, "i4") for name in "residue residue_length residue_complete unused".split()])
PASS = np.dtype(
    [
        (name, "i8")
        for name in "pool parts rows row_count events event position payload joined joined_bytes joined_used raw_listeners".split()
    ]
)
_PART_BYTES = PART.itemsize

part_at, pass_at = record_at(PART), record_at(PASS)

next_request: Any = None  # what a copy of `make_rows` is given


def make_rows(core_address, pass_address):
    """Rows from where the last pass ended, ROWS at most: how many. `event` is `events` when all is done.

    The batch's length is Python's: the core's own count is the standby's to change while Python is away.
    """
    core = core_at(core_address)
    now = pass_at(pass_address)
    now.row_count = now.joined_used = 0
    goes_on = True
    while goes_on and now.event < now.events and now.row_count < ROWS:
        slot = event_slot(core, now.event)
        part = part_at(now.parts + _PART_BYTES * slot)
        try:
            goes_on = take_event(core, now, part, slot)
        except Exception:
            report()
            end_stream(now, part, slot, 1)
        if goes_on:
            now.event += 1
            now.position = 0
    return now.row_count


def take_event(core, now, part, slot):
    """Rows of the event at hand: False if a table is full before all are there."""
    i = now.event
    kind = event_kind(core, i)
    if kind == READ and part.residue_complete != _RAW:
        return part.residue_complete == _ENDED or split(core, now, part, slot, event_a(core, i), event_b(core, i))
    if kind == CLOSED or kind == ACCEPT:
        drop_residue(pool_at(now.pool), part)
    if kind == ACCEPT and now.raw_listeners >> event_a(core, i) & 1:
        part.residue_complete = _RAW
    add_row(now, kind, slot, event_a(core, i), event_b(core, i))
    return True


def split(core, now, part, slot, start, end):
    """Requests of one READ event, from `position` on: False if a table is full before all are rows."""
    pool = pool_at(now.pool)
    while start + now.position < end or part.residue_complete > 0:
        if now.row_count == ROWS:
            return False
        at = core.arena + start + now.position
        consumed, request, fresh, columns = next_request(pool, part, at, core.arena + end)
        if consumed == PARTIAL:
            return True
        if consumed == BAD:
            end_stream(now, part, slot, 0)
            return True
        now.position += fresh
        first, last = body_range(columns, consumed)
        if part.residue == NO_RESIDUE:
            add_row(now, READ, slot, request - core.arena + first, request - core.arena + last)
        elif not join(now, slot, request + first, last - first):
            part.residue_complete = consumed
            return False
        else:
            drop_residue(pool, part)
        pool.requests += 1
    return True


@inner
def end_stream(now, part, slot, raised):
    """Nothing more is taken of a connection whose stream is BAD, or whose codec has raised an exception."""
    pool = pool_at(now.pool)
    pool.bad += 1 - raised
    drop_residue(pool, part)
    part.residue_complete = _ENDED
    add_row(now, BAD_REQUEST, slot, raised, 0)


@inner
def join(now, slot, address, length):
    """Put a request behind the payload; False if there is no room until Python has taken what is there."""
    if now.joined_used + length > now.joined_bytes:
        return False
    copy(now.joined + now.joined_used, address, length)
    start = now.payload + now.joined_used
    now.joined_used += length
    add_row(now, READ, slot, start, start + length)
    return True


@inner
def add_row(now, kind, slot, a, b):
    at = now.rows + 8 * now.row_count
    set_native64(at, kind)
    set_native64(at + 8 * ROWS, slot)
    set_native64(at + 16 * ROWS, a)
    set_native64(at + 24 * ROWS, b)
    now.row_count += 1


def codec_unit(codec: Codec) -> BoundUnit:
    """`make_rows` for a codec."""
    names = {"take_event": bound(take_event, split=bound(split, next_request=request_parser(codec)))}
    made = FunctionType(make_rows.__code__, {**make_rows.__globals__, **names}, make_rows.__name__)
    return BoundUnit(f"codec-{type(codec).__name__}", made, facts(codec.make_parse(), codec.columns, codec.most_bytes))


def compile_codec(codec: Codec) -> None:
    """Compile what isn't cached. A mistake in `parse` is a SetupError with its file and line."""
    unit = codec_unit(codec)
    if JIT and not unit.is_cached():
        try:
            unit.address  # noqa: B018  # compiled by asking
        except NumbaError as error:
            raise explain(repr(codec), {"parse": codec.make_parse()}, error) from None


class RequestBatch:
    """The requests of one core's batches."""

    def __init__(self, core: Core, codec: Codec) -> None:
        self._core = core
        self._residues = Residues(codec.most_bytes, codec.columns, core.limits.max_connections)
        self._parts = allocate(PART, core.limits.max_connections)
        self._table = allocate(np.int64, 4 * ROWS)
        self._joined = allocate(np.uint8, max(JOINED_BYTES, codec.most_bytes))
        self._pass = allocate(PASS, 1)
        now = self._pass[0]
        now.pool, now.joined_bytes = self._residues.address, len(self._joined)
        now.parts, now.rows, now.joined = (a.ctypes.data for a in (self._parts, self._table, self._joined))
        self._call = functools.partial(codec_unit(codec).call, core.address, self._pass.ctypes.data)
        self._now: Any = memoryview(self._pass.view(np.int64))  # type: ignore[arg-type]
        self._events, self._event, self._position, self._payload, self._joined_used, self._raw_listeners = (
            PASS.fields[name][1] // 8  # type: ignore[index]
            for name in ("events", "event", "position", "payload", "joined_used", "raw_listeners")
        )
        words: Any = memoryview(self._table.view(np.uint8)).cast("q")  # type: ignore[arg-type]
        self._columns = [words[first : first + ROWS] for first in range(0, 4 * ROWS, ROWS)]
        self._joined_view = memoryview(self._joined)  # type: ignore[arg-type]

    def passes(self, events: int, payload: bytes) -> Iterator[tuple[Iterator[tuple[int, int, int, int]], bytes]]:
        """Rows, and the bytes that they are ranges of, until the batch is through."""
        now = self._now
        now[self._events], now[self._payload] = events, len(payload)
        now[self._event] = now[self._position] = 0
        while now[self._event] < events:
            count = self._call()
            used = now[self._joined_used]
            blob = payload + self._joined_view[:used] if used else payload
            yield zip(*(column[:count].tolist() for column in self._columns), strict=True), blob

    def pass_raw(self, slot: int) -> None:
        """A connection that is asked for beside the handler: its bytes are given as they come."""
        self._parts[slot].residue_complete = _RAW

    def pass_raw_of(self, listener: int) -> None:
        """The same for the connections of a listener beside the handler."""
        self._now[self._raw_listeners] |= -(1 << 63) if listener == 63 else 1 << listener

    @property
    def counters(self) -> dict[str, int]:
        """As `Residues` counts."""
        return self._residues.counters

    def close(self) -> None:
        self._residues.close()
        for array in (self._parts, self._table, self._joined, self._pass):
            unregister(array.ctypes.data)
