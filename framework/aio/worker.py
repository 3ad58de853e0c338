"""`LoopWorker`: a worker whose turns an asyncio event loop takes, one `select` each."""

from __future__ import annotations

import errno
import ipaddress
import math
import random
import select
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mpserve.dataplane.completions import IDLE, Reason
from mpserve.framework.aio.faces import Listener
from mpserve.framework.handler import Handler
from mpserve.framework.lwsocket import LwSocket
from mpserve.framework.worker import ACCEPT, CLOSED, WRITABLE, Worker

if TYPE_CHECKING:
    from mpserve.framework.aio.loop import Loop

SPIN_US = 50  # how long compiled code looks at the device alone, before the kernel's descriptors are looked at
FIRST_PORT, LAST_PORT = 49_152, 65_535  # where port 0 finds one


class Connections(Handler):
    """Passes the events of a socket to the transport in its cookie."""

    def on_connect(self, sock: LwSocket) -> None:
        if sock.cookie is not None:
            sock.cookie.connected()

    def on_data(self, sock: LwSocket, data: bytes) -> None:
        if sock.cookie is not None:
            sock.cookie.data_received(data)

    def on_eof(self, sock: LwSocket) -> None:
        if sock.cookie is not None:
            sock.cookie.eof_received()

    def on_timeout(self, sock: LwSocket) -> None:
        """Nobody sets one."""

    def on_close(self, sock: LwSocket, reason: Reason) -> None:
        if sock.cookie is not None:
            sock.cookie.ended(reason)


