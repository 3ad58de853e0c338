"""A bare asyncio.Protocol that answers each request with the same bytes.

usage: protocol_server.py asyncio|uvloop PORT
"""

import asyncio
import sys

BODY = b"0123456789abcdef" * 4
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 64\r\n"
REPLY = HEAD + b"\r\n" + BODY
LAST_REPLY = HEAD + b"Connection: close\r\n\r\n" + BODY


class FixedReply(asyncio.Protocol):
    """Takes it that a request comes in one piece, as a load generator sends it."""

    transport: asyncio.WriteTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if b"Connection: close" in data:
            self.transport.write(LAST_REPLY)
            self.transport.close()
        else:
            self.transport.write(REPLY * data.count(b"\r\n\r\n"))


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(FixedReply, None, port, backlog=4096)
    await server.serve_forever()


def main() -> None:
    loop, port = sys.argv[1], int(sys.argv[2])
    if loop == "uvloop":
        import uvloop

        uvloop.run(serve(port))
    else:
        asyncio.run(serve(port))


if __name__ == "__main__":
    main()
