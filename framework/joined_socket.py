"""`JoinedSocket`: what `Channel.accept(..., regular=True)` gives for a connection of our stack."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from mpserve.framework.lwsocket import LwSocket

if TYPE_CHECKING:
    from mpserve.dataplane.completions import Reason
    from mpserve.framework.worker import Worker


class JoinedSocket(socket.socket):
    """A kernel socket, one end of a pair, joined to a connection of our stack. A copy of it (`dup`) has no names."""

    peername: tuple[str, int] | None = None  # (address, port) of the connection's peer ...
    sockname: tuple[str, int] | None = None  # ... and of this side

    @classmethod
    def of(cls, worker: Worker, slot: int, handle: int) -> JoinedSocket:
        """Join a connection that nobody has yet. Raises OSError where no descriptor is left."""
        regular = worker.join(LwSocket(worker, slot, handle), on_over=_tell_nobody)
        joined = cls(fileno=regular.detach())
        joined.peername, joined.sockname = worker.machine.names(slot)
        return joined


def _tell_nobody(sock: LwSocket, reason: Reason) -> None:
    """The socket's reader sees the end; no handler ever knew of the connection."""
