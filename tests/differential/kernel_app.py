"""The application on kernel sockets: `python kernel_app.py CONTROL IP PORT` does what the lines on the Unix socket say.

A line is a JSON object with `id`, `op`, `flow` ("address:port" of the peer) and the operation's arguments; each is answered
by one with the `id` and what came of it. It accepts at once and reads nothing unless told to.
"""

import errno
import json
import socket
import struct
import sys
import threading
import time
from typing import Any

PATIENCE = 3.0  # seconds that an operation waits for what it is about
LINGER_0 = struct.pack("ii", 1, 0)


class Application:
    def __init__(self, ip: str, port: int) -> None:
        self.ip = ip
        self.flows: dict[str, socket.socket] = {}
        self.known = threading.Condition()
        self.listener = socket.create_server((ip, port), backlog=256)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            sock, (address, port) = self.listener.accept()
            sock.settimeout(PATIENCE)
            with self.known:
                self.flows[f"{address}:{port}"] = sock
                self.known.notify_all()

    def obey(self, op: str, flow: str, **arguments: Any) -> dict[str, Any]:
        if op == "connect":
            return self._connect(flow)
        with self.known:
            if not self.known.wait_for(lambda: flow in self.flows, PATIENCE):
                return {"said": "no connection"}
        try:
            done = getattr(self, f"do_{op}")(self.flows[flow], **arguments)
        except OSError as error:
            return {"said": word_of(error)}
        if op in ("close", "abort"):
            del self.flows[flow]
        return done or {}

    def _connect(self, flow: str) -> dict[str, Any]:
        """Begin a connection; `outcome` tells how it went."""
        sock = socket.socket()
        sock.bind((self.ip, 0))
        sock.setblocking(False)
        address, _, port = flow.partition(":")
        sock.connect_ex((address, int(port)))
        sock.settimeout(PATIENCE)
        self.flows[flow] = sock
        return {}

    def do_outcome(self, sock: socket.socket, seconds: float) -> dict[str, Any]:
        """How a connect went."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                return {"said": word_of(OSError(error, ""))}
            try:
                sock.getpeername()
                return {"said": "connected"}
            except OSError:
                time.sleep(0.01)
        return {"said": "pending"}

    def do_accepted(self, sock: socket.socket) -> None:
        """The connection is there."""

    def do_write(self, sock: socket.socket, data: str) -> None:
        sock.sendall(bytes.fromhex(data))

    def do_read(self, sock: socket.socket, count: int, seconds: float) -> dict[str, Any]:
        """`count` bytes, fewer if the stream ends before, and how it ended. More than that are left where they are."""
        data, end = bytearray(), ""
        sock.settimeout(seconds)
        try:
            while len(data) < count or count == 0:
                part = sock.recv(count - len(data) or 1)
                if not part:
                    end = "eof"
                    break
                data += part
        except OSError as error:
            end = word_of(error) if error.errno else "no more"  # a timeout of Python's has no number
        sock.settimeout(PATIENCE)
        return {"data": data.hex(), "end": end}

    def do_set(self, sock: socket.socket, level: int, name: int, value: int | str) -> None:
        sock.setsockopt(level, name, bytes.fromhex(value) if isinstance(value, str) else value)

    def do_shutdown(self, sock: socket.socket) -> None:
        sock.shutdown(socket.SHUT_WR)

    def do_close(self, sock: socket.socket) -> None:
        sock.close()

    def do_abort(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
        sock.close()


def word_of(error: OSError) -> str:
    """How the end of a connection is called here."""
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return "reset"
    names = {errno.ETIMEDOUT: "timed out", errno.EHOSTUNREACH: "unreachable"}
    return names.get(error.errno or 0, str(error))


def main(control: str, ip: str, port: str) -> None:
    application = Application(ip, int(port))
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(control)
        writing = threading.Lock()

        def run(order: dict[str, Any]) -> None:
            number = order.pop("id")
            answer = application.obey(**order)
            with writing:
                connection.sendall(json.dumps({"id": number, **answer}).encode() + b"\n")

        for line in connection.makefile():
            threading.Thread(target=run, args=(json.loads(line),), daemon=True).start()


if __name__ == "__main__":
    main(*sys.argv[1:])
