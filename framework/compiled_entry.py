"""The entry of a compiled handler: a batch of completion events, callback by callback. The loop calls it by address.

The functions here are a pattern: `CompiledHandler` makes a copy for each handler, with the handler's callbacks and values in
place of the names declared below, and compiles that alone.
"""

from __future__ import annotations

from typing import Any

from mpserve.dataplane.events import (
    ACCEPT,
    CLOSED,
    EOF,
    READ,
    TIMEOUT,
    WRITABLE,
    event_a,
    event_b,
    event_handle,
    event_kind,
    event_slot,
)
from mpserve.dataplane.jit import inner
from mpserve.dataplane.layout import EVENT_ROWS, conn_at, core_at, counters_at, tcb_at
from mpserve.dataplane.memory import set_native64
from mpserve.dataplane.tcp import flags
from mpserve.dataplane.tcp.reassembly import put_back
from mpserve.dataplane.tcp.state import CLOSED as STATE_CLOSED
from mpserve.framework.codec import BAD, PARTIAL
from mpserve.framework.compiled_connection import (
    ASKED,
    GIVEN_UP,
    HELD,
    OP_ABORT,
    OP_CLOSE,
    OP_RESUME,
    PAUSED,
    RETRYING,
    ROW,
    SHUT,
    command,
    give_up,
    head_at,
    row_at,
)
from mpserve.framework.requests import body_range, report
from mpserve.framework.residues import NO_RESIDUE, drop_residue, pool_at
from mpserve.framework.values import make_view

_ROW_WORDS = ROW.itemsize // 8

# what a copy is given
make_connection: Any = None
make_handler: Any = None
next_request: Any = None
on_accept: Any = None
on_data: Any = None
on_request: Any = None
on_eof: Any = None
on_writable: Any = None
on_timeout: Any = None
on_close: Any = None


def entry(core_address, state_address):
    """Call back for each event; then data that was not taken goes back to the stack."""
    core = core_at(core_address)
    head = head_at(state_address)
    head.event = head.waits = 0
    while head.event < core.event_count:
        try:
            handle_events(core, core_address, head, state_address)
        except Exception:
            report()
            head.errors += 1
            give_up(head.rows + event_slot(core, head.event) * head.row_bytes, OP_ABORT)
            head.event += 1
    if head.waits > 0:
        return_data(core, head)
    return 0


def handle_events(core, core_address, head, state_address):
    """The events from `head.event` on."""
    for i in range(head.event, core.event_count):
        head.event = i
        address = head.rows + event_slot(core, i) * head.row_bytes
        if event_kind(core, i) == READ:
            head.waits += handle_read(core, state_address, row_at(address), address, i)
        else:
            head.waits += handle_event(core, core_address, state_address, address, i)
    head.event = core.event_count


def handle_event(core, core_address, state_address, address, i):
    """An event other than READ: 1 if it is an EOF that has to wait."""
    kind = event_kind(core, i)
    row = row_at(address)
    me, conn = make_handler(state_address), make_connection(address)
    if kind == ACCEPT:
        begin_row(
            core_address, head_at(state_address).row_bytes, row, address, event_slot(core, i), event_handle(core, i)
        )
        on_accept(me, conn)
    elif kind == CLOSED:
        row.marks |= SHUT | GIVEN_UP
        end_row(head_at(state_address), row)
        on_close(me, conn, event_a(core, i))
    elif row.marks & GIVEN_UP:
        return 0
    elif kind == EOF:
        if row.marks & HELD or row.back_from != 0:
            return wait_from(row, i)
        on_eof(me, conn)
    elif kind == WRITABLE:
        handle_writable(core, state_address, row, address)
    elif kind == TIMEOUT:
        on_timeout(me, conn)
    return 0


