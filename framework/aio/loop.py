"""`Loop`: asyncio's selector event loop with our stack beside the kernel's descriptors.

Servers on the stack's own address and connections to hosts that it has a route for go over the stack. All else is the
parent's: other sockets, pipes, subprocesses, signals, threads, timers.
"""

from __future__ import annotations

import asyncio
import collections.abc
import operator
import selectors
import socket
import weakref
from asyncio import base_events, sslproto
from collections.abc import Callable, Coroutine
from typing import Any

from mpserve.framework.aio.faces import Listener
from mpserve.framework.aio.joined import Joined
from mpserve.framework.aio.transport import LwTransport, Pending
from mpserve.framework.aio.worker import LoopWorker
from mpserve.framework.lwsocket import LwSocket

CLOCK_SECONDS = 1e-6  # the resolution of the stack's clock
ANY = ("", "0.0.0.0", None)  # a server's host that means the stack's own address


class StackSelector(selectors.DefaultSelector):
    """The kernel's selector; a `select` is also a turn of the stack. Both can end its sleep."""

    worker: LoopWorker
    turns = True  # a virtual host makes the turns itself

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self.worker.loop._joined:
            self.worker.loop.close_dropped()
        if self.turns:
            self.worker.turn_within(timeout)
        return super().select(0)


