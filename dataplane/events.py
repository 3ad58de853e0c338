"""Completion events and commands: the two directions of a channel, as int64 columns. Their numbers: `completions`.

Event columns: kind, slot, handle, a, b; five runs of EVENT_ROWS words. A batch's payload lies in the arena.
Command columns: word (handle << 8 | op), address, length; three runs of COMMAND_ROWS words. WRITE carries payload; every
other command carries its argument as 8 bytes, so that all look alike.
"""

import numpy as np

from mpserve.dataplane.completions import GENERATION_MASK as GENERATION_MASK
from mpserve.dataplane.completions import OP_BITS as OP_BITS
from mpserve.dataplane.completions import SLOT_BITS as SLOT_BITS
from mpserve.dataplane.completions import SLOT_MASK as SLOT_MASK
from mpserve.dataplane.completions import Command as Command
from mpserve.dataplane.completions import Event as Event
from mpserve.dataplane.completions import Reason as Reason
from mpserve.dataplane.jit import compiled
from mpserve.dataplane.layout import COMMAND_ROWS, EVENT_ROWS
from mpserve.dataplane.memory import native64, set_native64

READ, ACCEPT, EOF, WRITABLE = int(Event.READ), int(Event.ACCEPT), int(Event.EOF), int(Event.WRITABLE)
TIMEOUT, CLOSED, CONNECT = int(Event.TIMEOUT), int(Event.CLOSED), int(Event.CONNECT)


@compiled
def handle_of(tcb):
    return (np.int64(tcb.generation) << SLOT_BITS) | tcb.slot


@compiled
def emit(core, kind, slot, handle, a, b):
    """Append an event. `event_room` was asked before."""
    at = core.events + 8 * core.event_count
    set_native64(at, kind)
    set_native64(at + 8 * EVENT_ROWS, slot)
    set_native64(at + 16 * EVENT_ROWS, handle)
    set_native64(at + 24 * EVENT_ROWS, a)
    set_native64(at + 32 * EVENT_ROWS, b)
    core.event_count += 1


@compiled
def event_room(core):
    """Whether another event may be appended."""
    return core.event_count < EVENT_ROWS


@compiled
def event_kind(core, index):
    return native64(core.events + 8 * index)


@compiled
def event_slot(core, index):
    return native64(core.events + 8 * (EVENT_ROWS + index))


@compiled
def event_handle(core, index):
    return native64(core.events + 8 * (2 * EVENT_ROWS + index))


@compiled
def event_a(core, index):
    return native64(core.events + 8 * (3 * EVENT_ROWS + index))


@compiled
def event_b(core, index):
    return native64(core.events + 8 * (4 * EVENT_ROWS + index))


@compiled
def extend_read(core, slot, start, end):
    """Lengthen the last event instead of adding one, if it is a READ of the same connection that ends where this begins."""
    if core.event_count == 0:
        return False
    last = core.event_count - 1
    if event_kind(core, last) != READ or event_slot(core, last) != slot or event_b(core, last) != start:
        return False
    set_native64(core.events + 8 * (4 * EVENT_ROWS + last), end)
    return True


@compiled
def put_command(core, word, address, length):
    """Append a command; False if the table is full."""
    if core.command_count >= COMMAND_ROWS:
        return False
    at = core.command_table + 8 * core.command_count
    set_native64(at, word)
    set_native64(at + 8 * COMMAND_ROWS, address)
    set_native64(at + 16 * COMMAND_ROWS, length)
    core.command_count += 1
    return True


@compiled
def command_word(core, index):
    return native64(core.command_table + 8 * index)


@compiled
def command_address(core, index):
    return native64(core.command_table + 8 * (COMMAND_ROWS + index))


@compiled
def command_length(core, index):
    return native64(core.command_table + 8 * (2 * COMMAND_ROWS + index))
