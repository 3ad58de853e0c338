"""What stands where asyncio has a socket: `SocketFace` for a connection, `Listener` for a listening socket.

They have the methods that libraries call on the `socket` of a transport and the `sockets` of a server. There is no file
descriptor: `fileno()` is -1, as of a closed socket.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpserve.framework.aio.transport import LwTransport
    from mpserve.framework.aio.worker import LoopWorker


class _Face:
    family, type, proto = socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP

    def fileno(self) -> int:
        return -1

    def setblocking(self, flag: bool) -> None:
        if flag:
            raise ValueError("the socket of a transport can't block")

    def settimeout(self, value: float | None) -> None:
        self.setblocking(value is None or value > 0)

    def getblocking(self) -> bool:
        return False

    def gettimeout(self) -> float:
        return 0.0

    def getsockname(self) -> tuple[str, int]:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<mpserve {type(self).__name__} laddr={self.getsockname()}>"


_FIXED = {
    (socket.SOL_SOCKET, socket.SO_TYPE): int(socket.SOCK_STREAM),
    (socket.SOL_SOCKET, socket.SO_DOMAIN): int(socket.AF_INET),
    (socket.SOL_SOCKET, socket.SO_PROTOCOL): socket.IPPROTO_TCP,
    (socket.SOL_SOCKET, socket.SO_ERROR): 0,
}


class SocketFace(_Face):
    """The `socket` of a transport. Options are those of `LwSocket.setsockopt`."""

    def __init__(self, transport: LwTransport) -> None:
        self._transport = transport

    def getsockname(self) -> tuple[str, int]:
        return self._transport._sockname

    def getpeername(self) -> tuple[str, int]:
        return self._transport._peername

    def setsockopt(self, level: int, name: int, value: Any, length: int | None = None) -> None:
        self._require_open()
        self._transport._sock.setsockopt(level, name, value)

    def getsockopt(self, level: int, name: int, length: int = 0) -> int | bytes:
        self._require_open()
        if (level, name) in _FIXED:
            return _FIXED[level, name]
        value = self._transport._sock.getsockopt(level, name)
        return value.to_bytes(4, "little") if length and isinstance(value, int) else value

    def _require_open(self) -> None:
        if self._transport._sock.closed:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))


class Listener(_Face):
    """An address and port of the stack to listen on, as asyncio's Server takes a listening socket."""

    def __init__(self, worker: LoopWorker, address: str, port: int) -> None:
        """`address` is what `getsockname` tells: the stack's, or 0.0.0.0 if any was asked for."""
        self._worker, self.address, self.port = worker, address, worker.reserve_port(port)
        self.number = -1  # of the stack's listener, while it listens

    def listen(self, backlog: int = 0) -> None:
        """The stack has one backlog for all listeners (`--limit syn_backlog=...`)."""

    def getsockname(self) -> tuple[str, int]:
        return self.address, self.port

    def getpeername(self) -> tuple[str, int]:
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))

    def setsockopt(self, level: int, name: int, value: Any, length: int | None = None) -> None:
        self._worker.set_listener_option(("", self.port), level, name, value)

    def getsockopt(self, level: int, name: int, length: int = 0) -> int:
        if (level, name) == (socket.SOL_SOCKET, socket.SO_REUSEADDR):
            return 1
        if (level, name) in _FIXED:
            return _FIXED[level, name]
        raise OSError(errno.ENOPROTOOPT, f"socket option {name} of level {level} is not supported")

    def close(self) -> None:
        self._worker.stop_listening(self)
