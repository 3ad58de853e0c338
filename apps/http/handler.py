"""The HTTP handler: options, the clock, and the fast path of a request whose very bytes were answered a moment ago."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from mpserve.apps.http.connection import Connection, Phase, Service, Timeouts
from mpserve.apps.http.files import Files, checked_root
from mpserve.apps.http.hello import Hello
from mpserve.apps.http.parser import Limits
from mpserve.apps.http.ready import Ready
from mpserve.apps.http.replies import http_date
from mpserve.framework.handler import Handler

if TYPE_CHECKING:
    from mpserve.dataplane.events import Reason
    from mpserve.framework.lwsocket import LwSocket
    from mpserve.framework.worker import Worker


class Http(Handler):
    """HTTP/1.1 (RFC 9110, 9112): the files below `root`, or a hello page where none is given.

    `index` names the files that stand for a directory, separated by blanks. Timeouts are in seconds, sizes in bytes.
    """

    scheme = "http"
    default_port = 80

    root: str = ""
    index: str = "index.html index.htm"
    header_timeout: float = 10.0
    keepalive_timeout: float = 75.0
    body_timeout: float = 30.0
    send_timeout: float = 60.0
    max_header_bytes: int = 16384
    max_body_bytes: int = 1 << 20
    cache_bytes: int = 32 << 20

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        if self.root:
            checked_root(self.root)

    def on_start(self, worker: Worker) -> None:
        self.worker = worker
        self.ready = Ready(self.cache_bytes // 2)
        self.clearing = False
        self.second = -1
        self.date = b""
        timeouts = Timeouts(self.header_timeout, self.keepalive_timeout, self.body_timeout, self.send_timeout)
        limits = Limits(self.max_header_bytes, min(8192, self.max_header_bytes), self.max_body_bytes)
        site = Files(self.root, self.index.split(), self.cache_bytes // 2) if self.root else Hello()
        self.service = Service(site, limits, timeouts, self.ready, self.date_now)

    def on_accept(self, sock: LwSocket) -> None:
        connection = sock.cookie = Connection(self.service, self.worker.now)
        connection.armed = self.header_timeout
        sock.set_timeout(self.header_timeout)

    def on_data(self, sock: LwSocket, data: bytes) -> None:
        connection = sock.cookie
        reply = self.ready.get(data)
        if reply is None or not connection.idle:
            connection.receive(sock, data, self.worker.now)
            self.settle(sock, connection)
            return
        connection.served = True
        if not sock.write(reply):
            connection.stall(sock)
            self.settle(sock, connection)

    def on_eof(self, sock: LwSocket) -> None:
        sock.cookie.end_of_input(sock)

    def on_writable(self, sock: LwSocket) -> None:
        connection = sock.cookie
        if connection.stalled:
            connection.writable(sock, self.worker.now)
            self.settle(sock, connection)

    def on_timeout(self, sock: LwSocket) -> None:
        connection = sock.cookie
        if connection.idle and connection.armed == self.keepalive_timeout:
            connection.close(sock)
        else:
            self.settle(sock, connection)

    def on_close(self, sock: LwSocket, reason: Reason) -> None:
        if sock.cookie is not None:
            sock.cookie.release()

    def settle(self, sock: LwSocket, connection: Connection) -> None:
        """After the slow path: set the timeout to what the connection now has patience for."""
        now = self.worker.now
        patience = connection.patience(now)
        if patience <= 0 and connection.phase != Phase.GONE:
            connection.expire(sock, now)
            patience = connection.patience(now)
        if patience != connection.armed and connection.phase != Phase.GONE:
            connection.armed = patience
            sock.set_timeout(max(patience, 0.001))
        if self.ready and not self.clearing:
            self.clearing = True
            self.worker.call_later(1.0 - time.time() % 1.0, self.end_second)

    def end_second(self) -> None:
        """The Date in all that is ready has passed. Nothing is scheduled while nothing is served."""
        self.ready.clear()
        self.clearing = False

    def date_now(self) -> bytes:
        """The Date field's value, made once a second."""
        second = int(time.time())
        if second != self.second:
            self.second = second
            self.date = http_date(second)
        return self.date
