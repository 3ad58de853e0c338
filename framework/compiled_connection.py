"""A connection as a compiled handler sees it: a record of the handler's fields, and methods that write and command.

Writes go straight into the send buffer; everything else is a command, executed when the batch is over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mpserve.dataplane.events import OP_BITS, Command, put_command
from mpserve.dataplane.jit import JIT, inner
from mpserve.dataplane.layout import BLOCK_BYTES, NO_BLOCK, conn_at, core_at, counters_at, tcb_at
from mpserve.dataplane.memory import call2, record_at
from mpserve.dataplane.tcp import flags
from mpserve.dataplane.tcp import sendbuf as buffer
from mpserve.dataplane.tcp.connection import owe_output
from mpserve.dataplane.tcp.state import CLOSED, TIME_WAIT
from mpserve.framework.timers import MOST_TIMEOUT_US
from mpserve.framework.values import make_view, view_of, whole

ROW = np.dtype(  # what stands before the handler's own fields
    [
        ("core", "i8"),
        ("handle", "i8"),
        ("argument", "i8"),  # of the TIMEOUT command
        ("slot", "i4"),
        ("marks", "i4"),
        ("back_from", "i4"),  # data of this batch goes back to the stack from this event on; 0: none
        ("reserved", "i4"),  # bytes
        ("residue", "i4"),  # the buffer of an unfinished request (`residues.py`); NO_RESIDUE: none
        ("residue_length", "i4"),
        ("residue_complete", "i4"),  # bytes of a whole request there that waits to be given again; 0: it is unfinished
        ("unused", "i4"),
    ]
)
HEAD = np.dtype(  # what stands before the handler's own fields in its record
    [(name, "i8") for name in "rows row_bytes pool errors refused event waits".split()]
)
ARGUMENT_OFFSET = ROW.fields["argument"][1]  # type: ignore[index]
PAUSED, RETRYING, SHUT, GIVEN_UP, ASKED = 1, 2, 4, 8, 16  # ROW.marks; ASKED: a WRITABLE event is on its way
HELD = PAUSED | RETRYING
OP_SHUTDOWN, OP_CLOSE, OP_ABORT = int(Command.SHUTDOWN), int(Command.CLOSE), int(Command.ABORT)
OP_PAUSE, OP_RESUME = int(Command.PAUSE), int(Command.RESUME)
OP_TIMEOUT, OP_WANT_WRITABLE = int(Command.TIMEOUT), int(Command.WANT_WRITABLE)

row_at, head_at = record_at(ROW), record_at(HEAD)


@inner
def command(address, op):
    """Put a command of the row at `address` in the batch; a full table is executed first."""
    row = row_at(address)
    core = core_at(row.core)
    word = row.handle << OP_BITS | op
    if not put_command(core, word, address + ARGUMENT_OFFSET, 8):
        call2(core.unit_commands, row.core, core.command_count)
        put_command(core, word, address + ARGUMENT_OFFSET, 8)


@inner
def takes_writes(row, tcb):
    """Neither side has ended our direction."""
    return (
        row.marks & SHUT == 0 and tcb.flags & flags.FIN_QUEUED == 0 and tcb.state != CLOSED and tcb.state != TIME_WAIT
    )


@inner
def may_write(core, row, tcb):
    """The same for what is about to write; behind the handler's own end it is the handler's fault, and counted."""
    if takes_writes(row, tcb):
        return True
    if row.marks & SHUT:
        refuse(core)
    return False


@inner
def refuse(core):
    head_at(core.handler_state).refused += 1


@inner
def has_room(tcb, conn, length):
    """Whether the send buffer takes `length` bytes now. Half empty it takes any number, so that each has its turn."""
    return tcb.snd_queued + length <= conn.sndbuf or tcb.snd_queued <= conn.sndbuf // 2


@inner
def ask_for_writable(address):
    row = row_at(address)
    if row.marks & ASKED == 0:
        row.marks |= ASKED
        command(address, OP_WANT_WRITABLE)


@inner
def out_of_blocks(address):
    """The pool of blocks is empty: this connection gives way."""
    row = row_at(address)
    counters_at(core_at(row.core).counters).drop_no_block += 1
    give_up(address, OP_ABORT)


@inner
def give_up(address, op):
    """Close or abort: no more callbacks but `on_close`."""
    row = row_at(address)
    if row.marks & GIVEN_UP == 0 or op == OP_ABORT:
        row.marks |= SHUT | GIVEN_UP
        command(address, op)


@inner
def write(conn, data):
    """Send all of `data` (a view or a constant), or nothing: False if the send buffer is full; `on_writable` follows."""
    given = view_of(data)
    row = row_at(conn.address)
    core = core_at(row.core)
    tcb = tcb_at(core, row.slot)
    row.reserved = 0
    if not may_write(core, row, tcb):
        return False
    if not has_room(tcb, conn_at(core, row.slot), given.length):
        ask_for_writable(conn.address)
        return False
    if buffer.append(core, tcb, given.address, given.length) < given.length:
        out_of_blocks(conn.address)
        return False
    counters_at(core.counters).bytes_written += given.length
    owe_output(core, tcb)
    return True


@inner
def reserve(conn, length):
    """Room for up to `length` (1 to 2048) bytes of a reply, in the send buffer itself; empty if that is full.

    Nothing is sent of it before `commit`, which must come before another `write` or `reserve` of this connection.
    """
    count = whole(length)
    if count < 1 or count > BLOCK_BYTES:
        raise ValueError("reserve takes 1 to 2048 bytes")
    row = row_at(conn.address)
    core = core_at(row.core)
    tcb = tcb_at(core, row.slot)
    row.reserved = 0
    if not may_write(core, row, tcb):
        return make_view(0, 0)
    if not has_room(tcb, conn_at(core, row.slot), count):
        ask_for_writable(conn.address)
        return make_view(0, 0)
    address = buffer.reserve(core, tcb, count)
    if address == 0:
        out_of_blocks(conn.address)
        return make_view(0, 0)
    row.reserved = count
    return make_view(address, count)


@inner
def commit(conn, length):
    """Send the first `length` bytes of what was reserved. False, and nothing is sent, if it is none of that."""
    row = row_at(conn.address)
    core = core_at(row.core)
    tcb = tcb_at(core, row.slot)
    count, reserved = whole(length), row.reserved
    row.reserved = 0
    if count < 0 or count > reserved:
        refuse(core)
        return False
    if not may_write(core, row, tcb) or tcb.snd_tail == NO_BLOCK:
        return False
    if count > 0:
        buffer.commit(core, tcb, count)
        counters_at(core.counters).bytes_written += count
        owe_output(core, tcb)
    return True


@inner
def close(conn):
    """Send what was written, then FIN; what still comes is dropped. `on_close` follows. Twice is once."""
    give_up(conn.address, OP_CLOSE)


@inner
def abort(conn):
    """Send RST and forget what was written."""
    give_up(conn.address, OP_ABORT)


@inner
def shutdown(conn):
    """Send FIN after what was written; the peer may go on sending."""
    row = row_at(conn.address)
    if row.marks & SHUT == 0:
        row.marks |= SHUT
        command(conn.address, OP_SHUTDOWN)


@inner
def pause(conn):
    """Take no more data: what has not been given yet waits in the stack, and the peer's window closes."""
    row = row_at(conn.address)
    if row.marks & (PAUSED | GIVEN_UP) == 0:
        row.marks |= PAUSED
        command(conn.address, OP_PAUSE)


