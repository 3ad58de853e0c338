"""Echo (RFC 862): what comes in goes out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpserve.framework.handler import Handler

if TYPE_CHECKING:
    from mpserve.framework.lwsocket import LwSocket


class Echo(Handler):
    """Sends back what it is sent, and reads no faster than its peer does."""

    def on_data(self, sock: LwSocket, data: bytes) -> None:
        if not sock.write(data):
            sock.pause()

    def on_writable(self, sock: LwSocket) -> None:
        sock.resume()
