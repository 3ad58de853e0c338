"""`Joined`: a connection of the stack behind a kernel socket that `loop.sock_connect` was given.

The kernel's socket stays unconnected; the loop's `create_connection(sock=...)` takes the connection over, and its `sock_recv`,
`sock_recv_into`, `sock_sendall` and `sock_sendfile` use it.
"""

from __future__ import annotations

import asyncio
import socket
import weakref
from typing import TYPE_CHECKING, Any

from mpserve.framework.aio.transport import LwTransport, Pending

if TYPE_CHECKING:
    from mpserve.framework.aio.loop import Loop


class Joined:
    """Closed with `sock`: when the loop finds it closed, or when it is collected."""

    def __init__(self, loop: Loop, sock: socket.socket, pending: Pending) -> None:
        self._loop, self._pending = loop, pending
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._reading = asyncio.Lock()  # a reader may come while one before it is cancelled and has not ended yet
        self._at_end = weakref.finalize(sock, pending.sock.close)
        self._at_end.atexit = False

    def take_over(self) -> Pending:
        """The connection, for a transport."""
        self._at_end.detach()
        return self._pending

    def close(self) -> None:
        """Send what was written, then FIN."""
        self._at_end.detach()
        if self._streams is not None:
            self._streams[1].close()
        else:
            self._pending.sock.close()

    def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None:
            reader = asyncio.StreamReader(loop=self._loop)
            protocol = asyncio.StreamReaderProtocol(reader, loop=self._loop)
            transport = LwTransport(self._loop, self._pending, protocol)
            transport.set_write_buffer_limits(0)
            self._streams = reader, asyncio.StreamWriter(transport, protocol, reader, self._loop)
        return self._streams

    async def recv(self, size: int) -> bytes:
        async with self._reading:
            return await self._open()[0].read(size)

    async def recv_into(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = await self.recv(len(view))
        view[: len(data)] = data
        return len(data)

    async def sendall(self, data: Any) -> None:
        """Returns when the stack has taken all."""
        writer = self._open()[1]
        writer.write(data)
        await writer.drain()
