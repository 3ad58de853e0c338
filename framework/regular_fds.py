"""Regular file descriptors in a channel: kernel sockets, pipes and whatever else epoll takes. Files are in `regular_files`.

Each command is tried at once, without blocking; what would block waits for epoll. io_uring would carry all of it, but is
not used: container runtimes commonly forbid its system calls, so that epoll were needed beside it, and of its Python bindings
only `liburing` is still released, by one author and after gaps of three and two years.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import stat
import struct
from collections import deque
from typing import TYPE_CHECKING, Any

from mpserve.framework.completions import Kind
from mpserve.framework.descriptor import Descriptor, descriptor_of
from mpserve.framework.endpoints import CANCELED, CLOSE, Endpoint
from mpserve.framework.regular_files import MOST_READ, RegularFile

if TYPE_CHECKING:
    from mpserve.framework.channel import Channel

_UNACKED_AT = 24  # in struct tcp_info; of a listening socket it is the length of the accept queue
_IN, _OUT = select.EPOLLIN, select.EPOLLOUT


class Poller:
    """One epoll for the descriptors of a channel that wait, each for one event; the others are not armed, or not in it."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._inside: dict[int, RegularFd] = {}
        self._waiting: set[int] = set()

    def fileno(self) -> int:
        """Readable when `poll` has something to do."""
        return self._epoll.fileno()

    def wait(self, endpoint: RegularFd, events: int) -> None:
        """Have `on_ready` of the endpoint called, once, when one of `events` is there; 0: no more."""
        fd = endpoint.fd
        if not events:
            if fd in self._waiting:  # an error of the descriptor would be told for ever
                self.remove(fd)
            return
        self._waiting.add(fd)
        if fd in self._inside:
            try:
                self._epoll.modify(fd, events | select.EPOLLONESHOT)
                return
            except FileNotFoundError:
                pass  # the descriptor was closed elsewhere, and its number stands for another by now
        self._inside[fd] = endpoint
        self._epoll.register(fd, events | select.EPOLLONESHOT)

    def remove(self, fd: int) -> None:
        self._waiting.discard(fd)
        if self._inside.pop(fd, None) is not None:
            with contextlib.suppress(OSError):  # its owner has closed it
                self._epoll.unregister(fd)

    @property
    def waits(self) -> bool:
        """Whether any descriptor is waited for."""
        return bool(self._waiting)

    def poll(self) -> None:
        """Let those go on that can."""
        if not self._waiting:
            return
        for fd, _ in self._epoll.poll(0):
            if fd in self._waiting:
                self._waiting.discard(fd)
                self._inside[fd].on_ready()

    def close(self) -> None:
        """Give up whom nobody waits for any more."""
        for endpoint in list(self._inside.values()):
            endpoint.finish()
        self._epoll.close()


class RegularFd(Descriptor):
    """A descriptor that epoll takes. While it is registered it does not block."""

    def __init__(self, channel: Channel, thing: Any) -> None:
        super().__init__(channel, thing)
        self._blocked = True
        self._timeout: float | None = None

    def begin(self) -> None:
        self._blocked = os.get_blocking(self.fd)
        if isinstance(self.thing, socket.socket):
            self._timeout = self.thing.gettimeout()
            self.thing.settimeout(0)
        os.set_blocking(self.fd, False)

    def on_ready(self) -> None:
        """The descriptor may take what was asked for now."""
        raise NotImplementedError

    def _wait(self, events: int) -> None:
        self.channel.poller.wait(self, events)

    def _let_go(self) -> None:
        """Leave epoll and make the descriptor as it was."""
        self.channel.poller.remove(self.fd)
        try:
            os.set_blocking(self.check(), self._blocked)
        except (OSError, ValueError):
            return  # closed by its owner
        if isinstance(self.thing, socket.socket):
            self.thing.settimeout(self._timeout)

    def finish(self) -> None:
        self._close()

    def _close(self) -> None:
        self.channel.poller.remove(self.fd)
        self.close_descriptor()

    def _as_socket(self) -> socket.socket:
        """A socket object of its own on the same socket. Raises OSError (ENOTSOCK)."""
        copy = os.dup(self.check())
        try:
            return socket.socket(fileno=copy)
        except OSError:
            os.close(copy)
            raise

    def setsockopt(self, level: int, name: int, value: int | bytes | str) -> None:
        with self._as_socket() as sock:
            sock.setsockopt(level, name, value.encode() if isinstance(value, str) else value)

    def getsockopt(self, level: int, name: int) -> int | bytes:
        with self._as_socket() as sock:
            return sock.getsockopt(level, name)