class Loop(asyncio.SelectorEventLoop):
    """An event loop on a worker's stack; `on_close` is called when both are closed."""

    def __init__(self, worker: LoopWorker, on_close: Callable[[], None] | None = None) -> None:
        self._stack = StackSelector()
        self._stack.worker = worker
        self.worker, self._on_close = worker, on_close
        self._joined: weakref.WeakKeyDictionary[socket.socket, Joined] = weakref.WeakKeyDictionary()
        super().__init__(self._stack)
        worker.loop = self
        worker.watch(self._stack.fileno())
        worker.start_standby()

    def add_batch(self, rows: Any, blob: bytes) -> None:
        """Have the events of a batch handled when what is ready before them has run."""
        self._ready: collections.deque[asyncio.Handle]
        self._ready.append(asyncio.Handle(self._run_batch, (rows, blob), self, None))

    def _run_batch(self, rows: Any, blob: bytes) -> None:
        try:
            self.worker.dispatch_rows(rows, blob)
        except BaseException:  # Ctrl-C or SystemExit in the middle: the rest comes when the loop goes on
            self._ready.appendleft(asyncio.Handle(self._run_batch, (rows, blob), self, None))
            raise

    def close(self) -> None:
        """Close what is open, wait a little for what was written to be acknowledged, give the stack's memory back."""
        if self.is_closed():
            return
        if self.is_running():
            raise RuntimeError("Cannot close a running event loop")
        self._stack.turns = False
        try:
            self.worker.finish()
        finally:
            super().close()
            self.worker.close()
            if self._on_close is not None:
                self._on_close()

    # -- servers

    async def create_server(  # type: ignore[override]
        self, protocol_factory: Callable[[], Any], host: Any = None, port: Any = None, **settings: Any
    ) -> base_events.Server:
        """As asyncio's. A host that is the stack's address, "0.0.0.0", "" or None (family not AF_INET6) is served by the
        stack; others by the kernel, under the same Server."""
        ours: list[Any] = []
        others = [host]
        if settings.get("sock") is None and (host is not None or port is not None):
            ours, others = await self._sort_hosts(host, settings.get("family", socket.AF_UNSPEC))
        if not ours:
            return await super().create_server(protocol_factory, host, port, **settings)
        _check_tls(settings)
        operator.index(settings.get("backlog", 0))  # means nothing here, but is a number
        address = "0.0.0.0" if any(name in ANY for name in ours) else self.worker.address
        sockets: list[Any] = [Listener(self.worker, address, int(port or 0))]
        try:
            if others:
                kernel = await super().create_server(
                    protocol_factory, others, port, **{**settings, "start_serving": False}
                )
                sockets += kernel._sockets  # type: ignore[attr-defined]
        except BaseException:
            sockets[0].close()
            raise
        return await self._make_server(sockets, protocol_factory, settings)

    async def _sort_hosts(self, host: Any, family: int) -> tuple[list[Any], list[Any]]:
        """(hosts that are the stack's, the others)."""
        one = host is None or isinstance(host, str) or not isinstance(host, collections.abc.Iterable)
        ours: list[Any] = []
        others: list[Any] = []
        for name in [host] if one else list(host):
            (ours if await self._is_ours(name, family) else others).append(name)
        return ours, others

    async def _is_ours(self, host: Any, family: int) -> bool:
        if family not in (socket.AF_UNSPEC, socket.AF_INET):
            return False
        if host in ANY or host == self.worker.address:
            return True
        try:
            found = await self._ensure_resolved(  # type: ignore[attr-defined]
                (host, 0), family=family, type=socket.SOCK_STREAM, loop=self
            )
        except OSError:
            return False
        return any(address[0] == self.worker.address for *_, address in found)

    async def _make_server(
        self, sockets: list[Any], protocol_factory: Callable[[], Any], settings: dict[str, Any]
    ) -> base_events.Server:
        server: Any = base_events.Server(  # type: ignore[call-arg]
            self,
            sockets,
            protocol_factory,
            settings.get("ssl"),
            settings.get("backlog", 100),
            settings.get("ssl_handshake_timeout"),
            settings.get("ssl_shutdown_timeout"),
        )
        if settings.get("start_serving", True):
            server._start_serving()
            await asyncio.sleep(0)
        return server  # type: ignore[no-any-return]

    def _start_serving(self, protocol_factory: Any, sock: Any, sslcontext: Any = None, *rest: Any) -> None:
        """Called by Server: from now on connections come."""
        if not isinstance(sock, Listener):
            super()._start_serving(protocol_factory, sock, sslcontext, *rest)  # type: ignore[misc]
            return
        server, _, handshake, shutdown = rest[:4]
        tls = {"ssl_handshake_timeout": handshake, "ssl_shutdown_timeout": shutdown} if sslcontext else {}

        def accept(accepted: LwSocket) -> None:
            self._accept(protocol_factory, Pending(accepted), sslcontext, server, tls)

        self.worker.start_listening(sock, accept)

    def _stop_serving(self, sock: Any) -> None:
        if isinstance(sock, Listener):
            sock.close()
        else:
            super()._stop_serving(sock)  # type: ignore[misc]

    def _accept(self, factory: Any, pending: Pending, sslcontext: Any, server: Any, tls: dict[str, Any]) -> None:
        """A transport for a new connection. What the factory raises ends that connection alone."""
        try:
            protocol = factory()
            if not sslcontext:
                LwTransport(self, pending, protocol, server=server)
                return
            waiter = self.create_future()
            transport = self._make_ssl_transport(
                pending, protocol, sslcontext, waiter, server_side=True, server=server, **tls
            )
            waiter.add_done_callback(lambda done: done.cancelled() or (done.exception() and transport.close()))
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            pending.close()
            message = "Error on transport creation for incoming connection"
            self.call_exception_handler({"message": message, "exception": error})

    # -- connections

    async def _connect_sock(self, exceptions: list[Any], addr_info: Any, local_addr_infos: Any = None) -> Any:
        """One attempt of create_connection, to one of the host's addresses."""
        address = addr_info[4]
        local = _local_port(local_addr_infos, self.worker.address)
        if addr_info[0] != socket.AF_INET or local is None or not self.worker.has_route(address[0]):
            return await super()._connect_sock(exceptions, addr_info, local_addr_infos)  # type: ignore[misc]
        try:
            return await self._open(address, local)
        except OSError as error:
            exceptions.append([error])
            raise

    async def _open(self, address: tuple[str, int], source_port: int = 0) -> Pending:
        """A connection over the stack, established."""
        sock = self.worker.open(address, source_port)
        established: asyncio.Future[None] = self.create_future()
        pending = Pending(sock, established)
        try:
            await established
        except OSError as error:
            raise OSError(error.errno, f"Connect call failed {tuple(address)}") from None
        except BaseException:
            pending.close()
            raise
        return pending

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        """As asyncio's; a TCP socket to a host that the stack has a route for is joined to a connection of the stack, unless it
        is bound to an address of the kernel's."""
        if sock.family == socket.AF_INET and sock.type == socket.SOCK_STREAM and self._is_routed(address):
            self._require_nonblocking(sock)
            bound, port = sock.getsockname()
            if bound == "0.0.0.0":
                self._joined[sock] = Joined(self, sock, await self._open(address, port))
                return
        await super().sock_connect(sock, address)

    def _is_routed(self, address: Any) -> bool:
        try:
            return self.worker.has_route(address[0])
        except (ValueError, TypeError, IndexError):  # a name, or nonsense: the parent's
            return False

    def _create_connection_transport(self, sock: Any, *rest: Any, **more: Any) -> Coroutine[Any, Any, Any]:
        joined = self._joined_to(sock)
        if joined is not None:
            del self._joined[sock]
            sock.close()
            sock = joined.take_over()
        return super()._create_connection_transport(sock, *rest, **more)  # type: ignore[misc, no-any-return]

    def _joined_to(self, sock: Any) -> Joined | None:
        joined = self._joined.get(sock) if isinstance(sock, socket.socket) else None
        if joined is not None:
            self._require_nonblocking(sock)
        return joined

    def _require_nonblocking(self, sock: socket.socket) -> None:
        if self.get_debug() and sock.gettimeout() != 0:
            raise ValueError("the socket must be non-blocking")

    def close_dropped(self) -> None:
        """Close the connections whose joined sockets have been closed: nobody tells of that."""
        for sock in [sock for sock in self._joined if sock.fileno() < 0]:
            self._joined.pop(sock).close()

    async def sock_recv(self, sock: socket.socket, n: int) -> bytes:
        joined = self._joined_to(sock)
        return await (joined.recv(n) if joined is not None else super().sock_recv(sock, n))

    async def sock_recv_into(self, sock: socket.socket, buf: Any) -> int:
        joined = self._joined_to(sock)
        return await (joined.recv_into(buf) if joined is not None else super().sock_recv_into(sock, buf))

    async def sock_sendall(self, sock: socket.socket, data: Any) -> None:
        joined = self._joined_to(sock)
        await (joined.sendall(data) if joined is not None else super().sock_sendall(sock, data))

    async def _sock_sendfile_native(self, sock: socket.socket, *rest: Any) -> Any:
        if self._joined_to(sock) is not None:
            raise asyncio.SendfileNotAvailableError("the stack sends no files by itself")
        return await super()._sock_sendfile_native(sock, *rest)  # type: ignore[misc]

    # -- transports

    def _make_socket_transport(self, sock: Any, protocol: Any, waiter: Any = None, **more: Any) -> Any:
        if isinstance(sock, Pending):
            return LwTransport(self, sock, protocol, waiter, **more)
        return super()._make_socket_transport(sock, protocol, waiter, **more)  # type: ignore[misc]

    def _make_ssl_transport(self, rawsock: Any, protocol: Any, sslcontext: Any, waiter: Any = None, **more: Any) -> Any:
        if not isinstance(rawsock, Pending):
            return super()._make_ssl_transport(rawsock, protocol, sslcontext, waiter, **more)  # type: ignore[misc]
        extra, server = more.pop("extra", None), more.pop("server", None)
        tls = sslproto.SSLProtocol(self, protocol, sslcontext, waiter, **more)
        LwTransport(self, rawsock, tls, extra=extra, server=server)
        return tls._app_transport  # type: ignore[attr-defined]


