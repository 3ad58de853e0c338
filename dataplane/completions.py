"""The numbers of completion events and commands, for Python and compiled code alike. No numba here.

A handle is generation << 24 | slot.
"""

from enum import IntEnum

NEVER = 1 << 62  # a deadline (us) that doesn't come
IDLE = -1  # in place of a number of events: nothing happens
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
