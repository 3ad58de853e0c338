"""A handler that hands every connection over to a regular socket, served by a thread: what the first word says."""

import socket
import ssl
import subprocess
import threading
import zlib

import mpserve
from mpserve.testing import streams


class Regular(mpserve.Handler):
    certificate: str = ""

    def on_data(self, sock, data):
        word, _, rest = data.partition(b"\n")
        serve = getattr(self, word.decode().partition(" ")[0])
        threading.Thread(target=serve, args=(sock.to_socket(rest), word), daemon=True).start()

    def get(self, regular, word):
        """`get N`: N bytes and FIN."""
        with regular:
            for piece in streams.stream(int(word[4:])):
                regular.sendall(piece)

    def put(self, regular, word):
        """Bytes up to FIN; how many there were and their CRC."""
        count = crc = 0
        with regular:
            while data := regular.recv(1 << 18):
                count, crc = count + len(data), zlib.crc32(data, crc)
            regular.sendall(b"%d %d\n" % (count, crc))

    def cat(self, regular, word):
        """A process with the socket for its input and output."""
        with regular:
            subprocess.run(["cat"], stdin=regular, stdout=regular, check=True)

    def tls(self, regular, word):
        """An upper-case echo behind the server's side of TLS."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate)
        with context.wrap_socket(regular, server_side=True) as wrapped:
            while data := wrapped.recv(1 << 16):
                wrapped.sendall(data.upper())
            wrapped.unwrap().shutdown(socket.SHUT_WR)

    def loop(self, regular, word):
        """An upper-case echo by asyncio's streams."""
        import asyncio

        async def echo():
            reader, writer = await asyncio.open_connection(sock=regular)
            while data := await reader.read(1 << 16):
                writer.write(data.upper())
                await writer.drain()
            writer.close()

        asyncio.run(echo())
