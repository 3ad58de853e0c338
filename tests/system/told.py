"""A handler that says which worker it is, and what others have told it."""

import os
import time

import mpserve


class Told(mpserve.Handler):
    codec = mpserve.Lines()

    def on_start(self, worker: mpserve.Worker) -> None:
        self.worker, self.told = worker, b""

    def on_data(self, sock: mpserve.LwSocket, data: bytes) -> None:
        if data == b"who":
            sock.write(b"%d %d\n" % (self.worker.core, os.getpid()))
        elif data == b"told":
            sock.write(self.told + b"\n")
        elif data == b"burn":
            until = time.monotonic() + 0.005
            while time.monotonic() < until:
                pass
            sock.write(b"burnt\n")
        elif data == b"post":
            sock.write(b"%r\n" % self.worker.post(mpserve.ALL, b"x"))

    def on_message(self, source: int, data: bytes) -> None:
        self.told = b"%d" % source
