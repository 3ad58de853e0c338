"""Socket options by the numbers of Python's `socket` module: which there are, their values, and what TCP_INFO tells.

An option that is not in the table is refused with ENOPROTOOPT, as a kernel does; a value out of range with EINVAL.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mpserve.dataplane.tcp import option_numbers as settings
from mpserve.dataplane.tcp.option_numbers import LEAST_BUFFER, LEAST_SEGMENT, VALUE_BITS, Option
from mpserve.dataplane.tcp.state import State

IP, TCP, SOL = socket.IPPROTO_IP, socket.IPPROTO_TCP, socket.SOL_SOCKET
# Not every system has these; no option has the number -1.
TCP_QUICKACK, TCP_KEEPIDLE, TCP_USER_TIMEOUT, TCP_CONGESTION, TCP_DEFER_ACCEPT = (
    getattr(socket, f"TCP_{name}", -1) for name in "QUICKACK KEEPIDLE USER_TIMEOUT CONGESTION DEFER_ACCEPT".split()
)
MOST_SECONDS = 32_767  # as on Linux, for keepalive times
CONTROLS = (b"cubic", b"reno")


@dataclass(frozen=True)
class TcpInfo:
    """What TCP_INFO tells. Times are microseconds, windows and sizes bytes."""

    state: State
    options: frozenset[str]  # "timestamps", "sack", "wscale"
    congestion: str
    snd_mss: int
    snd_cwnd: int
    snd_ssthresh: int
    snd_wnd: int
    snd_queued: int
    in_flight: int
    sacked: int
    lost: int
    rcv_wnd: int
    rcv_queued: int
    rtt: int
    rttvar: int
    min_rtt: int
    rto: int
    retransmits: int  # of the segment that waits for its ACK
    sndbuf: int
    rcvbuf: int
    soft_error: tuple[int, int] | None  # ICMP type and code of the last error since the peer acknowledged anything


@dataclass(frozen=True)
class Entry:
    """How an option is set on the stack, the values it takes, and how it reads back."""

    option: Option
    low: int
    high: int
    read: Callable[[Any, Any], int]  # from TCB and CONN
    scale: int = 1  # what the stack's value is of the user's
    step: int = 1

    def checked(self, name: int, value: object) -> int:
        """The value, if it is one for this option. Raises OSError (EINVAL)."""
        if not isinstance(value, int) or not self.low <= value <= self.high or value % self.step:
            multiples = f", a multiple of {self.step}" if self.step > 1 else ""
            raise out_of_range(name, value, f"{self.low} to {self.high}{multiples}")
        return value


def _bit(bit: int, when_set: int = 1) -> Callable[[Any, Any], int]:
    return lambda tcb, conn: when_set if int(conn.settings) & bit else 1 - when_set


_BUFFER = (LEAST_BUFFER, 1 << 30)
TABLE: dict[tuple[int, int], Entry] = {
    (TCP, socket.TCP_NODELAY): Entry(Option.NODELAY, 0, 1, _bit(settings.NAGLE, 0)),
    (TCP, TCP_QUICKACK): Entry(Option.QUICKACK, 0, 1, _bit(settings.QUICKACK)),
    (SOL, socket.SO_KEEPALIVE): Entry(Option.KEEPALIVE, 0, 1, _bit(settings.KEEPALIVE)),
    (TCP, TCP_KEEPIDLE): Entry(Option.KEEPIDLE, 1, MOST_SECONDS, lambda t, c: int(c.keep_idle_ms), 1000),
    (TCP, socket.TCP_KEEPINTVL): Entry(Option.KEEPINTVL, 1, MOST_SECONDS, lambda t, c: int(c.keep_interval_ms), 1000),
    (TCP, socket.TCP_KEEPCNT): Entry(Option.KEEPCNT, 1, 127, lambda t, c: int(c.keep_count)),
    (TCP, TCP_USER_TIMEOUT): Entry(Option.USER_TIMEOUT, 0, 2**31 - 1, lambda t, c: int(c.user_timeout_ms)),
    (TCP, socket.TCP_MAXSEG): Entry(Option.MAXSEG, LEAST_SEGMENT, 65_535, lambda t, c: int(t.mss)),
    (IP, socket.IP_TOS): Entry(Option.TOS, 0, 252, lambda t, c: int(c.tos), step=4),  # the low two bits are ECN's
    (IP, socket.IP_TTL): Entry(Option.TTL, 1, 255, lambda t, c: int(c.ttl)),
    (SOL, socket.SO_RCVBUF): Entry(Option.RCVBUF, *_BUFFER, lambda t, c: int(c.rcvbuf)),
    (SOL, socket.SO_SNDBUF): Entry(Option.SNDBUF, *_BUFFER, lambda t, c: int(c.sndbuf)),
}
TABLE.pop((TCP, -1), None)
OF_LISTENERS = {(TCP, socket.TCP_MAXSEG): "max_segment", (IP, socket.IP_TOS): "tos", (IP, socket.IP_TTL): "ttl"}


def unknown(level: int, name: int) -> OSError:
    """For an option that is not in the table."""
    return OSError(errno.ENOPROTOOPT, f"socket option {name} of level {level} is not supported")


def out_of_range(name: int, value: object, asked: str) -> OSError:
    """For a value that can't be; `asked` is what can."""
    return OSError(errno.EINVAL, f"socket option {name} = {value!r}: give {asked}")


