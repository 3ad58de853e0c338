"""The bare minimum that a benchmark can call an HTTP server: one reply, always the same, for each end of a head."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpserve.framework.handler import Handler

if TYPE_CHECKING:
    from mpserve.framework.lwsocket import LwSocket

BODY = b"0123456789abcdef" * 4
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 64\r\n"
REPLY = HEAD + b"\r\n" + BODY
LAST_REPLY = HEAD + b"Connection: close\r\n\r\n" + BODY


class FixedReply(Handler):
    """A 64-byte body for every request, as bare as an asyncio Protocol that does the same. For benchmarks only.

    It parses nothing: a head whose last four bytes are split over two segments goes unanswered."""

    scheme = "http"
    default_port = 80

    def on_data(self, sock: LwSocket, data: bytes) -> None:
        if data.find(b"Connection: close") < 0:  # `in` takes several times as long for bytes
            sock.write(REPLY * data.count(b"\r\n\r\n"))
        else:
            sock.write(LAST_REPLY)
            sock.close()
