"""`--publish 127.0.0.1:8080`: a relay from a kernel socket to the server's address. For development.

Every byte passes through the kernel's TCP twice and through this process, so its speed says nothing about the server's.
It runs as a process of its own, `python -m mpserve.framework.publish FD HOST:PORT`, and dies with its parent.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import signal
import socket
import struct
import subprocess
import sys

from mpserve.dataplane.errors import SetupError

PR_SET_PDEATHSIG = 1
CHUNK_BYTES = 65536
CONNECT_SECONDS = 10.0


def parse_address(text: str) -> tuple[str, int]:
    """`HOST:PORT`, `:PORT` or `PORT`; the host is 127.0.0.1 if none is given. Raises SetupError."""
    host, _, port = text.rpartition(":")
    if not port.isdigit() or int(port) > 65535:
        raise SetupError(f"--publish {text}: type HOST:PORT, such as --publish 127.0.0.1:8080")
    return host or "127.0.0.1", int(port)


def listen(text: str) -> socket.socket:
    """A listening kernel socket on `HOST:PORT`, in the network namespace of the caller. Raises SetupError."""
    host, port = parse_address(text)
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise SetupError(f"--publish {text}: {error.strerror or error}: choose another address or port") from None
    return listener


def start(listener: socket.socket, host: str, port: int) -> subprocess.Popen[bytes]:
    """Relay connections of `listener` to (host, port) in a process of its own; terminate() it to stop."""
    command = [sys.executable, "-m", "mpserve.framework.publish", str(listener.fileno()), f"{host}:{port}"]
    return subprocess.Popen(command, pass_fds=[listener.fileno()], stdin=subprocess.DEVNULL)


async def relay(listener: socket.socket, host: str, port: int) -> None:
    """Relay connections until cancelled."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError):
            await _serve(reader, writer, host, port)
        _abort(writer)

    server = await asyncio.start_server(serve, sock=listener, limit=CHUNK_BYTES)
    async with server:
        await server.serve_forever()


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int) -> None:
    opening = asyncio.open_connection(host, port, limit=CHUNK_BYTES)
    far_reader, far_writer = await asyncio.wait_for(opening, CONNECT_SECONDS)
    pumps = [asyncio.ensure_future(_pump(reader, far_writer)), asyncio.ensure_future(_pump(far_reader, writer))]
    try:
        await asyncio.gather(*pumps)
        far_writer.close()
        writer.close()
    finally:
        for pump in pumps:
            pump.cancel()
        _abort(far_writer)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One direction: bytes, then the half-close. A reset raises, and resets the other side too."""
    while data := await reader.read(CHUNK_BYTES):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


def _abort(writer: asyncio.StreamWriter) -> None:
    """A reset, unless the connection is closing already. asyncio's abort alone would send a FIN."""
    if not writer.is_closing():
        with contextlib.suppress(OSError):
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()


def main(arguments: list[str]) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends us when it is done
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    listener = socket.socket(fileno=int(arguments[0]))
    listener.setblocking(False)
    asyncio.run(relay(listener, *parse_address(arguments[1])))


if __name__ == "__main__":
    main(sys.argv[1:])
