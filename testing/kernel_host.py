"""`KernelHost`: `Host`'s interface over kernel sockets on the loopback interface, to run one suite on both.

The sockets are real, the worker is stepped by the test, and its clock is moved ahead: timers need no waiting. What the
kernel's TCP does by its own clock (retransmission, keepalive) is not hurried.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import struct
from typing import Any

from mpserve.dataplane.limits import Limits
from mpserve.framework.aio.streams import make_worker
from mpserve.framework.handler import Handler
from mpserve.framework.kernel_machine import KernelSockets
from mpserve.framework.kernel_options import unsent

LOOPBACK = "127.0.0.1"
QUIET_ROUNDS = 3  # in which nothing happens, for the host to be at rest
BLOCKED_ROUNDS = 50  # the same, while something that was sent has not been acknowledged: its reader may not read
QUIET_MS = 2  # to wait for the kernel in a quiet round
STEP_SECONDS = 0.05  # in which time passes


class KernelClient:
    """`testing.Client`'s interface: a real connection to the host, or, accepted, from it."""

    def __init__(self, sock: socket.socket, *, reads: bool = True) -> None:
        self.sock, self.reads = sock, reads
        sock.setblocking(False)
        self.local = sock.getsockname()
        self._unsent, self._received = bytearray(), bytearray()
        self._fin_wanted = self._fin_sent = False
        self.eof = self.was_reset = False
        self.established = True

    def send(self, data: bytes) -> None:
        """Send bytes, as the kernel takes them."""
        self._unsent += data
        self.move()

    def recv(self) -> bytes:
        """Everything received since the last call."""
        self.move()
        data, self._received = bytes(self._received), bytearray()
        return data

    def close(self) -> None:
        """Send FIN after what was sent; receiving goes on."""
        self._fin_wanted = True
        self.move()

    def reset(self) -> None:
        """Send RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()
        self.was_reset = True

    @property
    def closed(self) -> bool:
        """Both FINs are there, or a RST."""
        return self.was_reset or (self.eof and self._fin_sent)

    def move(self) -> bool:
        """Send and receive what can be; whether anything was."""
        if self.was_reset:
            return False
        try:
            moved = self._push()
            return self._take() or moved
        except OSError:
            self.was_reset = True
            self.sock.close()
            return True

    def _push(self) -> bool:
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while sent < len(self._unsent):
                sent += self.sock.send(memoryview(self._unsent)[sent : sent + (1 << 20)])
        if sent:
            del self._unsent[:sent]
        if self._fin_wanted and not self._fin_sent and not self._unsent:
            self.sock.shutdown(socket.SHUT_WR)
            self._fin_sent = True
            return True
        return sent > 0

    def _take(self) -> bool:
        if not self.reads:
            return self._was_lost()
        if self.eof:
            return False
        moved = False
        with contextlib.suppress(BlockingIOError):
            while data := self.sock.recv(1 << 20):
                self._received += data
                moved = True
            self.eof = moved = True
        return moved

    def _was_lost(self) -> bool:
        number = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            raise OSError(number, "lost")
        return False


class KernelHost:
    """Serves `handler` on a free port of 127.0.0.1. Keyword arguments are limits, as of `Host`."""

    def __init__(self, handler: Handler, *, log: logging.Logger | None = None, **limits: Any) -> None:
        self.handler, self.ip, self.far = handler, LOOPBACK, LOOPBACK
        self.port = self.free_port()
        sockets = KernelSockets(frozenset(limits))
        self.worker = make_worker(
            handler,
            sockets,
            virtual=True,
            ip=self.ip,
            listen=[("", self.port)],
            limits=Limits(**limits),
            idle_spin_us=0,
            log=log,
        )
        self._channel = sockets.channel
        self._clients: list[KernelClient] = []
        self._listening: list[tuple[socket.socket, list[KernelClient]]] = []
        handler.on_start(self.worker)

    @staticmethod
    def free_port() -> int:
        """A port that nobody listens on."""
        with socket.socket() as sock:
            sock.bind((LOOPBACK, 0))
            port: int = sock.getsockname()[1]
            return port

    @property
    def now(self) -> float:
        """Seconds on the worker's clock."""
        return float(self.worker.channel.now_us) / 1e6

    def connect(self, port: int | None = None, *, window: int | None = None) -> KernelClient:
        """Open a connection. `window` is a receive buffer for it; one of 0 never reads."""
        sock = socket.socket()
        if window is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        sock.connect((LOOPBACK, port or self.port))
        client = KernelClient(sock, reads=window != 0)
        self._clients.append(client)
        self.settle()
        return client

    def listen(self, port: int, address: str = LOOPBACK, *, accept: bool = True) -> list[KernelClient]:
        """Be a server for the handler to connect to: its connections are appended to the list. `accept=False` refuses them."""
        accepted: list[KernelClient] = []
        if accept:
            listener = socket.create_server((address, port))
            listener.setblocking(False)
            self._listening.append((listener, accepted))
        return accepted

    def advance(self, seconds: float) -> None:
        """Move the worker's clock ahead; its timers fire on the way."""
        until = self.now + seconds
        self.settle()
        while (left := until - self.now) > 1e-6:
            self._channel.move_clock(int(min(left, STEP_SECONDS) * 1e6) + 1)
            self._round()
        self.settle()

    def settle(self) -> None:
        """Let everything that can happen now happen."""
        quiet = 0
        for _ in range(100_000):
            if self._round():
                quiet = 0
                continue
            quiet += 1
            if quiet > (BLOCKED_ROUNDS if self._is_under_way() else QUIET_ROUNDS):
                return
            select.select([self._channel], [], [], QUIET_MS / 1000)
        raise AssertionError("the host does not come to rest: a handler that writes for ever?")

    def _is_under_way(self) -> bool:
        """Whether the kernel holds something, a FIN too, that the other side's kernel has not got yet."""
        sockets = [*(client.sock for client in self._clients), *self._channel.open_sockets]
        return any(sock.fileno() >= 0 and unsent(sock) for sock in sockets)

    def _round(self) -> bool:
        """One step of the worker and of each client; whether anything happened."""
        events = self.worker.step(sleep=False)
        moved = [client.move() for client in self._clients]
        moved += [self._accept(*listening) for listening in self._listening]
        return bool(events or any(moved) or self.worker.channel.words or self.worker.calls_wait)

    def _accept(self, listener: socket.socket, accepted: list[KernelClient]) -> bool:
        try:
            sock, _ = listener.accept()
        except BlockingIOError:
            return False
        accepted.append(KernelClient(sock))
        self._clients.append(accepted[-1])
        return True

    def stop(self) -> None:
        """`on_stop`, then every socket is closed. The host can't be used any more."""
        self.handler.on_stop()
        self.worker.close()
        for client in self._clients:
            client.sock.close()
        for listener, _ in self._listening:
            listener.close()

    @property
    def stats(self) -> dict[str, int]:
        """The worker's counters, by name."""
        return self.worker.stats
