"""Echo (RFC 862) as a compiled handler: every batch is answered with no interpreter on the path."""

from __future__ import annotations

from mpserve.framework.compiled_handler import CompiledHandler


class CompiledEcho(CompiledHandler):
    """Sends back what it is sent, and reads no faster than its peer does."""

    def on_data(self, conn, data):
        if not conn.write(data):
            conn.retry()
