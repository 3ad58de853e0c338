"""Echo and HTTP as bare asyncio Protocols: `python -m mpserve.cli.bench.protocols echo|http asyncio|uvloop PORT`.

As little as a Python program on kernel sockets can do; no parser, no streams.
"""

from __future__ import annotations

import asyncio
import sys

BODY = b"0123456789abcdef" * 4
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 64\r\n"
REPLY = HEAD + b"\r\n" + BODY
LAST_REPLY = HEAD + b"Connection: close\r\n\r\n" + BODY


class Echo(asyncio.Protocol):
    transport: asyncio.WriteTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class FixedReply(Echo):
    """Takes it that a request comes in one piece, as the load generator sends it."""

    def data_received(self, data: bytes) -> None:
        if b"Connection: close" in data:
            self.transport.write(LAST_REPLY)
            self.transport.close()
        else:
            self.transport.write(REPLY * data.count(b"\r\n\r\n"))


async def _serve(protocol: type[asyncio.Protocol], port: int) -> None:
    server = await asyncio.get_running_loop().create_server(protocol, None, port, backlog=4096)
    await server.serve_forever()


def main() -> None:
    protocol, loop, port = sys.argv[1:4]
    serving = _serve({"echo": Echo, "http": FixedReply}[protocol], int(port))
    if loop == "uvloop":
        import uvloop

        uvloop.run(serving)
    else:
        asyncio.run(serving)


if __name__ == "__main__":
    main()
