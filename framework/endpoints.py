"""What a handle stands for: the interface of all endpoints to their channel, and the two of our own stack.

Methods named after commands are called by the channel when it flushes, in order; each ends, at once or later, in one
completion. The rules of cancelling are the same for all: `close` lets WRITE and DISCONNECT asked for before it take their
course and completes what else waits with -ECANCELED; `unregister` forgets everything without a word.
"""

from __future__ import annotations

import errno
from collections import deque
from typing import TYPE_CHECKING, Any

from mpserve.dataplane.events import CLOSED, CONNECT, EOF, OP_BITS, SLOT_MASK, WRITABLE, Command, Reason
from mpserve.framework import socket_options
from mpserve.framework.completions import ERRNO_OF, Completion, Kind
from mpserve.framework.joined_socket import JoinedSocket
from mpserve.framework.lwsocket import CREDIT

if TYPE_CHECKING:
    from mpserve.framework.channel import Channel

CANCELED = -errno.ECANCELED
KEPT_BYTES = 65_536  # unread data that is kept here before the stack is told to keep the rest, and its window closes
CLOSE = 0  # in a queue of writes, besides Kind.WRITE and Kind.DISCONNECT


class Endpoint:
    """One end that a channel can have a handle of. `handle` is 0 while it has none."""

    listens = False  # takes accept in place of read, write and disconnect
    seeks = False  # reads and writes may name an offset
    takes_disconnect = True

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.handle = 0
        self.cookie: Any = None
        self.shut = False  # disconnect was asked for
        self.closed = False

    def complete(self, kind: Kind, result: int, data: bytes = b"", endpoint: Any = None, waiting: int = 0) -> None:
        self.channel.ready.append(Completion(kind, self.handle, self.cookie, result, data, endpoint, waiting))

    def begin(self) -> None:
        """A handle was given. Raises OSError if it can't be."""

    def accept(self, count: int, regular: bool) -> None:
        raise NotImplementedError

    def read(self, size: int, offset: int | None) -> None:
        raise NotImplementedError

    def write(self, data: bytes, offset: int | None) -> None:
        raise NotImplementedError

    def disconnect(self) -> None:
        raise NotImplementedError

    def end(self) -> None:
        """Close: the handle is no more."""
        raise NotImplementedError

    def forget(self) -> None:
        """Cancel everything without a completion; the endpoint itself stays as it is."""
        raise NotImplementedError

    def put_back(self, parts: list[bytes]) -> None:
        """Data of READs that were forgotten before they were dispatched. A descriptor can't take it back."""

    def finish(self) -> None:
        """The channel's loop runs no longer, and the endpoint was closed: give up what can't be done at once."""

    def given_back(self) -> Any:
        """What `unregister` returns: what was registered."""
        return self

    def setsockopt(self, level: int, name: int, value: int | bytes | str) -> None:
        raise NotImplementedError

    def getsockopt(self, level: int, name: int) -> int | bytes:
        raise NotImplementedError


class Listener(Endpoint):
    """A listening address of our stack on the channel's core, made by `Channel.listen`. It listens while it is registered."""

    listens = True

    def __init__(self, channel: Channel, address: str, port: int) -> None:
        super().__init__(channel)
        self.address, self.port = address, port
        self._number = -1
        self._asked: deque[tuple[int, bool]] = deque()  # connections that each accept still asks for, and as what

    def __repr__(self) -> str:
        return f"<Listener {self.address}:{self.port}>"

    def begin(self) -> None:
        worker = self.channel.worker
        worker.channel.execute()  # the end of one before it may stand in the batch
        try:
            self._number = worker.channel.listen(self.port, self.address or None, accepts=0)
        except ValueError as error:
            raise OSError(errno.ENOBUFS, str(error)) from None
        worker.acceptors[self._number] = self
        if worker.requests is not None:
            worker.requests.pass_raw_of(self._number)

    def accept(self, count: int, regular: bool) -> None:
        self._asked.append((count, regular))
        self._command(Command.ACCEPT, count)

    def on_accept(self, slot: int, handle: int, waiting: int) -> None:
        """A connection that was asked for, or, just after the end, one that comes too late."""
        if not self._asked:
            Connection(self.channel, slot, handle).abort()
            return
        count, regular = self._asked.popleft()
        if count > 1:
            self._asked.appendleft((count - 1, regular))
        if regular:
            self._complete_regular(slot, handle, waiting)
        else:
            self.complete(Kind.ACCEPT, 0, endpoint=Connection(self.channel, slot, handle), waiting=waiting)

    def _complete_regular(self, slot: int, handle: int, waiting: int) -> None:
        try:
            joined = JoinedSocket.of(self.channel.worker, slot, handle)
        except OSError as error:  # no descriptor is left
            Connection(self.channel, slot, handle).abort()
            self.complete(Kind.ACCEPT, -(error.errno or errno.EIO), waiting=waiting)
            return
        self.complete(Kind.ACCEPT, 0, endpoint=joined, waiting=waiting)

    def end(self) -> None:
        for _ in self._asked:
            self.complete(Kind.ACCEPT, CANCELED)
        self.forget()

    def forget(self) -> None:
        # `worker.acceptors` keeps it until its number serves another: an ACCEPT may be on its way.
        self._asked.clear()
        self._command(Command.STOP_LISTENING)

    def _command(self, op: Command, argument: int = 0) -> None:
        self.channel.worker.channel.command(op, self._number, argument)

    def setsockopt(self, level: int, name: int, value: int | bytes | str) -> None:
        if not isinstance(value, int):
            raise OSError(errno.EINVAL, f"socket option {name} = {value!r}: give an int")
        self.channel.worker.machine.set_listener_option(self._number, level, name, value)

    def getsockopt(self, level: int, name: int) -> int | bytes:
        raise OSError(errno.ENOPROTOOPT, "the options of a listener can be set, not read")


