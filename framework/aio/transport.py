"""`LwTransport`: an asyncio transport over a lightweight socket, and `Pending`, a connection that has none yet.

Both stand in a socket's cookie and get its events: data_received, eof_received, drained, ended.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys
from asyncio import constants, futures, protocols, transports
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mpserve.dataplane.completions import Reason
from mpserve.framework.aio.faces import SocketFace

if TYPE_CHECKING:
    from mpserve.framework.aio.loop import Loop
    from mpserve.framework.lwsocket import LwSocket

_EOF = None  # among what is held: the peer's FIN
_ERRORS: dict[Reason, int] = {
    Reason.RESET: errno.ECONNRESET,
    Reason.ABORTED: errno.ECONNABORTED,
    Reason.TIMED_OUT: errno.ETIMEDOUT,
    Reason.SLOW_READER: errno.ECONNABORTED,
    Reason.NO_MEMORY: errno.ENOBUFS,
    Reason.REFUSED: errno.ECONNREFUSED,
    Reason.UNREACHABLE: errno.EHOSTUNREACH,
}


def error_of(reason: Reason) -> OSError | None:
    """The exception that tells of an end: ConnectionResetError, TimeoutError ...; None for FINISHED."""
    number = _ERRORS.get(reason)
    return None if number is None else OSError(number, os.strerror(number))


class Pending:
    """A connection that has no transport yet: holds what comes meanwhile. asyncio takes it for a socket."""

    family, type, proto = socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP

    def __init__(self, sock: LwSocket, established: asyncio.Future[None] | None = None) -> None:
        self.sock, self.held, self._established = sock, deque[Any](), established
        sock.cookie = self

    def connected(self) -> None:
        if self._established is not None and not self._established.done():
            self._established.set_result(None)

    def data_received(self, data: bytes) -> None:
        self.held.append(data)

    def eof_received(self) -> None:
        self.held.append(_EOF)

    def drained(self) -> None:
        pass

    def ended(self, reason: Reason) -> None:
        if self._established is None or self._established.done():
            self.held.append(reason)
        else:
            self._established.set_exception(error_of(reason) or ConnectionAbortedError())

    def setblocking(self, flag: bool) -> None:
        """Nothing here ever blocks."""

    def close(self) -> None:
        """Nobody wants it."""
        self.sock.cookie = None
        self.sock.abort()


class LwTransport(transports._FlowControlMixin, asyncio.Transport):
    """A connection of our stack as asyncio has it.

    The write buffer is what the stack's send buffer has no room for. `connection_lost` follows `close` when that is
    empty; the stack goes on to deliver what it holds. While reading is paused, and until the
    one who opened the connection has seen it, events are held back, in order.
    """

    _extra: dict[str, Any]
    _loop: Loop
    _maybe_pause_protocol: Callable[[], None]
    _maybe_resume_protocol: Callable[[], None]
    _start_tls_compatible = True
    _sendfile_compatible = constants._SendfileMode.FALLBACK  # type: ignore[attr-defined]

    def __init__(
        self,
        loop: Loop,
        pending: Pending,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
        server: Any = None,
    ) -> None:
        super().__init__(extra, loop)
        self._sock: LwSocket = pending.sock
        self._held = pending.held
        self._peername, self._sockname = self._sock.peername, self._sock.sockname
        self._extra.update(socket=SocketFace(self), peername=self._peername, sockname=self._sockname)
        self._server = server
        self._closing = self._paused = self._eof = self._lost = False
        self._gated = True  # events go to _held
        self._late_writes = 0
        self._empty_waiter: asyncio.Future[None] | None = None
        self.set_protocol(protocol)
        self._sock.cookie = self
        if server is not None:
            _attach(server, self)
        loop.call_soon(self._protocol.connection_made, self)
        if waiter is not None:
            loop.call_soon(futures._set_result_unless_cancelled, waiter, None)  # type: ignore[attr-defined]
        # Twice: whoever awaits `waiter` comes before the first data, as on a selector's loop.
        loop.call_soon(loop.call_soon, self._release)

    def __repr__(self) -> str:
        state = "closed" if self._lost else "closing" if self._closing else "open"
        return f"<LwTransport {state} {self._sockname}->{self._peername} unsent={self.get_write_buffer_size()}>"

    # -- events of the socket

    def data_received(self, data: bytes) -> None:
        if self._gated and not self._closing:
            self._held.append(data)
        else:
            self._feed(data)

    def eof_received(self) -> None:
        """A round later than data of the same turn, as on a selector's loop: whoever waits for that data comes before the end."""
        self._held.append(_EOF)
        if not self._gated:
            self._gated = True
            self._loop.call_soon(self._release)

    def connected(self) -> None:
        """It was, before there was a transport."""

    def drained(self) -> None:
        """The stack has taken some of the write buffer. What `resume_writing` writes still goes out, also after `close`: TLS
        says its farewell there."""
        if self._lost:
            return
        self._maybe_resume_protocol()
        if self.get_write_buffer_size():
            return
        if self._empty_waiter is not None and not self._empty_waiter.done():
            self._empty_waiter.set_result(None)
        if self._closing:
            self._lost = True
            self._sock.close()
            self._connection_lost(None)

    def ended(self, reason: Reason) -> None:
        """The connection is over. After both FINs it stays open to the protocol until it is closed, as a socket would."""
        if reason == Reason.FINISHED and not self._closing:
            return
        self._force_close(error_of(reason))

    def _release(self) -> None:
        """Pass on what was held."""
        while self._held and not self._paused and not self._closing:
            item = self._held.popleft()
            if item is _EOF:
                self._take_eof()
            elif isinstance(item, Reason):
                self.ended(item)
            else:
                self._feed(item)
        self._gated = self._paused or bool(self._held)

    def _feed(self, data: bytes) -> None:
        if self._closing:
            return
        try:
            if self._buffered:
                self._fill_buffers(data)
            else:
                self._protocol.data_received(data)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            call = "buffer_updated" if self._buffered else "data_received"
            self._fatal_error(error, f"Fatal error: protocol.{call}() call failed.")

    def _fill_buffers(self, data: bytes) -> None:
        """Give data to a BufferedProtocol, a buffer at a time; it may pause or hand over to another protocol on the way."""
        view = memoryview(data)
        while view:
            if self._paused or self._closing or not self._buffered:
                self._held.appendleft(bytes(view))
                self._gated = True
                if not self._paused:
                    self._loop.call_soon(self._release)
                return
            buffer = self._protocol.get_buffer(len(view))
            size = min(len(buffer), len(view))
            if not size:
                raise RuntimeError("get_buffer() returned an empty buffer")
            memoryview(buffer).cast("B")[:size] = view[:size]
            view = view[size:]
            self._protocol.buffer_updated(size)

    def _take_eof(self) -> None:
        if self._closing:
            return
        try:
            keep_open = self._protocol.eof_received()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._fatal_error(error, "Fatal error: protocol.eof_received() call failed.")
            return
        if not keep_open:
            self.close()

    # -- the transport's face: reading

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol: Any = protocol
        self._buffered = isinstance(protocol, protocols.BufferedProtocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol  # type: ignore[no-any-return]

    def is_reading(self) -> bool:
        return not self._closing and not self._paused

    def pause_reading(self) -> None:
        if not self.is_reading():
            return
        self._paused = self._gated = True
        if not self._sock.closed:
            self._sock.pause()

    def resume_reading(self) -> None:
        if self._closing or not self._paused:
            return
        self._paused = False
        if not self._sock.closed:
            self._sock.resume()
        self._loop.call_soon(self._release)

    # -- writing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"data argument must be a bytes-like object, not {type(data).__name__!r}")
        if self._eof:
            raise RuntimeError("Cannot call write() after write_eof()")
        if self._empty_waiter is not None:
            raise RuntimeError("unable to write; sendfile is in progress")
        if self._lost or self._sock.closed:
            self._write_too_late()
        elif data and not self._sock.write(data):
            self._maybe_pause_protocol()

    def _write_too_late(self) -> None:
        """Dropped, and said in the log when it goes on, as asyncio does."""
        if self._late_writes >= constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES:
            asyncio.log.logger.warning("socket.send() raised exception.")  # type: ignore[attr-defined]
        self._late_writes += 1

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def get_write_buffer_size(self) -> int:
        return self._sock._backlog_bytes

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        if self._closing or self._eof:
            return
        self._eof = True
        self._sock.shutdown()

    def _make_empty_waiter(self) -> asyncio.Future[None]:
        """For the loop's sendfile: done when the write buffer is empty; until `_reset_empty_waiter` nothing is written."""
        if self._empty_waiter is not None:
            raise RuntimeError("Empty waiter is already set")
        self._empty_waiter = self._loop.create_future()
        if not self.get_write_buffer_size():
            self._empty_waiter.set_result(None)
        return self._empty_waiter

    def _reset_empty_waiter(self) -> None:
        self._empty_waiter = None

    # -- ending

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        self._held.clear()
        if not self.get_write_buffer_size():
            self._lost = True
            self._sock.close()
            self._loop.call_soon(self._connection_lost, None)

    def abort(self) -> None:
        """As asyncio's: the write buffer is lost; what the stack has taken is sent, and FIN."""
        self._force_close(None)

    def reset(self) -> None:
        """Send RST at once; what wasn't sent is lost."""
        self._sock.abort()
        self._force_close(None)

    def _fatal_error(self, error: BaseException, message: str = "Fatal error on transport") -> None:
        if not isinstance(error, OSError):
            context = {"message": message, "exception": error, "transport": self, "protocol": self._protocol}
            self._loop.call_exception_handler(context)
        self._force_close(error)

    def _force_close(self, error: BaseException | None) -> None:
        if self._lost:
            return
        self._closing = self._lost = True
        self._sock._backlog, self._sock._backlog_bytes = None, 0
        self._sock.close()
        self._loop.call_soon(self._connection_lost, error)

    def _connection_lost(self, error: BaseException | None) -> None:
        self._sock.cookie = None
        self._held.clear()
        try:
            self._protocol.connection_lost(error)
        finally:
            if self._empty_waiter is not None and not self._empty_waiter.done():
                self._empty_waiter.set_exception(ConnectionError("Connection is closed by peer"))
            self._protocol = None  # whoever still holds the transport holds no more than that
            server, self._server = self._server, None
            if server is not None:
                _detach(server, self)


def _attach(server: Any, transport: LwTransport) -> None:
    server._attach(*_server_arguments(transport))


def _detach(server: Any, transport: LwTransport) -> None:
    server._detach(*_server_arguments(transport))


def _server_arguments(transport: LwTransport) -> tuple[Any, ...]:
    """From Python 3.13 on, a server knows its transports, not only their number."""
    return (transport,) if sys.version_info >= (3, 13) else ()