@inner
def begin_row(core_address, row_bytes, row, address, slot, handle):
    """Zero the record of a new connection."""
    for word in range(row_bytes // 8):
        set_native64(address + 8 * word, 0)
    row.core, row.slot, row.handle = core_address, slot, handle


@inner
def end_row(head, row):
    if head.pool != 0:
        drop_residue(pool_at(head.pool), row)


def handle_read(core, state_address, row, address, i):
    """Give data; what is not taken is marked to go back, with all that follows it on this connection."""
    if row.marks & GIVEN_UP:
        return 0
    start, end = event_a(core, i), event_b(core, i)
    if row.marks & HELD == 0 and row.back_from == 0:
        used = give(state_address, row, address, core.arena + start, end - start)
        if used == end - start:
            return 0
        set_event_a(core, i, start + used)
    return wait_from(row, i)


@inner
def wait_from(row, i):
    """This event goes back, and with it what follows on the connection."""
    if row.back_from == 0:
        row.back_from = i + 1
    return 1


def give_data(state_address, row, address, data, length):
    """`on_data` with all there is: how many bytes of it were taken, all or none."""
    on_data(make_handler(state_address), make_connection(address), make_view(data, length))
    return 0 if row.marks & (RETRYING | GIVEN_UP) == RETRYING else length


def give_requests(state_address, row, address, data, length):
    """`on_request` for each whole request: how many bytes were taken."""
    pool = pool_at(head_at(state_address).pool)
    me, conn = make_handler(state_address), make_connection(address)
    used = 0
    while used < length or row.residue_complete > 0:
        consumed, request, fresh, columns = next_request(pool, row, data + used, data + length)
        if consumed == PARTIAL:
            return length
        if consumed == BAD:
            pool.bad += 1
            drop_residue(pool, row)
            give_up(address, OP_CLOSE)
            return length
        start, end = body_range(columns, consumed)
        on_request(me, conn, make_view(request + start, end - start), columns)
        if row.marks & (RETRYING | GIVEN_UP) == RETRYING:
            if row.residue != NO_RESIDUE:
                row.residue_complete = consumed
                return used + fresh
            return used
        pool.requests += 1
        used += fresh
        drop_residue(pool, row)
        if row.marks & GIVEN_UP:
            return length
        if row.marks & PAUSED:
            return used
    return length


give = give_data


def handle_writable(core, state_address, row, address):
    """What waited for room is given again, first what the residue holds; the rest comes from the stack."""
    row.marks &= ~ASKED
    if row.marks & RETRYING:
        row.marks &= ~RETRYING
        if row.residue_complete > 0:
            give(state_address, row, address, core.arena, 0)
        if row.marks & (HELD | GIVEN_UP) == 0:
            command(address, OP_RESUME)
    if row.marks & GIVEN_UP == 0:
        on_writable(make_handler(state_address), make_connection(address))


@inner
def set_event_a(core, index, value):
    set_native64(core.events + 8 * (3 * EVENT_ROWS + index), value)


@inner
def return_data(core, head):
    """Put back what connections did not take, the last first, so that each finds its data in order; and their EOF."""
    for back in range(core.event_count):
        i = core.event_count - 1 - back
        slot = event_slot(core, i)
        row = row_at(head.rows + slot * head.row_bytes)
        tcb = tcb_at(core, slot)
        if row.marks & GIVEN_UP or tcb.state == STATE_CLOSED:
            continue
        if row.back_from == 0 or row.back_from > i + 1:
            continue
        kind = event_kind(core, i)
        if kind == READ:
            length = event_b(core, i) - event_a(core, i)
            if put_back(core, conn_at(core, slot), core.arena + event_a(core, i), length) < length:
                counters_at(core.counters).drop_no_block += 1
                give_up(head.rows + slot * head.row_bytes, OP_ABORT)
        elif kind == EOF:
            tcb.flags = (tcb.flags & ~flags.EOF_GIVEN) | flags.NOTIFY_EOF
    for i in range(core.event_count):
        row_at(head.rows + event_slot(core, i) * head.row_bytes).back_from = 0
