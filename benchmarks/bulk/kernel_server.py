"""What `mpserve.testing.streams.Bulk` does, on kernel sockets: `python -m benchmarks.bulk.kernel_server PORT`."""

import socket
import socketserver
import sys
import zlib

from mpserve.testing.streams import stream

CONGESTION = "cubic"  # as ours has it by default; a machine's own default may be another


class Bulk(socketserver.StreamRequestHandler):
    """`get N` answers with N bytes, `put` takes bytes up to FIN and answers how many there were and their CRC."""

    def handle(self) -> None:
        line = self.rfile.readline()
        if line.startswith(b"get "):
            for piece in stream(int(line[4:])):
                self.connection.sendall(piece)
            return
        count, crc, buffer = 0, 0, bytearray(1 << 20)
        while part := self.rfile.readinto1(buffer):
            count += part
            crc = zlib.crc32(memoryview(buffer)[:part], crc)
        self.connection.sendall(b"%d %d\n" % (count, crc))


if __name__ == "__main__":
    with socketserver.ThreadingTCPServer(("", int(sys.argv[1])), Bulk) as server:
        print("serving", flush=True)
        server.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, CONGESTION.encode())
        server.serve_forever()
