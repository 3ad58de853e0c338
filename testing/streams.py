"""A stream of any length, and the handler that sends or takes one: `get N` answers with N bytes and FIN, `put` takes
bytes up to FIN and answers how many there were and their CRC. Both ends know the stream, neither holds it."""

import random
import socket
import zlib
from collections.abc import Iterator

from mpserve.framework.handler import Handler
from mpserve.framework.lwsocket import LwSocket

CHUNK = 1 << 16
_BASE = random.Random(9293).randbytes(1 << 20)


def stream(length: int) -> Iterator[bytes]:
    """Pieces of a stream in which no place looks like another nearby."""
    start = 0
    while length > 0:
        piece = _BASE[start : start + min(CHUNK, length)]
        start = (start + 4099 * 13) % (len(_BASE) - CHUNK)
        length -= len(piece)
        yield piece


def crc_of(length: int) -> int:
    crc = 0
    for piece in stream(length):
        crc = zlib.crc32(piece, crc)
    return crc


class Bulk(Handler):
    """`cookie` is what is left to send, or the [count, CRC] of what was taken."""

    def on_data(self, sock: LwSocket, data: bytes) -> None:
        if sock.cookie is None:
            data = self._begin(sock, data)
        if isinstance(sock.cookie, list):
            sock.cookie[0] += len(data)
            sock.cookie[1] = zlib.crc32(data, sock.cookie[1])

    def _begin(self, sock: LwSocket, data: bytes) -> bytes:
        line, _, rest = data.partition(b"\n")
        if line.startswith(b"get "):
            sock.cookie = stream(int(line[4:]))
            self.on_writable(sock)
        else:
            sock.cookie = [0, 0]
        return rest

    def on_writable(self, sock: LwSocket) -> None:
        for piece in sock.cookie:
            if not sock.write(piece):
                return
        sock.close()

    def on_eof(self, sock: LwSocket) -> None:
        if isinstance(sock.cookie, list):
            sock.write(b"%d %d\n" % tuple(sock.cookie))
            sock.close()


def get(address: tuple[str, int], length: int) -> tuple[int, int]:
    """Fetch a stream; how many bytes came and their CRC."""
    count, crc, buffer = 0, 0, bytearray(1 << 20)
    with socket.create_connection(address, 20) as connection:
        connection.sendall(b"get %d\n" % length)
        while part := connection.recv_into(buffer):
            crc = zlib.crc32(memoryview(buffer)[:part], crc)
            count += part
    return count, crc


def put(address: tuple[str, int], length: int, congestion: str = "") -> tuple[int, int]:
    """Send a stream; how many bytes the server says came and their CRC. `congestion` is the kernel's control of it."""
    with socket.create_connection(address, 20) as connection:
        if congestion:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, congestion.encode())
        connection.sendall(b"put\n")
        for piece in stream(length):
            connection.sendall(piece)
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(60)
        said = connection.makefile("rb").readline()
    count, crc = map(int, said.split())
    return count, crc