def _pack(option: Option, value: int) -> int:
    word = option << VALUE_BITS | value & ((1 << VALUE_BITS) - 1)
    return word


def arguments(level: int, name: int, value: int | bytes | str) -> list[int]:
    """The arguments of the Command.SETs that set an option. Raises OSError (ENOPROTOOPT, EINVAL)."""
    if (level, name) == (SOL, socket.SO_LINGER):
        return [_pack(Option.LINGER, _linger(name, value))]
    if (level, name) == (TCP, TCP_CONGESTION):
        return [_pack(Option.CONGESTION, _congestion(name, value))]
    if (level, name) == (SOL, socket.SO_REUSEADDR):
        require_reuse(name, value)
        return []
    entry = TABLE.get((level, name))
    if entry is None:
        raise unknown(level, name)
    return [_pack(entry.option, entry.checked(name, value) * entry.scale)]


def _linger(name: int, value: object) -> int:
    """Milliseconds from a `struct linger` (two ints); -1: off."""
    if not isinstance(value, bytes | bytearray) or len(value) != 8:
        raise out_of_range(name, value, 'struct.pack("ii", on, seconds)')
    on, seconds = struct.unpack("ii", value)
    if not 0 <= seconds <= MOST_SECONDS:
        raise out_of_range(name, seconds, f"0 to {MOST_SECONDS} seconds")
    return int(seconds) * 1000 if on else -1


def _congestion(name: int, value: object) -> int:
    text = value.encode() if isinstance(value, str) else value
    if not isinstance(text, bytes) or text.rstrip(b"\0") not in (*CONTROLS, b"newreno"):
        raise out_of_range(name, value, 'b"cubic" or b"reno"')
    return int(text.rstrip(b"\0") != b"cubic")


def require_reuse(name: int, value: object) -> None:
    """A listener of ours never minds old connections in TIME_WAIT: on is what is, off is not to be had."""
    if not value:
        raise out_of_range(name, value, "1: addresses are always reused here")


def require_listener_option(level: int, name: int, value: int) -> None:
    """Raises OSError (ENOPROTOOPT, EINVAL) for what a listener can't be set to."""
    if (level, name) == (SOL, socket.SO_REUSEADDR):
        require_reuse(name, value)
    elif (level, name) == (TCP, TCP_DEFER_ACCEPT):
        if not 0 <= value <= MOST_SECONDS:
            raise out_of_range(name, value, f"0 to {MOST_SECONDS} seconds")
    elif (level, name) in OF_LISTENERS:
        TABLE[level, name].checked(name, value)
    else:
        raise unknown(level, name)