class LoopWorker(Worker):
    """Owns a Core on a device; an event loop calls `turn_within` and gives the batches to `dispatch_rows`."""

    loop: Loop
    linger_seconds = 5.0  # how long the end waits for data to be acknowledged
    _closed_once = False

    def __init__(self, handler: Handler, device: Any, **settings: Any) -> None:
        super().__init__(handler, device, **settings)
        self.address: str = settings["ip"]
        self._network = ipaddress.ip_interface(f"{self.address}/{settings.get('prefix_length', 24)}").network
        routes = [ipaddress.ip_network(f"{to}/{length}") for to, length, _ in settings.get("routes", ())]
        self._routed = [self._network, *routes]
        self._has_gateway = settings.get("gateway") is not None
        self._ports: dict[int, Listener | None] = {port: None for _, port in settings["listen"]}
        self._accepting: dict[int, Callable[[LwSocket], None]] = {}

    # -- the loop's turns

    def watch(self, descriptor: int) -> None:
        """Let what happens on a descriptor end a sleep: the kernel selector's epoll."""
        self._idle_poll.register(descriptor, select.POLLIN)

    def start_standby(self) -> None:
        """From now until `close` another thread turns the stack while the loop's is away for long, or doesn't run."""
        self.standby.start()

    def turn_within(self, timeout: float | None) -> None:
        """A turn of the stack; if nothing happens, sleep for `timeout` seconds at most (None: for as long as may be)."""
        may_sleep = timeout is None or timeout > 0
        count = self._turn(self.channel.now_us + SPIN_US if may_sleep else 0)
        if count == IDLE and may_sleep and not self.channel.words:
            self._sleep(math.inf if timeout is None else timeout)
            self._turn(0)
        if self._calls:
            self._run_calls()
        if self.now >= self._next_timer:
            self._run_timers()
        self.channel.leave()  # whatever the loop runs next: if it takes long, the standby turns the stack
        if self.descriptors.watched:
            self._look()
        if self.machine.attend is not None:
            self.machine.attend()

    def _turn(self, return_at: int) -> int:
        channel = self.channel
        channel.set_return_at(return_at)
        count = channel.turn()
        self.now = channel.now_us / 1e6
        if count > 0:
            self._watch.worked()
            self._dispatch(count)
        return count

    def _dispatch(self, count: int) -> None:
        """The batch's callbacks run when it is their turn in the loop, behind what is ready already."""
        channel = self.channel
        blob = channel.payload()
        self.loop.add_batch(channel.events(count), blob)

    def dispatch_rows(self, rows: Any, blob: bytes) -> None:
        while not self._dispatch_rows(rows, blob):
            pass

    def _event(self, kind: int, slot: int, a: int, b: int) -> None:
        if kind == ACCEPT:
            sock = self._make_socket(slot, self.machine.handle_of(slot))
            accept = self._accepting.get(a)
            if accept is None:  # the handshake was under way when the listener stopped
                sock.abort()
            else:
                accept(sock)
        elif kind == WRITABLE:
            found = self._sockets[slot] or self._closing.get(slot)
            if found is not None:
                found._drained()
                if found.cookie is not None:
                    found.cookie.drained()
        else:
            super()._event(kind, slot, a, b)

    def check_hard_limit(self, sock: LwSocket) -> None:
        """A transport takes all that is written; `pause_writing` tells the protocol, as asyncio has it."""

    # -- listening

    def reserve_port(self, port: int) -> int:
        """The port, or with 0 a free one. Raises OSError (EADDRINUSE)."""
        if port == 0:
            free = [p for p in random.sample(range(FIRST_PORT, LAST_PORT + 1), 100) if p not in self._ports]
            port = free[0] if free else 0
        if port == 0 or port in self._ports:
            raise OSError(errno.EADDRINUSE, f"error while attempting to bind on {self.address}:{port}: in use")
        if not 0 < port < 65536:
            raise OverflowError("port must be 0-65535.")
        self._ports[port] = None
        return port

    def start_listening(self, listener: Listener, accept: Callable[[LwSocket], None]) -> None:
        """Call `accept` with each new connection. Raises OSError (EADDRINUSE) if the port was closed meanwhile."""
        if listener.port not in self._ports:
            raise OSError(errno.EBADF, "the listener was closed")
        self.machine.retire_listeners()
        number = self.channel.listen(listener.port)
        listener.number = number
        self._listeners[number] = ("", listener.port)
        self._accepting[number] = accept

    def stop_listening(self, listener: Listener) -> None:
        """Accept no more; twice is once. Connections that exist go on."""
        self._ports.pop(listener.port, None)
        if listener.number >= 0:
            self.machine.stop_listening(listener.number)
            del self._listeners[listener.number], self._accepting[listener.number]
            listener.number = -1

    # -- connecting

    def has_route(self, address: str) -> bool:
        """Whether connections to an IPv4 address go over our stack: to another host of our subnet, or behind a router of ours."""
        to = ipaddress.ip_address(address)
        if to.version != 4 or to.is_loopback or to.is_unspecified or to.is_multicast or address == self.address:
            return False
        return self._has_gateway or any(to in network for network in self._routed)

    def open(self, address: tuple[str, int], source_port: int = 0) -> LwSocket:
        """Begin a connection for a transport."""
        return Worker.connect(self, (address[0], address[1]), source_port=source_port)

    # -- the end

    def finish(self) -> None:
        """What comes before `close`: connections end in good order."""
        self._finish()

    def close(self) -> None:
        """Give the core's memory back. Twice is once."""
        if not self._closed_once:
            self._closed_once = True
            self.standby.stop()
            super().close()

    def drain(self, seconds: float | None = None) -> None:
        """Close every connection; wait until what was written is acknowledged, for `linger_seconds` at most."""
        for sock in filter(None, self._sockets):
            sock.close()
        until = time.monotonic() + (self.linger_seconds if seconds is None else seconds)
        self.machine.spin(0)
        while True:
            self.channel.set_return_at(0)
            count = self.channel.turn()
            if count > 0:
                self._drain_events(count)
            elif not self.channel.words:
                self._idle_poll.poll(1)
            if not self._owes() or time.monotonic() > until:
                return

    def _drain_events(self, count: int) -> None:
        for kind, slot, _, _ in self.channel.events(count):
            if kind == WRITABLE and slot in self._closing:
                self._closing[slot]._drained()
            elif kind == CLOSED:
                self._closing.pop(slot, None)

    def _owes(self) -> bool:
        if self.channel.words or self.machine.holds_output:
            return True
        return any(sock._backlog or self.machine.queued(slot) for slot, sock in self._closing.items())
