"""`mpserve http` with a second port, which tells how much of the core is in use right now and closes."""

import json

from mpserve.apps.http import Http
from mpserve.framework.lwsocket import LwSocket

PORT = 9001


class Gauged(Http):
    """All that a core hands out and must get back, as one line of JSON, this connection itself included."""

    def on_accept(self, sock: LwSocket) -> None:
        if sock.sockname[1] != PORT:
            super().on_accept(sock)
            return
        core = self.worker.memory.record
        in_use = {
            "connections": core.connections - core.free_slot_count,
            "syns": core.syn_count - core.free_syn_count,
            "time_waits": core.wait_used,
            "blocks": core.block_count - core.free_block_count,
            "outputs": core.output_count,
            "sockets": sum(known is not None for known in self.worker._sockets),
            "closing": len(self.worker._closing),
        }
        sock.write(json.dumps({name: int(value) for name, value in in_use.items()}).encode())
        sock.close()
