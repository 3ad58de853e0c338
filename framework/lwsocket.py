"""`LwSocket`: a connection of our stack as a handler sees it. No file descriptor stands behind it.

A socket puts commands into its worker's batch; nothing is sent before the callback returns. What the stack's send buffer
has no room for waits here and follows as it drains.
"""

from __future__ import annotations

import socket
import struct
from collections import deque
from typing import TYPE_CHECKING, Any

from mpserve.dataplane.completions import OP_BITS, Command
from mpserve.framework import socket_options
from mpserve.framework.errors import Closed
from mpserve.framework.timers import timeout_us

if TYPE_CHECKING:
    from mpserve.framework.worker import Worker

CREDIT = 16_384  # bytes that a socket may write before it looks at the send buffer again

WRITE, SHUTDOWN, CLOSE, ABORT = int(Command.WRITE), int(Command.SHUTDOWN), int(Command.CLOSE), int(Command.ABORT)
PAUSE, RESUME, TIMEOUT, WANT_WRITABLE = (
    int(c) for c in (Command.PAUSE, Command.RESUME, Command.TIMEOUT, Command.WANT_WRITABLE)
)
SET = int(Command.SET)
_ARGUMENT = struct.Struct("<q").pack
_NONE = _ARGUMENT(0)

# SHUT: no more writes; CLOSING: closed by us, not over; GONE: over, `on_close` is being told; FORGOTTEN: its slot is another's
OPEN, SHUT, CLOSING, GONE, FORGOTTEN = range(5)


