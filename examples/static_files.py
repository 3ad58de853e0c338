"""A static file server, to show how something large is sent to a reader of any speed in little memory.

    mpserve run examples/static_files.py:StaticFiles --listen :80 --set root=./public
    curl http://ADDRESS/index.html

It speaks just enough HTTP for that: one GET a connection. `mpserve http --root DIR` is the real one.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote

import mpserve

PIECE_BYTES = 65536
LONGEST_REQUEST = 8192


@dataclass
class Download:
    request: bytes = b""
    file: BinaryIO | None = None


class StaticFiles(mpserve.Handler):
    root: Path = Path(".")

    def on_start(self, worker: mpserve.Worker) -> None:
        self.root = self.root.resolve()
        if not self.root.is_dir():
            raise mpserve.SetupError(f"{self.root} is not a directory: type --set root=DIR")

    def on_accept(self, sock: mpserve.LwSocket) -> None:
        sock.cookie = Download()
        sock.set_timeout(10.0)  # on_timeout, left as it is, closes

    def on_data(self, sock: mpserve.LwSocket, data: bytes) -> None:
        download: Download = sock.cookie
        download.request += data
        if b"\r\n\r\n" in download.request:
            sock.pause()  # nothing else is expected
            sock.set_timeout(None)
            self.answer(sock, download)
        elif len(download.request) > LONGEST_REQUEST:
            self.refuse(sock, "431 Request Header Fields Too Large")

    def answer(self, sock: mpserve.LwSocket, download: Download) -> None:
        method, _, rest = download.request.decode("latin-1").partition(" ")
        if method != "GET":
            return self.refuse(sock, "405 Method Not Allowed", "Allow: GET\r\n")
        path = self.find(rest.partition(" ")[0])
        if path is None:
            return self.refuse(sock, "404 Not Found")
        download.file = path.open("rb")
        sock.write(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % path.stat().st_size)
        self.send(sock)

    def find(self, target: str) -> Path | None:
        """The file that a target names, if it lies below the root, wherever its links lead."""
        name = unquote(target.partition("?")[0]).lstrip("/")
        if "\0" in name:
            return None
        path = (self.root / name).resolve()
        if path.is_dir():
            path = (path / "index.html").resolve()
        return path if path.is_file() and path.is_relative_to(self.root) else None

    def send(self, sock: mpserve.LwSocket) -> None:
        """Write pieces until the send buffer is full; on_writable comes back here."""
        file = sock.cookie.file
        while piece := file.read(PIECE_BYTES):
            if not sock.write(piece):
                return
        sock.close()

    def on_writable(self, sock: mpserve.LwSocket) -> None:
        if sock.cookie.file:
            self.send(sock)

    def refuse(self, sock: mpserve.LwSocket, status: str, fields: str = "") -> None:
        sock.write(f"HTTP/1.0 {status}\r\n{fields}Content-Length: 0\r\n\r\n".encode())
        sock.close()

    def on_eof(self, sock: mpserve.LwSocket) -> None:
        """A client may close its side as soon as it has asked; it still wants its file."""
        if not sock.cookie.file:
            sock.close()

    def on_close(self, sock: mpserve.LwSocket, reason: mpserve.Reason) -> None:
        if sock.cookie.file:
            sock.cookie.file.close()
