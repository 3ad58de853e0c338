"""The memcached handler: a store a worker, a session a connection."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from mpserve.apps.memcached.protocol import Session
from mpserve.apps.memcached.store import Store
from mpserve.dataplane.errors import SetupError
from mpserve.framework.handler import Handler

if TYPE_CHECKING:
    from mpserve.dataplane.events import Reason
    from mpserve.framework.lwsocket import LwSocket
    from mpserve.framework.worker import Worker


class Memcached(Handler):
    """memcached's text protocol over a store of `memory_mib` MiB with values of at most `max_item_bytes`.

    A connection that is silent for `idle_timeout` seconds is closed; 0 lets it be, as memcached does.
    """

    default_port = 11211
    default_workers = 1  # one store

    memory_mib: int = 64
    max_item_bytes: int = 1 << 20
    idle_timeout: float = 0.0

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        if self.memory_mib < 2:
            raise SetupError(f"memory_mib is {self.memory_mib}: give at least 2, as in -m 64")
        if not 1024 <= self.max_item_bytes <= self.memory_mib << 19:
            raise SetupError(f"max_item_bytes is {self.max_item_bytes}: give 1024 or more, and at most half the memory")

    def on_start(self, worker: Worker) -> None:
        self.worker = worker
        self.started = worker.now
        self.store = Store(self.memory_mib << 20, self.max_item_bytes, epoch=time.time())

    def on_accept(self, sock: LwSocket) -> None:
        sock.cookie = Session(self.store)
        self.store.count.curr_connections += 1
        self.store.count.total_connections += 1
        if self.idle_timeout:
            sock.set_timeout(self.idle_timeout)

    def on_data(self, sock: LwSocket, data: bytes) -> None:
        session = sock.cookie
        reply = session.at_once(data, self.worker.now - self.started)
        if not reply:
            session.feed(data)
        elif sock.write(reply):
            return
        else:
            session.stalled = True
            sock.pause()
        self.serve(sock, session)

    def on_writable(self, sock: LwSocket) -> None:
        session = sock.cookie
        if session.stalled:
            session.stalled = False
            sock.resume()
            self.serve(sock, session)

    def on_timeout(self, sock: LwSocket) -> None:
        sock.close()

    def on_close(self, sock: LwSocket, reason: Reason) -> None:
        self.store.count.curr_connections -= 1

    def serve(self, sock: LwSocket, session: Session) -> None:
        """Answer what has come, as long as the peer reads the answers."""
        now = self.worker.now - self.started
        while not session.stalled and not session.hungry and not session.quit:
            replies = session.replies(now)
            if replies and not sock.write(replies):
                session.stalled = True
                sock.pause()
        if session.quit:
            sock.close()
