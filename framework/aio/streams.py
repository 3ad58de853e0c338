"""Handlers with `async def handle(self, stream)`: a task a connection, on an event loop that the worker's turns run."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator
from typing import Any

from mpserve.dataplane.errors import SetupError
from mpserve.framework.aio.loop import Loop, VirtualLoop
from mpserve.framework.aio.transport import LwTransport, Pending
from mpserve.framework.aio.worker import Connections, LoopWorker
from mpserve.framework.handler import Handler
from mpserve.framework.load import check_plain
from mpserve.framework.lwsocket import LwSocket
from mpserve.framework.worker import Worker

LIMIT_BYTES = 1 << 16  # of a line, and half of what a stream holds before the peer's window closes
STOP_SECONDS = 1.0  # how long cancelled handlers may take
_REPLACED = "on_accept on_connect on_data on_batch on_eof on_writable on_timeout on_close".split()


def is_async(handler: Any) -> bool:
    """Whether a handler, or a handler class, has `async def handle`."""
    return inspect.iscoroutinefunction(getattr(handler, "handle", None))


def check_callbacks(handler: type[Handler]) -> None:
    """Refuse a handler with `handle` and callbacks that would never be called. Raises SetupError."""
    for name in _REPLACED:
        if getattr(handler, name, None) is not getattr(Handler, name, None):
            raise SetupError(f"{handler.__name__} defines both handle and {name}: keep one of them")


class Stream:
    """One connection, with the methods of asyncio's StreamReader and StreamWriter."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.read, self.readexactly = reader.read, reader.readexactly
        self.readuntil, self.readline, self.at_eof = reader.readuntil, reader.readline, reader.at_eof
        self.write, self.writelines, self.drain = writer.write, writer.writelines, writer.drain
        self.write_eof, self.close, self.wait_closed = writer.write_eof, writer.close, writer.wait_closed
        self.is_closing, self.get_extra_info = writer.is_closing, writer.get_extra_info

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Lines, each with its end; the last one may lack it."""
        return self.reader.__aiter__()

    def abort(self) -> None:
        """Send RST at once; what wasn't sent is lost."""
        transport: Any = self.writer.transport
        transport.reset()

    @property
    def peername(self) -> tuple[str, int]:
        """(address, port) of the peer."""
        return self.get_extra_info("peername")  # type: ignore[no-any-return]

    @property
    def sockname(self) -> tuple[str, int]:
        """(address, port) of this side."""
        return self.get_extra_info("sockname")  # type: ignore[no-any-return]


class StreamWorker(LoopWorker):
    """Runs a handler's `handle` for each connection. `virtual`: on a host, which makes the turns and sets the time."""

    def __init__(self, handler: Handler, device: Any, *, virtual: bool = False, **settings: Any) -> None:
        check_callbacks(type(handler))
        super().__init__(Connections(), device, **settings)
        self._user, self._virtual = handler, virtual
        self._tasks: set[asyncio.Task[None]] = set()
        self._accepting = dict.fromkeys(self._listeners, self._accept)
        self._stopped = asyncio.Event()
        self.loop = VirtualLoop(self) if virtual else Loop(self)

    def run(self) -> None:
        """Serve until `stop`. An exception of `on_start` comes out; those of `handle` are logged and abort their connection."""
        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._user.on_start(self)
        self.channel.announce()
        if self._on_ready is not None:
            self._on_ready()
        if not self._stopping:
            await self._stopped.wait()
        await self._end_tasks()

    def turn_within(self, timeout: float | None) -> None:
        super().turn_within(0 if self._stopping else timeout)
        if self._stopping and not self._stopped.is_set():
            self._stopped.set()

    def step(self, sleep: bool = True, spin: bool = True) -> int:
        """A host's turn: the stack's, then one round of the loop."""
        assert isinstance(self.loop, VirtualLoop)
        count = super().step(sleep, spin)
        if self.loop.is_due:
            self.loop.run_ready()
        return count

    @property
    def calls_wait(self) -> bool:
        return super().calls_wait or (isinstance(self.loop, VirtualLoop) and self.loop.is_due)

    def connect(self, *_: Any, **__: Any) -> LwSocket:
        raise RuntimeError("a handler with `handle` has no callbacks for a socket: await asyncio.open_connection(...)")

    # -- a task a connection

    def _accept(self, sock: LwSocket) -> None:
        reader = asyncio.StreamReader(LIMIT_BYTES, self.loop)
        protocol = asyncio.StreamReaderProtocol(reader, self._begin, self.loop)
        LwTransport(self.loop, Pending(sock), protocol)

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = self.loop.create_task(self._handle(Stream(reader, writer)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _handle(self, stream: Stream) -> None:
        try:
            await self._user.handle(stream)  # type: ignore[attr-defined]
        except asyncio.CancelledError:
            stream.close()
        except OSError:
            if not stream.is_closing():  # otherwise the connection is lost, and that is all
                self._failed(stream)
        except Exception:
            self._failed(stream)
        else:
            stream.close()

    def _failed(self, stream: Stream) -> None:
        self._log_error("handle")
        stream.abort()

    def give_message(self, source: int, data: bytes) -> None:
        self._user.on_message(source, data)

    def _log_error(self, where: str) -> None:
        self.handler_errors += 1
        self.log.exception("%s: exception in %s", type(self._user).__name__, where)

    async def _end_tasks(self) -> None:
        """Cancel what runs, and give it a little time."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=STOP_SECONDS)

    def finish(self) -> None:
        if self._virtual:
            return  # a host has called on_stop, and nobody would acknowledge anything
        try:
            self._user.on_stop()
        except Exception:
            self._log_error("on_stop")
        super().finish()

    def close(self) -> None:
        """Close the loop, if nobody has, and with it the worker."""
        if self.loop.is_closed():
            super().close()
            return
        if isinstance(self.loop, VirtualLoop):
            self._cancel_all(self.loop)
        self.loop.close()

    def _cancel_all(self, loop: VirtualLoop) -> None:
        """What a Runner does at its end, in virtual time."""
        for task in asyncio.all_tasks(loop):
            task.cancel()
        for _ in range(100):
            if loop.is_due:
                loop.run_ready()


def make_worker(handler: Handler, device: Any, *, virtual: bool = False, **settings: Any) -> Worker:
    """The worker that a handler needs: one with an event loop for `async def handle`. SetupError for callbacks that are none."""
    check_plain(type(handler))
    if is_async(handler):
        return StreamWorker(handler, device, virtual=virtual, **settings)
    return Worker(handler, device, **settings)
