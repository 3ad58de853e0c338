"""Echo as a compiled handler: no interpreter on the path, and a greeting, a limit and counters to show its fields.

    mpserve run examples/compiled_echo.py:CompiledEcho --listen :7 --set greeting=hello --set most=1000000

The first start compiles the callbacks, which takes seconds; the stack is not compiled again.
"""

import mpserve


class CompiledEcho(mpserve.CompiledHandler):
    greeting: bytes = b""
    most: int = 0  # bytes of a connection, after which it is closed; 0: as many as come
    _bytes: int = 0
    _connections: int = 0

    class Connection:
        taken: int

    def on_start(self, worker: mpserve.Worker) -> None:  # in Python, as on_stop is
        self.log = worker.log

    def on_stop(self) -> None:
        self.log.info("echoed %d bytes on %d connections", self._bytes, self._connections)

    def on_accept(self, conn):
        self._connections += 1
        conn.set_timeout(60.0)
        conn.write(self.greeting)

    def on_data(self, conn, data):
        if not conn.write(data):
            conn.retry()  # the same data again when there is room; until then the peer's window closes
            return
        self._bytes += len(data)
        conn.taken += len(data)
        if self.most > 0 and conn.taken >= self.most:
            conn.close()
