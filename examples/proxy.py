"""A TCP proxy: each connection is joined to one of its own to an upstream server, bytes go both ways.

    mpserve run examples/proxy.py:Proxy --listen :8080 --set upstream=10.9.0.7:80

Neither side is read faster than the other takes it: whoever sends too much is paused until the other has drained.
"""

import mpserve


class Proxy(mpserve.Handler):
    upstream: str  # ADDRESS:PORT

    def on_start(self, worker: mpserve.Worker) -> None:
        address, _, port = self.upstream.rpartition(":")
        if not address or not port.isdigit():
            raise mpserve.SetupError(f"upstream={self.upstream}: type --set upstream=ADDRESS:PORT")
        self.worker, self.there = worker, (address, int(port))
        self.refused = 0

    def on_accept(self, sock: mpserve.LwSocket) -> None:
        try:
            sock.cookie = self.worker.connect(self.there, cookie=sock)
        except OSError:  # no port is free, or the table is full
            self.refused += 1
            sock.abort()

    def on_data(self, sock: mpserve.LwSocket, data: bytes) -> None:
        other = sock.cookie
        if other is None or other.closed:
            return
        if not other.write(data):  # what is written before the upstream is there waits for it
            sock.pause()

    def on_writable(self, sock: mpserve.LwSocket) -> None:
        other = sock.cookie
        if other is not None and not other.closed:
            other.resume()

    def on_eof(self, sock: mpserve.LwSocket) -> None:
        """Half of the way is over: the other half may go on."""
        other = sock.cookie
        if other is not None and not other.closed:
            other.shutdown()

    def on_close(self, sock: mpserve.LwSocket, reason: mpserve.Reason) -> None:
        other, sock.cookie = sock.cookie, None
        if other is None:
            return
        other.cookie = None
        if other.closed:
            return
        if reason == mpserve.Reason.FINISHED:
            other.close()
        else:
            other.abort()
