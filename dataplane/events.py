"""Completion events and commands: the two directions of a channel, as int64 columns.

Event columns: kind, slot, handle, a, b; five runs of EVENT_ROWS words. A batch's payload lies in the arena.
Command columns: word (handle << 8 | op), address, length; three runs of COMMAND_ROWS words. WRITE carries payload; every
other command carries its argument as 8 bytes, so that all look alike.
A handle is generation << 24 | slot.
"""

from enum import IntEnum

import numpy as np

from mpserve.dataplane.jit import compiled
from mpserve.dataplane.layout import COMMAND_ROWS, EVENT_ROWS
from mpserve.dataplane.memory import native64, set_native64

SLOT_BITS = 24
SLOT_MASK = (1 << SLOT_BITS) - 1
GENERATION_MASK = (1 << 31) - 1
OP_BITS = 8


class Event(IntEnum):
    """What a completion event tells; a and b are its columns."""

    READ = 0  # payload at arena[a:b]
    ACCEPT = 1  # a: listener; b: connections that still wait there
    EOF = 2  # the peer has sent its FIN and all before it was delivered
    WRITABLE = 3  # the send buffer has room again
    TIMEOUT = 4  # nothing was received for the time set
    CLOSED = 5  # a: Reason; b: ICMP type << 8 | code of the last error about it, 0: none; the handle is no more
    CONNECT = 6  # a connection asked for is established (a = 0), or is not to be had (a: Reason; CLOSED follows)


class Command(IntEnum):
    """What a channel asks of a connection."""

    WRITE = 0
    SHUTDOWN = 1  # FIN after what was written
    CLOSE = 2  # the same, and what still arrives is dropped
    ABORT = 3  # RST
    PAUSE = 4
    RESUME = 5
    TIMEOUT = 6  # argument: us without received data; 0: off
    WANT_WRITABLE = 7
    READ_ONCE = 8
    ACCEPT = 9  # on a listener's number in place of a handle; argument: how many
    SET = 10  # argument: option << 48 | value (`tcp/settings.py`)
    STOP_LISTENING = 11  # on a listener's number


class Reason(IntEnum):
    """Why a connection ended."""

    FINISHED = 0  # both sides closed
    RESET = 1  # the peer sent a RST
    ABORTED = 2  # this side sent one
    TIMED_OUT = 3  # the peer did not acknowledge
    SLOW_READER = 4  # the peer did not read what was written
    NO_MEMORY = 5  # no block was left to hold what was written
    REFUSED = 6  # the peer answered the SYN with a RST, or its host with an ICMP error
    UNREACHABLE = 7  # nobody answers for the next hop


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