@inner
def resume(conn):
    """Take data again."""
    row = row_at(conn.address)
    if row.marks & PAUSED:
        row.marks &= ~PAUSED
        if row.marks & HELD == 0:
            command(conn.address, OP_RESUME)


@inner
def retry(conn):
    """Have this data or request given again when the send buffer has room, and nothing after it before that."""
    row = row_at(conn.address)
    core = core_at(row.core)
    if row.marks & (RETRYING | GIVEN_UP) == 0 and takes_writes(row, tcb_at(core, row.slot)):
        row.marks |= RETRYING
        ask_for_writable(conn.address)
        command(conn.address, OP_PAUSE)


@inner
def set_timeout(conn, seconds):
    """Have `on_timeout` called whenever nothing has come for so long. 0, and what is less or no number: never."""
    row = row_at(conn.address)
    if row.marks & GIVEN_UP == 0:
        us = min(float(seconds) * 1e6, float(MOST_TIMEOUT_US))
        row.argument = max(np.int64(us), 1) if us > 0 else 0
        command(conn.address, OP_TIMEOUT)


@inner
def is_closed(conn):
    """Whether it was closed or aborted by this handler."""
    return row_at(conn.address).marks & GIVEN_UP != 0


def _method(function: Callable[..., Any]) -> Callable[..., Any]:
    return function.py_func if JIT else function  # type: ignore[attr-defined,no-any-return]


METHODS: dict[str, Callable[..., Any]] = {
    each.__name__: _method(each)
    for each in (write, reserve, commit, close, abort, shutdown, pause, resume, retry, set_timeout, is_closed)
}
