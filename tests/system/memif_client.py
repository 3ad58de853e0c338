"""`memif_client.py SOCKET QUEUES`: the client's side of a memif with several queues, in one process, on the bare binding.

Says `ready` when the link is up. For each line on stdin it sends frames on every queue, and prints as JSON how many replies came
on each that were sent there, and how many that were not.
"""

import json
import os
import sys
import time
from typing import Any

from pydpdk import Mempool, Port, eal, ports
from pydpdk.extension import ffi, lib

FRAMES = 20  # on each queue
HEADER = b"\xff" * 6 + b"\x02\0\0\0\0\x99" + b"\x88\xb5"


class Wire:
    """Frames on the queues of an open port."""

    def __init__(self, port: Port, pool: Mempool, queues: int) -> None:
        self.port, self.pool, self.queues = port, pool, queues
        self.mbufs = ffi.new("uintptr_t[32]")
        self.address = int(ffi.cast("uintptr_t", self.mbufs))

    def _bytes(self, mbuf: int, length: int) -> Any:
        return ffi.buffer(ffi.cast("char *", lib.pydpdk_mbuf_data(mbuf)), length)

    def send(self, queue: int, frame: bytes) -> bool:
        """Whether there was room for it."""
        mbuf = lib.pydpdk_alloc(self.pool.address)
        lib.pydpdk_mbuf_set_len(mbuf, len(frame))
        self._bytes(mbuf, len(frame))[0 : len(frame)] = frame
        self.mbufs[0] = mbuf
        if lib.pydpdk_tx_burst(self.port.port_id, queue, self.address, 1) == 1:
            return True
        lib.pydpdk_free(mbuf)
        return False

    def receive(self, queue: int) -> list[bytes]:
        count = lib.pydpdk_rx_burst(self.port.port_id, queue, self.address, 32)
        frames = []
        for mbuf in list(self.mbufs[0:count]):
            frames.append(bytes(self._bytes(mbuf, lib.pydpdk_mbuf_pkt_len(mbuf))))
            lib.pydpdk_free(mbuf)
        return frames


def exchange(wire: Wire, tag: str) -> dict[str, list[int]]:
    """What came within a second, or until all has come."""
    expected = [{f"{tag} {queue} {i}".encode() for i in range(FRAMES)} for queue in range(wire.queues)]
    got: list[list[bytes]] = [[] for _ in expected]
    for queue, texts in enumerate(expected):
        for text in sorted(texts):
            assert wire.send(queue, (HEADER + text).ljust(64, b"\0"))
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline and any(set(g) != e for g, e in zip(got, expected, strict=True)):
        for queue in range(wire.queues):
            got[queue] += [frame[14:64].rstrip(b"\0") for frame in wire.receive(queue)]
        time.sleep(0.001)
    return {
        "right": [len(set(g) & e) for g, e in zip(got, expected, strict=True)],
        "wrong": [len(g) - len(set(g) & e) for g, e in zip(got, expected, strict=True)],
    }


def connect(path: str, queues: int) -> Wire:
    """Open the port, and wait until the link is up."""
    vdev = f"net_memif0,role=client,socket={path},socket-abstract=no,rsize=10,bsize=2048"
    eal.init(hugepages=False, in_memory=True, file_prefix=f"mpst{os.getpid()}", memory_mb=64, vdevs=[vdev])
    port, pool = ports()[0], Mempool.create("frames", 8191)
    port.setup(pool, rx_queues=queues, tx_queues=queues, rx_descriptors=1024, tx_descriptors=1024)
    deadline = time.monotonic() + 10
    while not port.link().up and time.monotonic() < deadline:
        time.sleep(0.01)
    return Wire(port, pool, queues)


def main(path: str, queues: int) -> None:
    wire = connect(path, queues)
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(exchange(wire, line.strip())), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