class Connection(Endpoint):
    """A lightweight socket as a channel has it: a connection of our stack, with no file descriptor behind it.

    An ACCEPT completion brings one; register it, or close it.
    """

    def __init__(self, channel: Channel, slot: int, handle: int, connecting: bool = False) -> None:
        super().__init__(channel)
        self._worker = channel.worker
        self._core = channel.worker.channel
        self._slot, self._word = slot, handle << OP_BITS
        self._credit = CREDIT
        self._connecting = connecting
        self._asked = connecting  # a CONNECT completion is owed
        self._unread: deque[bytes | memoryview] = deque()
        self._unread_bytes = 0
        self._reads: deque[int] = deque()  # sizes; empty while there is unread data
        self._writes: deque[tuple[int, bytes | memoryview, int]] = deque()  # kind, what is left of it, its length
        self._paused = self._eof = False
        self._names: tuple[tuple[str, int], tuple[str, int]] | None = None  # when it is over
        self._error = 0  # errno that ended it; EPIPE: both sides have closed
        self._worker.endpoints[slot] = self

    def __repr__(self) -> str:
        return f"<Connection {self._word >> OP_BITS:#x}{' over' if self._error else ''}>"

    # -- facts

    @property
    def peername(self) -> tuple[str, int]:
        """(address, port) of the peer."""
        return (self._names or self._worker.machine.names(self._slot))[0]

    @property
    def sockname(self) -> tuple[str, int]:
        """(address, port) of this side."""
        return (self._names or self._worker.machine.names(self._slot))[1]

    def _require_alive(self) -> None:
        if self._error:
            raise OSError(errno.ENOTCONN, "the connection is over")

    def setsockopt(self, level: int, name: int, value: int | bytes | str) -> None:
        self._require_alive()
        for argument in socket_options.arguments(level, name, value):
            self._core.command(Command.SET, self._word >> OP_BITS, argument)

    def getsockopt(self, level: int, name: int) -> int | bytes:
        self._require_alive()
        return self._worker.machine.read_option(self._slot, level, name)

    # -- reading

    def read(self, size: int, offset: int | None = None) -> None:
        if self._unread:
            self._complete_read(size)
        elif self._eof or self._error:
            self._complete_end()
        else:
            self._reads.append(size)
            self._resume()

    def _resume(self) -> None:
        if self._paused and self._unread_bytes < KEPT_BYTES // 2 and not self._error:
            self._paused = False
            self._command(Command.RESUME)

    def on_data(self, data: bytes) -> None:
        """Bytes have arrived; never none."""
        if self.closed:
            return
        if self._reads and len(data) <= self._reads[0]:
            self._reads.popleft()
            self.complete(Kind.READ, len(data), data)
            return
        self._unread.append(data)
        self._unread_bytes += len(data)
        while self._reads and self._unread:
            self._complete_read(self._reads.popleft())
        if self._unread_bytes >= KEPT_BYTES and not self._paused:
            self._paused = True
            self._command(Command.PAUSE)

    def _complete_read(self, size: int) -> None:
        """Give `size` bytes of what is unread, or all of it if that is less."""
        parts: list[bytes | memoryview] = []
        while size and self._unread:
            part = self._unread.popleft()
            if len(part) > size:
                part = memoryview(part)
                self._unread.appendleft(part[size:])
                part = part[:size]
            parts.append(part)
            size -= len(part)
        data = b"".join(parts)
        self._unread_bytes -= len(data)
        self.complete(Kind.READ, len(data), data)
        self._resume()

    def _complete_end(self) -> None:
        """What a READ gets where there is no more: the end of the stream, or the error that cut it off."""
        self.complete(Kind.READ, 0 if self._eof or self._error == errno.EPIPE else -self._error)

    # -- writing

    def write(self, data: bytes, offset: int | None = None) -> None:
        self._queue(Kind.WRITE, data)

    def disconnect(self) -> None:
        self._queue(Kind.DISCONNECT)

    def _queue(self, kind: int, data: bytes = b"") -> None:
        self._writes.append((kind, data, len(data)))
        if len(self._writes) == 1:
            self._feed()

    def _feed(self) -> None:
        """Hand down what was asked for, in order, as far as the send buffer has room."""
        while self._writes and not self._connecting:
            kind, data, length = self._writes[0]
            if self._error:
                length = -self._error
            elif kind == Kind.WRITE:
                if not self._send(data):
                    return
            elif kind == Kind.DISCONNECT:
                self._command(Command.SHUTDOWN)
            else:
                self._command(Command.CLOSE)
            self._writes.popleft()
            if kind != CLOSE:
                self.complete(Kind(kind), length)

    def _send(self, data: bytes | memoryview) -> bool:
        """Put bytes in the send buffer; False if some have to wait for room, of which the stack will tell."""
        length = len(data)
        if length > self._credit:
            room = self._worker.send_room(self)
            if length > room:
                kind, _, whole = self._writes[0]
                if room:
                    self._put(data[:room])
                self._writes[0] = (kind, memoryview(data)[room:], whole)
                self._credit = 0
                self._command(Command.WANT_WRITABLE)
                return False
            self._credit = min(CREDIT, room)
        self._credit -= length
        if length:
            self._put(data)
        return True

    def _put(self, data: bytes | memoryview) -> None:
        self._core.words.append(self._word)
        self._core.payloads.append(data if type(data) is bytes else bytes(data))

    def _command(self, op: Command) -> None:
        self._core.command(op, self._word >> OP_BITS)

    # -- events

    def on_event(self, kind: int, a: int) -> None:
        """Every event of the connection but READ and ACCEPT; `a` as `Event` says."""
        if kind == WRITABLE:
            self._feed()
        elif kind == EOF:
            self._eof = True
            self._end_reads()
        elif kind == CONNECT and a == 0:
            self._connecting = False
            self._complete_connect(0)
            self._feed()
        elif kind == CLOSED:
            self._over(Reason(a))

    def _complete_connect(self, result: int) -> None:
        if self._asked:
            self._asked = False
            self.complete(Kind.CONNECT, result)

    def _end_reads(self) -> None:
        while self._reads:
            self._reads.popleft()
            self._complete_end()

    def _over(self, reason: Reason) -> None:
        """The connection is no more: its slot serves another from the next turn on."""
        self._names = self._worker.machine.names(self._slot)
        del self._worker.endpoints[self._slot]
        self._error = ERRNO_OF[reason]
        self._connecting = False
        self._complete_connect(-self._error)
        self._end_reads()
        self._feed()

    # -- ending

    def close(self) -> None:
        """Send what was written, then FIN; what still arrives is dropped. Its handle, if it has one, is closed. Twice is once."""
        if self.closed:
            return
        if self.handle:
            self.channel.close(self.handle)
        else:
            self.closed = True
            self.end()

    def end(self) -> None:
        self._unread.clear()
        while self._reads:
            self._reads.popleft()
            self.complete(Kind.READ, CANCELED)
        if self._connecting:
            self._complete_connect(CANCELED)
            self._connecting = False
            while self._writes:
                self.complete(Kind(self._writes.popleft()[0]), CANCELED)
        self._queue(CLOSE)

    def forget(self) -> None:
        self._reads.clear()
        self._writes.clear()
        self._asked = False

    def put_back(self, parts: list[bytes]) -> None:
        self._unread.extendleft(reversed(parts))
        self._unread_bytes += sum(map(len, parts))

    def abort(self) -> None:
        """Send RST; nobody is told."""
        self.closed = True
        self.forget()
        self._command(Command.ABORT)

    def finish(self) -> None:
        """FIN, but RST where WRITEs are not done, so that the peer does not take a part for the whole."""
        self._command(Command.ABORT if self._writes else Command.CLOSE)


def connect(channel: Channel, address: str, port: int, source_port: int) -> Connection:
    """Begin a connection. Raises OSError for what can't even begin."""
    handle = channel.worker.channel.connect(address, port, source_port)
    slot = handle & SLOT_MASK
    if channel.worker.requests is not None:
        channel.worker.requests.pass_raw(slot)
    return Connection(channel, slot, handle, connecting=True)
