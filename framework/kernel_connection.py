"""`KernelConnection`: one TCP connection of the kernel's, driven without blocking, as the stack drives one of its own."""

from __future__ import annotations

import errno
import socket
import struct
from collections import deque
from itertools import islice

from mpserve.dataplane.completions import SLOT_BITS, Reason
from mpserve.framework.polling import IN, OUT

MOST_PARTS = 64  # a system call
HARD_LIMIT_SNDBUFS = 4  # as the stack's: a send buffer this many times its size means a peer that doesn't read
LINGER_NONE = struct.pack("ii", 1, 0)
_REASONS = {
    errno.ECONNREFUSED: Reason.REFUSED,
    errno.ETIMEDOUT: Reason.TIMED_OUT,
    errno.EHOSTUNREACH: Reason.UNREACHABLE,
    errno.ENETUNREACH: Reason.UNREACHABLE,
}
Name = tuple[str, int]


def reason_of(number: int) -> Reason:
    """Why a connection ended, from an errno."""
    return _REASONS.get(number, Reason.RESET)


class KernelConnection:
    """State of a slot. The channel decides when; here is what is done to the socket."""

    __slots__ = (
        "close_wanted",
        "connecting",
        "eof_told",
        "fd",
        "fin_sent",
        "fin_wanted",
        "generation",
        "hung_up",
        "idle_at",
        "idle_us",
        "in_poll",
        "listed",
        "listener",
        "once",
        "parts",
        "peer",
        "queued",
        "reading",
        "reason",
        "slot",
        "sndbuf",
        "sock",
        "sockname",
        "state_at",
        "timer_at",
        "writable_wanted",
    )

    def __init__(self, slot: int, generation: int, sock: socket.socket, peer: Name, listener: int, sndbuf: int) -> None:
        self.slot, self.generation, self.sock, self.fd = slot, generation, sock, sock.fileno()
        self.peer, self.listener, self.sndbuf = peer, listener, sndbuf
        self.sockname: Name | None = None  # kept of a socket that is closed
        self.connecting = listener < 0
        self.reading = True
        self.once = False  # one READ is asked for
        self.parts: deque[bytes | memoryview] = deque()  # written, and not yet the kernel's
        self.queued = 0  # bytes in them
        self.fin_wanted = self.fin_sent = self.close_wanted = self.eof_told = False
        self.writable_wanted = False
        self.idle_us, self.idle_at = 0, 0
        self.state_at = 0  # when a closed handle stops waiting for its peer's FIN
        self.timer_at = 0  # when the channel looks at the times above
        self.in_poll = -1  # the mask that the poll has; -1: it isn't there
        self.hung_up = False  # both sides are closed, and that is no news any more
        self.listed = False  # among those that the channel looks after this turn
        self.reason: Reason | None = None  # over

    @property
    def handle(self) -> int:
        return self.generation << SLOT_BITS | self.slot

    @property
    def wants_input(self) -> bool:
        """Also after a close, for the peer's FIN."""
        return (self.reading or self.once or self.close_wanted) and not self.eof_told and not self.connecting

    @property
    def mask(self) -> int:
        """What the poll has to wait for. It tells a loss even with 0; -1: nothing is worth waiting for."""
        mask = IN * self.wants_input | OUT * (bool(self.parts) or self.connecting)
        return mask if mask or not self.hung_up else -1

    def flush(self) -> None:
        """Hand the kernel what it takes, then the FIN. Raises OSError for a connection that is lost."""
        parts = self.parts
        while parts:
            try:
                sent = self.sock.sendmsg(list(islice(parts, MOST_PARTS)))
            except BlockingIOError:
                return
            self.queued -= sent
            while parts and sent >= len(parts[0]):
                sent -= len(parts.popleft())
            if sent:
                parts[0] = memoryview(parts[0])[sent:]
        if self.fin_wanted and not self.fin_sent:
            self.sock.shutdown(socket.SHUT_WR)
            self.fin_sent = True

    def error(self) -> int:
        """The errno that waits in the socket, 0 if none does."""
        return self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def reset(self) -> None:
        """Have the closing send a RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NONE)