class VirtualLoop(Loop):
    """A loop in a host's virtual time: its clock is the stack's, and `run_ready` is all that runs it.

    Functions for other threads run at once, on this one, so that nothing depends on real time.
    """

    def __init__(self, worker: LoopWorker) -> None:
        super().__init__(worker)
        self._stack.turns = False
        self._clock_resolution = CLOCK_SECONDS

    def time(self) -> float:
        return self.worker.channel.now_us / 1e6

    @property
    def is_due(self) -> bool:
        """Whether something is to run now."""
        scheduled: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        return bool(self._ready) or bool(scheduled and scheduled[0].when() < self.time() + CLOCK_SECONDS)

    def run_ready(self) -> None:
        """One round of what is ready."""
        self.call_soon(self.stop)
        self.run_forever()

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future


def _check_tls(settings: dict[str, Any]) -> None:
    """What asyncio refuses."""
    if isinstance(settings.get("ssl"), bool):
        raise TypeError("ssl argument must be an SSLContext or None")
    for name in ("ssl_handshake_timeout", "ssl_shutdown_timeout"):
        if settings.get(name) is not None and settings.get("ssl") is None:
            raise ValueError(f"{name} is only meaningful with ssl")


def _local_port(infos: Any, address: str) -> int | None:
    """The source port that `local_addr` asks for, 0: any; None if it names an address that is not the stack's."""
    if not infos:
        return 0
    ports = [local[1] for *_, local in infos if local[0] in (address, "0.0.0.0")]
    return ports[0] if ports else None