class RegularStream(RegularFd):
    """A connected socket, a pipe, a terminal."""

    def __init__(self, channel: Channel, thing: Any) -> None:
        super().__init__(channel, thing)
        self.takes_disconnect = stat.S_ISSOCK(os.fstat(self.fd).st_mode)
        self._reads: deque[int] = deque()
        self._writes: deque[tuple[int, bytes | memoryview, int]] = deque()  # kind, what is left of it, its length

    def read(self, size: int, offset: int | None) -> None:
        self._reads.append(size)
        if len(self._reads) == 1:
            self.on_ready()

    def write(self, data: bytes, offset: int | None) -> None:
        self._queue(Kind.WRITE, data)

    def disconnect(self) -> None:
        self._queue(Kind.DISCONNECT)

    def _queue(self, kind: int, data: bytes = b"") -> None:
        self._writes.append((kind, data, len(data)))
        if len(self._writes) == 1:
            self.on_ready()

    def on_ready(self) -> None:
        wanted = 0
        while self._reads and not wanted:
            wanted = 0 if self._try_read(self._reads[0]) else _IN
        while self._writes:
            if not self._try_write(*self._writes[0]):
                wanted |= _OUT
                break
            if self._writes.popleft()[0] == CLOSE:
                self._close()
                return
        self._wait(wanted)

    def _try_read(self, size: int) -> bool:
        """Complete the first READ; False if nothing is there."""
        data = b""
        try:
            data = os.read(self.check(), min(size, MOST_READ))
            result = len(data)
        except BlockingIOError:
            return False
        except OSError as error:
            result = -(error.errno or errno.EIO)
        self._reads.popleft()
        self.complete(Kind.READ, result, data)
        return True

    def _try_write(self, kind: int, data: bytes | memoryview, length: int) -> bool:
        """Complete what stands first among the writes; False if the kernel has no room for all of it."""
        result = length
        try:
            if kind == Kind.DISCONNECT:
                with self._as_socket() as sock:
                    sock.shutdown(socket.SHUT_WR)
            while data:
                data = memoryview(data)[os.write(self.check(), data) :]
        except BlockingIOError:
            self._writes[0] = (kind, data, length)
            return False
        except OSError as error:
            result = -(error.errno or errno.EIO)
        if kind != CLOSE:
            self.complete(Kind(kind), result)
        return True

    def end(self) -> None:
        while self._reads:
            self._reads.popleft()
            self.complete(Kind.READ, CANCELED)
        self._queue(CLOSE)

    def forget(self) -> None:
        self._reads.clear()
        self._writes.clear()
        self._let_go()


class RegularListener(RegularFd):
    """A listening kernel socket, TCP or Unix. The endpoints of its ACCEPTs are `socket.socket` objects."""

    listens = True

    def __init__(self, channel: Channel, thing: Any) -> None:
        super().__init__(channel, thing)
        self._counts: deque[int] = deque()
        self._socket = thing

    def begin(self) -> None:
        super().begin()
        if not isinstance(self.thing, socket.socket):
            self._socket = self._as_socket()
            self._socket.settimeout(0)

    def accept(self, count: int, regular: bool) -> None:
        self._counts.append(count)
        if len(self._counts) == 1:
            self.on_ready()

    def on_ready(self) -> None:
        while self._counts:
            try:
                self.check()
                connection, _ = self._socket.accept()
            except BlockingIOError:
                break
            except OSError as error:
                self._counts.popleft()
                self.complete(Kind.ACCEPT, -(error.errno or errno.EIO))
                continue
            self._counts[0] -= 1
            if not self._counts[0]:
                self._counts.popleft()
            self.complete(Kind.ACCEPT, 0, endpoint=connection, waiting=self._waiting())
        self._wait(_IN if self._counts else 0)

    def _waiting(self) -> int:
        try:
            info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 64)
        except OSError:
            return -1
        return int(struct.unpack_from("I", info, _UNACKED_AT)[0])

    def end(self) -> None:
        for _ in self._counts:
            self.complete(Kind.ACCEPT, CANCELED)
        self._counts.clear()
        self._close()
        self._drop_copy()

    def forget(self) -> None:
        self._counts.clear()
        self._let_go()
        self._drop_copy()

    def finish(self) -> None:
        super().finish()
        self._drop_copy()

    def _drop_copy(self) -> None:
        if self._socket is not self.thing:
            self._socket.close()


def make_regular(channel: Channel, thing: Any) -> Endpoint:
    """The endpoint of a descriptor. Raises OSError for one that is closed, or can be neither read nor waited for."""
    fd = descriptor_of(thing)
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode) or stat.S_ISBLK(mode):
        return RegularFile(channel, thing)
    if stat.S_ISDIR(mode):
        raise OSError(errno.EISDIR, f"{thing!r} is a directory")
    if stat.S_ISSOCK(mode) and _listens(fd):
        return RegularListener(channel, thing)
    return RegularStream(channel, thing)


def _listens(fd: int) -> bool:
    with socket.socket(fileno=os.dup(fd)) as sock:
        return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
