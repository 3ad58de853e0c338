"""Handlers of the experiments with real workers."""

import time

import mpserve

MESSAGE = b"x" * 64


class Caller(mpserve.Handler):
    """Connects out `calls` times, `at_once` at a time; each connection sends a message, waits for it to come back, and closes."""

    host: str
    port: int
    calls: int = 500
    at_once: int = 32
    after: float = 1.0  # seconds, until the other worker is there

    def on_start(self, worker: mpserve.Worker) -> None:
        self.worker, self.begun = worker, 0
        worker.call_later(self.after, self.begin)

    def begin(self) -> None:
        for _ in range(self.at_once):
            self.call()

    def call(self) -> None:
        if self.begun < self.calls:
            self.begun += 1
            self.worker.connect((self.host, self.port)).write(MESSAGE)

    def on_data(self, sock: mpserve.LwSocket, data: bytes) -> None:
        sock.close()

    def on_close(self, sock: mpserve.LwSocket, reason: mpserve.Reason) -> None:
        self.call()


class Burner(mpserve.Handler):
    """Echo that takes so many microseconds of processor time for each request."""

    burn_us: int = 300

    def on_data(self, sock: mpserve.LwSocket, data: bytes) -> None:
        until = time.thread_time_ns() + self.burn_us * 1000
        while time.thread_time_ns() < until:
            pass
        sock.write(data)