class LwSocket:
    """A lightweight socket, made by the worker. `cookie` is the user's own."""

    __slots__ = (
        "_backlog",
        "_backlog_bytes",
        "_credit",
        "_eof",
        "_finish",
        "_put_payload",
        "_put_word",
        "_slot",
        "_state",
        "_waiting",
        "_word",
        "_worker",
        "cookie",
    )

    def __init__(self, worker: Worker, slot: int, handle: int) -> None:
        self._worker = worker
        self._put_word, self._put_payload = worker.channel.put_word, worker.channel.put_payload
        self._backlog: deque[memoryview] | None = None
        self._reuse(slot, handle)

    def _reuse(self, slot: int, handle: int) -> None:
        self._slot = slot
        self._word = handle << OP_BITS
        self._backlog_bytes = 0
        self._credit = CREDIT
        self._state = OPEN
        self._eof = False  # the peer's was told
        self._waiting = False  # a write answered False, and on_writable is owed
        self._finish = -1  # SHUTDOWN or CLOSE, to follow the backlog
        self.cookie: Any = None

    def __repr__(self) -> str:
        return f"<LwSocket {self._word >> OP_BITS:#x} {('open', 'shut', 'closing', 'closed', 'closed')[self._state]}>"

    # -- writing

    def write(self, data: bytes | bytearray | memoryview) -> bool:
        """Send bytes, all of them. False: more is buffered than should be; wait for `on_writable` before writing on.

        The data is copied before `write` returns, unless it is `bytes`. Raises Closed after close, shutdown or abort, and
        TypeError for anything but bytes. A peer that leaves more than the hard limit unread is aborted.
        """
        if type(data) is not bytes:
            data = bytes(memoryview(data))
        credit = self._credit - len(data)
        if credit < 0:
            return self._write_checked(data)
        self._credit = credit
        self._put_word(self._word)
        self._put_payload(data)
        return True

    def writev(self, parts: list[bytes] | tuple[bytes, ...]) -> bool:
        """`write` of several pieces, as one."""
        return self.write(b"".join(parts))

    def _write_checked(self, data: bytes) -> bool:
        """The way of a write that may not fit: looks at the send buffer, keeps here what must wait."""
        if self._state != OPEN:
            raise Closed("the socket was closed or shut down")
        if self._backlog:
            self._backlog.append(memoryview(data))
            self._backlog_bytes += len(data)
        else:
            room = self._worker.send_room(self)
            if len(data) <= room:
                self._put_word(self._word)
                self._put_payload(data)
                self._credit = min(CREDIT, room - len(data))
                return True
            self._backlog = deque([memoryview(data)])
            self._backlog_bytes = len(data)
            self._feed(room)
            self._command(WANT_WRITABLE)
        self._credit = -1 if not data else 0
        self._waiting = True
        self._worker.check_hard_limit(self)
        return False

    def _feed(self, room: int) -> None:
        """Move up to `room` bytes from the backlog into the batch."""
        while self._backlog and room > 0:
            part = self._backlog.popleft()
            if len(part) > room:
                self._backlog.appendleft(part[room:])
                part = part[:room]
            self._put_word(self._word)
            self._put_payload(bytes(part))
            self._backlog_bytes -= len(part)
            room -= len(part)

    def _drained(self) -> bool:
        """The send buffer has room again. True if `on_writable` is due."""
        if self._backlog:
            self._feed(self._worker.send_room(self))
            if self._backlog:
                self._command(WANT_WRITABLE)
                return False
        if self._finish >= 0:
            self._command(self._finish)
            self._finish = -1
        due = self._waiting and self._state == OPEN
        self._waiting = False
        return due

    def _command(self, op: int, argument: bytes = _NONE) -> None:
        self._put_word(self._word | op)
        self._put_payload(argument)

    def _require_open(self) -> None:
        if self._state >= CLOSING:
            raise Closed("the socket was closed")

    def _require_slot(self) -> None:
        if self._state == FORGOTTEN:
            raise Closed("the connection is over, and its place is another's")

    @property
    def _may_write(self) -> bool:
        return self._state == OPEN

    def _end_writing(self, op: int) -> None:
        self._credit = -1
        if self._backlog:
            self._finish = op
        else:
            self._command(op)

    # -- ending

    def shutdown(self) -> None:
        """Send FIN after what was written; the peer may go on sending."""
        self._require_open()
        if self._state == OPEN:
            self._state = SHUT
            self._end_writing(SHUTDOWN)

    def close(self) -> None:
        """Send what was written, then FIN; what still arrives is dropped. `on_close` follows. Twice is once.

        If nothing is left to be sent and data had come that a paused socket did not take, the peer gets a RST instead.
        """
        if self._state < CLOSING:
            self._state = CLOSING
            self._worker.forget(self)
            self._end_writing(CLOSE)

    def abort(self) -> None:
        """Send RST and forget what was written. Twice is once."""
        if self._state < GONE:
            if self._state < CLOSING:
                self._worker.forget(self)
            self._state = CLOSING
            self._credit = -1
            self._backlog = None
            self._backlog_bytes = 0
            self._finish = -1
            self._command(ABORT)

    # -- reading

    def pause(self) -> None:
        """Take no more data; the peer's window closes when the receive buffer is full."""
        self._require_open()
        self._command(PAUSE)

    def resume(self) -> None:
        """Take data again."""
        self._require_open()
        self._command(RESUME)

    def set_timeout(self, seconds: float | None) -> None:
        """Have `on_timeout` called whenever nothing has arrived for so long. None: never."""
        self._require_open()
        self._command(TIMEOUT, _NONE if seconds is None else _ARGUMENT(timeout_us(seconds)))

    # -- handing over

    def to_socket(self, unread: bytes = b"") -> socket.socket:
        """A regular socket (one end of an AF_UNIX pair) joined to the connection, for select, asyncio, ssl, subprocesses.

        `unread` is read from it first. The handler gets no more callbacks for the connection but `on_close`; names, options
        and `info` stay with this object. Use the socket in another thread or without blocking. `docs/handlers.md` says
        what it carries across. Raises Closed after close or abort, and the second time.
        """
        self._require_open()
        return self._worker.join(self, bytes(memoryview(unread)))

    # -- socket options

    def setsockopt(self, level: int, name: int, value: int | bytes | str) -> None:
        """Set an option by the numbers of Python's `socket` module: `setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)`.

        `docs/handlers.md` lists them. Raises OSError for one that is not supported, or a value out of range.
        """
        self._require_open()
        for argument in self._worker.machine.option_arguments(self._slot, level, name, value):
            self._command(SET, _ARGUMENT(argument))

    def getsockopt(self, level: int, name: int) -> int | bytes:
        """The value of an option, what was just set included. Raises OSError for one that is not supported."""
        self._require_open()
        return self._worker.machine.read_option(self._slot, level, name)

    @property
    def info(self) -> socket_options.TcpInfo:
        """The connection's state, times and windows, as TCP_INFO has them."""
        self._require_open()
        return self._worker.machine.tcp_info(self._slot)

    # -- facts

    @property
    def closed(self) -> bool:
        """Whether close, abort or the end of the connection came."""
        return self._state >= CLOSING

    @property
    def peername(self) -> tuple[str, int]:
        """(address, port) of the peer. Raises Closed for a socket that was kept beyond `on_close`."""
        self._require_slot()
        return self._worker.machine.names(self._slot)[0]

    @property
    def sockname(self) -> tuple[str, int]:
        """(address, port) of this side."""
        self._require_slot()
        return self._worker.machine.names(self._slot)[1]

    @property
    def listener(self) -> tuple[str, int] | None:
        """(address, port) of the listener that accepted the connection; '' stands for any address. None: it was connected."""
        self._require_slot()
        return self._worker.listener_of(self._slot)
