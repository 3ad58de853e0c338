"""`Joint`: a connection joined to a regular socket, which is the other end of a pair of AF_UNIX sockets.

Bytes, back-pressure and ends are carried across in both directions, inside the worker's loop and without blocking it:
a full pair pauses the connection, a full send buffer leaves the pair unread.
"""

from __future__ import annotations

import contextlib
import socket
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from mpserve.dataplane.completions import Event, Reason

if TYPE_CHECKING:
    from mpserve.framework.lwsocket import LwSocket
    from mpserve.framework.worker import Worker

OnOver = Callable[["LwSocket", Reason], None]
EOF, WRITABLE, CLOSED = int(Event.EOF), int(Event.WRITABLE), int(Event.CLOSED)
PAIR_BYTES = 1 << 20  # asked of the kernel for each direction; it gives at most net.core.wmem_max, twice
CHUNK_BYTES = 1 << 18


def join(worker: Worker, sock: LwSocket, joints: set[Joint], on_over: OnOver) -> tuple[Joint, socket.socket]:
    """A joint that stays in `joints` until its pair is closed, and the end of the pair that is the user's.

    `on_over(sock, reason)` is called when the connection is over. Raises OSError where no descriptor is left.
    """
    own, regular = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    for end in (own, regular):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PAIR_BYTES)
    own.setblocking(False)
    return Joint(worker, sock, own, joints, on_over), regular


class Joint:
    """The worker's end of the pair and the connection behind it: one of the worker's `endpoints`."""

    channel = None  # it belongs to none

    def __init__(self, worker: Worker, sock: LwSocket, own: socket.socket, joints: set[Joint], on_over: OnOver) -> None:
        self.sock: LwSocket | None = sock  # None: the connection is over
        self._worker, self._descriptors = worker, worker.descriptors
        self._own, self._joints, self._on_over = own, joints, on_over
        self._unsent: deque[memoryview] = deque()  # of the connection; while there is any, the connection is paused
        self._given = False  # nothing more comes from the connection
        self._open = True
        joints.add(self)

    def begin(self, unread: bytes) -> None:
        """Take over from the handler."""
        sock = self.sock
        assert sock is not None
        sock.set_timeout(None)
        sock.resume()
        if unread:
            self.on_data(unread)
        if sock._eof:
            self._end_of_input()
        if not sock._may_write:
            self._own.shutdown(socket.SHUT_RD)
        elif not sock._waiting:
            self._descriptors.add_reader(self._own, self._take)

    # -- from the connection to the socket

    def on_data(self, data: bytes) -> None:
        """What the peer sent."""
        if not self._open or self.sock is None or self.sock.closed:
            return
        if not self._unsent:
            sent = self._send(data)
            if sent == len(data):
                return
            data = data[sent:]
            self.sock.pause()
            self._descriptors.add_writer(self._own, self._give_more)
        self._unsent.append(memoryview(data))

    def _send(self, data: bytes | memoryview) -> int:
        """How many bytes are off our hands. A user who doesn't read any more gets none, and the peer doesn't learn it."""
        try:
            return self._own.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            return len(data)

    def _give_more(self) -> None:
        """The pair has room again."""
        while self._unsent:
            part = self._unsent.popleft()
            sent = self._send(part)
            if sent < len(part):
                self._unsent.appendleft(part[sent:])
                return
        self._descriptors.remove_writer(self._own)
        if self.sock is None or self.sock.closed:
            self.close()
        elif self._given:
            self._end_of_input()
        else:
            self.sock.resume()

    def _end_of_input(self) -> None:
        """The peer's FIN, behind what it sent."""
        self._given = True
        if not self._unsent and self._open:
            with contextlib.suppress(OSError):  # the user has closed it
                self._own.shutdown(socket.SHUT_WR)

    # -- from the socket to the connection

    def _take(self) -> None:
        """What the user wrote. A send buffer that is full has it wait in the pair, and the user with it."""
        sock = self.sock
        assert sock is not None
        try:
            data = self._own.recv(CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:  # closed, and something of the peer's unread
            data = b""
        if not sock._may_write:
            self._descriptors.remove_reader(self._own)
        elif not data:
            self._descriptors.remove_reader(self._own)
            self._descriptors.add_hang_up(self._own, self._hung_up)
            sock.shutdown()
        elif not sock.write(data) and self._open:
            self._descriptors.remove_reader(self._own)

    def _hung_up(self) -> None:
        """The user has closed the socket, both ways; everything it wrote is taken."""
        self._unsent.clear()
        if self.sock is not None:
            self.sock.close()
        self.close()

    # -- what becomes of the connection

    def on_event(self, kind: int, a: int) -> None:
        """Every event but READ. CONNECT and TIMEOUT mean nothing here."""
        sock = self.sock
        assert sock is not None
        if kind == CLOSED:
            self.sock = None
            self.let_go()
            del self._worker.endpoints[sock._slot]
            self._on_over(sock, Reason(a))
        elif kind == EOF:
            self._end_of_input()
        elif kind == WRITABLE and sock._drained() and self._open:
            self._descriptors.add_reader(self._own, self._take)

    def let_go(self) -> None:
        """The connection is over, or was closed from this side; what the peer sent before may still be read.

        What the user wrote and nobody took makes ConnectionResetError of the end that it reads, EOF otherwise.
        """
        if self._unsent:
            self._descriptors.remove_reader(self._own)
        else:
            self.close()

    def finish(self) -> None:
        """The worker stops."""
        if self.sock is not None:
            self.sock.close()

    def close(self) -> None:
        """Close the pair. Twice is once."""
        if self._open:
            self._open = False
            self._descriptors.remove(self._own)
            self._own.close()
            self._unsent.clear()
            self._joints.discard(self)
